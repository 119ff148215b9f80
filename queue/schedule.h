/*
 * schedule - which waiting job is due next: a heap of (due, slot), eight bytes a job.
 *
 * Promise: schedule_pop() gives the slots in the order of their due times.
 * Non-promise: an entry can't be taken back; the owner pushes a slot once and looks at what it
 * pops.
 *
 * Thread: the owner of the stream.
 */
#ifndef QUEUE_SCHEDULE_H
#define QUEUE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct schedule_entry {
	uint32_t due_s, slot;
};

struct schedule {
	struct schedule_entry *heap; /* owned; four children each */
	uint32_t count, capacity;
};

void schedule_deinit(struct schedule *schedule);
/* Room for `count` entries in all. False: no memory. */
bool schedule_reserve(struct schedule *schedule, uint32_t count);
void schedule_push(struct schedule *schedule, uint32_t due_s, uint32_t slot);
/* The next slot that is due at `now_s`; false: none. */
bool schedule_pop(struct schedule *schedule, uint32_t now_s, uint32_t *slot_out);
/* When the next one is due; UINT32_MAX: none. */
uint32_t schedule_next(const struct schedule *schedule);

#endif
