/*
 * super - the superblock: what the spool is, and from where new names may be taken.
 *
 *   SPOOL/super   0 ┌────────┐ 4096 ┌────────┐
 *                   │ copy 0 │      │ copy 1 │    the valid one with the higher generation wins
 *                   └────────┘      └────────┘
 *
 * Promise: an id block, a file sequence or a stream number that super_lease_*() returned was
 * reserved on stable storage before, so no crash makes it be handed out twice.
 * Non-promise: numbers are not dense; a start throws the rest of a reservation away.
 *
 * Reading it is recover_super()'s.
 *
 * Thread: blocking calls, of start-up and os_offload(); the caller holds the pool's lock.
 * Source: queue/format.h; queue/README.md.
 */
#ifndef QUEUE_SUPER_H
#define QUEUE_SUPER_H

#include <stdbool.h>
#include <stdint.h>

#include "queue/format.h"

enum { SUPER_SEQUENCES_AHEAD = 1024 };

struct super {
	int fd;
	struct format_super now; /* as on the disk */
	uint32_t next_sequence;	 /* below now.sequence_limit */
};

/* Writes and syncs a fresh superblock; `super->now` holds what it shall say. */
int super_create(struct super *super);
/* Writes `super->now` over the older copy, and syncs. After a failure the disk has the state
 * before, or this one. */
int super_store(struct super *super);

/* A file sequence that was never used. */
int super_lease_sequence(struct super *super, uint32_t *sequence_out);
/* A block of 2^24 message ids that was never used: the first id of it. */
int super_lease_ids(struct super *super, uint64_t *first_out);

#endif
