#include "engine/dkim/tags.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "engine/smtp/base64.h"

enum { COLUMN_MAX = 76, SIGNATURE_COLUMNS = 72 };

static void word(struct dkim_text *out, size_t *column, struct span text)
{
	if (*column + 1 + text.len > COLUMN_MAX) {
		dkim_text_add(out, span_of("\r\n\t", 3));
		*column = 8;
	} else {
		dkim_text_put(out, ' ');
		*column += 1;
	}
	dkim_text_add(out, text);
	*column += text.len;
}

__attribute__((format(printf, 3, 4))) static void tag(struct dkim_text *out, size_t *column,
						      const char *format, ...)
{
	char text[512];
	va_list list;
	int len;

	va_start(list, format);
	len = vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	word(out, column, span_of(text, (size_t)len));
}

/* h= may be folded behind each colon. */
static void names_write(struct span names, struct dkim_text *out, size_t *column)
{
	bool first = true;

	while (names.len > 0) {
		const char *colon = memchr(names.at, ':', names.len);
		size_t len = colon ? (size_t)(colon - names.at) + 1 : names.len;

		if (first) {
			tag(out, column, "h=%.*s", (int)len, names.at);
		} else if (*column + len > COLUMN_MAX) {
			word(out, column, span_of(names.at, len));
		} else {
			dkim_text_add(out, span_of(names.at, len));
			*column += len;
		}
		first = false;
		names = span_skip(names, len);
	}
	dkim_text_put(out, ';');
}

void dkim_tags_write(const struct dkim_tags *tags, struct dkim_text *out)
{
	static const char name[] = "DKIM-Signature:";
	size_t column = sizeof(name) - 1;

	dkim_text_add(out, span_of(name, column));
	tag(out, &column, "v=1;");
	tag(out, &column, "a=%s;", tags->algorithm);
	tag(out, &column, "c=%s/%s;", dkim_canon_name(tags->header), dkim_canon_name(tags->body));
	tag(out, &column, "d=%s;", tags->domain);
	tag(out, &column, "s=%s;", tags->selector);
	tag(out, &column, "t=%" PRId64 ";", tags->signed_s);
	tag(out, &column, "x=%" PRId64 ";", tags->expires_s);
	names_write(tags->names, out, &column);
	dkim_text_add(out, span_text("\r\n\tbh="));
	dkim_base64(span_of(tags->body_hash, DKIM_DIGEST_BYTES), out);
	dkim_text_add(out, span_text(";\r\n\tb="));
}

void dkim_tags_sign(struct span signature, struct dkim_text *out)
{
	enum { LINE_BYTES = SIGNATURE_COLUMNS / 4 * 3 };

	while (signature.len > LINE_BYTES) {
		dkim_base64(span_of(signature.at, LINE_BYTES), out);
		dkim_text_add(out, span_of("\r\n\t", 3));
		signature = span_skip(signature, LINE_BYTES);
	}
	dkim_base64(signature, out);
	dkim_text_add(out, span_of("\r\n", 2));
}

void dkim_base64(struct span bytes, struct dkim_text *out)
{
	enum { PIECE_BYTES = 96 }; /* whole groups of three */
	char text[BASE64_TEXT_BYTES(PIECE_BYTES)];

	while (bytes.len > 0) {
		size_t take = bytes.len < PIECE_BYTES ? bytes.len : PIECE_BYTES;

		base64_encode(span_of(bytes.at, take), text);
		dkim_text_add(out, span_of(text, BASE64_TEXT_BYTES(take)));
		bytes = span_skip(bytes, take);
	}
}
