/* What becomes of a message that a program hands over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/check.h"
#include "tools/mail_message.h"

#define DATE "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
#define FROM "From: me@h\r\n"
#define ID   "Message-ID: <id@h>\r\n"
#define TO   "To: undisclosed-recipients:;\r\n"
#define ALL  DATE FROM ID TO
#define FULL "Date: d\r\nFrom: f\r\nMessage-ID: i\r\nTo: t\r\n"

/* ── reading ──────────────────────────────────────────────────────────────────────── */

static const struct reading_case {
	const char *name, *given, *read;
	bool dot_ends;
} readings[] = {
	{ "LF", "a\nb\n", "a\r\nb\r\n", false },
	{ "CR LF", "a\r\nb\r\n", "a\r\nb\r\n", false },
	{ "CR alone", "a\rb\r", "a\r\nb\r\n", false },
	{ "CR CR LF", "a\r\r\nb", "a\r\n\r\nb\r\n", false },
	{ "mixed", "a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd\r\n", false },
	{ "last line without its end", "a", "a\r\n", false },
	{ "nothing", "", "", false },
	{ "empty lines", "\n\n", "\r\n\r\n", false },
	{ "a dot ends", "a\n.\nb\n", "a\r\n", true },
	{ "a dot with CR LF ends", "a\r\n.\r\nb\r\n", "a\r\n", true },
	{ "a dot at the very end", "a\n.", "a\r\n", true },
	{ "a dot first", ".\na\n", "", true },
	{ "a dot does not end with -i", "a\n.\nb\n", "a\r\n.\r\nb\r\n", false },
	{ "two dots end nothing", "..\n. \nb", "..\r\n. \r\nb\r\n", true },
};

static void reading_row(void **state)
{
	const struct reading_case *row = *state;
	struct mail_text text = { 0 };
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], row->given, strlen(row->given)), strlen(row->given));
	close(ends[1]);
	assert_int_equal(mail_message_read(ends[0], row->dot_ends, 1000, &text), 0);
	close(ends[0]);
	assert_int_equal(text.len, strlen(row->read));
	if (text.len > 0)
		assert_memory_equal(text.bytes, row->read, text.len);
	mail_text_release(&text);
}

static void test_too_long(void **state)
{
	struct mail_text text = { 0 };
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], "0123456789", 10), 10);
	close(ends[1]);
	assert_true(mail_message_read(ends[0], false, 5, &text) < 0);
	close(ends[0]);
	mail_text_release(&text);
}

/* ── composing ────────────────────────────────────────────────────────────────────── */

static const struct composing_case {
	const char *name, *given, *composed;
	const char *fields; /* recipients' fields, each followed by '|' */
	const char *full_name;
} composings[] = {
	{ "nothing", "", ALL "\r\n", "", NULL },
	{ "no header", "text\r\nmore\r\n", ALL "\r\ntext\r\nmore\r\n", "", NULL },
	{ "an empty line first", "\r\ntext\r\n", ALL "\r\ntext\r\n", "", NULL },
	{ "a whole header", FULL "\r\nx\r\n", FULL "\r\nx\r\n", " t\r\n|", NULL },
	{ "in any case of letters", "DATE: d\r\nfrom: f\r\nMESSAGE-id: i\r\nCC: c\r\n\r\n",
	  "DATE: d\r\nfrom: f\r\nMESSAGE-id: i\r\nCC: c\r\n\r\n", " c\r\n|", NULL },
	{ "a header without a body", "Subject: s\r\n", ALL "Subject: s\r\n\r\n", "", NULL },
	{ "a body right after the header", "Subject: s\r\ntext\r\n",
	  ALL "Subject: s\r\n\r\ntext\r\n", "", NULL },
	{ "Bcc is dropped, with its folds", FULL "Bcc: a,\r\n b\r\nX: y\r\n\r\n",
	  FULL "X: y\r\n\r\n", " t\r\n| a,\r\n b\r\n|", NULL },
	{ "Bcc alone leaves To to be added", "bcc: a\r\n\r\nx\r\n", ALL "\r\nx\r\n", " a\r\n|",
	  NULL },
	{ "Return-Path is dropped", FULL "Return-Path: <x>\r\n\r\n", FULL "\r\n", " t\r\n|", NULL },
	{ "a mailbox's first line is dropped", "From x Mon Jan 1\r\n" FULL "\r\n", FULL "\r\n",
	  " t\r\n|", NULL },
	{ "From with white space before the colon is a field",
	  "From : f\r\nDate: d\r\nMessage-ID: i\r\nTo: t\r\n\r\n",
	  "From : f\r\nDate: d\r\nMessage-ID: i\r\nTo: t\r\n\r\n", " t\r\n|", NULL },
	{ "white space before the colon", "To : t\r\n\r\n", DATE FROM ID "To : t\r\n\r\n",
	  " t\r\n|", NULL },
	{ "a colon without a name is text", ": x\r\n", ALL "\r\n: x\r\n", "", NULL },
	{ "a blank in the name is text", "To me: x\r\n", ALL "\r\nTo me: x\r\n", "", NULL },
	{ "sent again: only Resent fields count", FULL "Resent-To: r\r\nResent-Bcc: b\r\n\r\n",
	  "Resent-" DATE "Resent-" FROM "Resent-" ID FULL "Resent-To: r\r\n\r\n", " r\r\n| b\r\n|",
	  NULL },
	{ "a full name", "", DATE "From: \"Jane Doe\" <me@h>\r\n" ID TO "\r\n", "", "Jane Doe" },
	{ "a full name with quotes", "", DATE "From: \"J \\\"x\\\\\" <me@h>\r\n" ID TO "\r\n", "",
	  "J \"x\\" },
	{ "a full name in UTF-8", "", DATE "From: =?UTF-8?B?SsO8?= <me@h>\r\n" ID TO "\r\n", "",
	  "J\xc3\xbc" },
	{ "a full name with a line end", "",
	  DATE "From: =?UTF-8?B?YQ0KYg==?= <me@h>\r\n" ID TO "\r\n", "", "a\r\nb" },
};

struct gathered {
	char text[256];
	size_t len;
};

static bool gather(void *context, struct span name, struct span value)
{
	struct gathered *gathered = context;

	assert_true(name.len >= 2);
	gathered->len +=
		(size_t)snprintf(gathered->text + gathered->len,
				 sizeof(gathered->text) - gathered->len, "%.*s|", SPAN_ARG(value));
	return true;
}

static void composing_row(void **state)
{
	const struct composing_case *row = *state;
	struct gathered gathered = { 0 };
	const struct mail_recipient_fields fields = { gather, &gathered };
	const struct mail_identity identity = { .address = "me@h",
						.full_name = row->full_name,
						.id = "id@h" };
	struct mail_text text = { 0 };

	assert_true(mail_message_compose(span_text(row->given), &identity, &fields, &text));
	assert_true(mail_text_add(&text, span_of("", 1)));
	assert_string_equal(text.bytes, row->composed);
	assert_string_equal(gathered.text, row->fields);
	mail_text_release(&text);
}

int main(void)
{
	struct CMUnitTest tests[array_count(readings) + array_count(composings) + 1];
	size_t count = 0;

	for (size_t i = 0; i < array_count(readings); i++)
		tests[count++] = (struct CMUnitTest){ .name = readings[i].name,
						      .test_func = reading_row,
						      .initial_state = (void *)&readings[i] };
	for (size_t i = 0; i < array_count(composings); i++)
		tests[count++] = (struct CMUnitTest){ .name = composings[i].name,
						      .test_func = composing_row,
						      .initial_state = (void *)&composings[i] };
	tests[count++] =
		(struct CMUnitTest){ .name = "longer than allowed", .test_func = test_too_long };
	return _cmocka_run_group_tests("tools_mail_message", tests, count, NULL, NULL);
}
