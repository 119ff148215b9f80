/*
 * envelope - sender, recipients and what was asked for them, as bytes that go to disk as
 * they are (FORMAT_SENDER ... in format.h).
 *
 * Promise: recipients are sorted by domain (lower case, stable), so that a job, up to 64
 * consecutive recipients of one domain, is a pure function of the envelope. A duplicate
 * address is kept: the sender gets what it asked for.
 * Non-promise: addresses are not checked here; whoever accepts them has done so. Their domain
 * is what follows the last '@', already lower case (A-labels); empty if there is none.
 *
 * Thread: plain data; the builder belongs to its owner.
 * Errors: a builder that ran out of memory or past FORMAT_ENVELOPE_BYTES_MAX says so in
 * envelope_seal(). Reading checks every length: false means damaged bytes, never a crash.
 */
#ifndef QUEUE_ENVELOPE_H
#define QUEUE_ENVELOPE_H

#include "os/span.h"
#include "queue/format.h"

/* RFC 3461, 4.1. 0: NOTIFY was not given. */
enum envelope_notify {
	ENVELOPE_NOTIFY_NEVER = 1,
	ENVELOPE_NOTIFY_SUCCESS = 2,
	ENVELOPE_NOTIFY_FAILURE = 4,
	ENVELOPE_NOTIFY_DELAY = 8,
};

struct envelope_recipient {
	struct span address, domain, orcpt; /* borrow from the envelope */
	uint8_t notify;
};

/* ── building ─────────────────────────────────────────────────────────────────────── */

struct envelope_builder; /* opaque; reused from message to message */

struct envelope_builder *envelope_builder_create(void);
void envelope_builder_destroy(struct envelope_builder *builder); /* accepts NULL */
void envelope_builder_reset(struct envelope_builder *builder);

/* Each copies what it is given. */
void envelope_set_sender(struct envelope_builder *builder, struct span address);
void envelope_add_recipient(struct envelope_builder *builder,
			    const struct envelope_recipient *recipient);
void envelope_set(struct envelope_builder *builder, enum format_entry_type type, struct span value);
void envelope_add_origin(struct envelope_builder *builder, const struct format_origin *origin);
uint32_t envelope_recipient_count(const struct envelope_builder *builder);

/* The finished bytes, which the builder owns until the next reset; false: too large, or no
 * memory. */
bool envelope_seal(struct envelope_builder *builder, struct span *bytes_out);

/* ── reading ──────────────────────────────────────────────────────────────────────── */

/* Every entry has a sound length, there is one sender, and recipients are sorted. */
bool envelope_check(struct span envelope);
/* The functions below want an envelope that passed envelope_check(). */
struct span envelope_sender(struct span envelope);
/* The first entry of the type; at == NULL if there is none. */
struct span envelope_get(struct span envelope, enum format_entry_type type);
uint32_t envelope_count(struct span envelope);

struct envelope_cursor {
	struct span rest;
};
/* Walks all recipients in order: starts with .rest = envelope; false at the end. */
bool envelope_next(struct envelope_cursor *cursor, struct envelope_recipient *out);
bool envelope_next_origin(struct envelope_cursor *cursor, struct format_origin *out);

struct envelope_job_cursor {
	struct span rest;
	uint32_t first, count; /* the recipients of the job that was found last */
	struct span domain;    /* theirs; borrows from the envelope */
};
/* Walks the jobs of an envelope: starts with .rest = envelope and the rest zero; false when there
 * is no further one. */
bool envelope_next_job(struct envelope_job_cursor *cursor);

#endif
