/*
 * received - the trace line that every accepted message gets on top, and dates in mail.
 *
 *   Received: from client.example ([192.0.2.1])
 *           by mx.example.com (stafette) with ESMTP id 0000000000001
 *           for <user@example.org>; Sun, 22 Nov 2026 01:04:35 +0000
 *
 * Promise: whatever the client called itself, the result is one folded header field, every
 * line shorter than 998 bytes and ended by CRLF; ASCII unless `utf8`.
 *
 * Thread: pure; a struct received_clock belongs to one worker.
 * Source: RFC 5321, 4.4; RFC 5322, 3.3; RFC 3848 and 6531 (the "with" words).
 */
#ifndef ENGINE_RECEIVED_H
#define ENGINE_RECEIVED_H

#include "os/os.h"
#include "os/span.h"

enum {
	RECEIVED_DATE_BYTES = 32,  /* "Sun, 22 Nov 2026 01:04:35 +0000" with NUL */
	RECEIVED_BYTES_MAX = 2048, /* of the header field */
};

/* The date of a second, made once in it. Starts zeroed. */
struct received_clock {
	int64_t second;
	char text[RECEIVED_DATE_BYTES];
};

struct received {
	struct span greeting;		 /* what the client called itself; may be empty */
	const struct os_address *client; /* AF_UNIX: "local"; AF_UNSPEC: "unknown" */
	const char *hostname;		 /* ours */
	bool local;			 /* by no protocol at all: from the drop directory */
	bool extended;			 /* EHLO */
	bool utf8;			 /* the transaction has SMTPUTF8 */
	bool authenticated;
	struct span user; /* to be shown; empty: not */
	struct span tls;  /* "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty: not encrypted */
	const char *id;	  /* the queue id */
	/* The only recipient; empty if there are several (they stay hidden from each other). */
	struct span recipient;
	struct os_wall when;
};

/* RFC 5322's date, in UTC. */
void received_date(struct os_wall when, char out[static RECEIVED_DATE_BYTES]);
/* The same, remembered for the rest of the second; valid until the next call. */
const char *received_date_cached(struct received_clock *clock, struct os_wall when);

/* Writes the header field to `out` and returns its length. */
size_t received_line(const struct received *received, struct received_clock *clock,
		     char out[static RECEIVED_BYTES_MAX]);

#endif
