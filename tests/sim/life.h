/*
 * life - one life of the daemon, from its main() to its exit or crash.
 *
 * Thread: there is one; a process lives once.
 */
#ifndef SIM_LIFE_H
#define SIM_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/fiber.h"

enum life_kind {
	LIFE_BAD,   /* ends at end_ns, by a crash or a TERM */
	LIFE_LAST,  /* ends when all mail has come to its end, by a TERM */
	LIFE_EMPTY, /* has nothing to do, and ends by a TERM */
};

struct life_plan {
	enum life_kind kind;
	bool crashes;	  /* else TERM */
	enum sim_end end; /* of a crash */
	bool early;	  /* it strikes while the daemon starts */
	bool near;	  /* it strikes near a moment of near.h, or else at end_ns */
	uint64_t end_ns;  /* after so long */
};

/* Ends the process: with the daemon's exit status or as enum story_exit says. */
_Noreturn void life_run(const struct life_plan *plan);

#endif
