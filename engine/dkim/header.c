#include "engine/dkim/header.h"

#include "engine/dkim/from.h"
#include "os/check.h"

enum { STEP_BYTES = 1024 };

#define NAME(text)                                                                                 \
	{                                                                                          \
		text, sizeof(text) - 1                                                             \
	}

/* What is signed where it is there; `over`: once more than it is there. By RFC 6376, 5.4.1, and
 * the bulk receivers' rules (RFC 8058, 4). */
static const struct {
	struct span name;
	bool over;
} wanted[] = {
	{ NAME("From"), true },
	{ NAME("To"), true },
	{ NAME("Subject"), true },
	{ NAME("Date"), true },
	{ NAME("Message-ID"), true },
	{ NAME("Sender"), false },
	{ NAME("Reply-To"), false },
	{ NAME("Cc"), false },
	{ NAME("In-Reply-To"), false },
	{ NAME("References"), false },
	{ NAME("MIME-Version"), false },
	{ NAME("Content-Type"), false },
	{ NAME("Content-Transfer-Encoding"), false },
	{ NAME("Content-ID"), false },
	{ NAME("Content-Disposition"), false },
	{ NAME("Auto-Submitted"), false },
	{ NAME("Resent-Date"), false },
	{ NAME("Resent-From"), false },
	{ NAME("Resent-Sender"), false },
	{ NAME("Resent-To"), false },
	{ NAME("Resent-Cc"), false },
	{ NAME("Resent-Message-ID"), false },
	{ NAME("List-Id"), false },
	{ NAME("List-Help"), false },
	{ NAME("List-Subscribe"), false },
	{ NAME("List-Unsubscribe"), false },
	{ NAME("List-Unsubscribe-Post"), false },
	{ NAME("List-Post"), false },
	{ NAME("List-Owner"), false },
	{ NAME("List-Archive"), false },
	{ NAME("Feedback-ID"), false },
};

void dkim_header_init(struct dkim_header *header)
{
	header->whole = header->long_ = false;
	header->field_count = 0;
	dkim_text_init(&header->text, DKIM_HEADER_BYTES_MAX);
}

void dkim_header_deinit(struct dkim_header *header)
{
	dkim_text_deinit(&header->text);
}

void dkim_header_reset(struct dkim_header *header)
{
	header->whole = header->long_ = false;
	header->field_count = 0;
	dkim_text_reset(&header->text);
}

/* ── gathering ────────────────────────────────────────────────────────────────────── */

/* The header's length with its empty line, if that stands behind `from`; 0: it does not. */
static size_t find_end(struct span text, size_t from)
{
	const char *found;

	if (text.len >= 2 && memcmp(text.at, "\r\n", 2) == 0)
		return 2;
	from = from > 3 ? from - 3 : 0;
	found = memmem(text.at + from, text.len - from, "\r\n\r\n", 4);
	return found ? (size_t)(found - text.at) + 4 : 0;
}

size_t dkim_header_feed(struct dkim_header *header, struct span bytes)
{
	size_t taken = 0;

	while (taken < bytes.len && !header->whole) {
		size_t before = header->text.len, end;
		size_t take = bytes.len - taken < STEP_BYTES ? bytes.len - taken : STEP_BYTES;

		dkim_text_add(&header->text, span_of(bytes.at + taken, take));
		if (header->text.failed) {
			header->whole = header->long_ = true;
			return bytes.len;
		}
		end = find_end(dkim_text_span(&header->text), before);
		if (end > 0) {
			take = end - before;
			header->text.len = end;
			header->whole = true;
		}
		taken += take;
	}
	return taken;
}

/* ── fields ───────────────────────────────────────────────────────────────────────── */

static bool is_blank(char octet)
{
	return octet == ' ' || octet == '\t';
}

/* Where the line that begins at `at` ends: at its CRLF or at the end of the text. */
static size_t line_end(struct span text, size_t at)
{
	const char *end = memmem(text.at + at, text.len - at, "\r\n", 2);

	return end ? (size_t)(end - text.at) : text.len;
}

/* The field that begins at `at`, with its folded lines. */
static struct span field_at(struct span text, size_t at)
{
	size_t end = line_end(text, at);

	while (end + 2 < text.len && is_blank(text.at[end + 2]))
		end = line_end(text, end + 2);
	return span_of(text.at + at, end - at);
}

static bool name_read(struct span field, struct span *out)
{
	const char *colon = memchr(field.at, ':', field.len);
	size_t len = colon ? (size_t)(colon - field.at) : 0;

	while (len > 0 && is_blank(field.at[len - 1]))
		len--;
	for (size_t i = 0; i < len; i++)
		if (field.at[i] <= ' ' || field.at[i] == 0x7f)
			return false; /* octets above 127 as well, where char is signed */
	*out = span_of(field.at, len);
	return len > 0;
}

/* Only CRLF ends a line here; others may see another line behind a lone CR or LF. */
static bool has_stray(struct span field)
{
	for (size_t i = 0; i < field.len; i++) {
		if (field.at[i] == '\r' && i + 1 < field.len && field.at[i + 1] == '\n')
			i++;
		else if (field.at[i] == '\r' || field.at[i] == '\n' || field.at[i] == '\0')
			return true;
	}
	return false;
}

static bool is_empty_line(struct span text, size_t at)
{
	return text.len - at >= 2 && memcmp(text.at + at, "\r\n", 2) == 0;
}

static const char *fields_read(struct dkim_header *header)
{
	struct span text = dkim_text_span(&header->text);

	for (size_t at = 0; at < text.len && !is_empty_line(text, at);) {
		struct dkim_field *field = &header->fields[header->field_count];

		if (header->field_count == DKIM_FIELDS_MAX)
			return "too many header fields";
		field->whole = field_at(text, at);
		if (!name_read(field->whole, &field->name) || has_stray(field->whole))
			return "malformed header";
		header->field_count++;
		at += field->whole.len + 2;
	}
	return NULL;
}

static struct span value_of(const struct dkim_field *field)
{
	const char *colon = memchr(field->whole.at, ':', field->whole.len);

	return span_skip(field->whole, (size_t)(colon - field->whole.at) + 1);
}

const char *dkim_header_read(struct dkim_header *header)
{
	const struct dkim_field *from = NULL;
	const char *why;

	if (header->long_)
		return "the header is too long";
	why = fields_read(header);
	if (why)
		return why;
	for (uint32_t i = 0; i < header->field_count; i++) {
		if (!span_equal_nocase(header->fields[i].name, wanted[0].name))
			continue;
		if (from)
			return "several From:";
		from = &header->fields[i];
	}
	return from ? dkim_from_domain(value_of(from), header->from) : "no From:";
}

/* ── what is signed ───────────────────────────────────────────────────────────────── */

static void name_add(struct dkim_text *names, struct span name)
{
	if (names->len > 0)
		dkim_text_put(names, ':');
	dkim_text_add(names, name);
}

bool dkim_header_select(const struct dkim_header *header, enum dkim_canon canon,
			struct dkim_text *names, struct dkim_text *octets)
{
	uint32_t count = 0;

	for (size_t i = 0; i < array_count(wanted); i++) {
		/* The last of several comes first: RFC 6376, 5.4.2. */
		for (uint32_t f = header->field_count; f-- > 0;) {
			if (!span_equal_nocase(header->fields[f].name, wanted[i].name))
				continue;
			name_add(names, wanted[i].name);
			dkim_canon_field(canon, header->fields[f].whole, octets);
			dkim_text_add(octets, span_of("\r\n", 2));
			if (++count > DKIM_SIGNED_MAX)
				return false;
		}
		if (wanted[i].over)
			name_add(names, wanted[i].name);
	}
	return !names->failed && !octets->failed;
}

/* Has the tag this value? Blanks and folding around it don't count. */
static bool tag_is(struct span tags, char tag, const char *value)
{
	while (tags.len > 0) {
		const char *semicolon = memchr(tags.at, ';', tags.len);
		size_t len = semicolon ? (size_t)(semicolon - tags.at) : tags.len;
		size_t begin = 0, end = len;

		while (begin < end && memchr(" \t\r\n", tags.at[begin], 4))
			begin++;
		if (begin < end && tags.at[begin] == tag) {
			for (begin++; begin < end && memchr(" \t\r\n=", tags.at[begin], 5);)
				begin++;
			while (end > begin && memchr(" \t\r\n", tags.at[end - 1], 4))
				end--;
			return span_equal_nocase(span_of(tags.at + begin, end - begin),
						 span_text(value));
		}
		tags = span_skip(tags, semicolon ? len + 1 : len);
	}
	return false;
}

bool dkim_header_has(const struct dkim_header *header, const char *domain, const char *selector)
{
	for (uint32_t i = 0; i < header->field_count; i++) {
		const struct dkim_field *field = &header->fields[i];

		if (span_equal_nocase(field->name, span_text("DKIM-Signature")) &&
		    tag_is(value_of(field), 'd', domain) && tag_is(value_of(field), 's', selector))
			return true;
	}
	return false;
}
