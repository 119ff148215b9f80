#include "engine/smtp/mime_output.h"

#include <stdlib.h>

#include "engine/smtp/base64.h"
#include "os/check.h"

enum {
	LINE_MAX_BYTES = 76,
	TOKEN_MAX_BYTES = 3,
	BASE64_LINE_OCTETS = LINE_MAX_BYTES / 4 * 3,
	SIZE_MIN_BYTES = 4096,
};

void mime_output_free(struct mime_output *output)
{
	free(output->at);
	*output = (struct mime_output){ 0 };
}

/* Room for `count` more, or NULL. */
static char *make_room(struct mime_output *output, size_t count)
{
	if (output->failed)
		return NULL;
	if (output->size - output->len < count) {
		size_t size = output->size + output->size / 2 + count + SIZE_MIN_BYTES;
		char *at = realloc(output->at, size);

		if (!at) {
			output->failed = true;
			return NULL;
		}
		output->at = at;
		output->size = size;
	}
	return output->at + output->len;
}

void mime_put(struct mime_output *output, struct span bytes)
{
	char *room = bytes.len > 0 ? make_room(output, bytes.len) : NULL;

	if (!room)
		return;
	memcpy(room, bytes.at, bytes.len);
	output->len += bytes.len;
}

static bool starts_crlf(struct span bytes)
{
	return bytes.len >= 2 && bytes.at[0] == '\r' && bytes.at[1] == '\n';
}

static size_t escape(char octet, char token[static TOKEN_MAX_BYTES])
{
	static const char digits[] = "0123456789ABCDEF";

	token[0] = '=';
	token[1] = digits[(uint8_t)octet >> 4];
	token[2] = digits[(uint8_t)octet & 15];
	return TOKEN_MAX_BYTES;
}

/* What the first octet becomes; its length, 1 or 3. */
static size_t quote(struct span bytes, char token[static TOKEN_MAX_BYTES])
{
	uint8_t octet = (uint8_t)bytes.at[0];
	bool blank = octet == ' ' || octet == '\t';
	bool line_ends = bytes.len == 1 || starts_crlf(span_skip(bytes, 1));

	token[0] = (char)octet;
	if (blank ? !line_ends : octet > ' ' && octet < 127 && octet != '=')
		return 1;
	return escape(bytes.at[0], token);
}

/* `bytes` has no CRLF in it. Each token leaves room for a soft break's '=', but the last, if the
 * line is `finished`. */
static void put_quoted_line(struct mime_output *output, struct span bytes, bool finished)
{
	size_t column = 0;

	while (bytes.len > 0) {
		char token[TOKEN_MAX_BYTES];
		size_t len = quote(bytes, token);
		size_t room = bytes.len == 1 && finished ? LINE_MAX_BYTES : LINE_MAX_BYTES - 1;

		if (column + len > room) {
			mime_put(output, span_text("=\r\n"));
			column = 0;
			/* What stood inside of a line must not become a delimiter of parts. */
			if (token[0] == '-')
				len = escape('-', token);
		}
		mime_put(output, span_of(token, len));
		column += len;
		bytes = span_skip(bytes, 1);
	}
}

void mime_put_quoted_printable(struct mime_output *output, struct span bytes, bool closed)
{
	while (bytes.len > 0) {
		const char *crlf = memmem(bytes.at, bytes.len, "\r\n", 2);
		size_t len = crlf ? (size_t)(crlf - bytes.at) : bytes.len;

		put_quoted_line(output, span_of(bytes.at, len), crlf || !closed);
		if (crlf)
			mime_put(output, span_text("\r\n"));
		else if (closed)
			mime_put(output, span_text("=\r\n"));
		bytes = span_skip(bytes, crlf ? len + 2 : len);
	}
}

void mime_put_base64(struct mime_output *output, struct span bytes, bool closed)
{
	while (bytes.len > 0) {
		size_t take = bytes.len < BASE64_LINE_OCTETS ? bytes.len : BASE64_LINE_OCTETS;
		char *room = make_room(output, LINE_MAX_BYTES);

		if (!room)
			return;
		base64_encode(span_of(bytes.at, take), room);
		output->len += BASE64_TEXT_BYTES(take);
		bytes = span_skip(bytes, take);
		if (bytes.len > 0 || closed)
			mime_put(output, span_text("\r\n"));
	}
}
