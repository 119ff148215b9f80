/* Message ids as text. */
#include "queue/queue.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct id_case {
	const char *name, *text;
	bool good;
	uint64_t id;
	const char *shown; /* NULL: as `text` */
};

static const struct id_case cases[] = {
	{ "zero", "0000000000000", true, 0, NULL },
	{ "one", "0000000000001", true, 1, NULL },
	{ "the highest id", "FZZZZZZZZZZZZ", true, UINT64_MAX, NULL },
	{ "node 1, block 2, counter 3", "0200000100003", true,
	  UINT64_C(1) << 56 | UINT64_C(2) << 24 | 3, NULL },
	{ "lower case is read", "000000000000z", true, 31, "000000000000Z" },
	{ "I and L read as 1, O as 0", "OOOOOOOOOOOIL", true, 33, "0000000000011" },
	{ "U is no digit", "000000000000U", false, 0, NULL },
	{ "too short", "000000000000", false, 0, NULL },
	{ "too long", "00000000000000", false, 0, NULL },
	{ "beyond 64 bits", "G000000000000", false, 0, NULL },
	{ "a space is refused", "00000000000 0", false, 0, NULL },
	{ "an octet above 127 is refused", "000000000000\xc3", false, 0, NULL },
};

static void id_row(void **state)
{
	const struct id_case *row = *state;
	char text[QUEUE_ID_TEXT_BYTES];
	uint64_t id = 99;

	assert_int_equal(queue_id_parse(span_text(row->text), &id), row->good);
	if (!row->good) {
		assert_int_equal(id, 99);
		return;
	}
	assert_true(id == row->id);
	queue_id_text(id, text);
	assert_string_equal(text, row->shown ? row->shown : row->text);
}

int main(void)
{
	struct CMUnitTest rows[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		rows[i] = (struct CMUnitTest){ .name = cases[i].name,
					       .test_func = id_row,
					       .initial_state = (void *)&cases[i] };
	return cmocka_run_group_tests_name("queue_id", rows, NULL, NULL);
}
