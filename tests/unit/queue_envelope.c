/* Envelopes: what is built reads back, jobs follow from the bytes, hostile bytes are refused. */
#include "queue/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/os.h"

static void add(struct envelope_builder *builder, const char *address)
{
	struct envelope_recipient recipient = { .address = span_text(address) };

	envelope_add_recipient(builder, &recipient);
}

static void assert_span(struct span span, const char *text)
{
	assert_int_equal(span.len, strlen(text));
	assert_memory_equal(span.at, text, span.len);
}

static void everything_reads_back(void **state)
{
	struct envelope_builder *builder = envelope_builder_create();
	struct format_origin origin = { .message = 7, .recipients = 5, .first = 64, .kind = 1 };
	struct envelope_recipient recipient = { .address = span_text("Bob@b.example"),
						.orcpt = span_text("rfc822;bob@x"),
						.notify = ENVELOPE_NOTIFY_DELAY };
	struct envelope_cursor cursor;
	struct format_origin found;
	struct span bytes;

	(void)state;
	envelope_set_sender(builder, span_text("alice@a.example"));
	envelope_set(builder, FORMAT_ENVID, span_text("old"));
	envelope_set(builder, FORMAT_ENVID, span_text("QQ314159"));
	envelope_set(builder, FORMAT_RET, span_text("H"));
	envelope_add_recipient(builder, &recipient);
	envelope_add_origin(builder, &origin);
	assert_int_equal(envelope_recipient_count(builder), 1);
	assert_true(envelope_seal(builder, &bytes));
	assert_true(envelope_check(bytes));
	assert_span(envelope_sender(bytes), "alice@a.example");
	assert_span(envelope_get(bytes, FORMAT_ENVID), "QQ314159");
	assert_span(envelope_get(bytes, FORMAT_RET), "H");
	assert_null(envelope_get(bytes, FORMAT_AUTH).at);
	assert_int_equal(envelope_count(bytes), 1);
	cursor.rest = bytes;
	assert_true(envelope_next(&cursor, &recipient));
	assert_span(recipient.address, "Bob@b.example");
	assert_span(recipient.domain, "b.example");
	assert_span(recipient.orcpt, "rfc822;bob@x");
	assert_int_equal(recipient.notify, ENVELOPE_NOTIFY_DELAY);
	assert_false(envelope_next(&cursor, &recipient));
	cursor.rest = bytes;
	assert_true(envelope_next_origin(&cursor, &found));
	assert_memory_equal(&found, &origin, sizeof(found));
	assert_false(envelope_next_origin(&cursor, &found));
	envelope_builder_destroy(builder);
}

static void a_prefix_comes_before_the_recipients(void **state)
{
	static const char dump[] = "\1\0\3\0s@s"
				   "\10\0\6\0X: y\r\n"
				   "\2\0\13\0\0\0\3\0\2\0\0\0a@b";
	struct envelope_builder *builder = envelope_builder_create();
	struct span bytes;

	(void)state;
	envelope_set_sender(builder, span_text("s@s"));
	add(builder, "a@b");
	envelope_set(builder, FORMAT_PREFIX, span_text("X: y\r\n"));
	assert_true(envelope_seal(builder, &bytes));
	assert_int_equal(bytes.len, sizeof(dump) - 1);
	assert_memory_equal(bytes.at, dump, bytes.len);
	assert_span(envelope_get(bytes, FORMAT_PREFIX), "X: y\r\n");
	envelope_builder_destroy(builder);
}

static void null_sender_is_there_and_empty(void **state)
{
	struct envelope_builder *builder = envelope_builder_create();
	struct span bytes;

	(void)state;
	envelope_set_sender(builder, span_text(""));
	add(builder, "a@x");
	assert_true(envelope_seal(builder, &bytes));
	assert_non_null(envelope_sender(bytes).at);
	assert_int_equal(envelope_sender(bytes).len, 0);
	envelope_builder_destroy(builder);
}

static void recipients_are_sorted_by_domain_and_stay_in_order_within(void **state)
{
	static const char *const given[] = { "z@b",	   "1@c", "a@b", "\"q@a\"@a",
					     "postmaster", "z@b", "x@bb" };
	static const char *const expected[] = { "postmaster", "\"q@a\"@a", "z@b", "a@b",
						"z@b",	      "x@bb",	   "1@c" };
	struct envelope_builder *builder = envelope_builder_create();
	struct envelope_recipient recipient;
	struct envelope_cursor cursor;

	(void)state;
	envelope_set_sender(builder, span_text("s@s"));
	for (size_t i = 0; i < array_count(given); i++)
		add(builder, given[i]);
	assert_true(envelope_seal(builder, &cursor.rest));
	for (size_t i = 0; i < array_count(expected); i++) {
		assert_true(envelope_next(&cursor, &recipient));
		assert_span(recipient.address, expected[i]);
	}
	assert_false(envelope_next(&cursor, &recipient));
	envelope_builder_destroy(builder);
}

static void a_job_is_up_to_64_recipients_of_one_domain(void **state)
{
	static const struct {
		uint32_t first, count;
		const char *domain;
	} expected[] = {
		{ 0, 1, "a" }, { 1, 64, "b" }, { 65, 64, "b" }, { 129, 2, "b" }, { 131, 1, "c" }
	};
	struct envelope_builder *builder = envelope_builder_create();
	struct envelope_job_cursor job = { 0 };
	struct span bytes;
	char address[32];

	(void)state;
	envelope_set_sender(builder, span_text("s@s"));
	add(builder, "x@c");
	for (int i = 0; i < 130; i++) {
		snprintf(address, sizeof(address), "%d@b", i);
		add(builder, address);
	}
	add(builder, "x@a");
	assert_true(envelope_seal(builder, &bytes));
	job.rest = bytes;
	for (size_t i = 0; i < array_count(expected); i++) {
		assert_true(envelope_next_job(&job));
		assert_int_equal(job.first, expected[i].first);
		assert_int_equal(job.count, expected[i].count);
		assert_span(job.domain, expected[i].domain);
	}
	assert_false(envelope_next_job(&job));
	assert_false(envelope_next_job(&job));
	envelope_builder_destroy(builder);
}

static void fifty_thousand_domains_are_walked_in_one_pass(void **state)
{
	enum { DOMAINS = 50000 };
	struct envelope_builder *builder = envelope_builder_create();
	struct envelope_job_cursor job = { 0 };
	struct os_mono begin;
	uint32_t jobs = 0;
	char address[32];

	(void)state;
	envelope_set_sender(builder, span_text("s@s"));
	for (int i = 0; i < DOMAINS; i++) {
		snprintf(address, sizeof(address), "u@%05d", i);
		add(builder, address);
	}
	assert_true(envelope_seal(builder, &job.rest));
	begin = os_mono_now();
	while (envelope_next_job(&job)) {
		assert_int_equal(job.first, jobs);
		jobs++;
	}
	assert_int_equal(jobs, DOMAINS);
	/* Milliseconds; a walk from the start for each job takes minutes. */
	assert_true(os_mono_now().ns - begin.ns < OS_NS_PER_S);
	envelope_builder_destroy(builder);
}

static void a_reset_builder_starts_anew(void **state)
{
	struct envelope_builder *builder = envelope_builder_create();
	struct envelope_job_cursor job = { 0 };
	struct span bytes;

	(void)state;
	envelope_set_sender(builder, span_text("s@s"));
	envelope_set(builder, FORMAT_AUTH, span_text("user"));
	add(builder, "a@x");
	envelope_builder_reset(builder);
	envelope_set_sender(builder, span_text("t@t"));
	assert_true(envelope_seal(builder, &bytes));
	assert_span(envelope_sender(bytes), "t@t");
	assert_null(envelope_get(bytes, FORMAT_AUTH).at);
	assert_int_equal(envelope_count(bytes), 0);
	job.rest = bytes;
	assert_false(envelope_next_job(&job));
	envelope_builder_destroy(builder);
}

static void too_large_is_said_when_sealing_and_forgotten_by_reset(void **state)
{
	struct envelope_builder *builder = envelope_builder_create();
	char *address = malloc(1001);
	struct span bytes;

	(void)state;
	memset(address, 'x', 1000);
	memcpy(address + 990, "@y", 3);
	envelope_set_sender(builder, span_text("s@s"));
	for (int i = 0; i < 1100; i++)
		add(builder, address);
	assert_false(envelope_seal(builder, &bytes));
	envelope_builder_reset(builder);
	envelope_set_sender(builder, span_text("s@s"));
	assert_true(envelope_seal(builder, &bytes));
	envelope_set(builder, FORMAT_AUTH, span_of(address, 70000)); /* refused before it is read */
	assert_false(envelope_seal(builder, &bytes));
	free(address);
	envelope_builder_destroy(builder);
}

static void bytes_are_as_the_format_says(void **state)
{
	static const unsigned char golden[] = {
		1, 0, 3,  0,   's', '@', 's', /* SENDER */
		4, 0, 1,  0,   'F',	      /* RET */
		2, 0, 14, 0,   2,   0,	 3,   0,   2,
		0, 3, 0,  'a', '@', 'b', 'x', ';', 'y', /* RECIPIENT */
	};
	struct envelope_builder *builder = envelope_builder_create();
	struct envelope_recipient recipient = { .address = span_text("a@b"),
						.orcpt = span_text("x;y"),
						.notify = ENVELOPE_NOTIFY_SUCCESS };
	struct span bytes;

	(void)state;
	envelope_set_sender(builder, span_text("s@s"));
	envelope_set(builder, FORMAT_RET, span_text("F"));
	envelope_add_recipient(builder, &recipient);
	assert_true(envelope_seal(builder, &bytes));
	assert_int_equal(bytes.len, sizeof(golden));
	assert_memory_equal(bytes.at, golden, sizeof(golden));
	envelope_builder_destroy(builder);
}

/* ── hostile bytes ────────────────────────────────────────────────────────────────── */

struct check_case {
	const char *name;
	struct span bytes;
	bool good;
};

#define BYTES(text)                                                                                \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}
#define SENDER "\1\0\0\0"

static const struct check_case check_cases[] = {
	{ "a sender alone is sound", BYTES(SENDER), true },
	{ "no entry at all", BYTES(""), false },
	{ "no sender", BYTES("\4\0\1\0F"), false },
	{ "two senders", BYTES(SENDER SENDER), false },
	{ "a header cut short", BYTES(SENDER "\4\0\1"), false },
	{ "a value cut short", BYTES(SENDER "\3\0\5\0abcd"), false },
	{ "an unknown entry is skipped", BYTES(SENDER "\77\0\1\0x"), true },
	{ "RET of two characters", BYTES(SENDER "\4\0\2\0FF"), false },
	{ "an origin of the wrong size", BYTES(SENDER "\5\0\1\0x"), false },
	{ "a recipient shorter than its header", BYTES(SENDER "\2\0\4\0\0\0\0\0"), false },
	{ "an address longer than its entry", BYTES(SENDER "\2\0\13\0\0\0\4\0\2\0\0\0a@b"), false },
	{ "an address shorter than its entry", BYTES(SENDER "\2\0\13\0\0\0\2\0\2\0\0\0a@b"),
	  false },
	{ "a prefix of whole lines is sound", BYTES(SENDER "\10\0\6\0X: y\r\n"), true },
	{ "an empty prefix", BYTES(SENDER "\10\0\0\0"), false },
	{ "a prefix without its last line end", BYTES(SENDER "\10\0\4\0X: y"), false },
	{ "a prefix with a line that begins with a dot", BYTES(SENDER "\10\0\11\0X: y\r\n.\r\n"),
	  false },
	{ "a sound recipient", BYTES(SENDER "\2\0\13\0\0\0\3\0\2\0\0\0a@b"), true },
	{ "a domain that begins behind the address", BYTES(SENDER "\2\0\13\0\0\0\3\0\4\0\0\0a@b"),
	  false },
	{ "a domain that is not what follows the last @",
	  BYTES(SENDER "\2\0\13\0\0\0\3\0\0\0\0\0a@b"), false },
	{ "an address without a domain", BYTES(SENDER "\2\0\11\0\0\0\1\0\1\0\0\0a"), true },
	{ "recipients out of order",
	  BYTES(SENDER "\2\0\13\0\0\0\3\0\2\0\0\0a@c\2\0\13\0\0\0\3\0\2\0\0\0a@b"), false },
};

static void check_row(void **state)
{
	const struct check_case *row = *state;
	char *copy = malloc(row->bytes.len + 1); /* exact, so that ASan sees a step beyond */

	memcpy(copy, row->bytes.at, row->bytes.len);
	copy = realloc(copy, row->bytes.len ? row->bytes.len : 1);
	assert_int_equal(envelope_check(span_of(copy, row->bytes.len)), row->good);
	free(copy);
}

int main(void)
{
	static const struct CMUnitTest facts[] = {
		cmocka_unit_test(everything_reads_back),
		cmocka_unit_test(a_prefix_comes_before_the_recipients),
		cmocka_unit_test(null_sender_is_there_and_empty),
		cmocka_unit_test(recipients_are_sorted_by_domain_and_stay_in_order_within),
		cmocka_unit_test(a_job_is_up_to_64_recipients_of_one_domain),
		cmocka_unit_test(fifty_thousand_domains_are_walked_in_one_pass),
		cmocka_unit_test(a_reset_builder_starts_anew),
		cmocka_unit_test(too_large_is_said_when_sealing_and_forgotten_by_reset),
		cmocka_unit_test(bytes_are_as_the_format_says),
	};
	struct CMUnitTest rows[array_count(check_cases)];

	for (size_t i = 0; i < array_count(check_cases); i++)
		rows[i] = (struct CMUnitTest){ .name = check_cases[i].name,
					       .test_func = check_row,
					       .initial_state = (void *)&check_cases[i] };
	int failed = cmocka_run_group_tests(facts, NULL, NULL);

	return failed + cmocka_run_group_tests_name("envelope_check", rows, NULL, NULL);
}
