/*
 * story - the seed of a run, what was drawn from it, and what was told: in the arena, so that
 * one story goes through all lives of the daemon.
 *
 * Promise: the hash covers each event, each trace line and each draw of the run, but those of
 * story_sequence().
 * Thread: there is one.
 */
#ifndef SIM_STORY_H
#define SIM_STORY_H

#include <stdbool.h>
#include <stdint.h>

#include "os/prng.h"
#include "tests/sim/fiber.h"

/* How a process of the simulator ends, beside a daemon's own exit status (sysexits: 0, 64-78). */
enum story_exit {
	STORY_FINDING = 40,
	STORY_KILLED,
	STORY_POWER_CUT,
};

/* What a finding says beside itself; `program` and `commit` are borrowed for ever. */
void story_tellers(const char *program, const char *commit, bool trace);
/* Begins the run of a seed; arena_create() was called. */
void story_begin(uint64_t seed);
/* What has been told and not yet written to standard output goes there. */
void story_flush(void);
/* Of everything so far. */
uint64_t story_hash(void);
void story_mix(uint64_t what);

/* The virtual clock, which fiber.c moves. */
void story_set_now(uint64_t now_ns);

/* Randomness that the daemon asks for: a sequence of its own. */
uint64_t story_random(void);
/* One for a part of the world whose draws must not move those of the others. What it brings about
 * is to be traced, for the hash. */
struct prng story_sequence(uint64_t number);

#endif
