/* The timing wheel, against what a sorted list would do. */
#include "engine/timer.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "os/prng.h"

#define TICK_MS 4

static struct timer_wheel wheel;
static struct os_mono now;

struct probe {
	struct timer timer;
	struct os_mono due;
	int fired;
};

static void on_probe(struct timer *timer)
{
	struct probe *probe = container_of(timer, struct probe, timer);

	assert_true(now.ns >= probe->due.ns);
	probe->fired++;
}

static int set_up(void **state)
{
	(void)state;
	now = (struct os_mono){ 12345 * OS_NS_PER_S };
	timer_wheel_init(&wheel, now);
	return 0;
}

static void probe_set(struct probe *probe, uint64_t ms)
{
	if (!probe->timer.fire)
		timer_init(&probe->timer, on_probe);
	probe->due = os_mono_add_ms(now, ms);
	timer_set(&wheel, &probe->timer, probe->due);
}

static void advance(uint64_t ms)
{
	now = os_mono_add_ms(now, ms);
	timer_wheel_advance(&wheel, now);
}

static void a_timer_fires_once_and_not_early(void **state)
{
	(void)state;
	static const uint64_t delays_ms[] = { 0,	1,	  4,	    63,
					      255,	256,	  257,	    16383,
					      16384,	16388,	  1000000,  1048576,
					      67108864, 67108868, 86400000, 4000000000 };

	for (size_t i = 0; i < array_count(delays_ms); i++) {
		struct probe probe = { 0 };

		set_up(NULL);
		probe_set(&probe, delays_ms[i]);
		if (delays_ms[i] > 0) {
			advance(delays_ms[i] - 1);
			assert_int_equal(probe.fired, 0);
		}
		advance(1 + 2 * TICK_MS);
		assert_int_equal(probe.fired, 1);
		advance(100000);
		assert_int_equal(probe.fired, 1);
	}
}

static void a_cancelled_timer_never_fires(void **state)
{
	(void)state;
	struct probe probe = { 0 };

	probe_set(&probe, 5000);
	timer_cancel(&wheel, &probe.timer);
	timer_cancel(&wheel, &probe.timer);
	advance(10000);
	assert_int_equal(probe.fired, 0);
	assert_true(timer_wheel_next(&wheel).ns == UINT64_MAX);
}

static void a_moved_timer_fires_at_its_new_time(void **state)
{
	(void)state;
	struct probe probe = { 0 };

	probe_set(&probe, 1000);
	probe_set(&probe, 300000);
	advance(299999);
	assert_int_equal(probe.fired, 0);
	advance(10);
	assert_int_equal(probe.fired, 1);
}

static struct probe chained;

static void on_chain(struct timer *timer)
{
	timer_set(&wheel, timer, now);
	chained.fired++;
}

static void a_timer_set_for_now_by_its_own_firing_ends_the_advance(void **state)
{
	(void)state;
	chained = (struct probe){ 0 };
	timer_init(&chained.timer, on_chain);
	timer_set(&wheel, &chained.timer, now);
	advance(40);
	assert_true(chained.fired >= 1 && chained.fired <= 12);
	timer_cancel(&wheel, &chained.timer);
}

/* Thousands of timers at random times, moved and cancelled at random, in random steps; the
 * wheel never sleeps past one. */
static void random_timers_fire_in_time(void **state)
{
	(void)state;
	enum { PROBES = 2000, STEPS = 3000 };
	static struct probe probes[PROBES];
	struct prng prng = { 42 };

	for (int i = 0; i < PROBES; i++)
		timer_init(&probes[i].timer, on_probe);
	for (int step = 0; step < STEPS; step++) {
		struct probe *probe = &probes[prng_below(&prng, PROBES)];
		struct os_mono next;

		probe_set(probe, prng_below(&prng, UINT64_C(1) << prng_below(&prng, 28)));
		probe->fired = 0;
		if (prng_below(&prng, 4) == 0)
			timer_cancel(&wheel, &probes[prng_below(&prng, PROBES)].timer);
		next = timer_wheel_next(&wheel);
		for (int i = 0; i < PROBES; i++)
			if (timer_is_set(&probes[i].timer))
				assert_true(next.ns <=
					    probes[i].due.ns + 2 * TICK_MS * OS_NS_PER_MS);
		advance(prng_below(&prng, UINT64_C(1) << prng_below(&prng, 20)));
		for (int i = 0; i < PROBES; i++)
			if (timer_is_set(&probes[i].timer))
				assert_true(probes[i].due.ns + 2 * TICK_MS * OS_NS_PER_MS > now.ns);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_timer_fires_once_and_not_early, set_up),
		cmocka_unit_test_setup(a_cancelled_timer_never_fires, set_up),
		cmocka_unit_test_setup(a_moved_timer_fires_at_its_new_time, set_up),
		cmocka_unit_test_setup(a_timer_set_for_now_by_its_own_firing_ends_the_advance,
				       set_up),
		cmocka_unit_test_setup(random_timers_fire_in_time, set_up),
	};

	return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
