/*
 * index - the jobs of a stream as 64-byte slots in shared memory, which tools read while the
 * daemon runs.
 *
 *   /dev/shm/stafette-<uuid>-<stream>.slots    struct index_header, then struct format_job each
 *   /dev/shm/stafette-<uuid>-<stream>.names    struct index_header, then struct format_define each
 *
 * It is the owner's own hot table: derived from the spool at every start and thrown away.
 * A slot's `crc` is its sequence counter: odd while the owner writes (seqlock). A slot with
 * state 0 is free. Names (DEST, TEXT, CLASS) are only ever appended; `used` is published after
 * the bytes are there.
 *
 * Promise to readers: a slot copied with index_read() is one that was there at some moment.
 * Non-promise: two slots are not from the same moment.
 *
 * Thread: struct index is its owner's; struct index_view is any reader's, and takes no lock.
 */
#ifndef QUEUE_INDEX_H
#define QUEUE_INDEX_H

#include <stdatomic.h>

#include "os/os.h"
#include "queue/format.h"

#define INDEX_MAGIC UINT64_C(0x0a78646e692d7473) /* "st-indx\n" */

struct index_header {
	uint64_t magic;
	uint32_t version;
	uint16_t stream;
	uint16_t unit_bytes; /* 64 */
	uint8_t uuid[16];
	uint32_t epoch;
	uint32_t process;      /* of the daemon */
	_Atomic uint64_t used; /* slots ever used, or 64-byte units of names */
	_Atomic uint64_t live; /* slots in use */
	_Atomic uint64_t
		heartbeat_ms; /* os_mono of the owner's last turn, at least once a second */
	uint64_t reserved[504];
};
static_assert(sizeof(struct index_header) == 4096, "the slots begin on a page");

enum {
	INDEX_VERSION = 1,
	INDEX_NAME_BYTES = 96,
	INDEX_EXTENT_SLOTS = 1 << 16, /* how much it grows at once */
};

struct queue_message;

/* What only the owner knows of a slot's job. */
enum index_list {
	INDEX_NONE = 0, /* free, or held */
	INDEX_SCHEDULED,
	INDEX_READY,
	INDEX_LENT,
};

#define INDEX_NO_SLOT UINT32_MAX

struct index_side {
	uint32_t next, previous;       /* among the ready of its domain; next: among the free */
	uint32_t journal;	       /* file of its last record, or an older one; 0: none yet */
	uint32_t mark;		       /* its place among the unrecorded; while journal is 0 */
	struct queue_message *message; /* while the body is in memory: a reference; else NULL */
	uint8_t list;		       /* enum index_list */
	uint8_t count;		       /* recipients; 0: not known, the envelope tells */
	bool tried;		       /* in this epoch */
	bool flagged;  /* newer than its record: written at the stop at the latest */
	bool given_up; /* expired, and its envelope can't be read: held, not tried in this epoch */
	bool suspect;  /* see struct queue_job */
	uint8_t reserved[2];
};
static_assert(sizeof(struct index_side) == 32, "memory per waiting job");

/* ── the owner's side ─────────────────────────────────────────────────────────────── */

struct index {
	struct os_shared slots, names;
	struct index_side **extents; /* owned; INDEX_EXTENT_SLOTS each */
	uint32_t extent_count;
	uint32_t used;	   /* slots ever used */
	uint32_t free;	   /* first of the free list; INDEX_NO_SLOT */
	uint32_t live;	   /* in use */
	uint32_t promised; /* reserved and not yet taken */
	uint64_t slots_max;
	uint64_t names_used; /* units */
};

/* Takes the place of what an earlier process left. 0 or -errno. */
int index_init(struct index *index, const uint8_t uuid[16], uint16_t stream, uint32_t epoch,
	       uint64_t slots_max);
/* Lets a group read it, by name. 0 or -errno. */
int index_set_group(struct index *index, const char *group);
/* Removes what an earlier process may have left of a stream that is no more. */
void index_remove(const uint8_t uuid[16], uint16_t stream);
/* Removes the files of daemons that were killed, and that nothing will start in the place of: their
 * process is gone, and has not turned for an hour. It is worth nothing: each start makes its own.
 */
void index_sweep(void);
/* Unmaps and removes the files. Accepts one that is all zero. */
void index_deinit(struct index *index, const uint8_t uuid[16], uint16_t stream);

/* Room for `count` more jobs, to be taken later without fail. False: memory is full. */
bool index_reserve(struct index *index, uint32_t count);
void index_unreserve(struct index *index, uint32_t count);
/* A slot out of the reservation, with `job` in it; its side is zero. */
uint32_t index_take(struct index *index, const struct format_job *job);
void index_release(struct index *index, uint32_t slot);

static inline const struct format_job *index_job(const struct index *index, uint32_t slot)
{
	return (const struct format_job *)((const char *)index->slots.at +
					   sizeof(struct index_header)) +
	       slot;
}

static inline struct index_side *index_side(const struct index *index, uint32_t slot)
{
	return &index->extents[slot / INDEX_EXTENT_SLOTS][slot % INDEX_EXTENT_SLOTS];
}

/* Replaces a slot's job; readers see the one before or this. */
void index_store(struct index *index, uint32_t slot, const struct format_job *job);
/* Publishes a name. False: memory is full (tools will show a number in its place). */
bool index_publish_name(struct index *index, const struct format_define *define);
void index_beat(struct index *index, struct os_mono now);

/* ── a reader's side ──────────────────────────────────────────────────────────────── */

struct index_view {
	struct os_shared slots, names;
};

/* 0 or -errno; -EPROTO: not an index of this version. */
int index_view_open(struct index_view *view, const uint8_t uuid[16], uint16_t stream);
void index_view_close(struct index_view *view);
const struct index_header *index_view_header(const struct index_view *view);
/* Slots to look at now: from 0 to below it. */
uint64_t index_view_count(const struct index_view *view);
/* False: the slot is free, or is being written without end (a dead daemon). */
bool index_read(const struct index_view *view, uint64_t slot, struct format_job *out);
/* Walks the names: *at = 0 at first; NULL at the end. The record may have further units. */
const struct format_define *index_view_name(const struct index_view *view, uint64_t *at);

#endif
