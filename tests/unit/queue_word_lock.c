/* The lock of one word between real threads: each count is made, and nobody sleeps for ever. */
#include "queue/word_lock.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "os/os.h"

enum { THREADS = 4, ROUNDS = 20000 };

static struct word_lock lock;
static uint64_t count; /* under `lock` */

static void run_counting(void *context)
{
	(void)context;
	for (uint32_t i = 0; i < ROUNDS; i++) {
		word_lock_take(&lock);
		count++;
		word_lock_give(&lock);
	}
}

/* Gives its turn away with the lock in hand: the others have to sleep. */
static void run_dawdling(void *context)
{
	(void)context;
	for (uint32_t i = 0; i < ROUNDS / 20; i++) {
		word_lock_take(&lock);
		sched_yield();
		count++;
		word_lock_give(&lock);
	}
}

static void run_all(void (*run)(void *context))
{
	struct os_thread *threads[THREADS];

	count = 0;
	for (uint32_t i = 0; i < THREADS; i++)
		assert_int_equal(os_thread_start(&threads[i], "locker", run, NULL), 0);
	for (uint32_t i = 0; i < THREADS; i++)
		os_thread_join(threads[i]);
	assert_int_equal(atomic_load(&lock.word), 0);
}

static void one_holds_it_at_a_time(void **state)
{
	(void)state;
	run_all(run_counting);
	assert_int_equal(count, (uint64_t)THREADS * ROUNDS);
}

static void who_waits_sleeps_and_is_woken(void **state)
{
	(void)state;
	run_all(run_dawdling);
	assert_int_equal(count, (uint64_t)THREADS * (ROUNDS / 20));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_holds_it_at_a_time),
		cmocka_unit_test(who_waits_sleeps_and_is_woken),
	};

	return cmocka_run_group_tests_name("word_lock", tests, NULL, NULL);
}
