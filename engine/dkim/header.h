/*
 * header - the header of a message under reception, and what of it is signed.
 *
 *   dkim_header_feed() ... ──► whole ──► dkim_header_read() ──► fields, the domain of From:
 *                                                         └─► dkim_header_select(): h= and the
 *                                                             octets that it stands for
 *
 * Promise: a header that verifiers could read in two ways is not signed: dkim_header_read() says
 * why. What is selected has From, To, Subject, Date and Message-ID once more than they are there,
 * so that nobody can add one; never Return-Path, Received, Bcc or DKIM-Signature.
 * Non-promise: a header above DKIM_HEADER_BYTES_MAX, or with too many fields to name, is not
 * kept, and not signed.
 *
 * Thread: its owner's; pure. Source: RFC 6376, 5.4, 8.15; RFC 5322, 3.6.2 (From).
 */
#ifndef ENGINE_DKIM_HEADER_H
#define ENGINE_DKIM_HEADER_H

#include "engine/dkim/canon.h"
#include "engine/idn.h"

enum {
	DKIM_HEADER_BYTES_MAX = 128 << 10,
	DKIM_FIELDS_MAX = 512,
	DKIM_SIGNED_MAX = 128, /* names in h= */
};

struct dkim_field {
	struct span name;  /* as written, without white space behind it */
	struct span whole; /* with name and colon, without the last CRLF */
};

struct dkim_header {
	bool whole; /* its end was seen */
	bool long_; /* too long to be kept */
	uint32_t field_count;
	char from[IDN_DOMAIN_BYTES]; /* the author's domain: lower case, A-labels */
	/* private: */
	struct dkim_text text;
	struct dkim_field fields[DKIM_FIELDS_MAX];
};

void dkim_header_init(struct dkim_header *header);
void dkim_header_deinit(struct dkim_header *header);
void dkim_header_reset(struct dkim_header *header);

/* Takes what belongs to the header, the empty line included; returns how much that was. */
size_t dkim_header_feed(struct dkim_header *header, struct span bytes);
/* Finds the fields and the author's domain. NULL, or why this is not to be signed. The header is
 * whole, or the message ended inside it. */
const char *dkim_header_read(struct dkim_header *header);
/* `names` gets the value of h=, `octets` the fields in their canonical form, each with CRLF.
 * False: too many. */
bool dkim_header_select(const struct dkim_header *header, enum dkim_canon canon,
			struct dkim_text *names, struct dkim_text *octets);
/* Has it a signature of that domain and selector already? */
bool dkim_header_has(const struct dkim_header *header, const char *domain, const char *selector);

#endif
