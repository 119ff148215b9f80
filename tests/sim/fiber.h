/*
 * fiber - virtual time, and everything that happens in it: events and fibers.
 *
 * A fiber is a thread of the simulated machine (the daemon's main, its workers, helpers and
 * log writer) or a part of the world (a client, a model peer's connection). Exactly one runs
 * at a time, until it parks, sleeps or ends; then the earliest event in virtual time runs.
 * Events of the same instant run in an order drawn from the seed.
 *
 * Promise: the same seed gives the same order of everything, in any process.
 * Thread: there is one; os_thread_self() is the fiber's.
 */
#ifndef SIM_FIBER_H
#define SIM_FIBER_H

#include <stdbool.h>
#include <stdint.h>

#include "os/list.h"

#define SIM_US	  UINT64_C(1000)
#define SIM_MS	  UINT64_C(1000000)
#define SIM_S	  UINT64_C(1000000000)
#define SIM_NEVER UINT64_MAX

/* Virtual monotonic time: ns since the run began. Goes on across lives of the daemon. */
uint64_t sim_now(void);

/* Something that happens later. Embedded in its owner; idle when `armed` is false. */
struct sim_event {
	void (*run)(struct sim_event *event);
	uint64_t at_ns;
	uint64_t order; /* drawn: breaks ties */
	uint32_t place; /* in the heap; private */
	bool armed;
};

/* Runs event->run, outside of any fiber, `delay_ns` from now; moves it if it is armed. */
void sim_after(struct sim_event *event, uint64_t delay_ns);
void sim_cancel_event(struct sim_event *event);

struct fiber; /* opaque */

/* Begins to run at this instant, after what is running now. Frees itself at its end.
 * `name` is copied. */
struct fiber *fiber_start(const char *name, void (*run)(void *context), void *context);
/* NULL inside an event. */
struct fiber *fiber_self(void);
const char *fiber_name(const struct fiber *fiber);
/* Until fiber_wake() or the time (sim_now(); SIM_NEVER: no limit); true if it was woken. A wake
 * that came since the last park is not lost: it returns at once. */
bool fiber_park(uint64_t until_ns);
/* Any fiber or event. */
void fiber_wake(struct fiber *fiber);
void fiber_sleep(uint64_t ns);

/* The pointer of the running fiber's own: NULL until it is set. */
void **fiber_local(void);

/* Runs the simulation until nothing is left to happen. Called by the child's main. */
void sim_run(void);

/* ── chance: everything is drawn from the seed ── */

uint64_t sim_below(uint64_t limit);		     /* 0 .. limit-1 */
uint64_t sim_between(uint64_t least, uint64_t most); /* both included */
/* True `per_million` times in a million. */
bool sim_chance(uint32_t per_million);

/* ── the story ── */

/* Goes into the run's hash always, and to standard output with TRACE=1, after the time and the
 * fiber. No addresses of memory, no host paths. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A rule is broken: prints what, seed and commit, and the command that replays it; ends the run. */
_Noreturn void sim_finding(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How a life of the daemon ends other than by its own exit. */
enum sim_end {
	SIM_KILLED,    /* kill -9: the page cache survives */
	SIM_POWER_CUT, /* what was not synced may be gone */
};
/* Ends this life at once. */
_Noreturn void sim_crash(enum sim_end end);
/* Ends it after so many more events. */
void sim_crash_after(uint64_t events, enum sim_end end);

#endif
