/*
 * weather - draws what a run is like. Each fault is there or not, and its rate log-uniform: most
 * runs are mild in most respects, so that rare pairs of faults meet without the noise of all
 * others.
 */
#include "tests/sim/weather.h"

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/fiber.h"
#include "tests/sim/story.h"

enum {
	WINDOWS_PERCENT = 40,
	LEAPS_ONE_IN = 15, /* of the runs */
	LEAPS_MAX = 3,
	SEQUENCE = 1, /* story.h; clock.c has another */
};

enum mood { MOOD_CALM, MOOD_MIXED, MOOD_STORM };

static struct {
	struct weather drawn;
	uint32_t life;
	bool clear;
} * sky; /* in the arena */

const struct weather *weather(void)
{
	assert(sky);
	return &sky->drawn;
}

uint32_t weather_life(void)
{
	return sky->life;
}

void weather_next_life(void)
{
	sky->life++;
}

bool weather_is_clear(void)
{
	return sky->clear;
}

/* least .. most, each power of two as likely as another. */
static uint32_t log_between(uint32_t least, uint32_t most)
{
	uint32_t doublings = 0, base;

	assert(least > 0 && least <= most);
	while ((uint64_t)least << (doublings + 1) <= most)
		doublings++;
	base = least << sim_below(doublings + 1);
	return (uint32_t)sim_between(base, 2 * (uint64_t)base < most ? 2 * (uint64_t)base : most);
}

/* A rate that is not 0 in `percent` of the mixed runs. */
static uint32_t rate(enum mood mood, uint32_t percent, uint32_t least, uint32_t most)
{
	uint32_t value = log_between(least, most);
	bool here = sim_below(100) < percent;

	if (mood == MOOD_CALM || (mood == MOOD_MIXED && !here))
		return 0;
	return value;
}

static void draw_run(struct weather *to)
{
	to->lives = (uint32_t)sim_between(1, 5);
	to->life_ms = log_between(200, 200000);
	to->crash_permille = sim_below(8) == 0 ? 0 : (uint32_t)sim_between(500, 1000);
	to->power_permille = sim_below(8) == 0 ? 0 : (uint32_t)sim_between(300, 1000);
	to->early_permille = sim_below(3) == 0 ? (uint32_t)sim_between(50, 500) : 0;
	to->down_ms = log_between(1, 60000);
	to->messages = log_between(40, 300);
	to->clients = log_between(1, 16);
	to->domains = (uint32_t)sim_between(1, 8);
	to->recipients_max = sim_below(3) == 0 ? 100 : (uint32_t)sim_between(1, 6);
	to->body_bytes_max = log_between(200, 16384);
	to->near_permille = sim_below(3) == 0 ? (uint32_t)sim_between(100, 900) : 0;
	to->big_permille = sim_below(4) == 0 ? log_between(2, 40) : 0;
	for (uint32_t i = 0; i < array_count(to->workers); i++)
		to->workers[i] = sim_below(2) == 0 ? 1 : (uint32_t)sim_between(1, 4);
}

/* In a part of the runs much goes through small files in many lives on few streams: segments fill,
 * are evacuated and recycled, journals are cleaned, and crashes come near all of that. */
static void draw_windows(struct weather *to)
{
	to->lives = (uint32_t)sim_between(3, 10);
	to->life_ms = log_between(1000, 60000);
	to->crash_permille = (uint32_t)sim_between(500, 1000);
	to->near_permille = 800;
	to->down_ms = log_between(1, 5000);
	to->messages = log_between(60, 200);
	to->recipients_max = (uint32_t)sim_between(1, 4);
	to->body_bytes_max = log_between(16384, 120000);
	to->big_permille = sim_below(3) == 0 ? log_between(10, 80) : 0;
	for (uint32_t i = 0; i < array_count(to->workers); i++)
		to->workers[i] = sim_below(4) == 0 ? 2 : 1;
}

/* In some of those syncs fail often, and what was not written stays in the cache: also behind a
 * kill that comes before the daemon has answered the failure, up to a power cut. */
static void draw_brittle(struct weather *to)
{
	to->sync_fails = log_between(1000, 20000);
	to->no_direct = 1;
	to->power_permille = 500;
	to->fails_permille = 500;
}

static void draw_disk(struct weather *to, enum mood mood)
{
	bool rough = sim_below(5) == 0; /* a disk that fails makes short lives: not in every run */

	to->tight_disk = mood != MOOD_CALM && sim_below(10) == 0;
	to->disk_bytes = (uint64_t)(to->tight_disk ? sim_between(24, 64) : 1024) << 20;
	to->write_fails = rough ? rate(mood, 50, 20, 5000) : 0;
	to->sync_fails = rough ? rate(mood, 60, 20, 5000) : 0;
	to->read_fails = rough ? rate(mood, 40, 20, 5000) : 0;
	to->name_fails = sim_below(6) == 0 ? rate(mood, 100, 100, 10000) : 0;
	to->bad_spells = sim_below(8) == 0 ? rate(mood, 100, 1000, 50000) : 0;
	to->bit_flips = sim_below(3) == 0 ? rate(mood, 30, 20, 20000) : 0;
	to->short_writes = rate(mood, 30, 1000, 200000);
	to->no_direct = sim_below(4) == 0;
	to->on_btrfs = sim_below(6) == 0;
	to->deaths = to->on_btrfs ? rate(mood, 100, 5000, 100000) : 0;
	to->disk_us = log_between(5, 2000);
	to->disk_slow_us = to->disk_us * log_between(1, 200);
}

/* Up to what NTP corrects, and in a few runs a clock that is broken. */
static int32_t draw_drift(void)
{
	int32_t ppm = (int32_t)(sim_below(8) == 0 ? log_between(1000, 20000) : log_between(5, 500));

	return sim_below(2) == 0 ? ppm : -ppm;
}

static void draw_network(struct weather *to, enum mood mood)
{
	to->net_us = log_between(20, 100000);
	to->resets = rate(mood, 40, 50, 20000);
	to->stalls = rate(mood, 20, 500, 50000);
	to->split_permille = rate(mood, 50, 10, 900);
	to->connect_fails = rate(mood, 30, 1000, 200000);
	to->peer_faults = rate(mood, 40, 500, 100000);
	to->drop_at_dot = rate(mood, 40, 1000, 200000);
	to->dns_fails = rate(mood, 30, 1000, 200000);
	to->dns_changes = rate(mood, 20, 10000, 400000);
	to->clock_jumps = rate(mood, 15, 100, 50000);
}

/* The small jumps would set it right. */
static void draw_leaps(struct weather *to)
{
	struct prng chance = story_sequence(SEQUENCE);

	if (prng_below(&chance, LEAPS_ONE_IN) > 0)
		return;
	to->clock_jumps = 0;
	to->clock_leaps = 1 + (uint32_t)prng_below(&chance, LEAPS_MAX);
	sim_trace("weather: the wall clock leaps %u times", to->clock_leaps);
}

void weather_draw(void)
{
	uint64_t lot = sim_below(100);
	bool windows;
	enum mood mood = lot < 15 ? MOOD_CALM : lot < 96 ? MOOD_MIXED : MOOD_STORM;

	sky = arena_alloc(sizeof(*sky));
	draw_run(&sky->drawn);
	windows = sim_below(100) < WINDOWS_PERCENT;
	if (windows)
		draw_windows(&sky->drawn);
	draw_disk(&sky->drawn, mood);
	if (windows && sim_below(4) == 0)
		draw_brittle(&sky->drawn);
	draw_network(&sky->drawn, mood);
	sky->drawn.clock_drift_ppm = sim_below(4) == 0 ? draw_drift() : 0;
	sky->drawn.memory_fails = sim_below(5) == 0 ? rate(mood, 60, 20, 50000) : 0;
	sim_trace("weather: lives %u of %u ms, %u messages, %u clients, %u domains",
		  sky->drawn.lives, sky->drawn.life_ms, sky->drawn.messages, sky->drawn.clients,
		  sky->drawn.domains);
	sim_trace("weather: names change %u times in a million, the clock drifts by %d ppm",
		  sky->drawn.dns_changes, sky->drawn.clock_drift_ppm);
	draw_leaps(&sky->drawn);
}

/* What breaks is over; how the machine is made stays. */
void weather_clear(void)
{
	struct weather *now = &sky->drawn;

	sky->clear = true;
	now->tight_disk = false;
	now->disk_bytes = UINT64_C(4) << 30;
	now->write_fails = now->sync_fails = now->read_fails = now->bit_flips = 0;
	now->name_fails = now->bad_spells = now->deaths = now->short_writes = 0;
	now->resets = now->stalls = now->split_permille = now->connect_fails = 0;
	now->peer_faults = now->drop_at_dot = now->dns_fails = now->dns_changes = 0;
	now->clock_jumps = now->memory_fails = 0;
}
