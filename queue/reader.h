/*
 * reader - single messages of a spool by their place, for tools and recovery.
 *
 * Promise: what is returned was verified: the file's sequence (it seeds the checksum), the id,
 * the envelope. Works beside a running daemon: a message that was moved or recycled
 * meanwhile is READER_GONE, and the caller looks at its slot again. What may be read the next time
 * is READER_UNREADABLE, never gone or damaged.
 *
 * Thread: one at a time; reads block.
 */
#ifndef QUEUE_READER_H
#define QUEUE_READER_H

#include <stdbool.h>

#include "os/span.h"
#include "queue/format.h"

enum reader_status {
	READER_OK = 0,
	READER_GONE = -1,    /* another message, or none, is at that place */
	READER_DAMAGED = -2, /* the right message, with a bad envelope or body */
	READER_NO_MEMORY = -3,
	READER_UNREADABLE = -4, /* a file can't be opened or read: nothing is known of it */
};

struct reader; /* opaque: open files and a buffer */

struct reader_message {
	struct format_message head;
	struct span envelope; /* borrowed until the next call */
	/* private: */
	uint32_t segment;
	uint64_t body_at; /* in the segment */
};

/* `segments` and `big` are folders, borrowed. `big` may be -1. NULL: no memory. */
struct reader *reader_create(int segments, int big);
void reader_destroy(struct reader *reader); /* accepts NULL */

enum reader_status reader_message(struct reader *reader, uint64_t id, uint32_t segment,
				  uint32_t place, struct reader_message *out);

/* Hands the body to `each` piece by piece, each piece verified as far as the format goes: a
 * body in a segment as a whole, one in big/ MiB by MiB. */
enum reader_status reader_body(struct reader *reader, const struct reader_message *message,
			       void (*each)(void *context, struct span piece), void *context);

#endif
