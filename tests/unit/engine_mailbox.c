/* Letters between threads: all arrive, in order, and a sleeper wakes. Also run under
 * ThreadSanitizer. */
#include "engine/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

enum { WORKERS = 3, LETTERS = 20000 };

struct post {
	struct letter letter;
	uint32_t from, number;
};

struct member {
	uint32_t index, opened;
	uint32_t expected[WORKERS]; /* the next number from each */
	struct os_thread *thread;
	struct post *posts[WORKERS];
};

static struct mailboxes *boxes;
static struct member members[WORKERS];
static _Thread_local struct member *me;
static _Atomic uint32_t joined, finished;
static _Atomic uint32_t disorder;

static void on_letter(struct letter *letter)
{
	struct post *post = container_of(letter, struct post, letter);

	if (post->number != me->expected[post->from]++)
		atomic_fetch_add(&disorder, 1);
	me->opened++;
}

static struct os_mono soon(uint32_t ms)
{
	return os_mono_add_ms(os_mono_now(), ms);
}

static void wait_for_all(_Atomic uint32_t *count, struct os_loop *loop)
{
	atomic_fetch_add(count, 1);
	while (atomic_load(count) < WORKERS)
		os_loop_turn(loop, soon(1));
}

static void member_run(void *context)
{
	static const struct os_loop_options options = { 64, 4, 4096 };
	struct os_loop *loop;
	struct os_mono limit = soon(300000);
	uint32_t sent = 0;
	bool waiting = true, idle;

	me = context;
	if (os_loop_create(&options, &loop) != 0)
		abort();
	mailboxes_join(boxes, me->index, loop);
	wait_for_all(&joined, loop);
	while ((waiting || me->opened < WORKERS * LETTERS) && os_mono_now().ns < limit.ns) {
		for (int burst = 0; burst < 700 && sent < LETTERS; burst++, sent++)
			for (uint32_t to = 0; to < WORKERS; to++)
				mailbox_send(boxes, me->index, to, &me->posts[to][sent].letter);
		waiting = mailbox_flush(boxes, me->index);
		/* Sleeps to the limit while it only waits for letters, so that a lost wake-up is
		 * seen. */
		idle = !waiting && sent == LETTERS && me->opened < WORKERS * LETTERS;
		os_loop_turn(loop, idle ? limit : soon(0));
		if (os_mono_now().ns < limit.ns)
			mailbox_open(boxes, me->index);
	}
	wait_for_all(&finished, loop);
	os_loop_destroy(loop);
}

static void every_letter_arrives_once_in_order(void **state)
{
	(void)state;
	char why[256];

	assert_int_equal(os_backend_choose(why, sizeof(why)), 0);
	boxes = mailboxes_create(WORKERS);
	assert_non_null(boxes);
	for (uint32_t i = 0; i < WORKERS; i++) {
		members[i].index = i;
		for (uint32_t to = 0; to < WORKERS; to++) {
			members[i].posts[to] = calloc(LETTERS, sizeof(struct post));
			assert_non_null(members[i].posts[to]);
			for (uint32_t n = 0; n < LETTERS; n++)
				members[i].posts[to][n] = (struct post){ .letter.open = on_letter,
									 .from = i,
									 .number = n };
		}
	}
	for (uint32_t i = 0; i < WORKERS; i++)
		assert_int_equal(
			os_thread_start(&members[i].thread, "member", member_run, &members[i]), 0);
	for (uint32_t i = 0; i < WORKERS; i++) {
		os_thread_join(members[i].thread);
		assert_int_equal(members[i].opened, WORKERS * LETTERS);
		for (uint32_t to = 0; to < WORKERS; to++)
			free(members[i].posts[to]);
	}
	assert_int_equal(disorder, 0);
	mailboxes_destroy(boxes);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_letter_arrives_once_in_order),
	};

	return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
