/* The limits of sites that all workers share: one entry a site, found by all. Also run under
 * ThreadSanitizer. */
#include "engine/delivery/site_limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/os.h"

enum { WORKERS = 4, SITES = 300, ROUNDS = 200, LIMIT = 3 };

static struct site_limits *limits;
static _Atomic uint32_t started, beyond;

struct member {
	struct os_thread *thread;
	struct site_limit *found[SITES];
	uint64_t claimed;
};

/* As engine/delivery/site.c does it. */
static void claim_and_give_back(struct member *me, struct site_limit *limit)
{
	static _Atomic uint32_t used[SITES];
	uint32_t place = (uint32_t)atomic_load(&limit->key) - 1;

	if (atomic_fetch_add_explicit(&limit->connections, 1, memory_order_relaxed) < LIMIT) {
		if (atomic_fetch_add(&used[place], 1) >= LIMIT)
			atomic_fetch_add(&beyond, 1);
		me->claimed++;
		atomic_fetch_sub(&used[place], 1);
	}
	atomic_fetch_sub_explicit(&limit->connections, 1, memory_order_relaxed);
}

static void member_run(void *context)
{
	struct member *me = context;

	atomic_fetch_add(&started, 1);
	while (atomic_load(&started) < WORKERS)
		continue;
	for (uint32_t i = 0; i < SITES; i++)
		me->found[i] = site_limits_of(limits, i + 1);
	for (uint32_t round = 0; round < ROUNDS; round++)
		for (uint32_t i = 0; i < SITES; i++)
			claim_and_give_back(me, me->found[i]);
}

static void workers_find_the_same_entries_and_none_goes_beyond_the_limit(void **state)
{
	static struct member members[WORKERS];

	(void)state;
	limits = site_limits_create(SITES * 4);
	assert_non_null(limits);
	for (uint32_t i = 0; i < WORKERS; i++)
		assert_int_equal(
			os_thread_start(&members[i].thread, "member", member_run, &members[i]), 0);
	for (uint32_t i = 0; i < WORKERS; i++)
		os_thread_join(members[i].thread);
	for (uint32_t i = 0; i < SITES; i++) {
		for (uint32_t k = 1; k < WORKERS; k++)
			assert_ptr_equal(members[k].found[i], members[0].found[i]);
		assert_int_equal(atomic_load(&members[0].found[i]->key), i + 1);
		assert_int_equal(atomic_load(&members[0].found[i]->connections), 0);
	}
	assert_int_equal(atomic_load(&beyond), 0);
	assert_true(members[0].claimed > 0);
	site_limits_destroy(limits);
}

static void two_sites_have_two_entries_while_there_is_room(void **state)
{
	struct site_limits *few = site_limits_create(4);

	(void)state;
	assert_ptr_not_equal(site_limits_of(few, 1), site_limits_of(few, 5));
	assert_ptr_equal(site_limits_of(few, 1), site_limits_of(few, 1));
	site_limits_destroy(few);
}

static void sites_beyond_the_room_share_an_entry(void **state)
{
	struct site_limits *few = site_limits_create(2);

	(void)state;
	for (uint64_t key = 1; key <= 20; key++)
		assert_non_null(site_limits_of(few, key));
	assert_ptr_equal(site_limits_of(few, 19), site_limits_of(few, 19));
	site_limits_destroy(few);
}

static void the_key_zero_is_a_site_too(void **state)
{
	struct site_limits *few = site_limits_create(4);

	(void)state;
	assert_non_null(site_limits_of(few, 0));
	assert_ptr_equal(site_limits_of(few, 0), site_limits_of(few, 0));
	site_limits_destroy(few);
}

static struct os_mono at_ms(uint64_t ms)
{
	return (struct os_mono){ ms * OS_NS_PER_MS };
}

static void what_a_host_takes_is_the_limit_and_one_more_is_tried_in_time(void **state)
{
	static const struct {
		const char *name;
		uint32_t takes, configured;
		int64_t after_ms;
		uint32_t max;
	} rows[] = {
		{ "at once", 3, 20, 0, 3 },
		{ "before the next is tried", 3, 20, 9999, 3 },
		{ "one more", 3, 20, 10000, 4 },
		{ "never more than configured", 3, 5, 100000, 5 },
		{ "never none", 0, 20, 0, 1 },
		{ "configured is less", 8, 2, 0, 2 },
		{ "a clock that is behind", 3, 20, -7, 3 },
	};

	(void)state;
	for (size_t i = 0; i < array_count(rows); i++) {
		struct site_limit limit = { .key = 1 };
		uint64_t then_ms = 1000000, now_ms = then_ms + (uint64_t)rows[i].after_ms;

		assert_int_equal(site_limit_max(&limit, at_ms(now_ms), rows[i].configured),
				 rows[i].configured);
		site_limit_keep(&limit, at_ms(then_ms), rows[i].takes);
		if (site_limit_max(&limit, at_ms(now_ms), rows[i].configured) != rows[i].max)
			fail_msg("%s", rows[i].name);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_sites_have_two_entries_while_there_is_room),
		cmocka_unit_test(sites_beyond_the_room_share_an_entry),
		cmocka_unit_test(the_key_zero_is_a_site_too),
		cmocka_unit_test(what_a_host_takes_is_the_limit_and_one_more_is_tried_in_time),
		cmocka_unit_test(workers_find_the_same_entries_and_none_goes_beyond_the_limit),
	};

	return cmocka_run_group_tests_name("site_limits", tests, NULL, NULL);
}
