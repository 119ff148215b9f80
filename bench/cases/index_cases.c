/*
 * index_cases - the index of waiting jobs, as its owner writes it and as a tool reads it.
 */
#include <stdlib.h>

#include "bench/cases/cases.h"
#include "os/check.h"
#include "queue/index.h"

struct index_world {
	struct index index;
	struct index_view view;
	uint8_t uuid[16];
	uint32_t *slots; /* owned */
	uint64_t count, next;
};

static volatile uint64_t sink;

static void *begin_index(uint64_t argument)
{
	struct index_world *world = calloc(1, sizeof(*world));

	assert(world != NULL);
	os_random(world->uuid, sizeof(world->uuid));
	world->count = argument;
	world->slots = calloc(argument, sizeof(*world->slots));
	assert(world->slots != NULL);
	if (index_init(&world->index, world->uuid, 0, 1, argument + INDEX_EXTENT_SLOTS) != 0 ||
	    !index_reserve(&world->index, (uint32_t)argument))
		abort();
	for (uint64_t i = 0; i < argument; i++) {
		struct format_job job = { .type = FORMAT_JOB,
					  .state = FORMAT_WAITING,
					  .message = i,
					  .pending = 1,
					  .dest = (uint32_t)(i % 100) };

		world->slots[i] = index_take(&world->index, &job);
	}
	if (index_view_open(&world->view, world->uuid, 0) != 0)
		abort();
	return world;
}

static void end_index(void *context)
{
	struct index_world *world = context;

	index_view_close(&world->view);
	index_deinit(&world->index, world->uuid, 0);
	free(world->slots);
	free(world);
}

/* What `stafette queue --count --domain` does. */
static uint64_t run_scan(void *context)
{
	struct index_world *world = context;
	uint64_t count = index_view_count(&world->view), found = 0;

	for (uint64_t slot = 0; slot < count; slot++) {
		struct format_job job;

		if (index_read(&world->view, slot, &job))
			found += job.state == FORMAT_WAITING && job.dest == 7;
	}
	sink += found;
	return count;
}

static uint64_t run_store(void *context)
{
	struct index_world *world = context;

	for (int i = 0; i < 64; i++) {
		uint32_t slot = world->slots[world->next++ % world->count];
		struct format_job job = *index_job(&world->index, slot);

		job.attempts++;
		index_store(&world->index, slot, &job);
	}
	return 64;
}

const struct micro_case micro_index_cases[] = {
	{ "queue/index_scan_1M", begin_index, run_scan, end_index, 1000000, 64 },
	{ "queue/index_store_1M", begin_index, run_store, end_index, 1000000, 0 },
	{ 0 },
};
