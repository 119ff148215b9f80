/*
 * timer - a worker's deadlines, in a hierarchical timing wheel.
 *
 *   level 0   64 slots of 4 ms       0.25 s
 *   level 1   64 slots of 256 ms     16 s
 *   level 2   ...                    17 min, 18 h, 48 days
 *
 * Promise: a timer fires once, at its time or up to a tick after; setting, moving and
 * cancelling cost the same whatever the number of timers.
 *
 * Thread: a wheel belongs to one worker. `fire` may set and cancel any timer, its own too.
 */
#ifndef ENGINE_TIMER_H
#define ENGINE_TIMER_H

#include "os/os.h"

enum { TIMER_LEVELS = 5, TIMER_SLOTS = 64 };

struct timer {
	struct list link;
	uint64_t tick; /* when to fire */
	uint8_t level, slot;
	void (*fire)(struct timer *timer);
};

struct timer_wheel {
	uint64_t tick;		     /* all before it have fired */
	uint64_t used[TIMER_LEVELS]; /* a bit for each slot with timers */
	struct list slots[TIMER_LEVELS][TIMER_SLOTS];
};

void timer_wheel_init(struct timer_wheel *wheel, struct os_mono now);

void timer_init(struct timer *timer, void (*fire)(struct timer *timer));
/* Sets it, or moves it; a time in the past fires at the next advance. */
void timer_set(struct timer_wheel *wheel, struct timer *timer, struct os_mono when);
void timer_cancel(struct timer_wheel *wheel, struct timer *timer);
static inline bool timer_is_set(const struct timer *timer)
{
	return list_linked(&timer->link);
}

/* Fires everything that is due. */
void timer_wheel_advance(struct timer_wheel *wheel, struct os_mono now);
/* Not later than the next timer; {UINT64_MAX} without one. */
struct os_mono timer_wheel_next(const struct timer_wheel *wheel);

#endif
