/*
 * Any message: what is converted is 7-bit with true line ends, and is not converted again; and
 * quoted-printable gives back the octets that it was given.
 */
#include "engine/smtp/downgrade.h"

#include <stdlib.h>

#include "engine/smtp/scan.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int digit(char octet)
{
	return octet >= 'A' ? octet - 'A' + 10 : octet - '0';
}

/* A plain reader of RFC 2045, 6.7. Returns the length; asserts that lines are short. */
static size_t decode(struct span text, char *out)
{
	size_t len = 0, column = 0;

	for (size_t i = 0; i < text.len; i++) {
		bool crlf = text.at[i] == '\n';

		column = crlf ? 0 : column + 1;
		assert(column <= 76 + 1); /* its CR */
		if (text.at[i] != '=') {
			out[len++] = text.at[i];
		} else if (text.at[i + 1] == '\r') {
			assert(column <= 76 && text.at[i + 2] == '\n');
			i += 2;
			column = 0;
		} else {
			out[len++] = (char)(digit(text.at[i + 1]) << 4 | digit(text.at[i + 2]));
			i += 2;
			column += 2;
		}
	}
	return len;
}

static void there_and_back(struct span body)
{
	struct mime_output output = { 0 };
	char *back;
	size_t len;

	mime_put_quoted_printable(&output, body, true);
	back = malloc(output.len + 1);
	len = decode(span_of(output.at, output.len), back);
	assert(len == body.len && (len == 0 || memcmp(back, body.at, len) == 0));
	free(back);
	mime_output_free(&output);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span message = span_of(data, size), got;
	struct mime_output output = { 0 }, again = { 0 };
	struct smtp_scan scan;

	there_and_back(message);
	if (!downgrade_message(span_of("", 0), message, &output)) {
		got = span_of(output.at, output.len);
		smtp_scan_init(&scan);
		smtp_scan_feed(&scan, got);
		smtp_scan_finish(&scan);
		assert(!scan.eightbit && !scan.bare_cr && !scan.bare_lf);
		assert(!downgrade_message(span_of("", 0), got, &again));
		assert(again.len == got.len &&
		       (got.len == 0 || memcmp(again.at, got.at, got.len) == 0));
	}
	mime_output_free(&output);
	mime_output_free(&again);
	return 0;
}
