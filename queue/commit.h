/*
 * commit - messages into the open chunk, and chunks onto the disk.
 *
 *   queue_accept ─► open chunk ─► (no write in flight) ─► DSYNC write ─► done(QUEUE_OK)
 *                    the other one fills meanwhile: batching without a timer
 *
 * Promise: `done` with QUEUE_OK comes after the chunk is durable (R1) and its jobs exist.
 *
 * Thread: the owner of the stream.
 * Source: README.md (R1, R8, R9).
 */
#ifndef QUEUE_COMMIT_H
#define QUEUE_COMMIT_H

#include "queue/segment.h"

struct commit_chunk {
	char *bytes; /* owned; 4096 aligned */
	uint32_t used, records;
	struct list accepts; /* of struct queue_accept */
};

struct commit {
	struct tape tape;
	struct commit_chunk chunks[2];
	uint32_t open;		 /* which one fills */
	struct list waiting;	 /* accepts that found no room */
	struct list failed;	 /* accepts whose `done` is to be called with their outcome */
	uint32_t spilling;	 /* accepts whose body is still on its way to big/ */
	struct segment *segment; /* that is being written; NULL: none yet */
	uint32_t chunk_bytes;
	uint32_t batch; /* messages of the last write */
	struct os_mono sealed_at;
};

/* False: no memory. `tape`'s inputs are set. */
bool commit_init(struct commit *commit);
void commit_deinit(struct commit *commit);
/* Nothing staged, nothing in flight. */
bool commit_idle(const struct commit *commit);
/* When commit_turn() has something to do without any completion: now ({0}), at the end of a
 * short hold, or never. */
struct os_mono commit_next(const struct commit *commit);
/* Seals and writes, if nothing is in flight. */
void commit_turn(struct commit *commit);

/* Where a record of `header` has its parts, and its whole size. */
struct commit_layout {
	uint32_t body_at; /* or struct format_big */
	uint32_t bytes;
};
struct commit_layout commit_layout(const struct format_message *header, uint32_t big_bytes);

#endif
