/*
 * failures - how often an address has failed to log in of late, over all workers.
 *
 * A bucket for each hash of an address: every failure adds one, and one is forgotten in each
 * `forget_s`. Addresses that share a hash share their count.
 *
 * Thread: any; the table is zeroed once.
 */
#ifndef ENGINE_AUTH_FAILURES_H
#define ENGINE_AUTH_FAILURES_H

#include <stdatomic.h>
#include <stdint.h>

enum { AUTH_FAILURES_SLOTS = 1 << 14 };

struct auth_failures {
	_Atomic uint64_t
		slots[AUTH_FAILURES_SLOTS]; /* failures << 32 | second of the last change */
};

/* How many there were, the forgotten ones taken off. `now_s` is monotonic. */
uint32_t auth_failures_count(const struct auth_failures *failures, uint64_t hash, uint32_t now_s,
			     uint32_t forget_s);
/* One more; how many that makes. */
uint32_t auth_failures_add(struct auth_failures *failures, uint64_t hash, uint32_t now_s,
			   uint32_t forget_s);

#endif
