/*
 * stream - one self-contained part of the queue: its segments, its journal, its jobs.
 *
 *   stream.c   life: start, turn, stop       commit.c   messages into segments
 *   job.c      ready, take, settle           load.c     messages back from segments
 *   restore.c  as recovery found it          reclaim.c  recycling, journal cleaning
 *   evacuate.c survivors to COLD segments
 *
 * Inside queue/ only; the engine sees queue.h.
 *
 * Thread: all of a stream belongs to the worker that started it.
 */
#ifndef QUEUE_STREAM_H
#define QUEUE_STREAM_H

#include "queue/big.h"
#include "queue/commit.h"
#include "queue/evacuate.h"
#include "queue/expiry.h"
#include "queue/index.h"
#include "queue/journal.h"
#include "queue/mark.h"
#include "queue/names.h"
#include "queue/queue.h"
#include "queue/reclaim.h"
#include "queue/recover.h"
#include "queue/schedule.h"
#include "queue/segment.h"

enum stream_state {
	STREAM_IDLE,	 /* opened, no worker yet */
	STREAM_STARTING, /* START is on its way to the disk */
	STREAM_RUNNING,
	STREAM_STOPPING,
	STREAM_STOPPED,
};

/* The ready jobs of one domain, linked through their index_side. */
struct stream_dest {
	uint32_t first, last, count; /* INDEX_NO_SLOT: none */
	uint32_t stayed; /* up to here queue_defer() left what it saw; INDEX_NO_SLOT: nothing */
	bool told;	 /* `ready` was said, and the queue was not seen empty since */
};

struct queue {
	struct pool pool;
	struct queue_options options;
	struct queue_stream **streams; /* owned */
	uint32_t stream_count;
	int lock_fd;
	struct expiry_last clock;
};

struct queue_stream {
	struct queue *queue;
	struct queue_options options; /* as its worker has them: queue_stream_configure() */
	struct pool *pool;
	uint16_t number;
	bool accepts; /* false: only drained; takes reports about its own jobs */
	bool broken;
	enum stream_state state;
	struct os_loop *loop;
	const struct queue_events *events;
	void *context;
	void (*started)(void *context, struct queue_stream *stream);
	void (*stopped)(void *context);

	struct index index;
	struct names names;
	struct schedule schedule;
	struct segments segments;
	struct journal journal;
	struct mark mark;
	struct commit commit;
	struct big big;
	struct reclaim reclaim;
	struct evacuate evacuate;

	struct stream_dest *dests; /* owned; by number */
	uint32_t dest_capacity;
	struct list free_jobs; /* of struct queue_job.loading */
	uint32_t lent;

	struct pool_request lease, stock; /* ids; files ahead */
	uint64_t next_id, id_end;	  /* ids of the block in use */
	uint64_t spare_id;		  /* first of the next block; 0: none yet */

	uint64_t start_number; /* the journal has to be durable up to it */
	struct os_mono tick;   /* next once-a-second work */
	/* When the last MARK was appended, by both clocks. */
	struct os_mono marked;
	int64_t marked_wall_us;
	struct os_mono began;
	struct expiry expiry;
	uint32_t expired_cursor; /* slot */
	struct os_mono expired_pause;
	struct journal_place restored_end; /* behind all that recovery found */
	/* The message whose file may still be in the drop directory: MARK waits here (R8). */
	struct journal_place origin_place;
	bool origin_held;
	bool space_low;
	bool untold;	     /* some domain has ready jobs, and nobody could take note of it */
	uint32_t background; /* operations of spills, loads and unlinks in flight */
	uint64_t body_memory;
	uint64_t accepted, loads, evacuated;
};

static inline struct os_mono stream_mono(const struct queue_stream *stream)
{
	return os_loop_mono(stream->loop);
}

static inline uint32_t stream_now_s(const struct queue_stream *stream)
{
	return os_wall_seconds(os_loop_wall(stream->loop));
}

/* False while nobody knows whether the wall clock is right. */
static inline bool stream_may_expire(const struct queue_stream *stream)
{
	return expiry_may(&stream->expiry, stream_mono(stream), os_loop_wall(stream->loop));
}

/* NULL with *error_out = -errno. */
struct queue_stream *stream_create(struct queue *queue, uint16_t number, bool accepts,
				   int *error_out);
/* Accepts NULL. Stopped, or never started. */
void stream_destroy(struct queue_stream *stream);
/* The disk failed for good: said once. */
void stream_break(struct queue_stream *stream, const char *what);
/* A message id; 0: none at hand, for want of a durable lease. */
uint64_t stream_next_id(struct queue_stream *stream);
/* Every message of the segment lies before the last durable MARK; COLD ones are never scanned. */
bool stream_is_marked(const struct queue_stream *stream, const struct segment *segment);
/* Appends MARK now. */
void stream_append_mark(struct queue_stream *stream);
void stream_append_start(struct queue_stream *stream);

/* ── restore.c ────────────────────────────────────────────────────────────────────── */

/* Takes over the files and jobs that recovery found. 0 or -errno. */
int stream_restore(struct queue_stream *stream, const struct recovered *recovered, uint32_t now_s);

/* ── job.c ────────────────────────────────────────────────────────────────────────── */

/* Makes room for `domain`'s ready list. 0: no memory; else its number. */
uint32_t stream_dest(struct queue_stream *stream, struct span domain);
bool stream_reserve_dests(struct queue_stream *stream, uint32_t count);
/* The jobs of a message that has just become durable at `place`; they become ready. The message
 * stays with them if `keep`. The index has room reserved. */
void stream_derive(struct queue_stream *stream, struct queue_message *message,
		   const struct format_message *header, struct journal_place place, bool keep);
/* Puts a slot's state into the journal; it was stored in the index before. */
uint64_t stream_record(struct queue_stream *stream, uint32_t slot);
/* Says `ready` again where queue_tell_again() was called. */
void stream_tell_untold(struct queue_stream *stream);
/* Moves what is due to the ready lists, at most `count`. */
void stream_move_due(struct queue_stream *stream, uint32_t count);
/* Appends JOB records for what was accepted a second ago, or (`all`) anything. */
void stream_record_accepted(struct queue_stream *stream, bool all);

#endif
