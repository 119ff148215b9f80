/* A heap with four children a node: half the depth of a binary one, one cache line a step. */
#include "queue/schedule.h"

#include <stdlib.h>

#include "os/check.h"

enum { SCHEDULE_CHILDREN = 4, SCHEDULE_FIRST = 1024 };

bool schedule_reserve(struct schedule *schedule, uint32_t count)
{
	uint32_t capacity = schedule->capacity == 0 ? SCHEDULE_FIRST : schedule->capacity;
	struct schedule_entry *grown;

	if (count <= schedule->capacity)
		return true;
	while (capacity < count)
		capacity += capacity / 2;
	grown = realloc(schedule->heap, capacity * sizeof(*grown));
	if (grown == NULL)
		return false;
	schedule->heap = grown;
	schedule->capacity = capacity;
	return true;
}

void schedule_push(struct schedule *schedule, uint32_t due_s, uint32_t slot)
{
	uint32_t at = schedule->count;

	assert(schedule->count < schedule->capacity);
	schedule->count++;
	while (at > 0) {
		uint32_t parent = (at - 1) / SCHEDULE_CHILDREN;

		if (schedule->heap[parent].due_s <= due_s)
			break;
		schedule->heap[at] = schedule->heap[parent];
		at = parent;
	}
	schedule->heap[at] = (struct schedule_entry){ due_s, slot };
}

/* Puts `entry`, from the heap's end, where the first was. */
static void schedule_sink(struct schedule *schedule, struct schedule_entry entry)
{
	uint32_t at = 0;

	for (;;) {
		uint32_t first = at * SCHEDULE_CHILDREN + 1;
		uint32_t end = first + SCHEDULE_CHILDREN;
		uint32_t least = first;

		if (first >= schedule->count)
			break;
		if (end > schedule->count)
			end = schedule->count;
		for (uint32_t child = first + 1; child < end; child++)
			if (schedule->heap[child].due_s < schedule->heap[least].due_s)
				least = child;
		if (schedule->heap[least].due_s >= entry.due_s)
			break;
		schedule->heap[at] = schedule->heap[least];
		at = least;
	}
	schedule->heap[at] = entry;
}

bool schedule_pop(struct schedule *schedule, uint32_t now_s, uint32_t *slot_out)
{
	if (schedule->count == 0 || schedule->heap[0].due_s > now_s)
		return false;
	*slot_out = schedule->heap[0].slot;
	schedule->count--;
	if (schedule->count > 0)
		schedule_sink(schedule, schedule->heap[schedule->count]);
	return true;
}

uint32_t schedule_next(const struct schedule *schedule)
{
	return schedule->count == 0 ? UINT32_MAX : schedule->heap[0].due_s;
}

void schedule_deinit(struct schedule *schedule)
{
	free(schedule->heap);
	*schedule = (struct schedule){ 0 };
}
