/* Editions: the last reference frees, whoever has it, and a reader never sees one that is gone.
 * Also run under ThreadSanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/config/edition.h"
#include "os/check.h"
#include "os/os.h"

enum { READERS = 4, EDITIONS = 3000, HELD_MAX = 8 };

/* Its two halves are the same as long as it is there. */
struct text {
	struct edition edition;
	uint32_t number, again;
};

static _Atomic uint32_t alive, ready;

static struct text *text_create(uint32_t number)
{
	struct text *text = malloc(sizeof(*text));

	assert(text);
	edition_init(&text->edition);
	text->number = text->again = number;
	atomic_fetch_add(&alive, 1);
	return text;
}

static struct text *text_of(struct edition *edition)
{
	return edition ? container_of(edition, struct text, edition) : NULL;
}

static void text_let_go(struct text *text)
{
	if (!text || !edition_let_go(&text->edition))
		return;
	text->again = text->number + 1;
	free(text);
	atomic_fetch_sub(&alive, 1);
}

static struct text *text_hold(struct text *text)
{
	edition_hold(&text->edition);
	return text;
}

/* ── one thread ───────────────────────────────────────────────────────────────────── */

static void the_last_reference_frees(void **state)
{
	struct text *text = text_create(1);

	(void)state;
	text_hold(text);
	text_let_go(text);
	assert_int_equal(atomic_load(&alive), 1);
	text_let_go(text);
	assert_int_equal(atomic_load(&alive), 0);
}

static void a_favoured_one_is_counted_when_it_no_longer_is(void **state)
{
	struct text *first = text_create(1), *second = text_create(2);

	(void)state;
	edition_favour(&first->edition);
	edition_favour(&first->edition);
	text_hold(first);
	text_hold(first);
	text_let_go(first);
	edition_favour(&second->edition);
	text_hold(second);
	text_let_go(first);
	assert_int_equal(atomic_load(&alive), 2);
	text_let_go(first);
	assert_int_equal(atomic_load(&alive), 1);
	edition_favour(NULL);
	text_let_go(second);
	text_let_go(second);
	assert_int_equal(atomic_load(&alive), 0);
}

static void references_from_before_it_was_favoured_count(void **state)
{
	struct text *text = text_create(1);

	(void)state;
	text_hold(text);
	text_hold(text);
	edition_favour(&text->edition);
	text_let_go(text);
	text_let_go(text);
	edition_favour(NULL);
	assert_int_equal(atomic_load(&alive), 1);
	text_let_go(text);
	assert_int_equal(atomic_load(&alive), 0);
}

static void a_shelf_may_be_empty(void **state)
{
	struct edition_shelf shelf;
	struct text *text = text_create(1);

	(void)state;
	edition_shelf_init(&shelf, NULL);
	assert_null(edition_shelf_take(&shelf));
	assert_null(edition_shelf_replace(&shelf, &text->edition));
	assert_ptr_equal(edition_shelf_take(&shelf), &text->edition);
	assert_ptr_equal(edition_shelf_replace(&shelf, NULL), &text->edition);
	assert_null(edition_shelf_take(&shelf));
	assert_null(edition_shelf_deinit(&shelf));
	text_let_go(text);
	text_let_go(text);
	assert_int_equal(atomic_load(&alive), 0);
}

/* ── several threads ──────────────────────────────────────────────────────────────── */

static struct edition_shelf shelf;
static _Atomic bool over;

struct reader {
	struct os_thread *thread;
	bool favours;
	uint32_t looks, steps_back, torn;
};

/* As a worker has it: its own reference, which is favoured, and those of what it works at. */
static void read_on(void *context)
{
	struct reader *me = context;
	struct text *own = text_of(edition_shelf_take(&shelf)), *held[HELD_MAX] = { NULL };

	atomic_fetch_add(&ready, 1);
	while (!atomic_load(&over)) {
		struct text **place = &held[me->looks++ % HELD_MAX];
		struct text *now = text_of(edition_shelf_take(&shelf));

		text_let_go(*place);
		*place = text_hold(own);
		me->torn += own->number != own->again || now->number != now->again;
		me->steps_back += now->number < own->number;
		if (now == own || me->looks % 4 != 0) {
			text_let_go(now);
			continue;
		}
		if (me->favours)
			edition_favour(&now->edition);
		text_let_go(own);
		own = now;
	}
	edition_favour(NULL);
	for (uint32_t i = 0; i < HELD_MAX; i++)
		text_let_go(held[i]);
	text_let_go(own);
}

static void readers_keep_what_they_took_while_it_is_replaced(void **state)
{
	static struct reader readers[READERS];

	(void)state;
	edition_shelf_init(&shelf, &text_create(0)->edition);
	for (uint32_t i = 0; i < READERS; i++) {
		readers[i].favours = i % 2 == 0;
		assert_int_equal(
			os_thread_start(&readers[i].thread, "reader", read_on, &readers[i]), 0);
	}
	while (atomic_load(&ready) < READERS)
		continue;
	for (uint32_t number = 1; number <= EDITIONS; number++)
		text_let_go(text_of(edition_shelf_replace(&shelf, &text_create(number)->edition)));
	atomic_store(&over, true);
	for (uint32_t i = 0; i < READERS; i++) {
		os_thread_join(readers[i].thread);
		assert_int_equal(readers[i].torn, 0);
		assert_int_equal(readers[i].steps_back, 0);
		assert_true(readers[i].looks > 0);
	}
	assert_int_equal(atomic_load(&alive), 1);
	text_let_go(text_of(edition_shelf_deinit(&shelf)));
	assert_int_equal(atomic_load(&alive), 0);
}

/* A reference that is taken on one thread, where it is favoured, and let go on another. */
static void let_all_go(void *context)
{
	struct text **texts = context;

	for (uint32_t i = 0; i < HELD_MAX; i++)
		text_let_go(texts[i]);
}

static void a_reference_may_go_to_another_thread(void **state)
{
	struct text *text = text_create(1), *lent[HELD_MAX];
	struct os_thread *thread;

	(void)state;
	edition_favour(&text->edition);
	for (uint32_t i = 0; i < HELD_MAX; i++)
		lent[i] = text_hold(text);
	assert_int_equal(os_thread_start(&thread, "other", let_all_go, lent), 0);
	edition_favour(NULL);
	text_let_go(text);
	os_thread_join(thread);
	assert_int_equal(atomic_load(&alive), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_reference_frees),
		cmocka_unit_test(a_favoured_one_is_counted_when_it_no_longer_is),
		cmocka_unit_test(references_from_before_it_was_favoured_count),
		cmocka_unit_test(a_shelf_may_be_empty),
		cmocka_unit_test(readers_keep_what_they_took_while_it_is_replaced),
		cmocka_unit_test(a_reference_may_go_to_another_thread),
	};

	return cmocka_run_group_tests_name("editions", tests, NULL, NULL);
}
