/*
 * story - see story.h, and the second half of fiber.h.
 */
#include "tests/sim/story.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "tests/sim/arena.h"
#include "tests/sim/net.h"
#include "tests/sim/weather.h"

enum {
	TOLD_BYTES = 64 << 10,
	LINE_BYTES = 1024,
};

/* In the arena. */
struct story {
	uint64_t seed, now_ns, hash;
	struct prng chance, random;
	uint32_t told_bytes;
	char told[TOLD_BYTES];
};

static struct story *story;
static const char *program = "sim", *commit = "unknown";
static bool tracing;

void story_tellers(const char *program_said, const char *commit_said, bool trace)
{
	program = program_said;
	commit = commit_said;
	tracing = trace;
}

void story_begin(uint64_t seed)
{
	story = arena_alloc(sizeof(*story));
	story->seed = seed;
	story->now_ns = SIM_S; /* 0 is "at once" for a loop */
	story->chance.state = seed * 2 + 1;
	story->random.state = ~seed;
	prng_next(&story->chance);
	prng_next(&story->random);
}

/* ── time and hash ────────────────────────────────────────────────────────────────── */

uint64_t sim_now(void)
{
	return story->now_ns;
}

void story_set_now(uint64_t now_ns)
{
	assert(now_ns >= story->now_ns);
	story->now_ns = now_ns;
}

void story_mix(uint64_t what)
{
	story->hash = (story->hash ^ what) * 0x9e3779b97f4a7c15;
	story->hash ^= story->hash >> 29;
}

uint64_t story_hash(void)
{
	return story->hash ^ story->chance.state ^ story->random.state;
}

/* ── chance ───────────────────────────────────────────────────────────────────────── */

uint64_t sim_below(uint64_t limit)
{
	return prng_below(&story->chance, limit);
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
	assert(least <= most);
	return least + sim_below(most - least + 1);
}

bool sim_chance(uint32_t per_million)
{
	return per_million > 0 && sim_below(1000000) < per_million;
}

uint64_t story_random(void)
{
	return prng_next(&story->random);
}

struct prng story_sequence(uint64_t number)
{
	struct prng sequence = { story->seed * 2 + 1 };

	sequence.state = prng_next(&sequence) ^ number << 32;
	return sequence;
}

/* ── telling ──────────────────────────────────────────────────────────────────────── */

static void write_all(int fd, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t written = write(fd, bytes, count);

		if (written <= 0)
			return; /* nobody reads any more */
		bytes += written;
		count -= (size_t)written;
	}
}

void story_flush(void)
{
	write_all(STDOUT_FILENO, story->told, story->told_bytes);
	story->told_bytes = 0;
}

static void tell(const char *text)
{
	char line[LINE_BYTES + 64];
	int bytes = snprintf(line, sizeof(line), "%6u.%09u %u %-10s %s\n",
			     (unsigned)(sim_now() / SIM_S), (unsigned)(sim_now() % SIM_S),
			     weather_life(), fiber_name(fiber_self()), text);

	if (story->told_bytes + (uint32_t)bytes > sizeof(story->told))
		story_flush();
	memcpy(story->told + story->told_bytes, line, (size_t)bytes);
	story->told_bytes += (uint32_t)bytes;
}

void sim_trace(const char *format, ...)
{
	char text[LINE_BYTES];
	va_list list;
	int bytes;

	va_start(list, format);
	bytes = vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	if ((size_t)bytes >= sizeof(text))
		bytes = sizeof(text) - 1;
	story->hash = XXH3_64bits_withSeed(text, (size_t)bytes, story->hash);
	if (tracing)
		tell(text);
}

void sim_finding(const char *format, ...)
{
	char text[2 * LINE_BYTES], whole[3 * LINE_BYTES];
	va_list list;
	int bytes;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	bytes = snprintf(whole, sizeof(whole),
			 "FINDING seed %llu, commit %s: %s\n"
			 "    at %.6f s, in life %u, in \"%s\"\n"
			 "    again: SEED=%llu TRACE=1 %s\n",
			 (unsigned long long)story->seed, commit, text,
			 (double)sim_now() / (double)SIM_S, weather_life(),
			 fiber_name(fiber_self()), (unsigned long long)story->seed, program);
	story_flush();
	write_all(STDERR_FILENO, whole, (size_t)bytes);
	_exit(STORY_FINDING);
}

void sim_crash(enum sim_end end)
{
	sim_trace("%s", end == SIM_POWER_CUT ? "power cut" : "kill -9");
	net_end();
	_exit(end == SIM_POWER_CUT ? STORY_POWER_CUT : STORY_KILLED);
}
