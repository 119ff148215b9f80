/*
 * recover_names - which number a domain has, and the names that win.
 *
 * Thread: plain data of recovery.
 */
#ifndef QUEUE_RECOVER_NAMES_H
#define QUEUE_RECOVER_NAMES_H

#include "queue/replay.h"

/* The domains that have a DEST record, by text. */
struct recover_domains {
	uint32_t *buckets; /* owned: 1 + index in replay->names */
	size_t bucket_count, used;
};

void recover_domains_deinit(struct recover_domains *domains);

/* The number of a domain: the one it has, or *next_id, which goes up. 0: no memory. */
uint32_t recover_domain_id(struct recover_domains *domains, struct replay *replay,
			   struct span domain, uint32_t *next_id);

/* The newest definition of each name, sorted, into out->names; their texts go to out->arena,
 * which is taken from `replay`. False: no memory. */
bool recover_names_take(struct replay *replay, struct recovered *out);

#endif
