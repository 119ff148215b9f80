/*
 * reclaim - files whose content nobody needs go back to free/.
 *
 *   a segment: nothing live, nobody reads, MARK covers it, journal durable beyond (R6)
 *   a journal: the oldest; what is current in it was appended again, durably (R10)
 *
 * Promise: bounded work in each turn; one file on its way to free/ at a time. Where the disk has
 * no room for the change itself, it is tried again.
 * Non-promise: a file may wait long for a quiet MARK.
 *
 * Thread: the owner of the stream.
 * Source: README.md (R6, R7, R10).
 */
#ifndef QUEUE_RECLAIM_H
#define QUEUE_RECLAIM_H

#include "queue/journal.h"

enum reclaim_state {
	RECLAIM_IDLE = 0,
	RECLAIM_SLOTS,	 /* the jobs recorded in the oldest journal are appended again */
	RECLAIM_NAMES,	 /* then its names */
	RECLAIM_DURABLE, /* waits for that, and for MARK */
	RECLAIM_RENAME,	 /* on its way to free/ */
};

struct reclaim {
	bool look; /* a segment may have become empty */
	enum reclaim_state state;
	uint32_t cursor; /* slot, or name */
	uint64_t number; /* the journal has to be durable up to it */
	struct pool_request journal, segment;
	struct tape_file *journal_file, *segment_file; /* on their way; owned */
	bool journal_waits, segment_waits; /* to be sent again at `again`: there was no room */
	struct os_mono again;
	uint64_t recycled_segments, recycled_journals;
};

struct queue_stream;

void reclaim_turn(struct queue_stream *stream);
/* It has something to go on with in the next turn. */
bool reclaim_busy(const struct queue_stream *stream);
/* No file is on its way. */
bool reclaim_quiet(const struct reclaim *reclaim);
/* Nothing was on its way, or its stream is gone: frees what it owns. */
void reclaim_deinit(struct reclaim *reclaim);

#endif
