/*
 * downgrade: messages with 8-bit text, and what a 7-bit server gets; then bodies of every odd
 * kind, which decode to what they were.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/base64.h"
#include "engine/smtp/downgrade.h"
#include "engine/smtp/mime_header.h"
#include "os/check.h"

#define VERSION "MIME-Version: 1.0\r\n"
#define TYPE	"Content-Type: "
#define PLAIN	TYPE "text/plain; charset=utf-8\r\n"
#define CODED	"Content-Transfer-Encoding: "
#define QP	CODED "quoted-printable\r\n"
#define BASE64	CODED "base64\r\n"
#define EIGHT	CODED "8bit\r\n"
#define SEVEN	CODED "7bit\r\n"
#define UNKNOWN TYPE "text/plain; charset=unknown-8bit\r\n"
#define MIXED	TYPE "multipart/mixed; boundary=B\r\n"
#define SIGNED	TYPE "multipart/signed; boundary=B\r\n"
#define X10	"xxxxxxxxxx"
#define X70	X10 X10 X10 X10 X10 X10 X10
#define X1000	X70 X70 X70 X70 X70 X70 X70 X70 X70 X70 X70 X70 X70 X70 X10 X10

/* `wanted` NULL: refused for `why`. */
static const struct downgrade_case {
	const char *name, *message, *wanted, *why;
} messages[] = {
	{ "text of one part", VERSION PLAIN EIGHT "\r\nbücher\r\n",
	  VERSION PLAIN QP "\r\nb=C3=BCcher\r\n", NULL },
	{ "the label's place is kept", EIGHT VERSION PLAIN "\r\nü\r\n",
	  QP VERSION PLAIN "\r\n=C3=BC\r\n", NULL },
	{ "a folded label", VERSION CODED "\r\n\t8bit\r\n" PLAIN "\r\nü\r\n",
	  VERSION QP PLAIN "\r\n=C3=BC\r\n", NULL },
	{ "a label with a comment", VERSION CODED "(so (to) say\\)) 8BIT\r\n" PLAIN "\r\nü\r\n",
	  VERSION QP PLAIN "\r\n=C3=BC\r\n", NULL },
	{ "a label in lower case", VERSION "content-transfer-encoding : 8bit\r\n" PLAIN "\r\nü\r\n",
	  VERSION QP PLAIN "\r\n=C3=BC\r\n", NULL },
	{ "text without a label", VERSION PLAIN "\r\nü\r\n", VERSION PLAIN QP "\r\n=C3=BC\r\n",
	  NULL },
	{ "text labelled 7bit", VERSION PLAIN SEVEN "\r\nü\r\n", VERSION PLAIN QP "\r\n=C3=BC\r\n",
	  NULL },
	{ "no MIME at all", "Subject: x\r\n\r\nü\r\n",
	  "Subject: x\r\n" QP VERSION UNKNOWN "\r\n=C3=BC\r\n", NULL },
	{ "no header at all", "\r\nü\r\n", QP VERSION UNKNOWN "\r\n=C3=BC\r\n", NULL },
	{ "a version without a type", VERSION "\r\nü\r\n", VERSION QP UNKNOWN "\r\n=C3=BC\r\n",
	  NULL },
	{ "a type without a version", PLAIN "\r\nü\r\n", PLAIN QP VERSION "\r\n=C3=BC\r\n", NULL },
	{ "data", VERSION TYPE "image/png\r\n" CODED "binary\r\n\r\n\xff\xd8\r\n",
	  VERSION TYPE "image/png\r\n" BASE64 "\r\n/9gNCg==\r\n", NULL },
	{ "a type that is none", VERSION TYPE "?\r\n\r\nü\r\n",
	  VERSION TYPE "?\r\n" BASE64 "\r\nw7wNCg==\r\n", NULL },
	{ "no CRLF at the end", VERSION PLAIN "\r\nü", VERSION PLAIN QP "\r\n=C3=BC=\r\n", NULL },
	{ "a full line without CRLF at the end", VERSION PLAIN "\r\n" X70 "yyy\xff",
	  VERSION PLAIN QP "\r\n" X70 "yyy=\r\n=FF=\r\n", NULL },
	{ "7-bit text labelled 8bit", VERSION PLAIN EIGHT "\r\n=20 \r\n",
	  VERSION PLAIN SEVEN "\r\n=20 \r\n", NULL },
	{ "a long line labelled 8bit", VERSION PLAIN EIGHT "\r\n" X1000 "\r\n", "", NULL },
	{ "a long line without a label stays", VERSION PLAIN "\r\n" X1000 "\r\n",
	  VERSION PLAIN "\r\n" X1000 "\r\n", NULL },
	{ "7-bit text stays", "Subject: x\r\n\r\n=20 \r\n", "Subject: x\r\n\r\n=20 \r\n", NULL },
	{ "nothing", "", "", NULL },
	{ "a dot stays a dot", VERSION PLAIN "\r\n.\r\nü\r\n",
	  VERSION PLAIN QP "\r\n.\r\n=C3=BC\r\n", NULL },

	{ "parts",
	  VERSION MIXED EIGHT "\r\npre\r\n--B\r\n" PLAIN EIGHT "\r\nü\r\n--B\r\n" TYPE
			      "a/b\r\n" CODED "Base64\r\n\r\nw7w=\r\n--B \t\r\n" TYPE
			      "a/b\r\n\r\n\xff\r\n--B--\r\npost\r\n",
	  VERSION MIXED SEVEN "\r\npre\r\n--B\r\n" PLAIN QP "\r\n=C3=BC\r\n--B\r\n" TYPE
			      "a/b\r\n" CODED "Base64\r\n\r\nw7w=\r\n--B \t\r\n" TYPE
			      "a/b\r\n" BASE64 "\r\n/w==\r\n--B--\r\npost\r\n",
	  NULL },
	{ "parts without a version", MIXED "\r\n--B\r\n\r\nü\r\n--B--\r\n",
	  MIXED VERSION "\r\n--B\r\n" QP UNKNOWN "\r\n=C3=BC\r\n--B--\r\n", NULL },
	{ "a part of 7-bit text beside one of 8-bit",
	  VERSION MIXED "\r\n--B\r\n\r\n=20 \r\n--B\r\n" PLAIN "\r\nü \r\n--B--\r\n",
	  VERSION MIXED "\r\n--B\r\n\r\n=20 \r\n--B\r\n" PLAIN QP "\r\n=C3=BC=20\r\n--B--\r\n",
	  NULL },
	{ "a part that ends in an empty line",
	  VERSION MIXED "\r\n--B\r\n" PLAIN "\r\nü\r\n\r\n--B--\r\n",
	  VERSION MIXED "\r\n--B\r\n" PLAIN QP "\r\n=C3=BC\r\n\r\n--B--\r\n", NULL },
	{ "a part without a body", VERSION MIXED "\r\n--B\r\n" EIGHT "--B\r\n" EIGHT "\r\n--B--",
	  VERSION MIXED "\r\n--B\r\n" SEVEN "--B\r\n" SEVEN "\r\n--B--", NULL },
	{ "a label with the delimiter behind it",
	  VERSION MIXED "\r\n--B\r\n" CODED "8bit\r\n--B\r\n" PLAIN "\r\nü\r\n--B--",
	  VERSION MIXED "\r\n--B\r\n" CODED "7bit\r\n--B\r\n" PLAIN QP "\r\n=C3=BC\r\n--B--",
	  NULL },
	{ "no last delimiter", VERSION MIXED "\r\n--B\r\n" PLAIN "\r\nü\r\n",
	  VERSION MIXED "\r\n--B\r\n" PLAIN QP "\r\n=C3=BC\r\n", NULL },
	{ "a longer delimiter is none", VERSION MIXED "\r\n--B\r\n" PLAIN "\r\nü\r\n--B2\r\n--B--",
	  VERSION MIXED "\r\n--B\r\n" PLAIN QP "\r\n=C3=BC\r\n--B2\r\n--B--", NULL },
	{ "a boundary in quotes",
	  VERSION TYPE "multipart/x; a=\";boundary=C\"; Boundary=\"a \\b \"\r\n\r\n--a b\r\n" PLAIN
		       "\r\nü\r\n--a b--",
	  VERSION TYPE
	  "multipart/x; a=\";boundary=C\"; Boundary=\"a \\b \"\r\n\r\n--a b\r\n" PLAIN QP
	  "\r\n=C3=BC\r\n--a b--",
	  NULL },
	{ "a boundary that wanted quotes",
	  VERSION TYPE "multipart/x;\r\n boundary=--=_a/b:c\r\n\r\n----=_a/b:c\r\n" PLAIN
		       "\r\nü\r\n----=_a/b:c--",
	  VERSION TYPE "multipart/x;\r\n boundary=--=_a/b:c\r\n\r\n----=_a/b:c\r\n" PLAIN QP
		       "\r\n=C3=BC\r\n----=_a/b:c--",
	  NULL },
	{ "parts of parts",
	  VERSION MIXED "\r\n--B\r\n" TYPE "multipart/alternative; boundary=B1\r\n" EIGHT
			"\r\n--B1\r\n" PLAIN "\r\nü\r\n--B1--\r\n\r\n--B--\r\n",
	  VERSION MIXED "\r\n--B\r\n" TYPE "multipart/alternative; boundary=B1\r\n" SEVEN
			"\r\n--B1\r\n" PLAIN QP "\r\n=C3=BC\r\n--B1--\r\n\r\n--B--\r\n",
	  NULL },
	{ "an outer delimiter ends inner parts",
	  VERSION MIXED "\r\n--B\r\n" TYPE "multipart/x; boundary=C\r\n\r\n--C\r\n" PLAIN
			"\r\nü\r\n--B\r\n" PLAIN "\r\n--C\r\nß\r\n--B--\r\n",
	  VERSION MIXED "\r\n--B\r\n" TYPE "multipart/x; boundary=C\r\n\r\n--C\r\n" PLAIN QP
			"\r\n=C3=BC\r\n--B\r\n" PLAIN QP "\r\n--C\r\n=C3=9F\r\n--B--\r\n",
	  NULL },
	{ "a message inside",
	  VERSION MIXED "\r\n--B\r\n" TYPE "message/rfc822\r\n" EIGHT
			"\r\nSubject: y\r\n\r\nü\r\n--B--\r\n",
	  VERSION MIXED "\r\n--B\r\n" TYPE "message/rfc822\r\n" SEVEN
			"\r\nSubject: y\r\n" QP VERSION UNKNOWN "\r\n=C3=BC\r\n--B--\r\n",
	  NULL },
	{ "messages of a digest",
	  VERSION TYPE "multipart/digest; boundary=B\r\n\r\n--B\r\n\r\n" VERSION PLAIN
		       "\r\nü\r\n--B--\r\n",
	  VERSION TYPE "multipart/digest; boundary=B\r\n\r\n--B\r\n\r\n" VERSION PLAIN QP
		       "\r\n=C3=BC\r\n--B--\r\n",
	  NULL },
	{ "what may be encoded of a report",
	  VERSION TYPE "message/global-delivery-status\r\n" EIGHT "\r\nü\r\n",
	  VERSION TYPE "message/global-delivery-status\r\n" BASE64 "\r\nw7wNCg==\r\n", NULL },
	{ "7-bit text in a sealed part beside 8-bit",
	  VERSION MIXED "\r\n--B\r\n" TYPE "multipart/signed; boundary=C\r\n\r\n--C\r\n" EIGHT
			"\r\nu\r\n--C--\r\n--B\r\n" PLAIN "\r\nü\r\n--B--\r\n",
	  VERSION MIXED "\r\n--B\r\n" TYPE "multipart/signed; boundary=C\r\n\r\n--C\r\n" EIGHT
			"\r\nu\r\n--C--\r\n--B\r\n" PLAIN QP "\r\n=C3=BC\r\n--B--\r\n",
	  NULL },
	{ "an odd header over 7-bit text",
	  VERSION MIXED "\r\n--B\r\nodd\r\n\r\n--B\r\n\r\nü\r\n--B--",
	  VERSION MIXED "\r\n--B\r\nodd\r\n\r\n--B\r\n" QP UNKNOWN "\r\n=C3=BC\r\n--B--", NULL },

	{ "text that is signed", VERSION SIGNED "\r\n--B\r\n\r\nü\r\n--B--\r\n", NULL,
	  "8-bit text is signed or encrypted" },
	{ "text that is encrypted",
	  VERSION TYPE "multipart/encrypted; boundary=B\r\n\r\n--B\r\n\r\nü\r\n--B--\r\n", NULL,
	  "8-bit text is signed or encrypted" },
	{ "a DKIM signature", "DKIM-Signature: v=1\r\n" VERSION PLAIN "\r\nü\r\n", NULL,
	  "it is signed (DKIM or ARC)" },
	{ "an ARC seal", "Arc-Seal : i=1\r\n" VERSION PLAIN "\r\nü\r\n", NULL,
	  "it is signed (DKIM or ARC)" },
	{ "an ARC signature", "ARC-Message-Signature: i=1\r\n\r\nü\r\n", NULL,
	  "it is signed (DKIM or ARC)" },
	{ "8-bit text in the header", "Subject: ü\r\n" VERSION PLAIN EIGHT "\r\nu\r\n", NULL,
	  "a header has 8-bit text" },
	{ "8-bit text in a part's header",
	  VERSION MIXED "\r\n--B\r\n" TYPE "a/b; name=\"ü\"\r\n\r\nu\r\n--B--\r\n", NULL,
	  "a header has 8-bit text" },
	{ "8-bit text before the parts", VERSION MIXED "\r\nü\r\n--B\r\n\r\nu\r\n--B--\r\n", NULL,
	  "there are 8-bit octets beside its parts" },
	{ "8-bit text behind the parts", VERSION MIXED "\r\n--B\r\n\r\nu\r\n--B--\r\nü\r\n", NULL,
	  "there are 8-bit octets beside its parts" },
	{ "8-bit text labelled base64", VERSION PLAIN BASE64 "\r\nü\r\n", NULL,
	  "a part with 8-bit octets claims to be encoded" },
	{ "a label that nobody knows", VERSION PLAIN CODED "8bit 7bit\r\n\r\nü\r\n", NULL,
	  "a part with 8-bit octets claims to be encoded" },
	{ "parts labelled base64", VERSION MIXED BASE64 "\r\n--B\r\n\r\nü\r\n--B--\r\n", NULL,
	  "what has parts claims to be encoded" },
	{ "a piece of a message", VERSION TYPE "message/partial\r\n\r\nü\r\n", NULL,
	  "a part with 8-bit octets is of a type that may not be encoded" },
	{ "parts without a boundary", VERSION TYPE "multipart/mixed\r\n\r\nü\r\n", NULL,
	  "a multipart has no boundary" },
	{ "a boundary that is too long",
	  VERSION TYPE "multipart/mixed; boundary=" X70 X70 X70 "\r\n\r\nü\r\n", NULL,
	  "a header is malformed or ambiguous" },
	{ "two boundaries", VERSION TYPE "multipart/x; boundary=B; boundary=C\r\n\r\nü\r\n", NULL,
	  "a header is malformed or ambiguous" },
	{ "two types", VERSION PLAIN PLAIN "\r\nü\r\n", NULL,
	  "a header is malformed or ambiguous" },
	{ "two labels", VERSION EIGHT EIGHT "\r\nü\r\n", NULL,
	  "a header is malformed or ambiguous" },
	{ "a line that is no field", VERSION "From me\r\n\r\nü\r\n", NULL,
	  "a header is malformed or ambiguous" },
	{ "a bare CR in the header", VERSION "X: a\rb\r\n\r\nü\r\n", NULL,
	  "a header is malformed or ambiguous" },
};

/* What a body becomes; "": see `only_text`, only that it decodes. */
static const struct body_case {
	const char *name, *body, *wanted;
} bodies[] = {
	{ "an equals sign", "a=b", "a=3Db" },
	{ "blanks at the end of lines", "a \r\nb\t\r\n c", "a=20\r\nb=09\r\n c" },
	{ "blanks at the end", "a\t ", "a\t=20" },
	{ "a bare CR", "a\rb", "a=0Db" },
	{ "a bare LF", "a\nb", "a=0Ab" },
	{ "a CR before a CRLF", "a\r\r\nb", "a=0D\r\nb" },
	{ "empty lines", "\r\n\r\na\r\n\r\n", "\r\n\r\na\r\n\r\n" },
	{ "a line of 76", X70 "yyyyyy\r\n", X70 "yyyyyy\r\n" },
	{ "a line of 77", X70 "yyyyyyy", X70 "yyyyy=\r\nyy" },
	{ "a letter across the break", X70 "yyyü\r\n", X70 "yyy=\r\n=C3=BC\r\n" },
	{ "a letter that just fits", X70 "yyy\xff\r\n", X70 "yyy=FF\r\n" },
	{ "a blank across the break", X70 "yyyyy yy", X70 "yyyyy=\r\n yy" },
	{ "a blank at the end of a full line", X70 "yyyyyy \r\n", X70 "yyyyy=\r\ny=20\r\n" },
	{ "what is no delimiter becomes none", X70 "yyyyy--B\r\n", X70 "yyyyy=\r\n=2D-B\r\n" },
	{ "delete and controls", "\x7f\x01", "=7F=01" },
};

static void message_row(void **state)
{
	const struct downgrade_case *row = *state;
	struct mime_output output = { 0 }, again = { 0 };
	const char *why = downgrade_message(span_of("", 0), span_text(row->message), &output);
	struct span got = span_of(output.at, output.len);

	if (!row->wanted) {
		assert_non_null(why);
		assert_string_equal(why, row->why);
		goto done;
	}
	assert_null(why);
	if (row->wanted[0] != '\0') {
		assert_int_equal(got.len, strlen(row->wanted));
		assert_memory_equal(got.at, row->wanted, got.len);
	}
	assert_null(downgrade_message(span_of("", 0), got, &again));
	assert_int_equal(again.len, got.len);
	assert_true(again.len == 0 || memcmp(again.at, got.at, got.len) == 0);
done:
	mime_output_free(&output);
	mime_output_free(&again);
}

static void body_row(void **state)
{
	const struct body_case *row = *state;
	struct mime_output output = { 0 };

	mime_put_quoted_printable(&output, span_text(row->body), false);
	assert_int_equal(output.len, strlen(row->wanted));
	assert_memory_equal(output.at, row->wanted, output.len);
	mime_output_free(&output);
}

static void base64_lines(void **state)
{
	struct mime_output output = { 0 };
	char octets[57 * 3 + 1], back[sizeof(octets) + 2];
	size_t len;

	(void)state;
	memset(octets, '\xf3', sizeof(octets));
	mime_put_base64(&output, span_of(octets, sizeof(octets)), true);
	assert_int_equal(output.len, 3 * 78 + 4 + 2);
	for (int i = 0; i < 3; i++) {
		assert_memory_equal(output.at + i * 78 + 76, "\r\n", 2);
		assert_true(base64_decode(span_of(output.at + i * 78, 76), back, &len));
		assert_int_equal(len, 57);
		assert_memory_equal(back, octets, 57);
	}
	assert_memory_equal(output.at + 3 * 78, "8w==\r\n", 6);
	mime_output_free(&output);
}

static void prefix_is_signed(void **state)
{
	struct mime_output output = { 0 };

	(void)state;
	assert_non_null(downgrade_message(span_text("DKIM-Signature: v=1;\r\n b=x\r\n"),
					  span_text("\r\n\xff\r\n"), &output));
	assert_null(downgrade_message(span_text("Return-Path: <>\r\n"), span_text("\r\n\xff\r\n"),
				      &output));
	mime_output_free(&output);
}

/* `levels` multiparts in each other, with 8-bit text in the last. */
static const char *nested(int levels, struct mime_output *output)
{
	char message[4096];
	size_t len = (size_t)snprintf(message, sizeof(message), VERSION);
	const char *why;

	for (int i = 0; i < levels; i++)
		len += (size_t)snprintf(message + len, sizeof(message) - len,
					TYPE "multipart/x; boundary=B%d\r\n\r\n--B%d\r\n", i, i);
	len += (size_t)snprintf(message + len, sizeof(message) - len, "\r\n\xff\r\n");
	why = downgrade_message(span_of("", 0), span_of(message, len), output);
	mime_output_free(output);
	return why;
}

static void depth_is_bounded(void **state)
{
	struct mime_output output = { 0 };

	(void)state;
	assert_null(nested(DOWNGRADE_DEPTH_MAX, &output));
	assert_string_equal(nested(DOWNGRADE_DEPTH_MAX + 1, &output),
			    "its parts are nested too deep");
}

int main(void)
{
	struct CMUnitTest tests[array_count(messages) + array_count(bodies) + 3];
	size_t count = 0;

	for (size_t i = 0; i < array_count(messages); i++)
		tests[count++] = (struct CMUnitTest){ messages[i].name, message_row, NULL, NULL,
						      (void *)&messages[i] };
	for (size_t i = 0; i < array_count(bodies); i++)
		tests[count++] = (struct CMUnitTest){ bodies[i].name, body_row, NULL, NULL,
						      (void *)&bodies[i] };
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(base64_lines);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(prefix_is_signed);
	tests[count++] = (struct CMUnitTest)cmocka_unit_test(depth_is_bounded);
	return cmocka_run_group_tests_name("smtp_downgrade", tests, NULL, NULL);
}
