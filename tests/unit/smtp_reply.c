/*
 * Replies: each row is fed whole, octet by octet, and split at every place.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/reply.h"

static const struct reply_case {
	const char *name, *bytes;
	enum smtp_reply_class class;
	uint16_t code, status;
	const char *text;
	bool disagree;
	enum smtp_reason reason;
} cases[] = {
	{ "bare code", "250\r\n", SMTP_REPLY_OK, 250, 20000, "" },
	{ "code and blank", "250 \r\n", SMTP_REPLY_OK, 250, 20000, "" },
	{ "unfinished line", "250 ok", SMTP_REPLY_MORE },
	{ "unfinished CRLF", "250 ok\r", SMTP_REPLY_MORE },
	{ "unfinished multiline", "250-a\r\n250-b\r\n", SMTP_REPLY_MORE },
	{ "multiline", "250-a\r\n250-b c\r\n250 d\r\n", SMTP_REPLY_OK, 250, 20000, "a\nb c\nd" },
	{ "the last code decides", "250-a\r\n550 b\r\n", SMTP_REPLY_PERMANENT, 550, 50000, "a\nb",
	  true },
	{ "go on", "354 go\r\n", SMTP_REPLY_GO_ON, 354, 30000, "go" },
	{ "enhanced code stays in the text", "550 5.1.1 no\r\n", SMTP_REPLY_PERMANENT, 550, 50101,
	  "5.1.1 no", false, SMTP_REASON_NO_MAILBOX },
	{ "enhanced code from a later line", "550-hm\r\n550 5.7.1 no\r\n", SMTP_REPLY_PERMANENT,
	  550, 50701, "hm\n5.7.1 no", false, SMTP_REASON_POLICY },
	{ "enhanced code of another class", "550 4.1.1 no\r\n", SMTP_REPLY_PERMANENT, 550, 50000,
	  "4.1.1 no" },
	{ "enhanced code with three digits", "550 5.7.606 no\r\n", SMTP_REPLY_PERMANENT, 550, 59606,
	  "5.7.606 no", false, SMTP_REASON_POLICY },
	{ "not an enhanced code", "550 5.1.1x no\r\n", SMTP_REPLY_PERMANENT, 550, 50000,
	  "5.1.1x no" },
	{ "bare 550 is not 5.1.1", "550 no\r\n", SMTP_REPLY_PERMANENT, 550, 50000, "no" },
	{ "bare 503", "503 no\r\n", SMTP_REPLY_PERMANENT, 503, 50501, "no" },
	{ "bare 535", "535 no\r\n", SMTP_REPLY_PERMANENT, 535, 50708, "no" },
	{ "bare 556", "556 no\r\n", SMTP_REPLY_PERMANENT, 556, 50110, "no", false,
	  SMTP_REASON_NO_MAILBOX },
	{ "closing", "421 bye\r\n", SMTP_REPLY_TRANSIENT, 421, 40000, "bye", false,
	  SMTP_REASON_SITE_DOWN },
	{ "Gmail's rate", "421-4.7.28 slow\r\n421 4.7.28 down\r\n", SMTP_REPLY_TRANSIENT, 421,
	  40728, "4.7.28 slow\n4.7.28 down", false, SMTP_REASON_SLOW_DOWN },
	{ "Yahoo's rate", "421 4.7.0 [TSS04] later\r\n", SMTP_REPLY_TRANSIENT, 421, 40700,
	  "4.7.0 [TSS04] later", false, SMTP_REASON_SLOW_DOWN },
	{ "Microsoft's rate", "451 4.7.500 busy\r\n", SMTP_REPLY_TRANSIENT, 451, 49500,
	  "4.7.500 busy", false, SMTP_REASON_SLOW_DOWN },
	{ "Microsoft's unknown user", "550 5.4.1 Access denied\r\n", SMTP_REPLY_PERMANENT, 550,
	  50401, "5.4.1 Access denied", false, SMTP_REASON_NO_MAILBOX },
	{ "greylisted", "451 4.7.1 later\r\n", SMTP_REPLY_TRANSIENT, 451, 40701, "4.7.1 later",
	  false, SMTP_REASON_GREYLISTED },
	{ "greylisted in words", "450 You are GREYLISTED\r\n", SMTP_REPLY_TRANSIENT, 450, 40000,
	  "You are GREYLISTED", false, SMTP_REASON_GREYLISTED },
	{ "too many", "452 4.5.3 no more\r\n", SMTP_REPLY_TRANSIENT, 452, 40503, "4.5.3 no more",
	  false, SMTP_REASON_TOO_MANY },
	{ "bare 452", "452 no more\r\n", SMTP_REPLY_TRANSIENT, 452, 40000, "no more", false,
	  SMTP_REASON_TOO_MANY },
	{ "bare 552", "552 no more\r\n", SMTP_REPLY_PERMANENT, 552, 50000, "no more", false,
	  SMTP_REASON_TOO_MANY },
	{ "552 of a full mailbox", "552 5.2.2 full\r\n", SMTP_REPLY_PERMANENT, 552, 50202,
	  "5.2.2 full", false, SMTP_REASON_MAILBOX_FULL },
	{ "552 of a big message", "552 5.3.4 big\r\n", SMTP_REPLY_PERMANENT, 552, 50304,
	  "5.3.4 big" },
	{ "control characters",
	  "250 a\x1b\x7f"
	  "b\r\n",
	  SMTP_REPLY_OK, 250, 20000, "a??b" },
	{ "bare LF is refused", "250 ok\n", SMTP_REPLY_MALFORMED },
	{ "bare LF between lines", "250-a\n250 b\r\n", SMTP_REPLY_MALFORMED },
	{ "no code", "hello\r\n", SMTP_REPLY_MALFORMED },
	{ "empty line", "\r\n", SMTP_REPLY_MALFORMED },
	{ "two digits", "25 ok\r\n", SMTP_REPLY_MALFORMED },
	{ "four digits", "2500 ok\r\n", SMTP_REPLY_MALFORMED },
	{ "1xx", "150 ok\r\n", SMTP_REPLY_MALFORMED },
	{ "6xx", "650 ok\r\n", SMTP_REPLY_MALFORMED },
	{ "nonsense inside", "250-a\r\nnonsense\r\n", SMTP_REPLY_MALFORMED },
};

static struct smtp_reply reply;

static void check(const struct reply_case *row)
{
	assert_int_equal(reply.class, row->class);
	if (row->class == SMTP_REPLY_MORE || row->class == SMTP_REPLY_MALFORMED)
		return;
	assert_int_equal(reply.code, row->code);
	assert_int_equal(smtp_reply_status(&reply), row->status);
	assert_true(span_equal(smtp_reply_text(&reply), span_text(row->text)));
	assert_string_equal(reply.text, row->text);
	assert_int_equal(reply.codes_disagree, row->disagree);
	assert_int_equal(smtp_reply_reason(&reply), row->reason);
}

static size_t feed(struct span bytes)
{
	return bytes.len > 0 && reply.class == SMTP_REPLY_MORE ? smtp_reply_feed(&reply, bytes) : 0;
}

static void reply_run(void **state)
{
	const struct reply_case *row = *state;
	struct span bytes = span_text(row->bytes);

	for (size_t split = 0; split <= bytes.len; split++) {
		smtp_reply_reset(&reply);
		feed(span_of(bytes.at, split));
		feed(span_skip(bytes, split));
		check(row);
	}
	smtp_reply_reset(&reply);
	for (size_t i = 0; i < bytes.len; i++)
		feed(span_of(bytes.at + i, 1));
	check(row);
}

static void one_reply_is_taken(void **state)
{
	(void)state;
	smtp_reply_reset(&reply);
	assert_int_equal(feed(span_text("250 a\r\n550 b\r\n")), 7);
	assert_int_equal(reply.code, 250);
}

static void text_is_bounded(void **state)
{
	char line[3000];

	(void)state;
	memset(line, 'x', sizeof(line));
	memcpy(line, "250-", 4);
	memcpy(line + sizeof(line) - 2, "\r\n", 2);
	smtp_reply_reset(&reply);
	for (int i = 0; i < SMTP_REPLY_LINES_MAX; i++)
		feed(span_of(line, sizeof(line)));
	assert_int_equal(reply.class, SMTP_REPLY_MORE);
	assert_int_equal(reply.text_len, SMTP_REPLY_TEXT_MAX);
	feed(span_text("250 ok\r\n"));
	assert_int_equal(reply.class, SMTP_REPLY_MALFORMED); /* one line too many */
}

static void endless_line_is_malformed(void **state)
{
	(void)state;
	smtp_reply_reset(&reply);
	for (int i = 0; i <= SMTP_REPLY_LINE_MAX; i++)
		feed(span_text("2"));
	assert_int_equal(reply.class, SMTP_REPLY_MALFORMED);
}

static void enhanced_codes_print(void **state)
{
	static const char *const texts[] = { "5.1.1",	"4.7.28", "5.7.515",
					     "5.7.606", "2.0.0",  "5.19.99" };
	char out[12];

	(void)state;
	for (size_t i = 0; i < array_count(texts); i++)
		assert_string_equal(
			smtp_enhanced_text(smtp_enhanced_parse(span_text(texts[i])), out),
			texts[i]);
	assert_int_equal(smtp_enhanced_subject(59606), 7);
	assert_int_equal(smtp_enhanced_detail(59606), 606);
	assert_int_equal(smtp_enhanced_parse(span_text("3.0.0")), 0);
	assert_int_equal(smtp_enhanced_parse(span_text("5.1")), 0);
	assert_int_equal(smtp_enhanced_parse(span_text("5.1.1234")), 0);
	assert_int_equal(smtp_enhanced_parse(span_text("5..1.1")), 0);
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases) + 4];
	size_t n = 0;

	for (size_t i = 0; i < array_count(cases); i++)
		tests[n++] = (struct CMUnitTest){ cases[i].name, reply_run, NULL, NULL,
						  (void *)&cases[i] };
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(one_reply_is_taken);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(text_is_bounded);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(endless_line_is_malformed);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(enhanced_codes_print);
	return cmocka_run_group_tests_name("smtp_reply", tests, NULL, NULL);
}
