/*
 * segment - the message files of a stream: how much in each is still needed.
 *
 * Promise: a file is given up by segments_remove() only; until then it can be read.
 * Non-promise: live bytes are estimated from the number of live jobs.
 *
 * Thread: the owner of the stream.
 * Source: README.md (R6).
 */
#ifndef QUEUE_SEGMENT_H
#define QUEUE_SEGMENT_H

#include "queue/tape.h"

struct segment {
	struct tape_file *tape; /* owned */
	enum format_kind kind;
	bool evacuated;		 /* was looked through; not again */
	bool recovered;		 /* of an earlier epoch */
	uint32_t live;		 /* jobs whose message is here */
	uint32_t jobs;		 /* that ever were here; 0: not known (recovered) */
	uint32_t reads;		 /* in flight */
	uint64_t journal_number; /* journal.durable has to reach it before the file is recycled */
	struct os_mono sealed;	 /* when the next file was begun; 0: still written */
	struct os_mono again;	 /* not evacuated before: some of it could not be read */
};

/* A chunk begins at most two files (R9), and two tapes write here. */
enum { SEGMENTS_SPARE = 4 };

/* By sequence, which is the order of acceptance among HOT ones. */
struct segments {
	struct segment **list; /* owned */
	uint32_t count, capacity;
	struct segment *spare[SEGMENTS_SPARE]; /* owned */
	uint32_t spare_count;
};

void segments_deinit(struct segments *segments);
/* Before each chunk: memory for the files that it may begin. False: there is none. */
bool segments_reserve(struct segments *segments);
/* Takes over `tape`. Of what was reserved. */
struct segment *segments_add(struct segments *segments, struct tape_file *tape,
			     enum format_kind kind);
/* NULL: no such file. */
struct segment *segments_find(const struct segments *segments, uint32_t sequence);
/* Out of the table; the caller owns what it returns. Nothing is in it and nobody reads. */
struct tape_file *segments_remove(struct segments *segments, struct segment *segment);

static inline uint32_t segment_sequence(const struct segment *segment)
{
	return segment->tape->file.sequence;
}
/* Less than half of it is needed, as far as can be told. */
bool segment_is_sparse(const struct segment *segment);

#endif
