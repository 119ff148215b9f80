/*
 * tags - a DKIM-Signature field, written in two steps: up to "b=", which is what gets
 * signed, and the signature.
 *
 * Promise: no line is longer than 78 octets but for a word that is; none begins with a dot.
 * Thread: pure. Source: RFC 6376, 3.5.
 */
#ifndef ENGINE_DKIM_TAGS_H
#define ENGINE_DKIM_TAGS_H

#include "engine/dkim/canon.h"

enum { DKIM_DIGEST_BYTES = 32 };

struct dkim_tags {
	const char *algorithm; /* "rsa-sha256" */
	enum dkim_canon header, body;
	const char *domain, *selector;
	int64_t signed_s, expires_s; /* Unix time */
	struct span names;	     /* h= */
	const uint8_t *body_hash;    /* DKIM_DIGEST_BYTES */
};

/* Adds "DKIM-Signature: ... b=". */
void dkim_tags_write(const struct dkim_tags *tags, struct dkim_text *out);
/* Adds the value of b= and CRLF. */
void dkim_tags_sign(struct span signature, struct dkim_text *out);
/* Adds it in base64. */
void dkim_base64(struct span bytes, struct dkim_text *out);

#endif
