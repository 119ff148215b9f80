/*
 * canon - the form of header fields and bodies that is hashed, whatever happens on the way.
 *
 *   relaxed   field   "SUBJect: A \r\n\tB \r\n"  ->  "subject:A B"
 *             body    " C \t D \r\n\r\n"         ->  " C D\r\n"
 *   simple    field   as it is
 *             body    "C \r\n\r\n\r\n"           ->  "C \r\n"
 *
 * Promise: the same octets come out however the body is split into pieces. Only CR LF ends a
 * line; a lone CR or LF (BINARYMIME) is an octet like others.
 *
 * Thread: its owner's; pure.
 * Source: RFC 6376, 3.4.
 */
#ifndef ENGINE_DKIM_CANON_H
#define ENGINE_DKIM_CANON_H

#include "engine/dkim/text.h"

enum dkim_canon { DKIM_RELAXED, DKIM_SIMPLE };

const char *dkim_canon_name(enum dkim_canon canon);

/* Adds the field, which has no final CRLF, in its canonical form, without one. */
void dkim_canon_field(enum dkim_canon canon, struct span field, struct dkim_text *out);

enum { DKIM_BODY_STAGED = 2048 };

struct dkim_body {
	/* private: */
	enum dkim_canon canon;
	void (*sink)(void *context, struct span bytes);
	void *context;
	bool any;	/* something that stays was seen */
	bool blank;	/* white space that stays if something follows in its line */
	bool cr;	/* the last octet, undecided */
	uint64_t lines; /* line ends that stay if something follows */
	size_t staged_len;
	char staged[DKIM_BODY_STAGED];
};

/* `sink` gets the canonical body, in pieces. */
void dkim_body_init(struct dkim_body *body, enum dkim_canon canon,
		    void (*sink)(void *context, struct span bytes), void *context);
void dkim_body_feed(struct dkim_body *body, struct span bytes);
/* The body is whole. */
void dkim_body_end(struct dkim_body *body);

#endif
