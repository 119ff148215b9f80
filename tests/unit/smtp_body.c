/*
 * What is done to and noted of bodies: dot-stuffing both ways, and the scanner. Each row is
 * run whole, octet by octet, and split at every place, with fill before it so that the
 * boundaries of blocks fall everywhere.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/dot.h"
#include "engine/smtp/scan.h"
#include "os/prng.h"

static const struct dot_case {
	const char *name, *wire, *body, *rest; /* rest NULL: not at the end */
	bool bare, normalise;
} dots[] = {
	{ "empty body", ".\r\n", "", "" },
	{ "plain", "a\r\nb\r\n.\r\n", "a\r\nb\r\n", "" },
	{ "a command follows", "a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n" },
	{ "stuffed dot", "..\r\n..a\r\n.\r\n", ".\r\n.a\r\n", "" },
	{ "lone dot that is not doubled", ".a\r\n.\r\n", "a\r\n", "" },
	{ "dots inside lines stay", "a.b\r\na..\r\n.\r\n", "a.b\r\na..\r\n", "" },
	{ "not at the end", "a\r\n.", "a\r\n", NULL },
	{ "LF dot LF", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", "", true },
	{ "LF dot CRLF", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", "", true },
	{ "CRLF dot LF", "a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", "", true },
	{ "CR dot CR", "a\r.\rb\r\n.\r\n", "a\r.\rb\r\n", "", true },
	{ "CRLF dot CR", "a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", "", true },
	{ "CRLF dot CR CR LF", "a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", "", true },
	{ "CR CRLF dot CRLF", "a\r\r\n.\r\n", "a\r\r\n", "", true },
	{ "CRLF dot CRLF after a bare LF", "a\n\r\n.\r\n", "a\n\r\n", "", true },
	{ "mended: LF", "a\nb\n\r\n.\r\n", "a\r\nb\r\n\r\n", "", true, true },
	{ "mended: CR", "a\rb\r\r\n.\r\n", "a\r\nb\r\n\r\n", "", true, true },
	{ "mended: LF dot LF is no end", "a\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", true, true },
	{ "mended: LF dot CRLF is no end", "a\n.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", true,
	  true },
	{ "mended: CRLF dot LF is no end", "a\r\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", true,
	  true },
	{ "mended: CRLF dot CR is no end", "a\r\n.\rb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", true,
	  true },
	{ "mended: CR dot CRLF is no end", "a\r.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", true,
	  true },
	{ "mended: stuffed after a bare LF", "a\n..b\r\n.\r\n", "a\r\n.b\r\n", "", true, true },
};

struct sink {
	char bytes[400];
	size_t len;
};

static void sink_add(struct sink *sink, struct span piece)
{
	assert_true(sink->len + piece.len <= sizeof(sink->bytes));
	memcpy(sink->bytes + sink->len, piece.at, piece.len);
	sink->len += piece.len;
}

static size_t decode(struct smtp_dot_decoder *decoder, struct span bytes, struct sink *sink)
{
	size_t taken = 0;

	while (taken < bytes.len && !decoder->done) {
		struct span piece;
		size_t count = smtp_dot_decode(decoder, span_skip(bytes, taken), &piece);

		assert_true(count > 0 || piece.len > 0);
		taken += count;
		sink_add(sink, piece);
	}
	return taken;
}

static void dot_check(const struct dot_case *row, struct span wire, size_t fill, size_t split)
{
	struct smtp_dot_decoder decoder;
	struct sink sink = { .len = 0 };

	smtp_dot_decoder_init(&decoder, true, row->normalise);
	size_t taken = decode(&decoder, span_of(wire.at, split), &sink);

	while (taken >= split && taken < wire.len && !decoder.done)
		taken += decode(&decoder,
				split == 0 ? span_of(wire.at + taken, 1) : span_skip(wire, taken),
				&sink);
	assert_int_equal(decoder.done, row->rest != NULL);
	if (row->rest)
		assert_true(span_equal(span_skip(wire, taken), span_text(row->rest)));
	assert_int_equal(decoder.bare, row->bare);
	assert_true(span_equal(span_of(sink.bytes + fill, sink.len - fill), span_text(row->body)));
}

static void dot_run(void **state)
{
	const struct dot_case *row = *state;

	for (size_t fill = 0; fill < 70; fill += fill ? 1 : 2) {
		char wire[200];

		memset(wire, 'x', fill);
		if (fill >= 2)
			memcpy(wire + fill - 2, "\r\n", 2);
		memcpy(wire + fill, row->wire, strlen(row->wire));
		struct span all = span_of(wire, fill + strlen(row->wire));

		for (size_t split = 0; split <= all.len; split++)
			dot_check(row, all, fill, split);
	}
}

/* Decoding what was encoded gives the same, however both are split. */
static void encoder_is_undone(void **state)
{
	struct prng prng = { 7 };

	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct smtp_dot_encoder encoder;
		struct sink wire = { .len = 0 }, back = { .len = 0 };
		char body[150];
		size_t len = prng_below(&prng, sizeof(body) - 2);

		for (size_t i = 0; i < len; i++) {
			body[i] = "..ab"[prng_below(&prng, 4)];
			if (i > 0 && prng_below(&prng, 3) == 0 && body[i - 1] != '\n') {
				body[i - 1] = '\r';
				body[i] = '\n';
			}
		}
		for (size_t i = 0; i < len; i++)
			body[i] = body[i] == '\n' && (i == 0 || body[i - 1] != '\r') ? 'n'
				  : body[i] == '\r' && (i + 1 == len || body[i + 1] != '\n')
					  ? 'r'
					  : body[i];
		memcpy(body + len, "\r\n", 2);
		struct span left = span_of(body, len + 2);

		smtp_dot_encoder_init(&encoder);
		while (left.len > 0) {
			size_t piece = smtp_dot_piece(&encoder, left);
			size_t count = 1 + prng_below(&prng, piece);

			sink_add(&wire, span_of(left.at, count));
			left = span_skip(left, smtp_dot_advance(&encoder, left, count));
		}
		sink_add(&wire, span_text(".\r\n"));
		assert_null(memmem(wire.bytes, wire.len - 3, "\r\n.\r\n", 5));

		struct smtp_dot_decoder decoder;

		smtp_dot_decoder_init(&decoder, true, false);
		assert_int_equal(decode(&decoder, span_of(wire.bytes, wire.len), &back), wire.len);
		assert_true(decoder.done && !decoder.bare);
		assert_true(span_equal(span_of(back.bytes, back.len), span_of(body, len + 2)));
	}
}

static void chunks_join(void **state)
{
	struct smtp_dot_decoder decoder;
	struct sink sink = { .len = 0 };

	(void)state;
	smtp_dot_decoder_init(&decoder, false, false);
	decode(&decoder, span_text("a\r"), &sink);
	decode(&decoder, span_text("\n.\r\n.b"), &sink);
	smtp_dot_decoder_finish(&decoder);
	assert_false(decoder.bare);
	assert_true(span_equal(span_of(sink.bytes, sink.len), span_text("a\r\n.\r\n.b")));
	decode(&decoder, span_text("\r"), &sink);
	assert_int_equal(smtp_dot_decoder_finish(&decoder).len, 0);
	assert_true(decoder.bare);
}

#define X100                                                                                       \
	"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" \
	"xxxxxxxxxxxx"
#define X900 X100 X100 X100 X100 X100 X100 X100 X100 X100
#define X998                                                                                       \
	X900 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" \
	     "xxxxxxxxxxxxxxx"

static const struct scan_case {
	const char *name, *text;
	uint32_t received;
	bool date, id, eightbit, header_eightbit, bare_cr, bare_lf, long_line, dot_line, no_crlf;
	uint64_t header_bytes;
} scans[] = {
	{ "empty message", "", .header_bytes = 0 },
	{ "header and body", "Date: x\r\nMessage-Id: y\r\n\r\nDate: z\r\n", .date = true,
	  .id = true, .header_bytes = 26 },
	{ "header alone", "Received: x\r\nRECEIVED: y\r\n", .received = 2, .header_bytes = 26 },
	{ "Received in the body", "A: b\r\n\r\nReceived: x\r\n", .header_bytes = 8 },
	{ "folded lines are no fields", "A: b\r\n Date: x\r\n\r\n", .header_bytes = 18 },
	{ "a name that only begins alike", "Received-SPF: x\r\nDates: y\r\n\r\n",
	  .header_bytes = 29 },
	{ "unfinished last field", "Date: x", .date = true, .no_crlf = true, .header_bytes = 7 },
	{ "eight bits", "A: b\r\n\r\n\xc3\xa4\r\n", .eightbit = true, .header_bytes = 8 },
	{ "eight bits in the header", "A: \xc3\xa4\r\n\r\n", .eightbit = true,
	  .header_eightbit = true, .header_bytes = 9 },
	{ "eight bits in an unfinished header", "A: \xc3", .eightbit = true,
	  .header_eightbit = true, .no_crlf = true, .header_bytes = 4 },
	{ "bare LF", "A: b\r\n\r\na\nb\r\n", .bare_lf = true, .header_bytes = 8 },
	{ "bare CR", "A: b\r\n\r\na\rb\r\n", .bare_cr = true, .header_bytes = 8 },
	{ "bare CR at the end", "A: b\r\n\r\na\r", .bare_cr = true, .no_crlf = true,
	  .header_bytes = 8 },
	{ "dot begins a line", "A: b\r\n\r\n.a\r\n", .dot_line = true, .header_bytes = 8 },
	{ "dot begins the message", ".a\r\n", .dot_line = true, .header_bytes = 4 },
	{ "dots inside", "A: .\r\n\r\na.b.\r\n", .header_bytes = 8 },
	{ "line of 998", "\r\n" X998 "\r\n", .header_bytes = 2 },
	{ "line of 999", "\r\n" X998 "x\r\n", .long_line = true, .header_bytes = 2 },
	{ "unfinished line of 998", "\r\n" X998, .no_crlf = true, .header_bytes = 2 },
	{ "unfinished line of 999", "\r\n" X998 "x", .long_line = true, .no_crlf = true,
	  .header_bytes = 2 },
	{ "many short lines are not one", "\r\n" X900 "\r\n" X900 "\r\n", .header_bytes = 2 },
};

static void scan_check(const struct scan_case *row, const struct smtp_scan *scan)
{
	assert_int_equal(scan->received_count, row->received);
	assert_int_equal(scan->has_date, row->date);
	assert_int_equal(scan->has_message_id, row->id);
	assert_int_equal(scan->eightbit, row->eightbit);
	assert_int_equal(scan->header_eightbit, row->header_eightbit);
	assert_int_equal(scan->bare_cr, row->bare_cr);
	assert_int_equal(scan->bare_lf, row->bare_lf);
	assert_int_equal(scan->long_line, row->long_line);
	assert_int_equal(scan->dot_line, row->dot_line);
	assert_int_equal(smtp_scan_ends_in_crlf(scan), !row->no_crlf);
	assert_int_equal(scan->header_bytes, row->header_bytes);
	assert_int_equal(scan->bytes, strlen(row->text));
	assert_false(scan->nul);
}

static void scan_run(void **state)
{
	const struct scan_case *row = *state;
	struct span text = span_text(row->text);
	struct smtp_scan scan;

	for (size_t split = 0; split <= text.len; split++) {
		smtp_scan_init(&scan);
		smtp_scan_feed(&scan, span_of(text.at, split));
		smtp_scan_feed(&scan, span_skip(text, split));
		smtp_scan_finish(&scan);
		scan_check(row, &scan);
	}
	smtp_scan_init(&scan);
	for (size_t i = 0; i < text.len; i++)
		smtp_scan_feed(&scan, span_of(text.at + i, 1));
	smtp_scan_finish(&scan);
	scan_check(row, &scan);
}

static void nul_is_seen(void **state)
{
	struct smtp_scan scan;

	(void)state;
	smtp_scan_init(&scan);
	smtp_scan_feed(&scan, span_of("a\0b\r\n", 5));
	assert_true(scan.nul);
}

int main(void)
{
	struct CMUnitTest tests[array_count(dots) + array_count(scans) + 3];
	size_t n = 0;

	for (size_t i = 0; i < array_count(dots); i++)
		tests[n++] =
			(struct CMUnitTest){ dots[i].name, dot_run, NULL, NULL, (void *)&dots[i] };
	for (size_t i = 0; i < array_count(scans); i++)
		tests[n++] = (struct CMUnitTest){ scans[i].name, scan_run, NULL, NULL,
						  (void *)&scans[i] };
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(encoder_is_undone);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(chunks_join);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(nul_is_seen);
	return cmocka_run_group_tests_name("smtp_body", tests, NULL, NULL);
}
