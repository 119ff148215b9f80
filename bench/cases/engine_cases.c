/*
 * engine_cases - the timing wheel with many timers in it.
 */
#include <stdlib.h>

#include "bench/cases/cases.h"
#include "engine/timer.h"
#include "os/check.h"

struct wheel_world {
	struct timer_wheel wheel;
	struct timer *timers;
	uint64_t count, next, fired;
	struct os_mono now;
	uint64_t dice;
};

static struct wheel_world *firing;

static void on_fire(struct timer *timer)
{
	(void)timer;
	firing->fired++;
}

static uint64_t random_ms(struct wheel_world *world)
{
	world->dice = world->dice * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return world->dice >> 33;
}

/* `argument` timers, up to ten minutes ahead. */
static void *begin_wheel(uint64_t argument)
{
	struct wheel_world *world = calloc(1, sizeof(*world));

	assert(world != NULL);
	world->count = argument;
	world->timers = calloc(argument, sizeof(*world->timers));
	assert(world->timers != NULL);
	world->now = os_mono_now();
	world->dice = 1;
	timer_wheel_init(&world->wheel, world->now);
	for (uint64_t i = 0; i < argument; i++) {
		timer_init(&world->timers[i], on_fire);
		timer_set(&world->wheel, &world->timers[i],
			  os_mono_add_ms(world->now, random_ms(world) % 600000));
	}
	firing = world;
	return world;
}

/* What a connection does with its deadline: moves it. */
static uint64_t run_move(void *context)
{
	struct wheel_world *world = context;

	for (int i = 0; i < 64; i++) {
		struct timer *timer = &world->timers[world->next++ % world->count];

		timer_set(&world->wheel, timer,
			  os_mono_add_ms(world->now, 300000 + random_ms(world) % 1000));
	}
	return 64;
}

/* A turn: what is due fires, and is set again. */
static uint64_t run_fire(void *context)
{
	struct wheel_world *world = context;
	uint64_t before = world->fired;

	world->now = os_mono_add_ms(world->now, 10);
	timer_wheel_advance(&world->wheel, world->now);
	for (uint64_t i = before; i < world->fired; i++) {
		struct timer *timer = &world->timers[world->next++ % world->count];

		timer_set(&world->wheel, timer,
			  os_mono_add_ms(world->now, random_ms(world) % 60000));
	}
	return world->fired - before;
}

static void end_wheel(void *context)
{
	struct wheel_world *world = context;

	free(world->timers);
	free(world);
}

const struct micro_case micro_engine_cases[] = {
	{ "engine/timer_move_10k", begin_wheel, run_move, end_wheel, 10000, 0 },
	{ "engine/timer_move_1M", begin_wheel, run_move, end_wheel, 1000000, 0 },
	{ "engine/timer_fire_100k", begin_wheel, run_fire, end_wheel, 100000, 0 },
	{ 0 },
};
