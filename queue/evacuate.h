/*
 * evacuate - the survivors of a sparse old segment move to a COLD one, so that a message that
 * waits for days pins no file.
 *
 *   choose ─► collect its jobs ─► read, copy ... ─► chunk durable ─► each slot looked at again:
 *                                                                    new place, recorded
 *
 * Promise: a job's place changes only after its message is durable at the new one; a job that is
 * done meanwhile leaves a dead copy.
 * Non-promise: a damaged message stays where it is, for good; one that can't be read until a later
 * try.
 *
 * Thread: the owner of the stream.
 * Source: README.md; design, 6.
 */
#ifndef QUEUE_EVACUATE_H
#define QUEUE_EVACUATE_H

#include "queue/segment.h"

enum evacuate_state {
	EVACUATE_IDLE = 0,
	EVACUATE_COLLECT, /* the jobs of the segment */
	EVACUATE_COPY,	  /* one message after the other, into the chunk */
	EVACUATE_READ,	  /* ... one of which is being read */
	EVACUATE_WRITE,	  /* the chunk is on its way */
};

struct evacuate_move {
	uint32_t place, slot; /* where the message was, and whose it is */
	uint64_t message;
	uint32_t record_at; /* in the chunk; 0: not copied */
};

struct evacuate {
	struct tape tape;
	enum evacuate_state state;
	struct segment *source;	     /* borrowed; its `reads` holds it */
	struct segment *target;	     /* of the chunk on its way */
	uint32_t cursor;	     /* slot */
	struct evacuate_move *moves; /* owned; by place */
	uint32_t move_count, move_capacity;
	uint32_t staged; /* moves before it are in the chunk, or done */
	uint32_t first;	 /* the first move of the chunk */
	char *chunk;	 /* owned; 4096 aligned; while something is evacuated */
	uint32_t used, records;
	struct os_op read;
	char *bytes; /* owned; of the message being read */
	size_t count;
	uint32_t skip;
	bool passed_over; /* one that could not be read now; a later try may */
	struct os_mono retry_at;
};

struct queue_stream;

/* False: no memory. `tape`'s inputs are set. */
bool evacuate_init(struct evacuate *evacuate);
void evacuate_deinit(struct evacuate *evacuate);
void evacuate_turn(struct queue_stream *stream);
/* It has something to go on with in the next turn. */
bool evacuate_busy(const struct evacuate *evacuate);
/* Nothing is in flight. */
bool evacuate_quiet(const struct evacuate *evacuate);

#endif
