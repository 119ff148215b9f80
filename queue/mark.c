/* The jobs without a record, as a ring. */
#include "queue/mark.h"

#include <stdlib.h>

enum { MARK_FIRST = 1024 };

bool mark_reserve(struct mark *mark, uint32_t count)
{
	uint32_t used = mark->tail - mark->head;
	uint32_t capacity = mark->capacity == 0 ? MARK_FIRST : mark->capacity;
	struct mark_entry *ring;

	if (mark->capacity - used >= count)
		return true;
	while (capacity - used < count)
		capacity *= 2;
	ring = malloc(capacity * sizeof(*ring));
	if (ring == NULL)
		return false;
	for (uint32_t at = mark->head; at != mark->tail; at++)
		ring[at & (capacity - 1)] = mark->ring[at & (mark->capacity - 1)];
	free(mark->ring);
	mark->ring = ring;
	mark->capacity = capacity;
	return true;
}

uint32_t mark_push(struct mark *mark, struct journal_place place, uint32_t slot, struct os_mono now)
{
	uint32_t number = mark->tail;

	assert(mark->tail - mark->head < mark->capacity);
	mark->ring[number & (mark->capacity - 1)] =
		(struct mark_entry){ place, slot, (uint32_t)(now.ns / OS_NS_PER_MS) };
	mark->tail++;
	return number;
}

const struct mark_entry *mark_first(const struct mark *mark)
{
	return mark->head == mark->tail ? NULL : &mark->ring[mark->head & (mark->capacity - 1)];
}

void mark_pop(struct mark *mark)
{
	assert(mark->head != mark->tail);
	mark->head++;
}

void mark_appended(struct mark *mark, struct journal_place place, uint64_t number)
{
	mark->said = place;
	mark->pending = place;
	mark->pending_number = number;
}

void mark_on_durable(struct mark *mark, uint64_t number)
{
	if (mark->pending_number == 0 || mark->pending_number > number)
		return;
	mark->durable = mark->pending;
	mark->pending_number = 0;
}

void mark_deinit(struct mark *mark)
{
	free(mark->ring);
	*mark = (struct mark){ 0 };
}
