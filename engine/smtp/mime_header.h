/*
 * mime_header - what the header of a message or of one of its parts says about its body.
 *
 * Promise: two readers could not disagree about what is taken as understood: a field that is there
 * twice, a line that is no field, a CR or LF alone make the header `doubtful`.
 * Non-promise: boundaries in RFC 2231's pieces are not found.
 *
 * Thread: pure.
 * Source: RFC 2045, 5 and 6; RFC 2046, 5.1 and 5.2; RFC 6532, 3.7.
 */
#ifndef ENGINE_SMTP_MIME_HEADER_H
#define ENGINE_SMTP_MIME_HEADER_H

#include "os/span.h"

enum { MIME_BOUNDARY_MAX = 200 }; /* RFC 2046 allows 70 */

enum mime_kind {
	MIME_TEXT, /* also if the header names no type */
	MIME_DATA, /* all that is not one of the others */
	MIME_MULTIPART,
	MIME_DIGEST,   /* multipart whose parts are messages, if they name no type */
	MIME_SEALED,   /* multipart/signed, multipart/encrypted */
	MIME_MESSAGE,  /* message/rfc822 and what is like it */
	MIME_REPORTED, /* other message/..., which may not be encoded */
};

enum mime_encoding {
	MIME_ENCODING_NONE, /* no field: 7bit */
	MIME_ENCODING_7BIT,
	MIME_ENCODING_8BIT, /* or binary */
	MIME_ENCODING_CODED /* quoted-printable, base64, and what is unknown */
};

struct mime_header {
	struct span fields;	    /* borrowed: all of them, without the empty line */
	struct span rest;	    /* borrowed: the empty line, if there is one, and the body */
	struct span body;	    /* borrowed */
	struct span encoding_field; /* with its CRLF, if it has one; empty: none */
	bool has_version, has_type;
	bool eightbit; /* octets above 127 */
	bool doubtful;
	bool is_signed; /* by DKIM or ARC */
	enum mime_kind kind;
	enum mime_encoding encoding;
	char boundary[MIME_BOUNDARY_MAX + 1]; /* "": none that we can use */
};

/* `entity`: header and body. `kind`: what it is if it has no Content-Type. */
void mime_header_read(struct span entity, enum mime_kind kind, struct mime_header *out);

#endif
