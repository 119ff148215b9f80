/*
 * xclient - what an SMTP proxy says of the client for whom it speaks.
 *
 *   XCLIENT ADDR=192.0.2.1 PORT=4711 HELO=mail.example PROTO=ESMTP LOGIN=[UNAVAILABLE]
 *
 * Promise: what is parsed is whole and valid: addresses are addresses, names hold what names may,
 * and nothing with which a line or a comment could be ended.
 *
 * Thread: pure.
 * Source: Postfix's XCLIENT_README; xtext of RFC 1891.
 */
#ifndef ENGINE_SMTP_XCLIENT_H
#define ENGINE_SMTP_XCLIENT_H

#include "os/os.h"
#include "os/span.h"

enum { XCLIENT_VALUE_MAX = 255 }; /* of a value, without its terminator */

/* Which attributes were given; also as [UNAVAILABLE] or [TEMPUNAVAIL]. */
enum xclient_attribute {
	XCLIENT_NAME = 1,
	XCLIENT_ADDR = 2,
	XCLIENT_PORT = 4,
	XCLIENT_PROTO = 8,
	XCLIENT_HELO = 16,
	XCLIENT_LOGIN = 32,
	XCLIENT_DESTADDR = 64,
	XCLIENT_DESTPORT = 128,
};

#define XCLIENT_ATTRIBUTES "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"

struct xclient {
	uint32_t given;
	struct os_address address;	   /* of ADDR and PORT; AF_UNSPEC: not known */
	bool extended;			   /* PROTO=ESMTP */
	char helo[XCLIENT_VALUE_MAX + 1];  /* "": not known */
	char login[XCLIENT_VALUE_MAX + 1]; /* "": nobody */
};

/* The argument of the command. NULL, and `out` is filled; or why not, as static text. */
const char *xclient_parse(struct span argument, struct xclient *out);

#endif
