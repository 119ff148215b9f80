/*
 * run - one seed: the lives of a daemon in bad weather, one in good weather in which all mail
 * must come to its end, and one more that must find nothing left to do.
 *
 *   process of the seed ── fork ──► life 0 ──► crash     (disk_crash(), ledger_life_ended())
 *                       ── fork ──► life 1 ──► stop
 *                       ── fork ──► last: settled, stop
 *                       ── fork ──► empty: stop          ──► ledger_check()
 *
 * Thread: there is one; a process runs one seed.
 */
#ifndef SIM_RUN_H
#define SIM_RUN_H

#include <stdint.h>

enum run_end {
	RUN_UNFINISHED, /* a finding, or worse: already told */
	RUN_GOOD,
};

struct run_result {
	enum run_end end;
	uint32_t lives, crashes;
	uint64_t hash;	     /* of all that happened */
	uint64_t virtual_ns; /* how long it was */
	uint64_t deliveries;
};

/* `result` may be shared memory: on a finding the process ends by itself, with STORY_FINDING. */
void run_seed(uint64_t seed, struct run_result *result);

#endif
