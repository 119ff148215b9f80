/*
 * DKIM without keys: canonical forms, whose domain answers for a message, what of its header is
 * signed, and the field that says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/dkim/from.h"
#include "engine/dkim/header.h"
#include "engine/dkim/tags.h"
#include "os/check.h"

enum { TEXT_MAX = 1 << 20 };

static void assert_text(const struct dkim_text *text, const char *expected)
{
	if (span_equal(span_of(text->at, text->len), span_text(expected)))
		return;
	fail_msg("\"%.*s\" is not \"%s\"", (int)text->len, text->at ? text->at : "", expected);
}

/* ── bodies ───────────────────────────────────────────────────────────────────────── */

static const struct body_case {
	const char *name, *body, *relaxed, *simple;
} bodies[] = {
	{ "the example of RFC 6376, 3.4.5", " C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n",
	  " C \r\nD \t E\r\n" },
	{ "no body at all", "", "", "\r\n" },
	{ "an empty line alone", "\r\n", "", "\r\n" },
	{ "three empty lines alone", "\r\n\r\n\r\n", "", "\r\n" },
	{ "a line of white space alone", " \t \r\n", "", " \t \r\n" },
	{ "white space without a line end", "  ", "", "  \r\n" },
	{ "no final line end", "a", "a\r\n", "a\r\n" },
	{ "white space behind the last word", "a \t", "a\r\n", "a \t\r\n" },
	{ "empty lines between lines stay", "a\r\n\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n",
	  "a\r\n\r\n\r\nb\r\n" },
	{ "lines of white space at the end", "a\r\n \r\n\t\r\n", "a\r\n", "a\r\n \r\n\t\r\n" },
	{ "lines of white space in the middle", "a\r\n \r\nb\r\n", "a\r\n\r\nb\r\n",
	  "a\r\n \r\nb\r\n" },
	{ "a line that begins with a tab", "\tx\r\n\ty\r\n", " x\r\n y\r\n", "\tx\r\n\ty\r\n" },
	{ "two spaces, space and tab, tab alone", "a  b \tc\td\r\n", "a b c d\r\n",
	  "a  b \tc\td\r\n" },
	{ "a lone CR is an octet", "a\rb \r\r\nc\r", "a\rb \r\r\nc\r\r\n", "a\rb \r\r\nc\r\r\n" },
	{ "a lone LF is an octet", "a \nb\n\r\n", "a \nb\n\r\n", "a \nb\n\r\n" },
	{ "octets above 127", "\xc3\xa4  \xff\r\n", "\xc3\xa4 \xff\r\n", "\xc3\xa4  \xff\r\n" },
	{ "dots", "..\r\n.\r\n", "..\r\n.\r\n", "..\r\n.\r\n" },
};

static void gather(void *context, struct span bytes)
{
	dkim_text_add(context, bytes);
}

/* Its canonical form when it comes in two parts, each in pieces of that size. */
static void canon_in(enum dkim_canon canon, struct span body, size_t cut, size_t piece,
		     struct dkim_text *out)
{
	struct dkim_body state;

	dkim_text_reset(out);
	dkim_body_init(&state, canon, gather, out);
	for (size_t at = 0; at < body.len;) {
		size_t end = at < cut ? cut : body.len;
		size_t len = end - at < piece ? end - at : piece;
		char *copy = malloc(len); /* a sanitizer sees its end */

		memcpy(copy, body.at + at, len);
		dkim_body_feed(&state, span_of(copy, len));
		free(copy);
		at += len;
	}
	dkim_body_end(&state);
}

static void check_body(void **state)
{
	const struct body_case *row = *state;
	struct span body = span_text(row->body);
	struct dkim_text out;

	dkim_text_init(&out, TEXT_MAX);
	for (size_t cut = 0; cut <= body.len; cut++)
		for (int i = 0; i < 2; i++) {
			size_t piece = i == 0 ? 1 : body.len + 1;

			canon_in(DKIM_RELAXED, body, cut, piece, &out);
			assert_text(&out, row->relaxed);
			canon_in(DKIM_SIMPLE, body, cut, piece, &out);
			assert_text(&out, row->simple);
		}
	dkim_text_deinit(&out);
}

/* Longer than what is staged, of the octets that matter, however it is cut. */
static void long_bodies_do_not_depend_on_their_pieces(void **state)
{
	static const char alphabet[] = "ab \t\r\n\r\n";
	enum { BYTES = 9000 };
	static char body[BYTES];
	struct dkim_text whole, pieces;
	uint32_t dice = 1;

	(void)state;
	dkim_text_init(&whole, TEXT_MAX);
	dkim_text_init(&pieces, TEXT_MAX);
	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < BYTES; i++) {
			dice = dice * 1664525 + 1013904223;
			body[i] = (dice >> 16) % 4 ? 'x' : alphabet[(dice >> 24) % 8];
		}
		for (enum dkim_canon canon = DKIM_RELAXED; canon <= DKIM_SIMPLE; canon++) {
			canon_in(canon, span_of(body, BYTES), 0, BYTES, &whole);
			for (size_t piece = 1; piece < 70; piece += 7) {
				canon_in(canon, span_of(body, BYTES), 0, piece, &pieces);
				assert_int_equal(whole.len, pieces.len);
				assert_memory_equal(whole.at, pieces.at, whole.len);
			}
		}
	}
	dkim_text_deinit(&whole);
	dkim_text_deinit(&pieces);
}

/* ── header fields ────────────────────────────────────────────────────────────────── */

static const struct field_case {
	const char *name, *field, *relaxed;
} fields[] = {
	{ "the first of RFC 6376, 3.4.5", "A: X", "a:X" },
	{ "the second of RFC 6376, 3.4.5", "B : Y\t\r\n\tZ  ", "b:Y Z" },
	{ "no value", "X-Empty:", "x-empty:" },
	{ "a value of white space", "X-Empty: \r\n\t", "x-empty:" },
	{ "folded several times", "S: a\r\n b\r\n\t\tc", "s:a b c" },
	{ "white space before the colon", "From\t : a@b", "from:a@b" },
	{ "further colons", "S:a:b :c", "s:a:b :c" },
	{ "octets above 127 in the value", "S: \xc3\xa4  \xc3\x84", "s:\xc3\xa4 \xc3\x84" },
};

static void check_field(void **state)
{
	const struct field_case *row = *state;
	struct dkim_text out;

	dkim_text_init(&out, TEXT_MAX);
	dkim_canon_field(DKIM_RELAXED, span_text(row->field), &out);
	assert_text(&out, row->relaxed);
	dkim_text_reset(&out);
	dkim_canon_field(DKIM_SIMPLE, span_text(row->field), &out);
	assert_text(&out, row->field);
	dkim_text_deinit(&out);
}

/* ── From: ────────────────────────────────────────────────────────────────────────── */

static const struct from_case {
	const char *name, *value, *domain, *why;
} froms[] = {
	{ "an address alone", "a@Example.ORG", "example.org", NULL },
	{ "a name and an address", " Joe SixPack <joe@football.example.com>",
	  "football.example.com", NULL },
	{ "an address as name", "\"ceo@evil.test\" <a@good.test>", "good.test", NULL },
	{ "an address as unquoted name", "ceo@evil.test <a@good.test>", "good.test", NULL },
	{ "a quoted local part with an @", "\"a@evil.test\"@good.test", "good.test", NULL },
	{ "an escaped quote", "\"x\\\" <a@evil.test>\" <a@good.test>", "good.test", NULL },
	{ "a comment with an address", "a@good.test (b@evil.test (and <c@worse.test>))",
	  "good.test", NULL },
	{ "an escaped parenthesis", "(\\) x@evil.test) a@good.test", "good.test", NULL },
	{ "folded", "Joe\r\n\t<joe@\r\n good.test>", "good.test", NULL },
	{ "a group", "Us: a@good.test, b@good.test;", "good.test", NULL },
	{ "a route", "<@evil.test,@worse.test:a@good.test>", "good.test", NULL },
	{ "several of one domain", "a@good.test, B <b@GOOD.test>", "good.test", NULL },
	{ "letters beyond ASCII",
	  "a@b\xc3\xbc"
	  "cher.test",
	  "xn--bcher-kva.test", NULL },
	{ "several domains", "a@good.test, b@evil.test", NULL,
	  "From: has addresses of several domains" },
	{ "no address", "undisclosed", NULL, "From: has no address with a domain" },
	{ "nothing", " ", NULL, "From: has no address with a domain" },
	{ "an empty pair of brackets", "X <>", NULL, "From: has no address with a domain" },
	{ "an empty group", "Us:;", NULL, "From: has no address with a domain" },
	{ "an address literal", "a@[192.0.2.1]", NULL, "From: has no address with a domain" },
	{ "a domain of one label", "root@localhost", NULL, "From: has no address with a domain" },
	{ "a bracket that is not closed", "X <a@good.test", NULL, "From: is malformed" },
	{ "a quote that is not closed", "\"X <a@good.test>", NULL, "From: is malformed" },
	{ "a comment that is not closed", "a@good.test (x", NULL, "From: is malformed" },
	{ "two addresses in brackets", "<a@good.test> <b@evil.test>", NULL, "From: is malformed" },
};

static void check_from(void **state)
{
	const struct from_case *row = *state;
	char domain[IDN_DOMAIN_BYTES];
	const char *why = dkim_from_domain(span_text(row->value), domain);

	if (row->why)
		assert_string_equal(why ? why : "nothing is wrong", row->why);
	else if (why)
		fail_msg("%s", why);
	else
		assert_string_equal(domain, row->domain);
}

/* ── headers ──────────────────────────────────────────────────────────────────────── */

static const struct header_case {
	const char *name, *message;
	size_t header_bytes;
	const char *why; /* NULL: it is signed, and h= is ... */
	const char *names;
} headers[] = {
	{ "each once, and one more of five", "From: a@b.test\r\nTo: x\r\n\r\nbody", 25, NULL,
	  "From:From:To:To:Subject:Date:Message-ID" },
	{ "what is on the way is left out",
	  "Return-Path: <x>\r\nReceived: y\r\nBcc: z\r\nDKIM-Signature: v=1\r\nX-Y: z\r\nFrom: "
	  "a@b.test\r\n\r\n",
	  86, NULL, "From:From:To:Subject:Date:Message-ID" },
	{ "one click",
	  "From: a@b.test\r\nlist-unsubscribe: <x>\r\nList-Unsubscribe-Post: y\r\n\r\n", 67, NULL,
	  "From:From:To:Subject:Date:Message-ID:List-Unsubscribe:List-Unsubscribe-Post" },
	{ "repeated fields", "Cc: 1\r\nFrom: a@b.test\r\nCC: 2\r\nTo: 3\r\nTO: 4\r\n\r\n", 46, NULL,
	  "From:From:To:To:To:Subject:Date:Message-ID:Cc:Cc" },
	{ "no body and no empty line", "From: a@b.test\r\n", 16, NULL,
	  "From:From:To:Subject:Date:Message-ID" },
	{ "no line end", "From: a@b.test", 14, NULL, "From:From:To:Subject:Date:Message-ID" },
	{ "octets above 127", "Subject: \xe4\r\nFrom: \xe4 <a@b.test>\r\n\r\n", 34, NULL,
	  "From:From:To:Subject:Subject:Date:Message-ID" },
	{ "no header", "\r\nFrom: a@b.test\r\n", 2, "no From:", NULL },
	{ "nothing at all", "", 0, "no From:", NULL },
	{ "no From:", "To: x\r\n\r\n", 9, "no From:", NULL },
	{ "several From:", "From: a@b.test\r\nfrom : c@d.test\r\n\r\n", 35, "several From:", NULL },
	{ "a line that is no field", "From: a@b.test\r\nhello\r\n\r\n", 25, "malformed header",
	  NULL },
	{ "a folded line first", " x\r\nFrom: a@b.test\r\n\r\n", 22, "malformed header", NULL },
	{ "white space in a name", "Fr om: x\r\nFrom: a@b.test\r\n\r\n", 28, "malformed header",
	  NULL },
	{ "a lone LF that may hide a field", "X: y\nFrom: e@vil.test\r\nFrom: a@b.test\r\n\r\n", 41,
	  "malformed header", NULL },
	{ "a lone CR", "X: y\rz\r\nFrom: a@b.test\r\n\r\n", 26, "malformed header", NULL },
};

static void check_header(void **state)
{
	const struct header_case *row = *state;
	struct span message = span_text(row->message);
	struct dkim_header *header = malloc(sizeof(*header));
	struct dkim_text names, octets;

	dkim_header_init(header);
	dkim_text_init(&names, TEXT_MAX);
	dkim_text_init(&octets, TEXT_MAX);
	for (size_t piece = 1; piece <= message.len + 1; piece += message.len ? message.len : 1) {
		size_t taken = 0;

		dkim_header_reset(header);
		dkim_text_reset(&names);
		for (size_t at = 0; at < message.len && !header->whole; at += piece)
			taken += dkim_header_feed(
				header,
				span_of(message.at + at,
					message.len - at < piece ? message.len - at : piece));
		assert_int_equal(taken, row->header_bytes);
		const char *why = dkim_header_read(header);

		assert_string_equal(why ? why : "", row->why ? row->why : "");
		if (why)
			continue;
		assert_true(dkim_header_select(header, DKIM_RELAXED, &names, &octets));
		assert_text(&names, row->names);
	}
	dkim_text_deinit(&names);
	dkim_text_deinit(&octets);
	dkim_header_deinit(header);
	free(header);
}

static void the_last_of_several_fields_is_hashed_first(void **state)
{
	static const char message[] = "To: 1\r\nFrom: a@b.test\r\nTO : 2\r\n\t2\r\n\r\n";
	struct dkim_header *header = malloc(sizeof(*header));
	struct dkim_text names, octets;

	(void)state;
	dkim_header_init(header);
	dkim_text_init(&names, TEXT_MAX);
	dkim_text_init(&octets, TEXT_MAX);
	dkim_header_feed(header, span_text(message));
	assert_null(dkim_header_read(header));
	assert_true(dkim_header_select(header, DKIM_RELAXED, &names, &octets));
	assert_text(&octets, "from:a@b.test\r\nto:2 2\r\nto:1\r\n");
	dkim_text_reset(&octets);
	assert_true(dkim_header_select(header, DKIM_SIMPLE, &names, &octets));
	assert_text(&octets, "From: a@b.test\r\nTO : 2\r\n\t2\r\nTo: 1\r\n");
	dkim_text_deinit(&names);
	dkim_text_deinit(&octets);
	dkim_header_deinit(header);
	free(header);
}

/* Each of these is refused, and nothing grows without end. */
static void headers_without_end_are_not_signed(void **state)
{
	struct dkim_header *header = malloc(sizeof(*header));
	struct dkim_text names, octets;

	(void)state;
	dkim_header_init(header);
	dkim_text_init(&names, TEXT_MAX);
	dkim_text_init(&octets, TEXT_MAX);
	for (int i = 0; i <= DKIM_FIELDS_MAX; i++)
		dkim_header_feed(header, span_text("X: y\r\n"));
	assert_string_equal(dkim_header_read(header), "too many header fields");
	dkim_header_reset(header);
	dkim_header_feed(header, span_text("From: a@b.test\r\n"));
	for (int i = 0; i < DKIM_SIGNED_MAX; i++)
		dkim_header_feed(header, span_text("Cc: y\r\n"));
	assert_null(dkim_header_read(header));
	assert_false(dkim_header_select(header, DKIM_RELAXED, &names, &octets));
	dkim_header_reset(header);
	for (int i = 0; i < DKIM_HEADER_BYTES_MAX / 10 + 1; i++)
		dkim_header_feed(header, span_text("X: 345678\r\n"));
	assert_string_equal(dkim_header_read(header), "the header is too long");
	dkim_text_deinit(&names);
	dkim_text_deinit(&octets);
	dkim_header_deinit(header);
	free(header);
}

static void a_signature_of_the_same_key_is_found(void **state)
{
	static const char message[] = "DKIM-Signature: v=1; a=rsa-sha256; d = Example.org ;\r\n"
				      "\ts=s1; h=from; bh=d=other.test; b=s=s9;\r\n"
				      "From: a@example.org\r\n\r\n";
	struct dkim_header *header = malloc(sizeof(*header));

	(void)state;
	dkim_header_init(header);
	dkim_header_feed(header, span_text(message));
	assert_null(dkim_header_read(header));
	assert_true(dkim_header_has(header, "example.org", "s1"));
	assert_false(dkim_header_has(header, "example.org", "s2"));
	assert_false(dkim_header_has(header, "example.com", "s1"));
	dkim_header_deinit(header);
	free(header);
}

/* ── the field ────────────────────────────────────────────────────────────────────── */

static void the_field_is_folded(void **state)
{
	static const uint8_t hash[DKIM_DIGEST_BYTES] = { 1, 2, 3 };
	static const char signature[64] = { 'a' };
	struct dkim_tags tags = {
		.algorithm = "ed25519-sha256",
		.domain = "example.org",
		.selector = "s1",
		.signed_s = 1700000000,
		.expires_s = 1701000000,
		.names = span_text("From:From:To:To:Subject:Date:Message-ID:List-Unsubscribe:"
				   "List-Unsubscribe-Post"),
		.body_hash = hash,
	};
	struct dkim_text out;

	(void)state;
	dkim_text_init(&out, TEXT_MAX);
	dkim_tags_write(&tags, &out);
	assert_text(&out,
		    "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org;\r\n"
		    "\ts=s1; t=1700000000; x=1701000000; h=From:From:To:To:Subject:Date:\r\n"
		    "\tMessage-ID:List-Unsubscribe:List-Unsubscribe-Post;\r\n"
		    "\tbh=AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=;\r\n"
		    "\tb=");
	dkim_text_reset(&out);
	dkim_tags_sign(span_of(signature, sizeof(signature)), &out);
	assert_text(&out,
		    "YQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n"
		    "\tAAAAAAAAAAAAAA==\r\n");
	dkim_text_deinit(&out);
}

int main(void)
{
	enum { OTHERS = 5 };
	struct CMUnitTest rows[array_count(bodies) + array_count(fields) + array_count(froms) +
			       array_count(headers) + OTHERS];
	const struct CMUnitTest others[OTHERS] = {
		cmocka_unit_test(long_bodies_do_not_depend_on_their_pieces),
		cmocka_unit_test(the_last_of_several_fields_is_hashed_first),
		cmocka_unit_test(headers_without_end_are_not_signed),
		cmocka_unit_test(a_signature_of_the_same_key_is_found),
		cmocka_unit_test(the_field_is_folded),
	};
	size_t count = OTHERS;

	memcpy(rows, others, sizeof(others));
	for (size_t i = 0; i < array_count(bodies); i++)
		rows[count++] = (struct CMUnitTest){ bodies[i].name, check_body, NULL, NULL,
						     (void *)&bodies[i] };
	for (size_t i = 0; i < array_count(fields); i++)
		rows[count++] = (struct CMUnitTest){ fields[i].name, check_field, NULL, NULL,
						     (void *)&fields[i] };
	for (size_t i = 0; i < array_count(froms); i++)
		rows[count++] = (struct CMUnitTest){ froms[i].name, check_from, NULL, NULL,
						     (void *)&froms[i] };
	for (size_t i = 0; i < array_count(headers); i++)
		rows[count++] = (struct CMUnitTest){ headers[i].name, check_header, NULL, NULL,
						     (void *)&headers[i] };
	return _cmocka_run_group_tests("DKIM without keys", rows, count, NULL, NULL);
}
