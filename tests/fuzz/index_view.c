/* Tools read an index that anything may have been written to: no slot and no name lies outside
 * of what is mapped. */
#include "queue/index.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A mapping of exactly the bytes: `used` and then units, from the input. */
static struct os_shared shared_of(const uint8_t *data, size_t size)
{
	size_t used = size < 8 ? size : 8, bytes = sizeof(struct index_header) + size - used;
	struct index_header *header = aligned_alloc(64, (bytes + 63) / 64 * 64);
	uint64_t count = 0;

	memset(header, 0, sizeof(*header));
	memcpy(&count, data, used);
	memcpy(header + 1, data + used, size - used);
	atomic_init(&header->used, count);
	return (struct os_shared){ .at = header, .bytes = bytes, .fd = -1 };
}

volatile uint64_t index_view_seen; /* so that all is really read */

static uint64_t sum(const char *bytes, size_t count)
{
	uint64_t all = 0;

	for (size_t i = 0; i < count; i++)
		all += (uint8_t)bytes[i];
	return all;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct index_view view = { .slots = shared_of(data, size), .names = shared_of(data, size) };
	const struct format_define *define;
	uint64_t all = 0, at = 0, before = 0;

	for (uint64_t slot = 0; slot < index_view_count(&view); slot++) {
		struct format_job job;

		if (index_read(&view, slot, &job))
			all += sum((const char *)&job, sizeof(job));
	}
	while ((define = index_view_name(&view, &at)) != NULL) {
		assert(at > before);
		all += sum((const char *)define, (at - before) * sizeof(*define));
		before = at;
	}
	index_view_seen = all;
	free(view.slots.at);
	free(view.names.at);
	return 0;
}
