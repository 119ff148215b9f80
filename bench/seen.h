/*
 * seen - a map of 64-bit keys to 64-bit values that only grows.
 *
 * Non-promise: keys are hashes; two things of one hash are taken for one, which for ten million
 * of them happens once in 370,000 runs.
 */
#ifndef BENCH_SEEN_H
#define BENCH_SEEN_H

#include <stdbool.h>

#include "os/span.h"

struct seen_slot {
	uint64_t key, value; /* key 0: free */
};

struct seen {
	struct seen_slot *slots; /* owned */
	size_t count, room;	 /* room: a power of two, or 0 */
};

/* The value of `key`, which is `value` from now on if it is new. */
uint64_t seen_note(struct seen *seen, uint64_t key, uint64_t value, bool *new_out);

/* FNV-1a over one more text, with its end. */
uint64_t seen_hash(uint64_t hash, struct span text);
#define SEEN_HASH_START UINT64_C(14695981039346656037)

#endif
