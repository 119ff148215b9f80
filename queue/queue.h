/*
 * queue - the face that the engine sees: accept a message, take a job, settle it.
 *
 *   message ── queue_accept() ──► durable ──► its jobs become ready
 *   ready(dest) ──► queue_take() ──► [load] ──► delivery ──► queue_settle()
 *                       ▲                                         │ recipients left
 *                       └────────────── due ──────────────────────┘
 *
 * Promise: when an accept is done with QUEUE_OK, the message is on stable storage and its
 * jobs will be offered until each recipient is settled, through any number of crashes. A
 * settled recipient is not offered again after its outcome reached the disk; an outcome that
 * a crash swallowed is offered again with FORMAT_JOB_MAYBE_DUPLICATE.
 * Non-promise: nothing here knows SMTP, a retry policy or a destination: the engine gives due
 * times and verdicts, and a job is known by its domain.
 *
 * Thread: a stream and its messages and jobs belong to the worker that started it. A job that
 * is lent to another worker (by the engine's mailboxes) is that worker's alone until it comes
 * back; queue functions are called by the owner only. queue_open() and queue_close() run
 * before the first and after the last worker.
 * Source: queue/README.md (rules R0 to R10).
 */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include <stdint.h>

#include "os/list.h"
#include "os/os.h"
#include "os/span.h"
#include "queue/format.h"

struct queue;
struct queue_stream;

enum queue_status {
	QUEUE_OK = 0,
	QUEUE_SPACE =
		-1, /* the disk (or the index's memory) is full: nothing was promised; try later */
	QUEUE_DAMAGED = -2, /* what the disk returned is not what was written */
	QUEUE_BROKEN = -3,  /* a disk operation failed: nothing was promised, or read */
	QUEUE_UNKNOWN = -4, /* a write of it failed: a later start may find it, and deliver it;
			       until then the stream is broken */
};

struct queue_options {
	const char *path;
	uint8_t node;
	uint16_t streams;	    /* at least so many accept; one per worker */
	uint32_t segment_bytes;	    /* a power of two, 1..256 MiB; 0: from the free space; only at
				       creation */
	uint32_t journal_bytes;	    /* likewise */
	uint64_t space_low_bytes;   /* below it new mail is refused; 0: from the file sizes */
	uint64_t body_memory_bytes; /* bodies kept in memory for a first attempt, per stream */
	uint32_t outcome_sync_ms;   /* R4: 5 */
	uint32_t evacuate_after_s;  /* 900 */
	uint64_t index_slots_max;   /* address space reserved per stream; 16 Mi */
	const char *group;	    /* may read the index; NULL: the process's */
	/* Told, before the spool is changed, which files messages past MARK were taken from
	 * (FORMAT_ORIGIN_FILE): they have to be durably gone when it returns 0. -errno ends the
	 * opening. NULL: nothing is ever taken from files. */
	int (*origins)(void *context, const struct format_origin *files, size_t count);
	void *origins_context;
};

/* What recovery has to tell, line by line, before the daemon goes on or gives up. */
typedef void queue_report_line(void *context, bool problem, const char *line);

/* Locks, creates or recovers the spool. NULL with `error` (512 bytes) filled: what, where, what
 * to do. */
struct queue *queue_open(const struct queue_options *options, queue_report_line *report,
			 void *report_context, char *error);
/* After every stream was stopped: marks the spool clean. */
void queue_close(struct queue *queue);

/* Streams 0 .. count - 1: the first options->streams of them accept, the others are drained. */
uint32_t queue_stream_count(const struct queue *queue);
struct queue_stream *queue_stream(struct queue *queue, uint32_t index);

/* ── a stream, on its worker ──────────────────────────────────────────────────────── */

struct queue_job;

struct queue_events {
	/* `dest` has a job ready. Said once, and again only after queue_take() returned NULL. */
	void (*ready)(void *context, struct queue_stream *stream, uint32_t dest);
	/* A job that queue_take() returned without its message now has it; or what is there of it
	 * is QUEUE_DAMAGED; or it could not be read now, and has none (QUEUE_SPACE, QUEUE_BROKEN).
	 */
	void (*loaded)(void *context, struct queue_job *job, enum queue_status status);
	/* The disk failed for good (R9): stop the daemon. */
	void (*broken)(void *context, struct queue_stream *stream, const char *what);
	/* New mail is being refused (true), or taken again (false), for want of space. */
	void (*space)(void *context, struct queue_stream *stream, bool low);
	/* The wall clock is doubted (true), so that nothing expires, or believed again. */
	void (*clock)(void *context, struct queue_stream *stream, bool doubted);
};

/* Calls `started` when START is durable and jobs may be delivered. */
void queue_stream_start(struct queue_stream *stream, struct os_loop *loop,
			const struct queue_events *events, void *context,
			void (*started)(void *context, struct queue_stream *stream));
/* Once in every turn: seals and writes what was staged, moves due jobs to ready, housekeeping. */
void queue_stream_turn(struct queue_stream *stream);
/* When the next queue_stream_turn() is wanted, without any completion. */
struct os_mono queue_stream_next(const struct queue_stream *stream);
/* After a reload: space_low_bytes, body_memory_bytes, outcome_sync_ms and evacuate_after_s; the
 * other options stay. */
void queue_stream_configure(struct queue_stream *stream, const struct queue_options *options);
/* Somebody knows that the wall clock is right: it is believed again, see queue/expiry.h. */
void queue_stream_confirm_time(struct queue_stream *stream);
/* Writes everything that is staged or unsynced, then calls `stopped`. No job may be lent. */
void queue_stream_stop(struct queue_stream *stream, void (*stopped)(void *context));

/* False: too many outcomes wait for the disk (R4); start no new transaction now. */
bool queue_stream_may_dispatch(const struct queue_stream *stream);

/* ── messages ─────────────────────────────────────────────────────────────────────── */

/* Being received, or needed by a lent job. Reference counted; open for reading. */
struct queue_message {
	uint64_t id;
	int64_t arrival_us;
	uint64_t body_bytes; /* of the whole body */
	uint32_t expiry_s;
	uint16_t flags; /* enum format_message_flags */
	int16_t priority;
	struct span envelope; /* owned by the message */
	struct span body;     /* all of it, or (FORMAT_BIG) empty: read with queue_body_read() */
	/* private: */
	struct queue_stream *stream;
	uint32_t references;
	struct message_private *private;
};

/* A message to be received, with an id of its own; NULL: no memory. */
struct queue_message *queue_message_create(struct queue_stream *stream);
/* One reference more, to be given back with queue_message_unref(). Returns `message`. */
struct queue_message *queue_message_ref(struct queue_message *message);
void queue_message_unref(struct queue_message *message); /* accepts NULL */

/* Adds to the body; never refuses bytes given while queue_message_may_append(). */
void queue_message_append(struct queue_message *message, struct span bytes);
/* False: the disk is behind; read no more of this message until `resume` is called, which
 * does not happen after queue_accept() or the last queue_message_unref(). */
bool queue_message_may_append(struct queue_message *message, void (*resume)(void *context),
			      void *context);
/* There was no memory for the body, or a write of a big one failed: the message can only be
 * refused, by queue_accept() at the latest. */
enum queue_status queue_message_status(const struct queue_message *message);

/* How many bytes there could be no room for: asked at MAIL, with the declared size. */
enum queue_status queue_stream_room(const struct queue_stream *stream, uint64_t bytes);

struct queue_accept {
	/* Set by the caller; all stay until `done`. */
	struct queue_message *message; /* the reference passes to the queue at QUEUE_OK */
	struct span envelope;	       /* copied */
	void (*done)(struct queue_accept *accept, enum queue_status status);
	/* A report: when durable, `settles` is settled with `verdict`, before `done`. */
	struct queue_job *settles;
	const struct queue_verdict *verdict;
	/* The envelope has FORMAT_ORIGIN_FILE: from `done` with QUEUE_OK until
	 * queue_origin_gone() MARK does not pass the message. One at a time in a stream. */
	bool from_file;
	/* private: */
	struct list link;
};

/* The message is complete: flags, expiry and priority are set. `done` is called later in any
 * case. On failure the message stays the caller's, and `settles` stays lent. After QUEUE_UNKNOWN
 * nobody may be told that it was refused. A stream that is only drained takes reports (`settles`,
 * of a job of its own), and nothing else. */
void queue_accept(struct queue_stream *stream, struct queue_accept *accept);

/* The file that the last message with `from_file` came from is durably gone. */
void queue_origin_gone(struct queue_stream *stream);

/* Reads up to `count` bytes of a FORMAT_BIG body at `offset` on `loop` (of the worker that
 * delivers), checked against its CRCs. `offset` goes up by whole MiB. */
struct queue_body_read {
	void (*done)(struct queue_body_read *read, enum queue_status status);
	char *bytes; /* 1 MiB, the caller's */
	uint64_t offset;
	uint32_t count_out;
	/* private: */
	struct queue_message *message;
	struct os_op op;
};
void queue_body_read(struct os_loop *loop, struct queue_message *message,
		     struct queue_body_read *read);

/* ── jobs ─────────────────────────────────────────────────────────────────────────── */

/* Up to 64 recipients of one domain of one message, lent from queue_take() to queue_settle(). */
struct queue_job {
	struct queue_stream *stream;
	struct queue_message *message; /* NULL while it is being loaded, and when it can't be */
	uint64_t message_id;
	uint64_t pending; /* bit i: recipient first + i */
	uint32_t dest;
	uint32_t expiry_s;
	uint32_t due_s;
	uint16_t first, count;
	uint16_t attempts; /* before this one */
	uint16_t flags;	   /* enum format_job_flags */
	bool expired;	   /* past its expiry, with an attempt behind it: to be bounced, not sent */
	bool suspect;	   /* the engine's, kept from loan to loan while the process lives */
	uint16_t reply, enhanced; /* of the last attempt */
	struct list link;	  /* the engine's */
	void *context;		  /* the engine's */
	/* private: */
	uint32_t slot;
	struct list loading;
};

/* What became of a lent job. Recipients in no mask stay pending. */
struct queue_verdict {
	uint64_t delivered, failed, discarded, removed;
	bool attempted; /* counts as an attempt */
	bool warned;	/* the sender was told of the delay */
	bool in_doubt;	/* a final reply never came */
	uint32_t due_s; /* when recipients stay pending: Unix time of the next attempt */
	uint16_t reply, enhanced;
	struct span host, text; /* of the last reply, borrowed during the call; may be empty */
};

/* The next ready job of a domain, oldest first; NULL: none. Its message is in memory, or `loaded`
 * will be called. */
struct queue_job *queue_take(struct queue_stream *stream, uint32_t dest);
/* Nobody could take note of `ready`, for want of memory: it is said again within a second, also
 * where queue_take() returned NULL for that reason. */
void queue_tell_again(struct queue_stream *stream, uint32_t dest);
/* Looks at up to `max` ready jobs of a domain, oldest first, and defers them to verdict->due_s
 * without a loan, for the one reason that the verdict names (its masks are empty, `attempted` is
 * false). Jobs that must not wait in silence stay ready, for queue_take(): those past their
 * expiry, and those without FORMAT_JOB_WARNED that expire at `warn_expiry_s` or before (0: none).
 * What was looked at and stayed is not looked at again. *more_out: there are jobs that were not
 * looked at yet. If none stays, `ready` is said of the next one, as after queue_take() returned
 * NULL. Returns how many were deferred. */
uint32_t queue_defer(struct queue_stream *stream, uint32_t dest, uint32_t max,
		     uint32_t warn_expiry_s, const struct queue_verdict *verdict, bool *more_out);
/* One job past its expiry that sits ready for any domain; NULL: none found in a bounded look. */
struct queue_job *queue_take_expired(struct queue_stream *stream);
/* Ends the loan; the job is not the caller's any more. */
void queue_settle(struct queue_stream *stream, struct queue_job *job,
		  const struct queue_verdict *verdict);
/* Ends the loan without an attempt: ready again at once, in front of its domain (but behind what
 * queue_defer() left there). */
void queue_return(struct queue_stream *stream, struct queue_job *job);
/* Host and text (masked, see names.h) that are kept of the job's last reply; empty if there are
 * none. Valid until the job is settled. */
void queue_job_reply(const struct queue_job *job, struct span *host_out, struct span *text_out);

/* The domain; valid as long as the stream. */
struct span queue_dest_name(const struct queue_stream *stream, uint32_t dest);
/* Jobs of the domain that are ready now. */
uint32_t queue_dest_ready(const struct queue_stream *stream, uint32_t dest);

/* Message ids as people read them: 13 characters of Crockford base32. */
#define QUEUE_ID_TEXT_BYTES 14
void queue_id_text(uint64_t id, char out[static QUEUE_ID_TEXT_BYTES]);
bool queue_id_parse(struct span text, uint64_t *id_out);

struct queue_stats {
	uint64_t jobs;	      /* waiting, ready or lent */
	uint64_t accepted;    /* messages since the start */
	uint64_t commits;     /* durable writes of segments */
	uint64_t syncs;	      /* durable writes of journals */
	uint64_t bytes;	      /* written to segments and journals */
	uint64_t body_memory; /* bytes of bodies now in memory */
	uint64_t loads;	      /* messages read back */
	uint64_t evacuated;   /* messages */
};
void queue_stream_stats(const struct queue_stream *stream, struct queue_stats *out);

#endif
