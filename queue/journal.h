/*
 * journal - what the queue has promised about its jobs, in the order it promised it.
 *
 *   append ─► open buffer ─► (5 ms, or full) ─► chunk, DSYNC ─► journal.durable goes up
 *                             one in flight; buffers queue up behind it
 *
 * Promise: records become durable in the order of their appends; once journal.durable has
 * reached what journal_append() returned, the record survives a crash.
 * Non-promise: an append alone is in memory only. A full disk delays records and never drops
 * them; any other failure is final (R9).
 *
 * Thread: the owner of the stream.
 * Source: bytes in queue/format.h; README.md (R4, R9, R10).
 */
#ifndef QUEUE_JOURNAL_H
#define QUEUE_JOURNAL_H

#include "queue/tape.h"

enum { JOURNAL_BUFFER_BYTES = 256 << 10, JOURNAL_UNIT_BYTES = 64 };

/* The position of a message; the order of acceptance while `segment` is HOT. */
struct journal_place {
	uint32_t segment, place;
};

static inline bool journal_place_before(struct journal_place a, struct journal_place b)
{
	return a.segment != b.segment ? a.segment < b.segment : a.place < b.place;
}

/* A file that was not recycled yet. */
struct journal_file {
	struct tape_file *tape;	   /* owned */
	struct journal_place done; /* the highest HOT message with a final record in here */
};

struct journal_buffer; /* opaque */
struct journal;

struct journal_events {
	void (*durable)(struct journal *journal);
	void (*broken)(struct journal *journal);
};

struct journal {
	struct tape tape;
	const struct journal_events *events;
	uint32_t sync_ms;
	uint64_t appended, durable; /* records, since the start */

	struct journal_buffer *open; /* being filled; NULL: none */
	struct list full, spare;     /* of buffers */
	uint32_t spare_count;
	struct journal_buffer *writing; /* NULL: none */
	struct os_mono retry_at;	/* after a full disk; 0: not stalled */
	bool flushing;			/* write without waiting for sync_ms */
	bool broken;

	struct journal_file *files; /* owned; by sequence, the current one last */
	uint32_t file_count, file_capacity;
};

/* tape.{pool, stream, epoch} are set; the rest is zero. False: no memory. */
bool journal_init(struct journal *journal, const struct journal_events *events, uint32_t sync_ms);
void journal_deinit(struct journal *journal);
void journal_start(struct journal *journal, struct os_loop *loop);

/* Memory for a file more. False: there is none. */
bool journal_reserve_file(struct journal *journal);
/* No memory for more records than the open chunk takes: nothing may be begun that would end in
 * one. journal_turn() looks for some. */
bool journal_is_short(const struct journal *journal);
/* A file that recovery found; from the oldest on. `tape` becomes the journal's. Of what was
 * reserved. */
void journal_adopt(struct journal *journal, struct tape_file *tape, struct journal_place done);
/* Takes the oldest file, which is not the current one, out of the list; the caller owns it. */
struct tape_file *journal_drop_oldest(struct journal *journal);

/* Copies `units` x 64 bytes. Returns the number that `durable` has to reach. */
uint64_t journal_append(struct journal *journal, const void *record, uint32_t units);
/* As journal_append() of a final record: `place` is where the HOT message lies. */
uint64_t journal_append_done(struct journal *journal, const struct format_job *job,
			     struct journal_place place);
/* The file that the next record lands in, or an older one: what cleaning goes by. */
uint32_t journal_sequence(const struct journal *journal);

/* Writes what is due. */
void journal_turn(struct journal *journal, struct os_mono now);
struct os_mono journal_next(const struct journal *journal); /* UINT64_MAX: nothing to wait for */
/* From now on everything is written at once; off again with false. */
void journal_flush(struct journal *journal, bool flush);
/* How long the oldest record has been waiting for the disk. */
uint64_t journal_age_ms(const struct journal *journal, struct os_mono now);

#endif
