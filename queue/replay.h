/*
 * replay - journal records, in order, to the newest state of each job and name.
 *
 * Promise: of several records of a job the highest version wins; of equal versions with
 * different content the later file, and the clash is counted. A record that contradicts
 * itself is never believed.
 * Non-promise: nothing here knows whether a message exists; see recover.h.
 *
 * Thread: plain data of its owner.
 * Source: queue/README.md, "Found states".
 */
#ifndef QUEUE_REPLAY_H
#define QUEUE_REPLAY_H

#include "queue/recover.h"
#include "queue/scan.h"

struct replay_name {
	uint8_t type;
	uint32_t id, until_s, journal;
	uint32_t at, len; /* in the arena */
};

struct replay {
	struct recovered_job *jobs; /* owned; final ones as well */
	size_t job_count, job_size;
	uint32_t *buckets; /* owned: 1 + index in `jobs`; 0: empty */
	size_t bucket_count;
	struct replay_name *names; /* owned; in order of reading, repeated ones as well */
	size_t name_count, name_size;
	char *arena; /* owned: texts of names */
	size_t arena_bytes, arena_size;
	struct recovered_place mark;
	uint64_t wall_us; /* the latest of all MARKs */
	struct expiry_last clock;
	uint32_t start_epoch;
	uint64_t clashes; /* two records of one version differ */
	uint64_t clash_message;
	uint64_t senseless; /* records that verify and contradict themselves */
	bool skip_names;    /* the caller's: these definitions are passed over */
	bool no_memory;	    /* from here on nothing is right */
};

/* `records_hint`: how many job records there may be, for the first size of the table. */
bool replay_init(struct replay *replay, uint64_t records_hint);
void replay_deinit(struct replay *replay);

/* All records of an extent of journal `sequence`; how many units could not be believed although
 * their chunk verified. */
uint32_t replay_extent(struct replay *replay, uint32_t sequence, const struct scan_extent *extent);

/* Borrowed until the next replay_add() or replay_extent(); NULL: not known. */
struct recovered_job *replay_find(const struct replay *replay, uint64_t message, uint16_t first);
/* A job that is not known yet, to be filled by the caller; NULL: no memory. */
struct recovered_job *replay_add(struct replay *replay, uint64_t message, uint16_t first);

/* A name found in journal `journal`, or (0) made by recovery. */
void replay_add_name(struct replay *replay, uint8_t type, uint32_t id, uint32_t until_s,
		     uint32_t journal, struct span text);

#endif
