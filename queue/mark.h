/*
 * mark - which accepted jobs have no record in the journal yet, in the order of acceptance.
 *
 * MARK may say the place of the first of them: everything before is recorded (R5).
 *
 * Thread: the owner of the stream.
 */
#ifndef QUEUE_MARK_H
#define QUEUE_MARK_H

#include "queue/journal.h"

struct mark_entry {
	struct journal_place place;
	uint32_t slot;
	uint32_t accepted_ms; /* the low bits of the monotonic clock */
};

struct mark {
	struct mark_entry *ring;   /* owned */
	uint32_t capacity;	   /* a power of two */
	uint32_t head, tail;	   /* running numbers; head == tail: empty */
	struct journal_place said; /* the last MARK appended */
	struct journal_place durable;
	/* The last MARK whose record is not durable yet, and its number; 0: none. */
	struct journal_place pending;
	uint64_t pending_number;
};

void mark_deinit(struct mark *mark);
/* Room for one more. False: no memory. */
bool mark_reserve(struct mark *mark, uint32_t count);
/* Returns the entry's number, which the job's side keeps. */
uint32_t mark_push(struct mark *mark, struct journal_place place, uint32_t slot,
		   struct os_mono now);
/* NULL: none. */
const struct mark_entry *mark_first(const struct mark *mark);
void mark_pop(struct mark *mark);
/* A MARK was appended as record `number`; and: the journal is durable up to `number`. */
void mark_appended(struct mark *mark, struct journal_place place, uint64_t number);
void mark_on_durable(struct mark *mark, uint64_t number);

#endif
