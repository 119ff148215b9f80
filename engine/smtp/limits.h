/*
 * limits - what a server says of its limits in its answer to EHLO.
 *
 *   LIMITS RCPTMAX=100 MAILMAX=20 RCPTDOMAINMAX=1
 *
 * RCPTDOMAINMAX asks nothing of us, who put one domain into a transaction.
 *
 * Thread: pure.
 * Source: RFC 9422.
 */
#ifndef ENGINE_SMTP_LIMITS_H
#define ENGINE_SMTP_LIMITS_H

#include "os/span.h"

struct smtp_limits {
	uint32_t mail_max; /* transactions in a session; 0: no limit told */
	uint32_t rcpt_max; /* recipients in a transaction; 0: no limit told */
};

/* `text` is all behind the keyword. What is not known or has no proper value is passed over; of
 * a limit that is told twice the smaller one counts. */
struct smtp_limits smtp_limits_parse(struct span text);

#endif
