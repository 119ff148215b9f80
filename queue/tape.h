/*
 * tape - the files of one kind of a stream, written one chunk after the other.
 *
 *   tape_write(chunk) ─► fits? ── yes ──────────────► seal ─► DSYNC write ─► (sync) ─► written()
 *                          └ no ─► next file's header says ┘
 *                                  where this one ended
 *                                  (the file itself was taken from the pool ahead)
 *
 * Promise: one write is in flight; chunks are durable in the order in which they were given,
 * and only in a file that may take them (R0). A chunk whose write failed goes once more, as it
 * is in memory, to the next file (R9), if the kind allows; the failed file is never written
 * again. Where a sync may say "done" falsely (pool.confirms), a chunk of messages is written only
 * when a second one has said so too: the file system takes none after it has failed. What follows
 * from chunks of other kinds is written to the same file system, and so fails with it.
 * Non-promise: a chunk that was reported as failed may be on the disk all the same, if `in_doubt`
 * says so; the header of the next file, which names the end of this one, then makes it void.
 *
 * Thread: the owner of the stream.
 * Source: queue/README.md (R0, R1, R9).
 */
#ifndef QUEUE_TAPE_H
#define QUEUE_TAPE_H

#include "queue/pool.h"
#include "queue/queue.h"

struct tape;

/* A file as its stream knows it. Owned by the tape until opened(), then by who got it there. */
struct tape_file {
	struct pool_file file;
	uint32_t end_pages; /* durable up to here */
	uint32_t chunks;
	bool damaged; /* recovery said so, or a write failed: goes to quarantine/, not to free/ */
};

struct tape_events {
	/* Sets what depends on where the records lie. `offset` is the chunk's. */
	void (*seal)(struct tape *tape, char *chunk, uint32_t bytes, uint64_t offset);
	/* `file` is the current one from now on; the callee owns it and keeps it until the next
	 * opened() at least. */
	void (*opened)(struct tape *tape, struct tape_file *file);
	/* QUEUE_OK: durable, the chunk began at `offset` of tape->file. QUEUE_SPACE: not written,
	 * give it again later. QUEUE_BROKEN: for good. */
	void (*written)(struct tape *tape, enum queue_status status, uint64_t offset);
};

struct tape {
	const struct tape_events *events;
	struct os_loop *loop;
	struct pool *pool;
	enum format_kind kind;
	uint16_t stream;
	uint32_t epoch;
	bool second_chance; /* R9: a chunk may move to another file */
	bool lazy;	    /* files are taken only when a chunk needs one */

	struct tape_file *file; /* current; NULL at first */
	/* What recovery found last; the first file's header says so. 0: nothing. */
	uint32_t previous_sequence, previous_end;
	struct tape_file *next;	 /* taken ahead, owned; NULL: none */
	struct tape_file *blank; /* memory for the one that is being taken; owned */
	struct pool_request take;
	int take_error; /* of the last try */

	char *chunk; /* being written, borrowed; NULL: idle */
	uint32_t bytes, records;
	bool abandoned; /* the current file failed: use the next */
	bool headed;	/* the current file's header names the one before it, durably */
	bool retried;
	bool in_doubt; /* a write of the chunk in hand has failed: some file may hold it */
	struct os_op op;
	char *page; /* for a header, 4096 aligned; owned */
	uint64_t writes, written_bytes;
};

/* False: no memory. `tape` is zero but for kind, stream, epoch, pool, events, second_chance. */
bool tape_init(struct tape *tape);
void tape_deinit(struct tape *tape);
/* Takes the first file ahead. */
void tape_start(struct tape *tape, struct os_loop *loop);
/* Takes a file ahead if there is none and none is on its way; after a failure only when `retry`. */
void tape_prepare(struct tape *tape, bool retry);

/* The largest chunk that a file can hold at all. */
uint32_t tape_chunk_bytes_max(const struct tape *tape);
static inline bool tape_busy(const struct tape *tape)
{
	return tape->chunk != NULL;
}
/* Nothing is in flight, not even a file. */
static inline bool tape_quiet(const struct tape *tape)
{
	return tape->chunk == NULL && !tape->take.op.busy && !tape->op.busy;
}
/* `chunk` is 4096 aligned, begins with room for struct format_chunk, and its room goes on to the
 * next multiple of 4096; it is the tape's until written(). */
void tape_write(struct tape *tape, char *chunk, uint32_t bytes, uint32_t records);

#endif
