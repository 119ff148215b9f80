/* The limits of sites that all workers share: one entry a site, found by all. Also run under
 * ThreadSanitizer. */
#include "engine/delivery/site_limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/os.h"

/* Not from the library: claim_connection() is its own. */
#include "engine/delivery/site.c" /* NOLINT(bugprone-suspicious-include) */

enum { WORKERS = 4, SITES = 300, ROUNDS = 100, LIMIT = 3, CLOSING = 421 };

static const struct config_route route = {
	.delivery = { .connections_max = LIMIT, .probe_ms = 1, .retry_cap_ms = 1 },
};
static struct os_address address;
static const struct mx_host host = { .name = "a.test", .address_count = 1, .addresses = &address };
static struct mx_answer answer = { .host_count = 1, .hosts = &host };
static struct engine engine = { .worker_count = WORKERS };
static struct site_limits *limits;
static _Atomic uint32_t started;

struct member {
	struct os_thread *thread;
	struct worker worker;
	struct site sites[SITES];
	uint32_t claimed, beyond;
};

static void member_start(struct member *me)
{
	if (os_loop_create(NULL, &me->worker.loop) != 0)
		abort();
	me->worker.engine = &engine;
	timer_wheel_init(&me->worker.timers, worker_mono(&me->worker));
	me->worker.sites = sites_create(&me->worker);
	for (uint32_t i = 0; i < SITES; i++) {
		struct site *site = &me->sites[i];

		site->sites = me->worker.sites;
		site->worker = &me->worker;
		site->route = &route;
		site->answer = &answer;
		site->home = me->worker.index; /* each has a share */
		site->window = SITE_WINDOW_ONE;
		list_init(&site->connections);
		list_init(&site->dirty_link);
		list_init(&site->starving_link);
		site->shared = site_limits_of(limits, i + 1);
	}
}

static void member_end(struct member *me)
{
	for (uint32_t i = 0; i < SITES; i++) {
		list_remove(&me->sites[i].dirty_link);
		list_remove(&me->sites[i].starving_link);
		free(me->sites[i].health);
	}
	sites_destroy(me->worker.sites);
	os_loop_destroy(me->worker.loop);
}

/* A connection that is greeted and answers mail, or hears 421 for a greeting. What is counted here
 * orders nothing, or no race would be seen. */
static void claim_and_give_back(struct member *me, uint32_t place, bool closing)
{
	static _Atomic uint32_t used[SITES];
	struct site *site = &me->sites[place];

	site_is_down(site);
	site->state = SITE_UP; /* or it is told */
	if (!claim_connection(site))
		return;
	site->connection_count++;
	site->connecting_count++;
	me->claimed++;
	if (atomic_fetch_add_explicit(&used[place], 1, memory_order_relaxed) >= LIMIT)
		me->beyond++;
	if (closing) {
		site->state = SITE_PROBING;
		site_host_failed(site, &address, false, CLOSING, 40302, "closing");
	} else {
		site_host_greeted(site);
		site_host_answered(site, &address);
	}
	atomic_fetch_sub_explicit(&used[place], 1, memory_order_relaxed);
	site_connection_gone(site, closing);
}

static void member_run(void *context)
{
	struct member *me = context;

	member_start(me);
	atomic_fetch_add(&started, 1);
	while (atomic_load(&started) < WORKERS)
		continue;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		os_loop_turn(me->worker.loop, (struct os_mono){ 0 }); /* its clock goes on */
		for (uint32_t i = 0; i < SITES; i++)
			claim_and_give_back(me, i, (round + i + me->worker.index) % 5 == 0);
	}
	member_end(me);
}

static void workers_find_the_same_entries_and_none_goes_beyond_the_limit(void **state)
{
	static struct member members[WORKERS];
	char why[256];

	(void)state;
	limits = site_limits_create(SITES * 4);
	assert_non_null(limits);
	assert_int_equal(os_backend_use("epoll", why, sizeof(why)), 0);
	assert_true(os_address_parse("192.0.2.1", 25, &address));
	for (uint32_t i = 0; i < WORKERS; i++) {
		members[i].worker.index = i;
		assert_int_equal(
			os_thread_start(&members[i].thread, "member", member_run, &members[i]), 0);
	}
	for (uint32_t i = 0; i < WORKERS; i++) {
		os_thread_join(members[i].thread);
		assert_int_equal(members[i].beyond, 0);
		assert_true(members[i].claimed > 0);
	}
	for (uint32_t i = 0; i < SITES; i++) {
		struct site_limit *found = members[0].sites[i].shared;

		for (uint32_t k = 1; k < WORKERS; k++)
			assert_ptr_equal(members[k].sites[i].shared, found);
		assert_int_equal(atomic_load(&found->key), i + 1);
		assert_int_equal(atomic_load(&found->connections), 0);
		assert_int_equal(atomic_load(&found->working), 0);
	}
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
