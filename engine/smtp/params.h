/*
 * params - what stands behind the path in MAIL and RCPT.
 *
 * Promise: each value has its RFC's syntax (xtext with upper-case hex, no control characters
 * hidden in it), none is given twice, and none that was not offered passes.
 *
 * Thread: pure.
 * Source: RFC 5321, 4.1.1.11; RFC 1870; RFC 6152; RFC 3030; RFC 6531; RFC 3461, 4; RFC 4954, 5.
 */
#ifndef ENGINE_SMTP_PARAMS_H
#define ENGINE_SMTP_PARAMS_H

#include "engine/smtp/session.h"
#include "os/span.h"

enum smtp_params_status {
	SMTP_PARAMS_OK = 0,
	SMTP_PARAMS_UNKNOWN, /* 555 5.5.4 */
	SMTP_PARAMS_BAD,     /* 501 5.5.4: a bad or repeated value */
};

/* `text` is all behind the path. Sets all but mail->sender, also where nothing is given. */
enum smtp_params_status smtp_params_mail(struct span text,
					 const struct smtp_session_options *options,
					 struct smtp_mail *mail);
/* The same for all but rcpt->recipient. `utf8`: the transaction is SMTPUTF8. */
enum smtp_params_status smtp_params_rcpt(struct span text,
					 const struct smtp_session_options *options, bool utf8,
					 struct smtp_rcpt *rcpt);

/* xtext of RFC 3461: printable ASCII without '+' and '=', "+HH" for what is not. */
bool smtp_xtext_valid(struct span text);
/* What ENVID=, ORCPT= and NOTIFY= (its bits) can say, wherever it comes from. */
bool smtp_envid_valid(struct span value);
bool smtp_orcpt_valid(struct span value, bool utf8);
bool smtp_notify_valid(uint8_t notify);

#endif
