/* The table of a stream's message files. */
#include "queue/segment.h"

#include <stdlib.h>
#include <string.h>

/* Where the number of jobs is not known: what an average message takes. */
enum { SEGMENT_MESSAGE_BYTES = 8192 };

/* The first position whose sequence is not below. */
static uint32_t segments_position(const struct segments *segments, uint32_t sequence)
{
	uint32_t low = 0, high = segments->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (segment_sequence(segments->list[middle]) < sequence)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct segment *segments_find(const struct segments *segments, uint32_t sequence)
{
	uint32_t at = segments_position(segments, sequence);

	if (at == segments->count || segment_sequence(segments->list[at]) != sequence)
		return NULL;
	return segments->list[at];
}

bool segments_reserve(struct segments *segments)
{
	if (segments->capacity - segments->count < SEGMENTS_SPARE) {
		uint32_t capacity = segments->capacity == 0 ? 64 : segments->capacity * 2;
		struct segment **grown =
			realloc(segments->list, capacity * sizeof(struct segment *));

		if (grown == NULL)
			return false;
		segments->list = grown;
		segments->capacity = capacity;
	}
	while (segments->spare_count < SEGMENTS_SPARE) {
		struct segment *segment = calloc(1, sizeof(*segment));

		if (segment == NULL)
			return false;
		segments->spare[segments->spare_count++] = segment;
	}
	return true;
}

struct segment *segments_add(struct segments *segments, struct tape_file *tape,
			     enum format_kind kind)
{
	uint32_t at = segments_position(segments, tape->file.sequence);
	struct segment *segment;

	assert(segments->spare_count > 0 && segments->count < segments->capacity);
	segment = segments->spare[--segments->spare_count];
	segment->tape = tape;
	segment->kind = kind;
	memmove(segments->list + at + 1, segments->list + at,
		(segments->count - at) * sizeof(struct segment *));
	segments->list[at] = segment;
	segments->count++;
	return segment;
}

struct tape_file *segments_remove(struct segments *segments, struct segment *segment)
{
	uint32_t at = segments_position(segments, segment_sequence(segment));
	struct tape_file *tape = segment->tape;

	assert(at < segments->count && segments->list[at] == segment);
	assert(segment->live == 0 && segment->reads == 0);
	segments->count--;
	memmove(segments->list + at, segments->list + at + 1,
		(segments->count - at) * sizeof(struct segment *));
	free(segment);
	return tape;
}

bool segment_is_sparse(const struct segment *segment)
{
	uint64_t used = (uint64_t)segment->tape->end_pages * FORMAT_PAGE_BYTES;

	if (segment->jobs != 0)
		return segment->live < segment->jobs / 2;
	return (uint64_t)segment->live * SEGMENT_MESSAGE_BYTES < used / 2;
}

void segments_deinit(struct segments *segments)
{
	for (uint32_t i = 0; i < segments->count; i++) {
		os_file_close(segments->list[i]->tape->file.fd);
		free(segments->list[i]->tape);
		free(segments->list[i]);
	}
	while (segments->spare_count > 0)
		free(segments->spare[--segments->spare_count]);
	free(segments->list);
	*segments = (struct segments){ 0 };
}
