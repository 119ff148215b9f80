/* A submitted header, before and after; each row is fed whole, bytewise, and cut at every place. */
#include "engine/inbound/submission.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/check.h"

#define D  "Date: today\r\n"
#define I  "Message-ID: <id@us>\r\n"
#define NL "\r\n"

static const struct edit_case {
	const char *name, *in, *out;
} cases[] = {
	{ "both are missing", "A: b" NL NL "hi" NL, "A: b" NL D I NL "hi" NL },
	{ "neither is missing", "Date: x" NL "Message-ID: y" NL NL "hi" NL,
	  "Date: x" NL "Message-ID: y" NL NL "hi" NL },
	{ "only the date is missing", "message-id: y" NL NL, "message-id: y" NL D NL },
	{ "only the id is missing", "DATE: y" NL NL, "DATE: y" NL I NL },
	{ "blanks before the colon", "Date : x" NL "Message-Id\t:" NL NL,
	  "Date : x" NL "Message-Id\t:" NL NL },
	{ "others are not these", "Dates: x" NL "Dat: x" NL "Resent-Date: x" NL NL,
	  "Dates: x" NL "Dat: x" NL "Resent-Date: x" NL D I NL },
	{ "Bcc is dropped", "A: b" NL "Bcc: r@x" NL "C: d" NL NL, "A: b" NL "C: d" NL D I NL },
	{ "folded lines of it, too", "Bcc: r@x," NL "\ts@x," NL " t@x" NL "C: d" NL " e" NL NL,
	  "C: d" NL " e" NL D I NL },
	{ "in any case, and twice", "BCC: a" NL "A: b" NL "bcc : c" NL NL, "A: b" NL D I NL },
	{ "Resent-Bcc and Return-Path", "Resent-Bcc: a" NL "Return-Path: <b>" NL NL, D I NL },
	{ "what only begins so stays", "Bcc-X: a" NL "X-Bcc: b" NL NL,
	  "Bcc-X: a" NL "X-Bcc: b" NL D I NL },
	{ "Bcc in the body stays", "A: b" NL NL "Bcc: x" NL "Date: y" NL,
	  "A: b" NL D I NL "Bcc: x" NL "Date: y" NL },
	{ "a folded line is no field", "A: b" NL " Date: x" NL " Bcc: y" NL NL,
	  "A: b" NL " Date: x" NL " Bcc: y" NL D I NL },
	{ "a line of blanks is a folded one", "A: b" NL "  " NL "Date: x" NL NL,
	  "A: b" NL "  " NL "Date: x" NL I NL },
	{ "a long name", "X-A-name-that-is-longer-than-anything-here: b" NL NL,
	  "X-A-name-that-is-longer-than-anything-here: b" NL D I NL },
	{ "no header", NL "hi" NL, D I NL "hi" NL },
	{ "nothing", "", D I },
	{ "a body without an empty line", "A: b" NL "hello you" NL "Bcc: x" NL,
	  "A: b" NL D I NL "hello you" NL "Bcc: x" NL },
	{ "only a body", "hello" NL, D I NL "hello" NL },
	{ "a body that begins with a colon", ": x" NL, D I NL ": x" NL },
	{ "a body that begins with a blank", " x" NL, D I NL " x" NL },
	{ "a body that begins with 8-bit letters", "\xc3\xa4: x" NL, D I NL "\xc3\xa4: x" NL },
	{ "the From line of a mailbox is none", "From a@x Mon" NL "A: b" NL,
	  D I NL "From a@x Mon" NL "A: b" NL },
	{ "only a header", "A: b" NL, "A: b" NL D I },
	{ "a header that ends in a field", "A: b", "A: b" NL D I },
	{ "one that ends in Bcc", "A: b" NL "Bcc: x", "A: b" NL D I },
	{ "one that ends in a name", "A: b" NL "Da", "A: b" NL D I NL "Da" },
	{ "an empty field", "A:" NL NL, "A:" NL D I NL },
	{ "a colon at once", "A::" NL NL, "A::" NL D I NL },
};

struct result {
	char text[1024];
	size_t len;
};

static void sink(void *context, struct span bytes)
{
	struct result *result = context;

	assert_true(bytes.len > 0 && result->len + bytes.len < sizeof(result->text));
	memcpy(result->text + result->len, bytes.at, bytes.len);
	result->len += bytes.len;
	result->text[result->len] = '\0';
}

static void edit_row(void **state)
{
	const struct edit_case *row = *state;
	struct span in = span_text(row->in);

	/* `cut` beyond the end: whole; and once octet by octet. */
	for (size_t cut = 0; cut <= in.len + 1; cut++) {
		struct submission submission;
		struct result result = { "", 0 };

		submission_begin(&submission, "today", "id@us", sink, &result);
		if (cut <= in.len) {
			submission_feed(&submission, span_of(in.at, cut));
			submission_feed(&submission, span_skip(in, cut));
		} else {
			for (size_t i = 0; i < in.len; i++)
				submission_feed(&submission, span_of(in.at + i, 1));
		}
		submission_end(&submission);
		assert_string_equal(result.text, row->out);
	}
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		tests[i] = (struct CMUnitTest){ .name = cases[i].name,
						.test_func = edit_row,
						.initial_state = (void *)&cases[i] };
	return cmocka_run_group_tests_name("submission", tests, NULL, NULL);
}
