/*
 * sim_stage - for tests of the simulator's network and peers: real fibers and time, a weather of
 * the test's own, and a loop that is the daemon's.
 */
#ifndef UNIT_SIM_STAGE_H
#define UNIT_SIM_STAGE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim/arena.h"
#include "tests/sim/net.h"
#include "tests/sim/story.h"
#include "tests/sim/weather.h"

static struct weather sky;
static bool clear_sky;

const struct weather *weather(void)
{
	return &sky;
}

bool weather_is_clear(void)
{
	return clear_sky;
}

uint32_t weather_life(void)
{
	return 0;
}

void os_file_close(int fd)
{
	fail_msg("there are no files here: %d", fd);
}

struct os_mono os_mono_now(void)
{
	return (struct os_mono){ sim_now() };
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ 0 };
}

/* ── a story of its own for each test ── */

static int stage_setup(void **state)
{
	static uint64_t seed;

	if (seed == 0)
		arena_create(16 << 20);
	else
		arena_reset();
	story_tellers("the test", "none", getenv("TRACE") != NULL);
	story_begin(++seed);
	sky = (struct weather){ .net_us = 100 };
	clear_sky = false;
	*state = NULL;
	return 0;
}

/* Runs `play` as a fiber, and all that comes of it, until nothing is left to happen. */
static void stage_run(void (*play)(void *context), void *context)
{
	fiber_start("test", play, context);
	sim_run();
}

/* Does it end in a finding? */
static bool stage_finds(void (*play)(void *context), void *context)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(1);
		stage_run(play, context);
		_exit(0);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == STORY_FINDING;
}

static struct os_address stage_address(const char *text, uint16_t port)
{
	struct os_address address;

	assert_true(os_address_parse(text, port, &address));
	return address;
}

#endif
