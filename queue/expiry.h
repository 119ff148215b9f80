/*
 * expiry - whether the calendar may be believed when mail is given up for its age.
 *
 *   wall time   ──────────┐  a step of more than an hour (at a start: more than a day since the
 *   monotonic   ──────────┴──────────   last durable time, or more than an hour if that was in
 *                                       doubt): no mail expires until somebody knows
 *
 * A wrong clock would bounce the whole queue at once. Doubt ends when the wall clock is back within
 * an hour of what the monotonic clock says, or when expiry_confirm() is called. A start does not
 * end it: MARK and the superblock keep the time that was believed beside the one that was seen.
 *
 * Promise: no step of more than an hour lets mail expire, from the moment of the step.
 * Non-promise: smaller steps, and what the system does in its sleep, are believed or not by the
 * same hour. Retries follow wall time: after a step back they are later by as much.
 *
 * Thread: part of a stream. Plain data; no clock of its own.
 */
#ifndef QUEUE_EXPIRY_H
#define QUEUE_EXPIRY_H

#include "os/os.h"

/* What an earlier run left on the disk; zeroes: nothing. */
struct expiry_last {
	int64_t believed_us;
	bool doubted; /* the wall clock said something else then */
};

struct expiry {
	int64_t trusted_us; /* wall minus monotonic time, when they were last believed */
	bool doubted;	    /* what expiry_look() said last */
};

/* A record of one moment: the wall time that was seen, and the one that was believed (0: the same).
 * The latest such record stands. */
void expiry_last_take(struct expiry_last *last, int64_t seen_us, int64_t believed_us);
/* At a start. */
void expiry_start(struct expiry *expiry, struct expiry_last last, struct os_mono mono,
		  struct os_wall wall);
/* Whether mail may be given up for its age now. */
bool expiry_may(const struct expiry *expiry, struct os_mono mono, struct os_wall wall);
/* Once a second: follows the small steps that clocks make. True: expiry->doubted has changed. */
bool expiry_look(struct expiry *expiry, struct os_mono mono, struct os_wall wall);
/* What it would be by the clock that was believed last, in us of wall time: what the next start is
 * given, so that doubt outlives this run. */
int64_t expiry_believed_us(const struct expiry *expiry, struct os_mono mono);
/* The wall clock is right as it is now. */
void expiry_confirm(struct expiry *expiry, struct os_mono mono, struct os_wall wall);

#endif
