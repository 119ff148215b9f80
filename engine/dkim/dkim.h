/*
 * dkim - one message, signed while it comes in.
 *
 *   dkim_begin ──► dkim_feed ... ──► dkim_end ──► dkim_sign ──► dkim_prefix: what goes before it
 *                  header: kept      the fields      here, or on a helper
 *                  body: hashed      of signatures   thread: RSA takes long
 *
 * The domain of From: decides who signs, so it is known how the body is to be hashed before the
 * body comes: each octet of it is looked at once.
 *
 * Promise: never l=; x= is later than the message can be in the queue. A message that cannot be
 * signed without doubt is not signed, and dkim_outcome() says why.
 *
 * Thread: its owner's; dkim_sign() may run on another thread, meanwhile nothing else.
 * Source: RFC 6376, RFC 8463, RFC 8301.
 */
#ifndef ENGINE_DKIM_H
#define ENGINE_DKIM_H

#include "engine/dkim/keys.h"

struct dkim; /* opaque; reused from message to message */

struct dkim *dkim_create(void);	      /* NULL: no memory */
void dkim_destroy(struct dkim *dkim); /* accepts NULL */

/* A message begins. Takes the reference to `set`. */
void dkim_begin(struct dkim *dkim, struct dkim_set *set);
/* Its octets, from the first header field on, after any stuffing was undone. */
void dkim_feed(struct dkim *dkim, struct span bytes);

enum dkim_work {
	DKIM_NOTHING, /* it is not signed: dkim_outcome() */
	DKIM_BRIEF,   /* dkim_sign() takes some 40 us for each signature */
	DKIM_LONG,    /* there is an RSA key: a millisecond */
};

/* It is whole. `keep_s`: until when it may be in the queue. */
enum dkim_work dkim_end(struct dkim *dkim, int64_t now_s, int64_t keep_s);
void dkim_sign(struct dkim *dkim);

/* What goes before the message, empty if it is not signed; until the next dkim_begin(). */
struct span dkim_prefix(const struct dkim *dkim);
/* For the log: "example.org s1 s2", or "none: " and why. */
const char *dkim_outcome(const struct dkim *dkim);
/* Lets go of the keys; what was found stays until the next dkim_begin(). */
void dkim_let_go(struct dkim *dkim);

#endif
