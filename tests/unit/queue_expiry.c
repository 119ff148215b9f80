/* expiry: which steps of the wall clock stop mail from being given up, and what ends that. */
#include "queue/expiry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/check.h"

#define SECOND	INT64_C(1000000)
#define MINUTE	(60 * SECOND)
#define HOUR	(60 * MINUTE)
#define DAY	(24 * HOUR)
#define WALL_US (20000 * DAY) /* when all of it begins */
#define MONO_US (3 * HOUR)

enum { EVENTS_MAX = 6 };

static struct os_mono mono_at(int64_t us)
{
	return (struct os_mono){ (uint64_t)(MONO_US + us) * 1000 };
}

static struct os_wall wall_at(int64_t us)
{
	return (struct os_wall){ WALL_US + us };
}

/* A second passes at each event; `step_us` is what the wall clock does beside it. */
static const struct expiry_case {
	const char *name;
	int64_t absence_us; /* from the last durable time to the start; 0: a new spool */
	struct expiry_event {
		int64_t step_us;
		bool confirm;
		bool may; /* expire, afterwards */
	} events[EVENTS_MAX];
	int event_count;
} cases[] = {
	{ "a new spool believes its clock", 0, { { 0, false, true } }, 1 },
	{ "a start after some hours believes it", 5 * HOUR, { { 0, false, true } }, 1 },
	{ "a start after two days does not", 2 * DAY, { { 0, false, false } }, 1 },
	{ "nor does one in the past", -2 * DAY, { { 0, false, false } }, 1 },
	{ "a start in doubt ends with a confirmation",
	  30 * DAY,
	  { { 0, false, false }, { 0, true, true }, { 0, false, true } },
	  3 },
	{ "a start in doubt ends when the clock is set back",
	  30 * DAY,
	  { { 0, false, false }, { -30 * DAY, false, true } },
	  2 },
	{ "a step of less than an hour is followed", 0, { { 59 * MINUTE, false, true } }, 1 },
	{ "many small steps are followed",
	  0,
	  { { 50 * MINUTE, false, true },
	    { 50 * MINUTE, false, true },
	    { 50 * MINUTE, false, true } },
	  3 },
	{ "a step of more than an hour is doubted", 0, { { 61 * MINUTE, false, false } }, 1 },
	{ "a step back of more than an hour is doubted", 0, { { -61 * MINUTE, false, false } }, 1 },
	{ "doubt lasts while the clock stays wrong",
	  0,
	  { { DAY, false, false }, { 0, false, false }, { MINUTE, false, false } },
	  3 },
	{ "doubt ends when the clock is back",
	  0,
	  { { DAY, false, false }, { -DAY + 30 * MINUTE, false, true }, { 0, false, true } },
	  3 },
	{ "doubt ends with a confirmation", 0, { { DAY, false, false }, { 0, true, true } }, 2 },
	{ "after a confirmation the old time would be a step",
	  0,
	  { { DAY, false, false }, { 0, true, true }, { -DAY, false, false } },
	  3 },
};

static void test_case(void **state)
{
	const struct expiry_case *row = *state;
	struct expiry_last last = { 0 };
	struct expiry expiry;
	int64_t passed_us = 0, off_us = 0;
	bool doubted = false;

	if (row->absence_us != 0)
		expiry_last_take(&last, WALL_US - row->absence_us, 0);
	expiry_start(&expiry, last, mono_at(0), wall_at(0));
	for (int i = 0; i < row->event_count; i++) {
		const struct expiry_event *event = &row->events[i];
		bool changed;

		passed_us += SECOND;
		off_us += event->step_us;
		if (event->confirm)
			expiry_confirm(&expiry, mono_at(passed_us), wall_at(passed_us + off_us));
		/* Right at the step, before anybody has looked. */
		assert_int_equal(
			expiry_may(&expiry, mono_at(passed_us), wall_at(passed_us + off_us)),
			event->may);
		changed = expiry_look(&expiry, mono_at(passed_us), wall_at(passed_us + off_us));
		assert_int_equal(changed, doubted == event->may);
		doubted = !event->may;
		assert_int_equal(expiry.doubted, doubted);
		assert_int_equal(
			expiry_may(&expiry, mono_at(passed_us), wall_at(passed_us + off_us)),
			event->may);
	}
}

/* What the run leaves on the disk by the last of its clocks. */
static struct expiry_last left_by(const struct expiry *expiry, int64_t mono_us, int64_t wall_us)
{
	struct expiry_last last = { 0 };

	expiry_last_take(&last, wall_at(wall_us).us, expiry_believed_us(expiry, mono_at(mono_us)));
	return last;
}

/* Each start is given what the run before it believed: also where it would believe such a step if
 * that run had not doubted it. */
static void doubt_outlives_a_start(void **state)
{
	static const int64_t steps_us[] = { 30 * DAY, 5 * HOUR, -5 * HOUR };

	(void)state;
	for (size_t row = 0; row < array_count(steps_us); row++) {
		int64_t off_us = steps_us[row];
		struct expiry_last last;
		struct expiry expiry;

		expiry_start(&expiry, (struct expiry_last){ 0 }, mono_at(0), wall_at(0));
		expiry_look(&expiry, mono_at(SECOND), wall_at(SECOND + off_us));
		for (int i = 0; i < 3; i++) {
			last = left_by(&expiry, 2 * SECOND, 2 * SECOND + off_us);
			assert_int_equal(last.believed_us, wall_at((i + 1) * 2 * SECOND).us);
			assert_true(last.doubted);
			/* The machine starts, too: its monotonic clock does so anew. */
			off_us += 2 * SECOND;
			expiry_start(&expiry, last, mono_at(0), wall_at(off_us));
			assert_false(expiry_may(&expiry, mono_at(0), wall_at(off_us)));
		}
		expiry_confirm(&expiry, mono_at(SECOND), wall_at(SECOND + off_us));
		last = left_by(&expiry, 2 * SECOND, 2 * SECOND + off_us);
		assert_false(last.doubted);
		expiry_start(&expiry, last, mono_at(0), wall_at(5 * HOUR + off_us));
		assert_true(expiry_may(&expiry, mono_at(0), wall_at(5 * HOUR + off_us)));
	}
}

static void the_latest_record_of_the_clock_stands(void **state)
{
	struct expiry_last last = { 0 };

	(void)state;
	expiry_last_take(&last, wall_at(5 * HOUR).us, wall_at(0).us);
	assert_true(last.doubted);
	expiry_last_take(&last, wall_at(SECOND).us, wall_at(SECOND).us);
	assert_false(last.doubted);
	expiry_last_take(&last, wall_at(5 * HOUR).us, wall_at(0).us);
	assert_false(last.doubted);
	assert_int_equal(last.believed_us, wall_at(SECOND).us);
	expiry_last_take(&last, INT64_MIN, INT64_MAX); /* nonsense, with a right checksum */
	assert_true(last.doubted);
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases) + 2] = {
		[array_count(cases)] = cmocka_unit_test(doubt_outlives_a_start),
		[array_count(cases) + 1] = cmocka_unit_test(the_latest_record_of_the_clock_stands),
	};

	for (size_t i = 0; i < array_count(cases); i++)
		tests[i] = (struct CMUnitTest){ .name = cases[i].name,
						.test_func = test_case,
						.initial_state = (void *)&cases[i] };
	return cmocka_run_group_tests_name("queue_expiry", tests, NULL, NULL);
}
