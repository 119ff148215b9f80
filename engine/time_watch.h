/*
 * time_watch - who says that the wall clock is right again after a step: queue/expiry.h.
 *
 *   streams doubt ─► engine->clock_doubts ─► time_watch_look() ─► engine->clock_confirmed ─►
 * workers
 *
 * It is right when the kernel has called it synchronised (NTP) for a minute, or when an operator
 * says so: `stafette confirm-time` makes a file in the spool, which is removed when it is seen.
 *
 * Thread: main's; the two counters are atomics.
 */
#ifndef ENGINE_TIME_WATCH_H
#define ENGINE_TIME_WATCH_H

#include "engine/worker.h"

#define TIME_CONFIRMED_FILE "time-confirmed" /* in the spool */

struct time_watch {
	struct os_mono next;	     /* look */
	struct os_mono synchronised; /* since then; 0: it is not, or nobody asks */
};

/* Called often; looks once a second. */
void time_watch_look(struct time_watch *watch, struct engine *engine);

/* ── the workers' side ────────────────────────────────────────────────────────────── */

/* A stream has begun, or ceased, to doubt the clock. Shouts once for all of them. */
void time_watch_doubt(struct engine *engine, bool doubted);

#endif
