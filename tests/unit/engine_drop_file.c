/* The format of what sendmail keeps in the drop directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/inbound/drop_file.h"

static struct drop_head sound(void)
{
	struct drop_head head;

	drop_head_fill(&head, DROP_UTF8, span_text("envelope"), span_text("body\r\n"));
	return head;
}

static void test_golden(void **state)
{
	static const unsigned char golden[] = {
		0x73, 0x74, 0x2d, 0x64, 0x72, 0x6f, 0x70, 0x0a, /* st-drop\n */
		0x00, 0x00, 0x00, 0x00,				/* the checksum, see below */
		0x01, 0x00, 0x01, 0x00, 0x08, 0x00, 0x00, 0x00, /* version, flags, envelope */
		0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, /* reserved, body */
		0x00, 0x00, 0x00, 0x00,
	};
	struct drop_head head = sound();
	uint32_t crc = crc_add(CRC_START, golden + 12, sizeof(golden) - 12);

	(void)state;
	static_assert(sizeof(golden) == sizeof(head), "all of it");
	assert_int_equal(head.crc, ~crc_add(crc, "envelopebody\r\n", 14));
	head.crc = 0;
	assert_memory_equal(&head, golden, sizeof(golden));
}

static void test_reader_agrees(void **state)
{
	struct drop_head head = sound();
	uint32_t crc = drop_head_crc(&head);

	(void)state;
	assert_null(drop_head_complaint(&head, sizeof(head) + 14));
	crc = crc_add(crc, "envelope", 8);
	crc = crc_add(crc, "bo", 2); /* in any pieces */
	crc = crc_add(crc, "dy\r\n", 4);
	assert_int_equal(~crc, head.crc);
}

static const struct complaint_case {
	const char *name;
	size_t at; /* of the byte that is changed */
	uint8_t value;
	int64_t more_bytes; /* than the file should have */
	const char *complaint;
} cases[] = {
	{ "another magic", 0, 'S', 0, "no message" },
	{ "a later version", offsetof(struct drop_head, version), 2, 0, "version" },
	{ "unknown flags", offsetof(struct drop_head, flags), 3, 0, "version" },
	{ "a huge envelope", offsetof(struct drop_head, envelope_bytes) + 3, 1, 0, "senseless" },
	{ "no envelope", offsetof(struct drop_head, envelope_bytes), 0, 0, "senseless" },
	{ "a body of another size", offsetof(struct drop_head, body_bytes), 7, 0, "size" },
	{ "a body of a size that wraps", offsetof(struct drop_head, body_bytes) + 7, 0xff, 0,
	  "size" },
	{ "a longer file", 0, 's', 1, "size" },
	{ "a shorter file", 0, 's', -1, "size" },
	{ "a file without its envelope", 0, 's', -14, "size" },
};

static void complaint_row(void **state)
{
	const struct complaint_case *row = *state;
	struct drop_head head = sound();
	const char *complaint;

	((uint8_t *)&head)[row->at] = row->value;
	complaint = drop_head_complaint(&head,
					(uint64_t)((int64_t)sizeof(head) + 14 + row->more_bytes));
	assert_non_null(complaint);
	assert_non_null(strstr(complaint, row->complaint));
}

static void test_names_and_origins(void **state)
{
	static const unsigned char random[16] = { 0, 1, 0xab, [15] = 0xff };
	char name[DROP_NAME_BYTES];
	struct format_origin origin, other;

	(void)state;
	drop_name_text(random, name);
	assert_string_equal(name, "0001ab000000000000000000000000ff");
	origin = drop_origin(name, 7);
	assert_int_equal(origin.kind, FORMAT_ORIGIN_FILE);
	other = drop_origin(name, 8);
	assert_memory_not_equal(&origin, &other, sizeof(origin));
	name[0] = '1';
	other = drop_origin(name, 7);
	assert_memory_not_equal(&origin, &other, sizeof(origin));
}

static void test_folder(void **state)
{
	struct config config = { .spool = "/spool" };
	char path[DROP_PATH_BYTES];

	(void)state;
	assert_true(drop_folder_path(&config, path));
	assert_string_equal(path, "/spool/drop");
	config.drop = "/elsewhere";
	assert_true(drop_folder_path(&config, path));
	assert_string_equal(path, "/elsewhere");
}

int main(void)
{
	struct CMUnitTest tests[sizeof(cases) / sizeof(cases[0]) + 4] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_reader_agrees),
		cmocka_unit_test(test_names_and_origins),
		cmocka_unit_test(test_folder),
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		tests[4 + i] = (struct CMUnitTest){ .name = cases[i].name,
						    .test_func = complaint_row,
						    .initial_state = (void *)&cases[i] };
	return _cmocka_run_group_tests("engine_drop_file", tests, array_count(tests), NULL, NULL);
}
