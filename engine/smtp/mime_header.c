#include "engine/smtp/mime_header.h"

#include "os/check.h"

/* ── tokens of a structured field ─────────────────────────────────────────────────── */

static bool is_blank(char octet)
{
	return octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n';
}

/* Without the blanks and (nested) comments it begins with. */
static struct span skip_blanks(struct span text)
{
	uint32_t depth = 0;

	while (text.len > 0) {
		if (text.at[0] == '(')
			depth++;
		else if (depth == 0 && !is_blank(text.at[0]))
			break;
		else if (depth > 0 && text.at[0] == ')')
			depth--;
		else if (depth > 0 && text.at[0] == '\\' && text.len > 1)
			text = span_skip(text, 1);
		text = span_skip(text, 1);
	}
	return text;
}

static bool is_token(char octet)
{
	return octet > ' ' && octet < 127 && !strchr("()<>@,;:\\\"/[]?=", octet);
}

/* What a parameter's value may be without quotes: more than RFC 2045 allows, as many write it
 * (boundary=----=_Part). */
static bool is_bare_value(char octet)
{
	return octet > ' ' && octet < 127 && octet != ';' && octet != '"' && octet != '(';
}

/* Empty: there is none. */
static struct span take_while(struct span *text, bool (*belongs)(char octet))
{
	struct span token;
	size_t len = 0;

	*text = skip_blanks(*text);
	while (len < text->len && belongs(text->at[len]))
		len++;
	token = span_of(text->at, len);
	*text = skip_blanks(span_skip(*text, len));
	return token;
}

static bool take_octet(struct span *text, char octet)
{
	if (text->len == 0 || text->at[0] != octet)
		return false;
	*text = skip_blanks(span_skip(*text, 1));
	return true;
}

/* A token or a quoted string. False: neither, or too long for `out`, which is then undefined. */
static bool take_value(struct span *text, char *out, size_t out_bytes)
{
	struct span token;
	size_t len = 0;

	if (text->len == 0 || text->at[0] != '"') {
		token = take_while(text, is_bare_value);
		if (token.len == 0 || token.len >= out_bytes)
			return false;
		memcpy(out, token.at, token.len);
		out[token.len] = '\0';
		return true;
	}
	for (*text = span_skip(*text, 1); text->len > 0; *text = span_skip(*text, 1)) {
		if (text->at[0] == '"')
			break;
		if (text->at[0] == '\r' || text->at[0] == '\n')
			continue; /* a fold */
		if (text->at[0] == '\\' && text->len > 1)
			*text = span_skip(*text, 1);
		if (len + 1 < out_bytes)
			out[len] = text->at[0];
		len++;
	}
	if (text->len == 0 || len + 1 > out_bytes)
		return false;
	out[len] = '\0';
	*text = skip_blanks(span_skip(*text, 1));
	return true;
}

/* ── the fields ───────────────────────────────────────────────────────────────────── */

static const struct type_row {
	const char *type, *subtype; /* NULL: any */
	enum mime_kind kind;
} types[] = {
	{ "text", NULL, MIME_TEXT },
	{ "multipart", "signed", MIME_SEALED },
	{ "multipart", "encrypted", MIME_SEALED },
	{ "multipart", "digest", MIME_DIGEST },
	{ "multipart", NULL, MIME_MULTIPART },
	{ "message", "rfc822", MIME_MESSAGE },
	{ "message", "news", MIME_MESSAGE },
	{ "message", "global", MIME_DATA },
	{ "message", "global-headers", MIME_DATA },
	{ "message", "global-delivery-status", MIME_DATA },
	{ "message", "global-disposition-notification", MIME_DATA },
	{ "message", NULL, MIME_REPORTED },
};

static enum mime_kind kind_of(struct span type, struct span subtype)
{
	for (size_t i = 0; i < array_count(types); i++)
		if (span_equal_nocase(type, span_text(types[i].type)) &&
		    (!types[i].subtype || span_equal_nocase(subtype, span_text(types[i].subtype))))
			return types[i].kind;
	return MIME_DATA;
}

/* The first boundary; a second one makes the header doubtful. */
static void read_boundary(struct mime_header *header, struct span value)
{
	bool found = false;

	while (take_octet(&value, ';')) {
		struct span name = take_while(&value, is_token);
		char text[MIME_BOUNDARY_MAX + 1] = "", *end;
		bool good = take_octet(&value, '=') && take_value(&value, text, sizeof(text));

		/* A value we can't read, as a file's name of the careless: to the next. */
		for (; value.len > 0 && value.at[0] != ';'; value = span_skip(value, 1))
			good = false;
		if (!span_equal_nocase(name, span_text("boundary")))
			continue;
		header->doubtful |= found || !good;
		found = true;
		for (end = text + strlen(text); end > text && is_blank(end[-1]); end--)
			end[-1] = '\0';
		memcpy(header->boundary, text, sizeof(text));
	}
}

static void on_type(struct mime_header *header, struct span value)
{
	struct span type = take_while(&value, is_token), subtype = span_of(NULL, 0);

	header->doubtful |= header->has_type;
	header->has_type = true;
	if (take_octet(&value, '/'))
		subtype = take_while(&value, is_token);
	header->kind = kind_of(type, subtype);
	if (header->kind == MIME_MULTIPART || header->kind == MIME_DIGEST)
		read_boundary(header, value);
}

static void on_encoding(struct mime_header *header, struct span value, struct span field)
{
	struct span name = take_while(&value, is_token);

	header->doubtful |= header->encoding_field.len > 0;
	header->encoding_field = field;
	if (value.len > 0)
		header->encoding = MIME_ENCODING_CODED; /* more than a word: nobody knows */
	else if (span_equal_nocase(name, span_text("7bit")))
		header->encoding = MIME_ENCODING_7BIT;
	else if (span_equal_nocase(name, span_text("8bit")) ||
		 span_equal_nocase(name, span_text("binary")))
		header->encoding = MIME_ENCODING_8BIT;
	else
		header->encoding = MIME_ENCODING_CODED;
}

static void on_field(struct mime_header *header, struct span field)
{
	const char *colon = memchr(field.at, ':', field.len);
	struct span name, value;

	if (!colon || colon == field.at || is_blank(field.at[0])) {
		header->doubtful = true;
		return;
	}
	value = span_skip(field, (size_t)(colon - field.at) + 1);
	while (is_blank(colon[-1]) && colon > field.at + 1)
		colon--;
	name = span_of(field.at, (size_t)(colon - field.at));
	for (size_t i = 0; i < name.len; i++)
		header->doubtful |= is_blank(name.at[i]);
	if (span_equal_nocase(name, span_text("Content-Type")))
		on_type(header, value);
	else if (span_equal_nocase(name, span_text("Content-Transfer-Encoding")))
		on_encoding(header, value, field);
	else if (span_equal_nocase(name, span_text("MIME-Version")))
		header->has_version = true;
	else if (span_equal_nocase(name, span_text("DKIM-Signature")) ||
		 span_equal_nocase(name, span_text("ARC-Seal")) ||
		 span_equal_nocase(name, span_text("ARC-Message-Signature")))
		header->is_signed = true;
}

/* How long the line is, with its CRLF. */
static size_t line_bytes(struct span text)
{
	const char *crlf = text.len > 0 ? memmem(text.at, text.len, "\r\n", 2) : NULL;

	return crlf ? (size_t)(crlf - text.at) + 2 : text.len;
}

/* How long the field is, with the lines that continue it. */
static size_t field_bytes(struct span text)
{
	size_t len = line_bytes(text);

	while (len < text.len && (text.at[len] == ' ' || text.at[len] == '\t'))
		len += line_bytes(span_skip(text, len));
	return len;
}

static void look_for_odd_octets(struct mime_header *header)
{
	struct span fields = header->fields;

	for (size_t i = 0; i < fields.len; i++) {
		bool cr = i > 0 && fields.at[i - 1] == '\r', lf = fields.at[i] == '\n';

		header->eightbit |= (uint8_t)fields.at[i] > 127;
		header->doubtful |= cr != lf || fields.at[i] == '\0';
	}
	header->doubtful |= fields.len > 0 && fields.at[fields.len - 1] == '\r';
}

void mime_header_read(struct span entity, enum mime_kind kind, struct mime_header *out)
{
	struct span rest = entity;

	*out = (struct mime_header){ .kind = kind };
	while (rest.len > 0 && !(rest.len >= 2 && memcmp(rest.at, "\r\n", 2) == 0)) {
		size_t len = field_bytes(rest);

		on_field(out, span_of(rest.at, len));
		rest = span_skip(rest, len);
	}
	out->fields = span_of(entity.at, entity.len - rest.len);
	out->rest = rest;
	out->body = rest.len > 0 ? span_skip(rest, 2) : rest;
	look_for_odd_octets(out);
}
