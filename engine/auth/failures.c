#include "engine/auth/failures.h"

#include <stddef.h>

#include "os/check.h"

enum { COUNT_MAX = 1000000 };

/* What a slot's word is worth now. */
static uint64_t word_now(uint64_t word, uint32_t now_s, uint32_t forget_s)
{
	uint32_t count = (uint32_t)(word >> 32), since_s = (uint32_t)word;
	uint32_t forgotten = now_s > since_s ? (now_s - since_s) / forget_s : 0;

	if (forgotten >= count)
		return now_s;
	/* What is left of the time counts on. */
	return (uint64_t)(count - forgotten) << 32 | (since_s + forgotten * forget_s);
}

uint32_t auth_failures_count(const struct auth_failures *failures, uint64_t hash, uint32_t now_s,
			     uint32_t forget_s)
{
	/* relaxed: a count, which orders nothing else. */
	uint64_t word = atomic_load_explicit(&failures->slots[hash % AUTH_FAILURES_SLOTS],
					     memory_order_relaxed);

	assert(forget_s > 0);
	return (uint32_t)(word_now(word, now_s, forget_s) >> 32);
}

uint32_t auth_failures_add(struct auth_failures *failures, uint64_t hash, uint32_t now_s,
			   uint32_t forget_s)
{
	_Atomic uint64_t *slot = &failures->slots[hash % AUTH_FAILURES_SLOTS];
	uint64_t old = atomic_load_explicit(slot, memory_order_relaxed), new;

	assert(forget_s > 0);
	do {
		new = word_now(old, now_s, forget_s);
		if (new >> 32 < COUNT_MAX)
			new += UINT64_C(1) << 32;
	} while (!atomic_compare_exchange_weak_explicit(slot, &old, new, memory_order_relaxed,
							memory_order_relaxed));
	return (uint32_t)(new >> 32);
}
