/*
 * clock - see clock.h.
 */
#include "tests/sim/clock.h"

#include "os/check.h"
#include "os/os.h"
#include "os/prng.h"
#include "tests/sim/arena.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/kernel.h"
#include "tests/sim/story.h"
#include "tests/sim/weather.h"

#define WALL_AT_START_US (INT64_C(1767225600) * OS_US_PER_S) /* 2026-01-01 */

#define MINUTE_US (60 * INT64_C(1000000))
#define HOUR_US	  (60 * MINUTE_US)
#define DAY_US	  (24 * HOUR_US)

/* A step that queue/expiry.h believes: while it runs, and at a start, which goes by what was on the
 * disk last. The rest is for drift, and for how old that can be when journals are damaged. */
#define STEP_US	   (HOUR_US + 5 * MINUTE_US)
#define ABSENCE_US (DAY_US + 2 * HOUR_US)
/* Within these no start can have taken a wrong clock for the right one. */
#define UNMOVED_US (50 * MINUTE_US)

#define LEAP_US_MAX (90 * DAY_US)

#define NOTED_NS   (4 * SIM_S)	/* a tick, a write that is under way, and that of the MARK */
#define SETTLED_NS (10 * SIM_S) /* the daemon has written what time it is */
#define MINUTE_NS  (60 * SIM_S)
#define AGAIN_NS   MINUTE_NS
#define PASS_NS	   (6 * 3600 * SIM_S) /* all else has come to its end */

enum {
	LEAP_DOUBLINGS = 12,
	STRETCHES_MAX = 64,
	SEQUENCE = 2, /* story.h; weather.c has another */
};

enum clock_state {
	CLOCK_RIGHT,
	CLOCK_WRONG,
	CLOCK_UNVOUCHED, /* right again; nobody has said so */
};

/* Nobody has set the clock in it. It ends with the next one. */
struct stretch {
	uint64_t begin_ns;
	int64_t error_us; /* at its beginning */
	bool believable;
};

static struct {
	struct prng chance;
	enum clock_state state;
	bool synchronised;
	bool noted; /* for sure, on the disk, that it is in doubt */
	uint32_t leaps_left;
	int64_t ahead_us;	       /* the most that it ever was */
	int64_t lowest_us, highest_us; /* of the errors that any stream may ever have believed in */
	uint32_t count;
	struct stretch stretches[STRETCHES_MAX];
} * wall; /* in the arena */

void clock_create(void)
{
	wall = arena_alloc(sizeof(*wall));
	wall->chance = story_sequence(SEQUENCE);
	wall->synchronised = true;
	wall->leaps_left = weather()->clock_leaps;
	wall->count = 1;
	wall->stretches[0] = (struct stretch){ .begin_ns = sim_now(), .believable = true };
}

static uint64_t draw_between(uint64_t least, uint64_t most)
{
	return least + prng_below(&wall->chance, most - least + 1);
}

/* ── what it shows ────────────────────────────────────────────────────────────────── */

static int64_t shown_us(const struct stretch *stretch, uint64_t at_ns)
{
	int64_t passed_us = (int64_t)((at_ns - stretch->begin_ns) / SIM_US);

	return WALL_AT_START_US + (int64_t)(at_ns / SIM_US) + stretch->error_us +
	       passed_us * weather()->clock_drift_ppm / 1000000;
}

static struct stretch *last_stretch(void)
{
	return &wall->stretches[wall->count - 1];
}

static int64_t error_us(void)
{
	return shown_us(last_stretch(), sim_now()) - WALL_AT_START_US -
	       (int64_t)(sim_now() / SIM_US);
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ shown_us(last_stretch(), sim_now()) };
}

bool os_clock_synchronised(void)
{
	return wall->synchronised;
}

static void trace_step(int64_t to_us)
{
	sim_trace("the wall clock jumps by %lld ms", (long long)(to_us - error_us()) / 1000);
}

/* All of them are believed, and the ledger does not ask for them: no history is kept. */
void clock_jump_to(int64_t to_us)
{
	assert(wall->count == 1);
	trace_step(to_us);
	wall->stretches[0] =
		(struct stretch){ .begin_ns = sim_now(), .error_us = to_us, .believable = true };
}

/* ── what may be believed of it ───────────────────────────────────────────────────── */

static void believe(void)
{
	int64_t now_us = error_us();

	last_stretch()->believable = true;
	wall->lowest_us = now_us < wall->lowest_us ? now_us : wall->lowest_us;
	wall->highest_us = now_us > wall->highest_us ? now_us : wall->highest_us;
}

/* Whoever believes in any error between the extremes may follow a step of `step_us`. That is more
 * than the daemon does: which of them each stream believes in, and what of it was on the disk at a
 * crash, is not asked. */
static void believe_within(int64_t step_us)
{
	int64_t now_us = error_us();

	if (now_us >= wall->lowest_us - step_us && now_us <= wall->highest_us + step_us)
		believe();
}

static void begin_stretch(int64_t to_us)
{
	if (last_stretch()->believable)
		believe(); /* it was followed as it drifted */
	assert(wall->count < STRETCHES_MAX);
	wall->stretches[wall->count++] =
		(struct stretch){ .begin_ns = sim_now(), .error_us = to_us };
}

/* Streams that start believe more than those that run. */
static void set_to(int64_t to_us)
{
	trace_step(to_us);
	begin_stretch(to_us);
	believe_within(kernel_is_ready() ? STEP_US : ABSENCE_US);
}

static uint64_t end_of(const struct stretch *stretch)
{
	return stretch == last_stretch() ? SIM_NEVER : stretch[1].begin_ns;
}

/* The least that it showed when the message may have come, and the most that was believed since
 * then: which of the two was first is not asked. */
bool clock_may_have_passed(uint64_t from_ns, uint64_t until_ns, uint64_t now_ns, uint32_t seconds)
{
	int64_t least_us = INT64_MAX, most_us = INT64_MIN;

	for (uint32_t i = 0; i < wall->count; i++) {
		const struct stretch *at = &wall->stretches[i];
		uint64_t begin_ns = at->begin_ns > from_ns ? at->begin_ns : from_ns;
		uint64_t end_ns = end_of(at) < now_ns ? end_of(at) : now_ns;

		if (begin_ns > end_ns)
			continue;
		if (begin_ns <= until_ns && shown_us(at, begin_ns) < least_us)
			least_us = shown_us(at, begin_ns);
		if (at->believable && shown_us(at, end_ns) > most_us)
			most_us = shown_us(at, end_ns);
	}
	return most_us > least_us && most_us - least_us >= (int64_t)seconds * OS_US_PER_S;
}

bool clock_has_leapt(uint64_t from_ns, uint64_t until_ns)
{
	for (uint32_t i = 1; i < wall->count; i++)
		if (wall->stretches[i].begin_ns >= from_ns &&
		    wall->stretches[i].begin_ns <= until_ns)
			return true;
	return false;
}

/* ── leaps ────────────────────────────────────────────────────────────────────────── */

static void leap(void)
{
	int64_t least_us = HOUR_US << prng_below(&wall->chance, LEAP_DOUBLINGS);
	int64_t by_us = (int64_t)draw_between((uint64_t)least_us, 2 * (uint64_t)least_us);

	by_us = by_us < LEAP_US_MAX ? by_us : LEAP_US_MAX;
	wall->leaps_left--;
	wall->noted = false;
	wall->state = CLOCK_WRONG;
	wall->synchronised = false;
	set_to(prng_below(&wall->chance, 2) == 0 ? by_us : -by_us);
	if (error_us() > wall->ahead_us)
		wall->ahead_us = error_us();
}

/* Nothing has kept the daemon from writing what it was to write, or took it from the disk again. */
static bool all_is_written(void)
{
	return !weather()->tight_disk && weather()->read_fails == 0 &&
	       weather()->memory_fails == 0 && disk_failures() + disk_flips() == 0;
}

/* The daemon was there when it leapt, and has had time to note it. A step back is noted later:
 * stream_append_mark(). */
static void on_noted(struct sim_event *event)
{
	(void)event;
	wall->noted =
		wall->state == CLOCK_WRONG && error_us() > wall->highest_us && kernel_is_ready();
}

/* By nobody's word it goes on only where no start can have believed in the wrong time. The operator
 * speaks in the last life alone: a crash may take his word, and he would not say it again. */
static void vouch(void)
{
	uint64_t lot = weather_is_clear() ? prng_below(&wall->chance, 3) : 0;

	wall->state = CLOCK_RIGHT;
	if (lot == 2 && wall->lowest_us > -UNMOVED_US && wall->highest_us < UNMOVED_US) {
		sim_trace("nobody says that the wall clock is right");
	} else if (lot == 1) {
		sim_trace("the operator says that the wall clock is right");
		disk_put("/spool/time-confirmed", "", 0);
	} else {
		sim_trace("the wall clock is synchronised");
		wall->synchronised = true;
	}
}

static void plan_change(struct sim_event *event)
{
	const uint64_t life_ns = weather()->life_ms * SIM_MS;

	if (wall->state == CLOCK_RIGHT) {
		if (wall->leaps_left > 0 && !weather_is_clear())
			sim_after(event, draw_between(1, draw_between(1, life_ns)));
	} else if (weather_is_clear()) {
		sim_after(event, draw_between(MINUTE_NS, 30 * MINUTE_NS));
	} else {
		sim_after(event, draw_between(SETTLED_NS, SETTLED_NS + life_ns));
	}
}

/* It is not set back before the daemon has noted what it shows: what was tried by it would not be
 * suspected by the next start. Nor does it leap before there is a spool, which would be born in the
 * wrong time. */
static void on_change(struct sim_event *event)
{
	static struct sim_event noted = { .run = on_noted };

	if (wall->state == CLOCK_RIGHT ? !kernel_was_ready() : !kernel_is_ready()) {
		sim_after(event, AGAIN_NS);
		return;
	}
	switch (wall->state) {
	case CLOCK_RIGHT:
		leap();
		sim_after(&noted, NOTED_NS);
		break;
	case CLOCK_WRONG:
		wall->state = CLOCK_UNVOUCHED;
		set_to(0);
		break;
	case CLOCK_UNVOUCHED:
		vouch();
		break;
	}
	plan_change(event);
}

/* Whatever was put off until then is due, and whatever was accepted then expires. */
static void on_pass(struct sim_event *event)
{
	(void)event;
	sim_trace("many days pass at once");
	wall->synchronised = true;
	set_to(wall->ahead_us + DAY_US);
	believe();
}

/* Between two lives, and at the latest before the last one: each run with leaps has one. */
static void leap_while_down(void)
{
	bool now = weather_is_clear() ? wall->leaps_left == weather()->clock_leaps
				      : prng_below(&wall->chance, 4) == 0;

	if (now && wall->leaps_left > 0 && wall->state == CLOCK_RIGHT && kernel_was_ready())
		leap();
}

void clock_live(void)
{
	static struct sim_event change = { .run = on_change }, pass = { .run = on_pass };

	if (weather()->clock_leaps == 0)
		return;
	leap_while_down();
	if (!last_stretch()->believable) {
		begin_stretch(error_us());
		believe_within(wall->noted && all_is_written() ? STEP_US : ABSENCE_US);
	}
	plan_change(&change);
	if (weather_is_clear() && wall->ahead_us > 0)
		sim_after(&pass, PASS_NS);
}
