/*
 * near - the moments behind which a crash is most likely to find a gap: a file changes its
 * folder, a journal is written, an operation fails, a report goes out. Disk and ledger tell when
 * one comes; a life that is to end near such a moment ends shortly after it.
 *
 * Thread: there is one; what is planned dies with the life.
 */
#ifndef SIM_NEAR_H
#define SIM_NEAR_H

#include <stdint.h>

#include "tests/sim/fiber.h"

enum near_moment {
	NEAR_TAKEN,	    /* a file has left free/ */
	NEAR_SEGMENT_FREED, /* ... has come back, */
	NEAR_JOURNAL_FREED,
	NEAR_SEGMENT_WRITTEN, /* a chunk is durable, */
	NEAR_JOURNAL_WRITTEN,
	NEAR_SEGMENT_READ, /* for a delivery, or by an evacuation */
	NEAR_BIG_GONE,	   /* a file of big/ is unlinked */
	NEAR_DROP_GONE,	   /* a file of the drop directory is */
	NEAR_FAILED,	   /* a write or a sync has failed */
	NEAR_REPORT,	   /* a peer has taken one */
	NEAR_COUNT
};

void near_happens(enum near_moment moment);
/* The life ends `delay_ns` after the moment has come `times` times; 0 times: never. */
void near_crash(enum near_moment moment, uint32_t times, uint64_t delay_ns, enum sim_end end);

#endif
