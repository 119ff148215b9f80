/*
 * The bytes on disk, record by record: a struct with a recognisable value in each field, and
 * what has to lie in the file. Whoever changes a line here makes old spools unreadable.
 */
#include "queue/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "queue/crc.h"

static const struct format_super format_super_filled = { .magic = 0x1817161514131211,
							 .crc = 0x24232221,
							 .version = 0x34333231,
							 .generation = 0x4847464544434241,
							 .features_compatible = 0x5857565554535251,
							 .features_read_only = 0x6867666564636261,
							 .features_incompatible =
								 0x7877767574737271,
							 .uuid = "0123456789abcde",
							 .epoch = 0x84838281,
							 .clean = 0x91,
							 .node = 0xa1,
							 .stream_limit = 0xb2b1,
							 .segment_bytes = 0xc4c3c2c1,
							 .journal_bytes = 0xd4d3d2d1,
							 .wall_us = 0xe8e7e6e5e4e3e2e1,
							 .block_limit = 0xf8f7f6f5f4f3f2f1,
							 .sequence_limit = 0x807060504030201,
							 .big_limit = 0x1817161514131211,
							 .believed_us = 0x2827262524232221 };
static const struct format_file format_file_filled = { .magic = 0x1817161514131211,
						       .crc = 0x24232221,
						       .kind = 0x3231,
						       .stream = 0x4241,
						       .sequence = 0x54535251,
						       .epoch = 0x64636261,
						       .bytes = 0x7877767574737271,
						       .previous_sequence = 0x84838281,
						       .previous_end = 0x94939291,
						       .uuid = "0123456789abcde" };
static const struct format_chunk format_chunk_filled = { .magic = 0x14131211,
							 .crc = 0x24232221,
							 .sequence = 0x34333231,
							 .number = 0x44434241,
							 .bytes = 0x54535251,
							 .records = 0x64636261,
							 .durable_end = 0x74737271,
							 .epoch = 0x84838281 };
static const struct format_message format_message_filled = { .magic = 0x14131211,
							     .crc = 0x24232221,
							     .envelope_crc = 0x34333231,
							     .body_crc = 0x44434241,
							     .id = 0x5857565554535251,
							     .arrival_us = 0x6867666564636261,
							     .body_bytes = 0x7877767574737271,
							     .envelope_bytes = 0x84838281,
							     .expiry_s = 0x94939291,
							     .recipients = 0xa2a1,
							     .flags = 0xb2b1,
							     .priority = -9,
							     .jobs = 0xc2c1,
							     .class_id = 0xd4d3d2d1,
							     .reserved = 0xe4e3e2e1 };
static const struct format_big format_big_filled = { .bytes = 0x1817161514131211,
						     .crc_count = 0x24232221,
						     .reserved = 0x34333231 };
static const struct format_entry format_entry_filled = { .type = 0x11,
							 .reserved = 0x21,
							 .bytes = 0x3231 };
static const struct format_recipient format_recipient_filled = { .notify = 0x11,
								 .reserved = 0x21,
								 .address_bytes = 0x3231,
								 .domain_at = 0x4241,
								 .orcpt_bytes = 0x5251 };
static const struct format_origin format_origin_filled = { .message = 0x1817161514131211,
							   .recipients = 0x2827262524232221,
							   .first = 0x3231,
							   .kind = 0x41 };
static const struct format_job format_job_filled = { .crc = 0x14131211,
						     .type = 0x21,
						     .state = 0x31,
						     .flags = 0x4241,
						     .message = 0x5857565554535251,
						     .pending = 0x6867666564636261,
						     .version = 0x74737271,
						     .first = 0x8281,
						     .attempts = 0x9291,
						     .segment = 0xa4a3a2a1,
						     .place = 0xb4b3b2b1,
						     .due_s = 0xc4c3c2c1,
						     .expiry_s = 0xd4d3d2d1,
						     .dest = 0xe4e3e2e1,
						     .class_id = 0xf4f3f2f1,
						     .text = 0x4030201,
						     .reply = 0x1211,
						     .enhanced = 0x2221 };
static const struct format_mark format_mark_filled = { .crc = 0x14131211,
						       .type = 0x21,
						       .segment = 0x34333231,
						       .place = 0x44434241,
						       .wall_us = 0x5857565554535251,
						       .believed_us = 0x6867666564636261 };
static const struct format_start format_start_filled = { .crc = 0x14131211,
							 .type = 0x21,
							 .epoch = 0x34333231 };
static const struct format_define format_define_filled = { .crc = 0x14131211,
							   .type = 0x21,
							   .units = 0x31,
							   .bytes = 0x4241,
							   .id = 0x54535251,
							   .until_s = 0x64636261,
							   .text = "example.org" };

struct format_case {
	const char *name;
	const void *filled;
	size_t bytes;
	const char *dump; /* 32 bytes a line */
};

static const struct format_case cases[] = {
	{ "superblock", &format_super_filled, sizeof(format_super_filled),
	  "1112131415161718212223243132333441424344454647485152535455565758"
	  "6162636465666768717273747576777830313233343536373839616263646500"
	  "8182838491a1b1b2c1c2c3c4d1d2d3d4e1e2e3e4e5e6e7e8f1f2f3f4f5f6f7f8"
	  "0102030405060708111213141516171821222324252627280000000000000000"
	  "00000000000000000000000000000000" },
	{ "file header", &format_file_filled, sizeof(format_file_filled),
	  "1112131415161718212223243132414251525354616263647172737475767778"
	  "818283849192939430313233343536373839616263646500" },
	{ "chunk header", &format_chunk_filled, sizeof(format_chunk_filled),
	  "1112131421222324313233344142434451525354616263647172737481828384"
	  "0000000000000000000000000000000000000000000000000000000000000000" },
	{ "message header", &format_message_filled, sizeof(format_message_filled),
	  "1112131421222324313233344142434451525354555657586162636465666768"
	  "71727374757677788182838491929394a1a2b1b2f7ffc1c2d1d2d3d4e1e2e3e4" },
	{ "big reference", &format_big_filled, sizeof(format_big_filled),
	  "11121314151617182122232431323334" },
	{ "envelope entry", &format_entry_filled, sizeof(format_entry_filled), "11213132" },
	{ "recipient", &format_recipient_filled, sizeof(format_recipient_filled),
	  "1121313241425152" },
	{ "origin", &format_origin_filled, sizeof(format_origin_filled),
	  "111213141516171821222324252627283132410000000000" },
	{ "job record", &format_job_filled, sizeof(format_job_filled),
	  "1112131421314142515253545556575861626364656667687172737481829192"
	  "a1a2a3a4b1b2b3b4c1c2c3c4d1d2d3d4e1e2e3e4f1f2f3f40102030411122122" },
	{ "mark record", &format_mark_filled, sizeof(format_mark_filled),
	  "1112131421000000313233344142434451525354555657586162636465666768"
	  "0000000000000000000000000000000000000000000000000000000000000000" },
	{ "start record", &format_start_filled, sizeof(format_start_filled),
	  "1112131421000000313233340000000000000000000000000000000000000000"
	  "0000000000000000000000000000000000000000000000000000000000000000" },
	{ "definition record", &format_define_filled, sizeof(format_define_filled),
	  "111213142131414251525354616263646578616d706c652e6f72670000000000"
	  "0000000000000000000000000000000000000000000000000000000000000000" },
};

static void dump_row(void **state)
{
	const struct format_case *row = *state;
	const unsigned char *bytes = row->filled;
	char dump[512];

	for (size_t i = 0; i < row->bytes; i++)
		snprintf(dump + 2 * i, 3, "%02x", bytes[i]);
	assert_string_equal(dump, row->dump);
}

static void crc32c_is_castagnoli(void **state)
{
	(void)state;
	assert_int_equal(crc_of("123456789", 9), 0xe3069283); /* the catalogue's check value */
	assert_int_equal(crc_of("", 0), 0);
}

static void a_record_checksum_takes_its_own_field_as_zero(void **state)
{
	char record[64] = "0123____ the rest", zeroed[68] = { 5 };

	(void)state;
	memcpy(zeroed + 4, record, 64); /* the sequence, 5, comes first */
	memset(zeroed + 4 + 4, 0, 4);
	assert_int_equal(crc_record(5, record, 64, 4), crc_of(zeroed, 68));
	assert_int_equal(crc_header(record, 64, 4), crc_of(zeroed + 4, 64));
	assert_int_not_equal(crc_record(5, record, 64, 4), crc_record(6, record, 64, 4));
}

static void numbers_on_disk_never_change(void **state)
{
	static const struct {
		unsigned is, was;
	} numbers[] = {
		{ FORMAT_FREE, 0 },
		{ FORMAT_HOT, 1 },
		{ FORMAT_COLD, 2 },
		{ FORMAT_JOURNAL, 3 },
		{ FORMAT_BIG, 1 },
		{ FORMAT_8BIT, 2 },
		{ FORMAT_UTF8, 4 },
		{ FORMAT_DOT_LINES, 8 },
		{ FORMAT_NO_FINAL_CRLF, 16 },
		{ FORMAT_REPORT, 32 },
		{ FORMAT_BINARY, 64 },
		{ FORMAT_NEEDS_TLS, 128 },
		{ FORMAT_LONG_LINES, 256 },
		{ FORMAT_SENDER, 1 },
		{ FORMAT_RECIPIENT, 2 },
		{ FORMAT_ENVID, 3 },
		{ FORMAT_RET, 4 },
		{ FORMAT_ORIGIN, 5 },
		{ FORMAT_CLIENT, 6 },
		{ FORMAT_AUTH, 7 },
		{ FORMAT_ORIGIN_BOUNCE, 1 },
		{ FORMAT_ORIGIN_DELAY, 2 },
		{ FORMAT_ORIGIN_SUCCESS, 3 },
		{ FORMAT_ORIGIN_FILE, 4 },
		{ FORMAT_JOB, 1 },
		{ FORMAT_MARK, 2 },
		{ FORMAT_START, 3 },
		{ FORMAT_DEST, 4 },
		{ FORMAT_TEXT, 5 },
		{ FORMAT_CLASS, 6 },
		{ FORMAT_POLICY, 7 },
		{ FORMAT_WAITING, 1 },
		{ FORMAT_DELIVERED, 2 },
		{ FORMAT_BOUNCED, 3 },
		{ FORMAT_DISCARDED, 4 },
		{ FORMAT_REMOVED, 5 },
		{ FORMAT_JOB_HELD, 1 },
		{ FORMAT_JOB_WARNED, 2 },
		{ FORMAT_JOB_IN_DOUBT, 4 },
		{ FORMAT_JOB_MAYBE_DUPLICATE, 8 },
		{ FORMAT_JOB_DAMAGED, 16 },
		{ FORMAT_JOB_BIG, 32 },
		{ FORMAT_JOB_NEEDS_8BIT, 64 },
		{ FORMAT_JOB_NEEDS_UTF8, 128 },
		{ FORMAT_JOB_NEEDS_TLS, 256 },
		{ FORMAT_VERSION, 1 },
	};

	(void)state;
	for (size_t i = 0; i < array_count(numbers); i++)
		assert_int_equal(numbers[i].is, numbers[i].was);
}

int main(void)
{
	static const struct CMUnitTest facts[] = {
		cmocka_unit_test(crc32c_is_castagnoli),
		cmocka_unit_test(a_record_checksum_takes_its_own_field_as_zero),
		cmocka_unit_test(numbers_on_disk_never_change),
	};
	struct CMUnitTest rows[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		rows[i] = (struct CMUnitTest){ .name = cases[i].name,
					       .test_func = dump_row,
					       .initial_state = (void *)&cases[i] };
	int failed = cmocka_run_group_tests_name("golden dumps", rows, NULL, NULL);

	return failed + cmocka_run_group_tests(facts, NULL, NULL);
}
