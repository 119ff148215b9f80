/*
 * recover - the read-only half of a start: what the files of a spool say.
 *
 *   recover_spool()    super, headers of seg/ and jnl/  ──► which file belongs to which stream
 *   recover_stream()   journals in order ──► newest state of each job ─┐
 *                      HOT segments from MARK ──► every job accepted ──┴─► struct recovered
 *   recover_unnamed_big()    files in big/ that no job of any stream needs
 *
 * Promise: writes nothing, renames nothing, locks nothing. Each acknowledged recipient that
 * is not settled is in `jobs`, or a line of `problems` says where bytes are lost. Any bytes
 * whatever may lie in the files.
 * Non-promise: while the daemon runs the picture may be torn between two of its moments.
 *
 * Thread: recover_stream() of different streams may run on different threads; the spool is only
 * read meanwhile. All of it blocks: start-up and tools.
 * Source: queue/README.md, "Found states".
 */
#ifndef QUEUE_RECOVER_H
#define QUEUE_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/span.h"
#include "queue/expiry.h"
#include "queue/format.h"

enum recover_status {
	RECOVER_OK = 0,
	RECOVER_ABSENT = -1,	   /* there is no spool here */
	RECOVER_INCOMPATIBLE = -2, /* its version or features are not known to this program */
	RECOVER_DAMAGED = -3,	   /* no valid superblock */
	RECOVER_UNREADABLE = -4,   /* folders or files can't be opened or read */
	RECOVER_NO_MEMORY = -5,
};

#define RECOVER_ERROR_BYTES 512

/* A position in the messages of a stream; also the order of acceptance. */
struct recovered_place {
	uint32_t segment; /* file sequence; 0: before everything */
	uint32_t place;	  /* offset / 8 */
};

static inline bool recovered_before(struct recovered_place a, struct recovered_place b)
{
	return a.segment != b.segment ? a.segment < b.segment : a.place < b.place;
}

/* ── problems ─────────────────────────────────────────────────────────────────────── */

enum recovered_problem_kind {
	RECOVERED_TORN_TAIL,	  /* normal after a crash: cut, nothing promised was in it */
	RECOVERED_SEGMENT_DAMAGE, /* bytes below the durable end are not what was written */
	RECOVERED_JOURNAL_DAMAGE, /* likewise: MARK is ignored, jobs without state are held */
	RECOVERED_MESSAGE_DAMAGE, /* one message: its envelope or body */
	RECOVERED_VERSION_CLASH,  /* two records of one version differ */
	RECOVERED_LOST_MESSAGE,	  /* a job whose segment is not there */
	RECOVERED_STRANGE_FILE,	  /* for quarantine */
};

struct recovered_problem {
	enum recovered_problem_kind kind;
	char text[256]; /* one line for the operator: file, offset, what, what was done */
};

struct recovered_problems {
	struct recovered_problem *list; /* owned; the first 1,000 */
	size_t count, left_out;
};

/* False for what every crash leaves behind. */
static inline bool recovered_problem_serious(const struct recovered_problem *problem)
{
	return problem->kind != RECOVERED_TORN_TAIL;
}

/* ── the spool ────────────────────────────────────────────────────────────────────── */

enum recovered_fate {
	RECOVERED_KEEP,	   /* belongs to `stream` */
	RECOVERED_RECYCLE, /* holds nothing of this life: a crash came between rename and header */
	RECOVERED_QUARANTINE, /* cannot be explained: not a file of ours, or a header beyond use */
};

struct recovered_file {
	char name[256];	  /* in its folder */
	bool journal;	  /* in jnl/, else in seg/ */
	bool header_lost; /* KEEP, although the header is damaged: chunks of this sequence follow */
	bool owner_guessed; /* nothing tells whose it is: `stream` is only where it is kept */
	uint16_t kind;	    /* enum format_kind */
	uint16_t stream;
	uint32_t sequence; /* by its name */
	uint32_t epoch;
	uint32_t previous_sequence, previous_end;
	uint64_t bytes; /* of the file */
	enum recovered_fate fate;
};

struct recovered_spool {
	struct format_super super;    /* the valid copy with the higher generation */
	uint32_t super_copy;	      /* 0 or 1: which; the other is to be overwritten next */
	int root, seg, jnl, big;      /* folders, owned, open for reading; -1 */
	struct recovered_file *files; /* owned; sorted by sequence */
	size_t file_count;
	uint32_t stream_count; /* 1 + the highest stream that has files */
	uint32_t
		sequence_limit; /* 1 + the highest file sequence seen; normally below the super's */
	bool streams_damaged;	/* a file with chunks, of an unknown stream: all count as damaged */
	struct recovered_problems problems;
};

enum recover_from {
	RECOVER_FROM_CACHE, /* what is in memory will do: for looking on */
	RECOVER_FROM_DISK,  /* not what a failed sync left in memory; recover_stream(): `sync` */
};

/* Only the superblock; `copy_out` may be NULL. Never RECOVER_UNREADABLE for a missing file. */
enum recover_status recover_super(int root, enum recover_from from, struct format_super *out,
				  uint32_t *copy_out);

/* `folder` as for os_file_open(). On failure `error` says what, where and what to do, and
 * nothing is left to release. */
enum recover_status recover_spool(int folder, const char *path, enum recover_from from,
				  struct recovered_spool *out,
				  char error[static RECOVER_ERROR_BYTES]);
void recovered_spool_release(struct recovered_spool *spool);

/* ── a stream ─────────────────────────────────────────────────────────────────────── */

struct recovered_job {
	struct format_job job; /* crc is 0 */
	uint32_t journal;      /* sequence of the file with its newest record; 0: it has none */
	/* The state is newer than its record, or there is none: to be appended before START. The
	 * version was raised already. Only such a job can have a final state. */
	bool unrecorded;
	/* FORMAT_JOB_MAYBE_DUPLICATE was set by this recovery: to be recorded, with a version
	 * one higher, before the spool is called clean (any record about the job will do). */
	bool flagged;
};

struct recovered_segment {
	uint32_t sequence;
	uint16_t kind;
	bool scanned; /* from MARK on, or (journal damage) all of it */
	bool damaged;
	uint64_t bytes;
	uint32_t
		end_pages; /* of what is valid; 0: not scanned, only the known durable end counts */
	uint32_t live;	   /* waiting jobs whose message lies here */
};

struct recovered_journal {
	uint32_t sequence;
	bool damaged;
	bool owner_guessed; /* perhaps another stream's, where names have other numbers */
	uint64_t bytes;
	uint32_t end_pages;
	uint32_t current; /* jobs and names whose newest record is in this file */
	bool has_done;
	struct recovered_place done; /* the highest HOT message with a final record in here */
};

struct recovered_name {
	uint8_t type; /* FORMAT_DEST, TEXT, CLASS or POLICY */
	uint32_t id;
	uint32_t until_s; /* POLICY */
	uint32_t journal; /* file with its newest record; 0: made by this recovery, to be appended
			     before any job that refers to it */
	struct span text; /* in `arena` */
};

struct recovered {
	uint16_t stream;
	/* Waiting ones, and final ones that are `unrecorded`; by message place. Owned. */
	struct recovered_job *jobs;
	size_t job_count;
	struct recovered_segment *segments; /* all of this stream, by sequence; owned */
	size_t segment_count;
	struct recovered_journal *journals; /* likewise */
	size_t journal_count;
	struct recovered_name *names; /* by type, then id; owned */
	size_t name_count;
	/* FORMAT_ORIGIN_FILE of the messages past MARK: files that must go. Owned. */
	struct format_origin *origins;
	size_t origin_count;
	uint32_t next_name[8]; /* by enum format_record_type: 1 + the highest id defined or used */
	/* The highest MARK in the journals, also where it had to be ignored. */
	struct recovered_place mark;
	/* Behind the last valid HOT message: once every unrecorded job is appended, a MARK may
	 * say this. */
	struct recovered_place end;
	struct expiry_last clock; /* by the latest of all MARKs */
	uint32_t start_epoch;	  /* of the last START */
	uint64_t messages_scanned;
	uint64_t finals;      /* jobs found settled */
	bool journal_damaged; /* MARK was ignored */
	bool damaged;	      /* anything at all is: nothing in big/ may be removed */
	struct recovered_problems problems;
	char error[RECOVER_ERROR_BYTES]; /* when the status is not RECOVER_OK */
	/* private: */
	char *arena;
};

struct recover_options {
	bool sync;	/* the daemon: sync each file before it is read */
	bool running;	/* a tool, while the daemon runs: flag nothing, an open end is no problem */
	uint32_t now_s; /* Unix time: jobs due by then may have been tried before an unclean stop */
};

/* `out` is to be released in any case. */
enum recover_status recover_stream(const struct recovered_spool *spool, uint16_t stream,
				   const struct recover_options *options, struct recovered *out);
void recovered_release(struct recovered *recovered);

/* Ids of the files in big/ (names: queue_id_text()) that no job of `streams` (all of them)
 * needs; none if anything is damaged. Caller frees *ids_out. */
enum recover_status recover_unnamed_big(const struct recovered_spool *spool,
					const struct recovered *streams, size_t stream_count,
					uint64_t **ids_out, size_t *count_out);

/* The first state (version 1) of a job of an accepted message: recovery and the live path make
 * the same. `crc` is 0. */
void recover_first_state(const struct format_message *message, struct recovered_place place,
			 uint32_t first, uint32_t count, uint32_t dest, struct format_job *out);

#endif
