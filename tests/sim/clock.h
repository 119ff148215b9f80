/*
 * clock - the wall clock of the machine: how wrong it is, and what the daemon may believe of it.
 * Implements os_wall_now() and os_clock_synchronised().
 *
 *   right ── leap ──► wrong ── is set ──► right, and nobody vouches ── word ──► right
 *          hours to 90 days, either way                  of the kernel or of the operator
 *
 * In few runs (weather.h: clock_leaps) it leaps so, also while the daemon is down. In good weather
 * it is set right again. What was put off or accepted while it was ahead then waits for that time:
 * late in the last life as many days pass at once, which the kernel vouches for.
 *
 * Promise: its draws are a sequence of its own, so that a run without leaps is what it would be
 * without this file.
 *
 * Thread: there is one.
 */
#ifndef SIM_CLOCK_H
#define SIM_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Before the first life, in the arena. */
void clock_create(void);
/* In each life, before the daemon runs. */
void clock_live(void);
/* A small jump: it is this far from the truth now, and drifts on from there. Not in runs with
 * leaps. */
void clock_jump_to(int64_t error_us);

/* Whether a daemon that took a message in `from_ns` .. `until_ns` may have believed, at `now_ns` or
 * before, that it was so many seconds old. Not in runs with small jumps. */
bool clock_may_have_passed(uint64_t from_ns, uint64_t until_ns, uint64_t now_ns, uint32_t seconds);
/* It leapt, was set right, or was wrong when a life began, in that time. */
bool clock_has_leapt(uint64_t from_ns, uint64_t until_ns);

#endif
