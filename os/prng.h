/*
 * prng - a small seeded random sequence (splitmix64), for jitter and shuffles.
 *
 * Non-promise: no secret may depend on it; secrets come from os_random().
 */
#ifndef OS_PRNG_H
#define OS_PRNG_H

#include <stdint.h>

#include "os/check.h"

struct prng {
	uint64_t state;
};

static inline uint64_t prng_next(struct prng *prng)
{
	uint64_t x = prng->state += 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

/* Uniform in 0 .. limit - 1. */
static inline uint64_t prng_below(struct prng *prng, uint64_t limit)
{
	assert(limit > 0);
	return (uint64_t)(((unsigned __int128)prng_next(prng) * limit) >> 64);
}

#endif
