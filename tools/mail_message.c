/*
 * mail_message - see mail_message.h.
 */
#include "tools/mail_message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "os/check.h"

enum { PIECE_BYTES = 64 << 10, TEXT_START = 64 << 10, NAME_BYTES_MAX = 512 };

/* ── text ─────────────────────────────────────────────────────────────────────────── */

void mail_text_release(struct mail_text *text)
{
	free(text->bytes);
	*text = (struct mail_text){ 0 };
}

bool mail_text_add(struct mail_text *text, struct span bytes)
{
	size_t room = text->room > 0 ? text->room : TEXT_START;
	char *larger;

	while (room < text->len + bytes.len)
		room *= 2;
	if (room > text->room) {
		larger = realloc(text->bytes, room);
		if (!larger)
			return false;
		text->bytes = larger;
		text->room = room;
	}
	if (bytes.len > 0)
		memcpy(text->bytes + text->len, bytes.at, bytes.len);
	text->len += bytes.len;
	return true;
}

static bool add(struct mail_text *text, const char *bytes)
{
	return mail_text_add(text, span_text(bytes));
}

/* ── reading ──────────────────────────────────────────────────────────────────────── */

struct reading {
	struct mail_text *out;
	size_t line_at; /* where the last line began */
	bool after_cr;
	bool dot_ends, ended;
};

static bool end_line(struct reading *reading)
{
	struct mail_text *out = reading->out;

	reading->after_cr = false;
	if (reading->dot_ends && out->len == reading->line_at + 1 &&
	    out->bytes[reading->line_at] == '.') {
		out->len = reading->line_at;
		reading->ended = true;
		return true;
	}
	if (!add(out, "\r\n"))
		return false;
	reading->line_at = out->len;
	return true;
}

/* LF, CR LF and CR alone end a line: nothing else would pass the listener. */
static bool take_piece(struct reading *reading, struct span piece)
{
	while (piece.len > 0 && !reading->ended) {
		size_t plain = 0;

		if (reading->after_cr) {
			if (piece.at[0] == '\n')
				piece = span_skip(piece, 1);
			if (!end_line(reading))
				return false;
			continue;
		}
		while (plain < piece.len && piece.at[plain] != '\n' && piece.at[plain] != '\r')
			plain++;
		if (!mail_text_add(reading->out, span_of(piece.at, plain)))
			return false;
		piece = span_skip(piece, plain);
		if (piece.len == 0)
			return true;
		reading->after_cr = piece.at[0] == '\r';
		piece = span_skip(piece, 1);
		if (!reading->after_cr && !end_line(reading))
			return false;
	}
	return true;
}

int mail_message_read(int fd, bool dot_ends, uint64_t bytes_max, struct mail_text *out)
{
	struct reading reading = { .out = out, .dot_ends = dot_ends };
	char piece[PIECE_BYTES];

	while (!reading.ended) {
		ssize_t got = read(fd, piece, sizeof(piece));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		if (!take_piece(&reading, span_of(piece, (size_t)got)))
			return -ENOMEM;
		if (out->len > bytes_max)
			return -EFBIG;
	}
	if (reading.ended || (out->len == reading.line_at && !reading.after_cr))
		return 0;
	return end_line(&reading) ? 0 : -ENOMEM;
}

/* ── the header ───────────────────────────────────────────────────────────────────── */

/* What it has; each in its plain and its Resent- form. */
enum { HAS_FROM, HAS_DATE, HAS_ID, HAS_TO, HAS_COUNT };

struct header {
	struct span fields; /* all of them, without the empty line */
	struct span body;
	bool has[2][HAS_COUNT]; /* [resent] */
	bool resent;
};

static struct span line_of(struct span text)
{
	const char *end = text.len > 0 ? memchr(text.at, '\n', text.len) : NULL;

	return span_of(text.at, end ? (size_t)(end - text.at) + 1 : text.len);
}

/* "Subject: x": the length of the name; 0: it is no field. */
static size_t field_name_length(struct span line)
{
	size_t len = 0, colon;

	while (len < line.len && line.at[len] > ' ' && line.at[len] < 0x7f && line.at[len] != ':')
		len++;
	colon = len;
	while (colon < line.len && (line.at[colon] == ' ' || line.at[colon] == '\t'))
		colon++;
	return colon < line.len && line.at[colon] == ':' ? len : 0;
}

/* The field at the start, with the lines that it is folded into; empty: there is none. */
static struct span field_of(struct span text)
{
	struct span line = line_of(text);
	size_t len = line.len;

	if (field_name_length(line) == 0)
		return span_of(text.at, 0);
	while (len < text.len && (text.at[len] == ' ' || text.at[len] == '\t'))
		len += line_of(span_skip(text, len)).len;
	return span_of(text.at, len);
}

static struct span name_of(struct span field)
{
	return span_of(field.at, field_name_length(field));
}

static struct span value_of(struct span field)
{
	const char *colon = memchr(field.at, ':', field.len);

	return span_skip(field, (size_t)(colon - field.at) + 1);
}

static bool is_resent(struct span name)
{
	return span_starts_nocase(name, "Resent-");
}

static struct span plain_name(struct span name)
{
	return is_resent(name) ? span_skip(name, sizeof("Resent-") - 1) : name;
}

static bool is_one_of(struct span name, const char *const *words)
{
	for (; *words; words++)
		if (span_equal_nocase(name, span_text(*words)))
			return true;
	return false;
}

static void note_field(struct header *header, struct span name)
{
	static const char *const kinds[HAS_COUNT][4] = {
		[HAS_FROM] = { "From" },
		[HAS_DATE] = { "Date" },
		[HAS_ID] = { "Message-ID" },
		[HAS_TO] = { "To", "Cc" },
	};
	bool resent = is_resent(name);

	header->resent |= resent;
	for (uint32_t i = 0; i < HAS_COUNT; i++)
		if (is_one_of(plain_name(name), kinds[i]))
			header->has[resent][i] = true;
}

/* "From someone ...", a mailbox file's first line; "From : someone" is a field. */
static bool is_mailbox_line(struct span line)
{
	return line.len > 5 && memcmp(line.at, "From ", 5) == 0 && field_name_length(line) == 0;
}

/* Without a header, all is body. */
static struct header header_of(struct span text)
{
	struct header header = { 0 };
	struct span field;

	if (is_mailbox_line(line_of(text)))
		text = span_skip(text, line_of(text).len);
	header.fields = text;
	while ((field = field_of(text)).len > 0) {
		note_field(&header, name_of(field));
		text = span_skip(text, field.len);
	}
	header.fields.len = (size_t)(text.at - header.fields.at);
	if (text.len >= 2 && memcmp(text.at, "\r\n", 2) == 0)
		text = span_skip(text, 2);
	header.body = text;
	return header;
}

/* ── what is added ────────────────────────────────────────────────────────────────── */

static bool is_ascii(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text > 126 || (unsigned char)*text < ' ')
			return false;
	return true;
}

static bool add_quoted(struct mail_text *out, const char *name)
{
	bool good = add(out, "\"");

	for (; *name && good; name++) {
		if (*name == '"' || *name == '\\')
			good = add(out, "\\");
		good = good && mail_text_add(out, span_of(name, 1));
	}
	return good && add(out, "\" ");
}

/* RFC 2047, in words of at most 45 octets, none of which cuts a character. */
static bool add_encoded(struct mail_text *out, const char *name)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t left = strlen(name);
	bool good = true;

	while (left > 0 && good) {
		size_t part = left < 45 ? left : 45;

		while (part < left && part > 40 && ((unsigned char)name[part] & 0xc0) == 0x80)
			part--;
		good = add(out, "=?UTF-8?B?");
		for (size_t i = 0; i < part && good; i += 3) {
			uint32_t bits = 0;
			char four[4];

			for (size_t j = 0; j < 3; j++)
				bits = bits << 8 | (i + j < part ? (unsigned char)name[i + j] : 0);
			for (size_t j = 0; j < 4; j++)
				four[j] = i + j > part ? '=' : digits[bits >> (18 - 6 * j) & 63];
			good = mail_text_add(out, span_of(four, 4));
		}
		good = good && add(out, "?= ");
		name += part;
		left -= part;
	}
	return good;
}

static bool add_from(struct mail_text *out, const struct mail_identity *identity)
{
	const char *name = identity->full_name;
	bool named = name && *name != '\0' && strlen(name) <= NAME_BYTES_MAX;
	bool good = true;

	if (named)
		good = is_ascii(name) ? add_quoted(out, name) : add_encoded(out, name);
	return good && add(out, named ? "<" : "") && add(out, identity->address) &&
	       add(out, named ? ">\r\n" : "\r\n");
}

static bool add_missing(const struct header *header, const struct mail_identity *identity,
			struct mail_text *out)
{
	const bool *has = header->has[header->resent];
	const char *prefix = header->resent ? "Resent-" : "";
	char date[RECEIVED_DATE_BYTES];
	bool good = true;

	received_date(identity->now, date);
	if (!has[HAS_DATE])
		good = add(out, prefix) && add(out, "Date: ") && add(out, date) && add(out, "\r\n");
	if (!has[HAS_FROM])
		good = good && add(out, prefix) && add(out, "From: ") && add_from(out, identity);
	if (!has[HAS_ID])
		good = good && add(out, prefix) && add(out, "Message-ID: <") &&
		       add(out, identity->id) && add(out, ">\r\n");
	if (!header->has[false][HAS_TO] && !header->resent)
		good = good && add(out, "To: undisclosed-recipients:;\r\n");
	return good;
}

/* ── all of it ────────────────────────────────────────────────────────────────────── */

static bool add_fields(const struct header *header, const struct mail_recipient_fields *fields,
		       struct mail_text *out)
{
	static const char *const recipients[] = { "To", "Cc", "Bcc", NULL };
	static const char *const dropped[] = { "Bcc", "Return-Path", NULL };
	struct span rest = header->fields;

	while (rest.len > 0) {
		struct span field = field_of(rest);
		struct span name = name_of(field);

		rest = span_skip(rest, field.len);
		if (fields && is_resent(name) == header->resent &&
		    is_one_of(plain_name(name), recipients) &&
		    !fields->field(fields->context, name, value_of(field)))
			return false;
		if (!is_one_of(plain_name(name), dropped) && !mail_text_add(out, field))
			return false;
	}
	return true;
}

bool mail_message_compose(struct span given, const struct mail_identity *identity,
			  const struct mail_recipient_fields *fields, struct mail_text *out)
{
	struct header header = header_of(given);

	return add_missing(&header, identity, out) && add_fields(&header, fields, out) &&
	       add(out, "\r\n") && mail_text_add(out, header.body);
}
