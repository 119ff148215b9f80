/*
 * address - see address.h. One pass over the text, written to `out` as it is read; every
 * write is bounded by the limits of RFC 5321, 4.5.3.1, which add up to less than the buffer.
 */
#include "engine/smtp/address.h"

#include <arpa/inet.h>

#include "engine/smtp/utf8.h"
#include "os/check.h"

enum {
	LOCAL_MAX = 64,
	DOMAIN_MAX = 255,
	LABEL_MAX = 63,
	PATH_MAX_BYTES = 256, /* with its brackets and route */
};
static_assert(LOCAL_MAX + 3 + DOMAIN_MAX < SMTP_ADDRESS_MAX, "an address fits its buffer");

enum { ATEXT = 1, LDH = 2, ALNUM = 4, HIGH = 8 };

static const uint8_t classes[256] = {
	['a' ... 'z'] = ATEXT | LDH | ALNUM,
	['A' ... 'Z'] = ATEXT | LDH | ALNUM,
	['0' ... '9'] = ATEXT | LDH | ALNUM,
	['-'] = ATEXT | LDH,
	['!'] = ATEXT,
	['#'] = ATEXT,
	['$'] = ATEXT,
	['%'] = ATEXT,
	['&'] = ATEXT,
	['\''] = ATEXT,
	['*'] = ATEXT,
	['+'] = ATEXT,
	['/'] = ATEXT,
	['='] = ATEXT,
	['?'] = ATEXT,
	['^'] = ATEXT,
	['_'] = ATEXT,
	['`'] = ATEXT,
	['{'] = ATEXT,
	['|'] = ATEXT,
	['}'] = ATEXT,
	['~'] = ATEXT,
	[128 ... 255] = ATEXT | LDH | ALNUM | HIGH,
};

/* What is left of the text, and the address that grows from it. */
struct parser {
	const char *at, *end;
	struct smtp_address *out;
	uint8_t seen; /* the classes of all that went into `out`, or'ed */
};

static inline uint8_t class_of(char c)
{
	return classes[(uint8_t)c];
}

static inline bool parser_at(const struct parser *parser, char c)
{
	return parser->at < parser->end && *parser->at == c;
}

static inline void put(struct parser *parser, char c)
{
	parser->out->text[parser->out->len++] = c;
}

/* atom *("." atom), as it is. */
static enum smtp_address_status dot_string_parse(struct parser *parser)
{
	bool after_dot = true;

	for (; parser->at < parser->end; parser->at++) {
		uint8_t class = class_of(*parser->at);

		if (*parser->at == '.' && after_dot)
			return SMTP_ADDRESS_SYNTAX;
		if (*parser->at != '.' && !(class & ATEXT))
			break;
		if (parser->out->len == LOCAL_MAX)
			return SMTP_ADDRESS_LOCAL;
		after_dot = *parser->at == '.';
		parser->seen |= class;
		put(parser, *parser->at);
	}
	return after_dot ? SMTP_ADDRESS_SYNTAX : SMTP_ADDRESS_OK;
}

/* Is the text a Dot-string, so that it needs no quotes? */
static bool is_dot_string(struct span text)
{
	bool after_dot = true;

	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] == '.' ? after_dot : !(class_of(text.at[i]) & ATEXT))
			return false;
		after_dot = text.at[i] == '.';
	}
	return !after_dot;
}

/* Writes `raw` in quotes, with no more escapes than it needs. */
static enum smtp_address_status quoted_put(struct parser *parser, struct span raw)
{
	put(parser, '"');
	for (size_t i = 0; i < raw.len; i++) {
		if (parser->out->len > LOCAL_MAX)
			return SMTP_ADDRESS_LOCAL;
		if (raw.at[i] == '"' || raw.at[i] == '\\')
			put(parser, '\\');
		put(parser, raw.at[i]);
	}
	put(parser, '"');
	return parser->out->len > LOCAL_MAX ? SMTP_ADDRESS_LOCAL : SMTP_ADDRESS_OK;
}

/* "..." with quoted pairs: read into what it means, then written in its shortest form. */
static enum smtp_address_status quoted_parse(struct parser *parser)
{
	char raw[LOCAL_MAX];
	size_t len = 0;

	for (parser->at++; !parser_at(parser, '"'); parser->at++) {
		if (parser_at(parser, '\\'))
			parser->at++;
		if (parser->at >= parser->end)
			return SMTP_ADDRESS_SYNTAX;
		uint8_t c = (uint8_t)*parser->at;

		if (c < 32 || c == 127)
			return SMTP_ADDRESS_SYNTAX;
		if (len == sizeof(raw))
			return SMTP_ADDRESS_LOCAL;
		raw[len++] = (char)c;
		parser->seen |= c >= 128 ? HIGH : 0;
	}
	parser->at++;
	if (!is_dot_string(span_of(raw, len)))
		return quoted_put(parser, span_of(raw, len));
	memcpy(parser->out->text, raw, len);
	parser->out->len = (uint16_t)len;
	return SMTP_ADDRESS_OK;
}

/* Is the text within the brackets an address that we could connect to? */
static bool literal_valid(const char *text, bool six)
{
	struct in6_addr address;

	return inet_pton(six ? AF_INET6 : AF_INET, text, &address) == 1;
}

/* [192.0.2.1] or [IPv6:2001:db8::1]; other tags are not known to anyone. */
static enum smtp_address_status literal_parse(struct parser *parser)
{
	const char *close = memchr(parser->at, ']', (size_t)(parser->end - parser->at));
	char text[INET6_ADDRSTRLEN + 1];

	if (!close)
		return SMTP_ADDRESS_DOMAIN;
	struct span inner = span_of(parser->at + 1, (size_t)(close - parser->at - 1));
	bool six = span_starts_nocase(inner, "IPv6:");

	if (six)
		inner = span_skip(inner, strlen("IPv6:"));
	if (inner.len == 0 || inner.len >= sizeof(text) || memchr(inner.at, 0, inner.len))
		return SMTP_ADDRESS_DOMAIN;
	for (size_t i = 0; i < inner.len; i++)
		text[i] = (char)(inner.at[i] | (inner.at[i] >= 'A' && inner.at[i] <= 'Z' ? 32 : 0));
	text[inner.len] = 0;
	if (!literal_valid(text, six))
		return SMTP_ADDRESS_DOMAIN;

	const char *open = six ? "[IPv6:" : "[";

	for (; *open; open++)
		put(parser, *open);
	for (size_t i = 0; i < inner.len; i++)
		put(parser, text[i]);
	put(parser, ']');
	parser->at = close + 1;
	parser->out->literal = true;
	return SMTP_ADDRESS_OK;
}

/* One label, put in lower case. */
static enum smtp_address_status label_parse(struct parser *parser)
{
	const char *start = parser->at;
	uint8_t seen = 0, class;

	while (parser->at < parser->end && ((class = class_of(*parser->at)) & LDH)) {
		char c = *parser->at++;

		if (parser->out->len - parser->out->domain_at >= DOMAIN_MAX)
			return SMTP_ADDRESS_DOMAIN;
		seen |= class;
		put(parser, (char)(c >= 'A' && c <= 'Z' ? c | 32 : c));
	}
	parser->seen |= seen;
	if (parser->at == start || !(class_of(*start) & ALNUM) ||
	    !(class_of(parser->at[-1]) & ALNUM))
		return SMTP_ADDRESS_DOMAIN;
	/* How long a U-label is as an A-label is for the resolver to say. */
	return !(seen & HIGH) && parser->at - start > LABEL_MAX ? SMTP_ADDRESS_DOMAIN
								: SMTP_ADDRESS_OK;
}

static enum smtp_address_status domain_parse(struct parser *parser)
{
	if (parser_at(parser, '['))
		return literal_parse(parser);
	for (;;) {
		enum smtp_address_status status = label_parse(parser);

		if (status != SMTP_ADDRESS_OK)
			return status;
		if (!parser_at(parser, '.'))
			return SMTP_ADDRESS_OK;
		if (parser->out->len - parser->out->domain_at >= DOMAIN_MAX)
			return SMTP_ADDRESS_DOMAIN;
		put(parser, *parser->at++);
	}
}

/* "@a,@b:" before the mailbox: read and forgotten (RFC 5321, appendix C). */
static bool route_skip(struct parser *parser)
{
	while (parser_at(parser, '@')) {
		const char *start = ++parser->at;

		while (parser->at < parser->end &&
		       (class_of(*parser->at) & LDH || *parser->at == '.'))
			parser->at++;
		if (parser->at == start || parser->at == parser->end)
			return false;
		char c = *parser->at++;

		if (c == ':')
			return true;
		if (c != ',')
			return false;
	}
	return false;
}

static enum smtp_address_status mailbox_parse(struct parser *parser)
{
	struct smtp_address *out = parser->out;
	enum smtp_address_status status =
		parser_at(parser, '"') ? quoted_parse(parser) : dot_string_parse(parser);

	if (status != SMTP_ADDRESS_OK)
		return status;
	out->domain_at = out->len;
	if (!parser_at(parser, '@'))
		return SMTP_ADDRESS_OK;
	parser->at++;
	put(parser, '@');
	out->domain_at = out->len;
	return domain_parse(parser);
}

static void parser_init(struct parser *parser, struct span text, struct smtp_address *out)
{
	*parser = (struct parser){ .at = text.at, .end = text.at + text.len, .out = out };
	out->len = out->domain_at = 0;
	out->utf8 = out->literal = false;
}

static enum smtp_address_status utf8_check(struct parser *parser, bool utf8)
{
	struct smtp_address *out = parser->out;

	out->utf8 = parser->seen & HIGH;
	if (out->utf8 && (!utf8 || !smtp_utf8_valid(smtp_address_span(out))))
		return SMTP_ADDRESS_UTF8;
	return SMTP_ADDRESS_OK;
}

enum smtp_address_status smtp_path_parse(struct span text, bool utf8, struct smtp_address *out,
					 struct span *rest_out)
{
	struct parser parser;
	enum smtp_address_status status;

	parser_init(&parser, text, out);
	if (!parser_at(&parser, '<'))
		return SMTP_ADDRESS_SYNTAX;
	parser.at++;
	if (parser_at(&parser, '@') && !route_skip(&parser))
		return SMTP_ADDRESS_SYNTAX;
	if (!parser_at(&parser, '>') || parser.at != text.at + 1) {
		status = mailbox_parse(&parser);
		if (status != SMTP_ADDRESS_OK)
			return status;
		if (out->domain_at == out->len &&
		    !span_equal_nocase(smtp_address_span(out), span_text("postmaster")))
			return SMTP_ADDRESS_SYNTAX;
	}
	if (!parser_at(&parser, '>'))
		return SMTP_ADDRESS_SYNTAX;
	parser.at++;
	if (parser.at - text.at > PATH_MAX_BYTES)
		return SMTP_ADDRESS_TOO_LONG;
	status = utf8_check(&parser, utf8);
	if (status == SMTP_ADDRESS_OK)
		*rest_out = span_of(parser.at, (size_t)(parser.end - parser.at));
	return status;
}

enum smtp_address_status smtp_address_parse(struct span text, bool utf8, struct smtp_address *out)
{
	struct parser parser;

	parser_init(&parser, text, out);
	enum smtp_address_status status = mailbox_parse(&parser);

	if (status != SMTP_ADDRESS_OK)
		return status;
	if (out->domain_at == out->len || parser.at != parser.end)
		return SMTP_ADDRESS_SYNTAX;
	if (text.len > PATH_MAX_BYTES - 2)
		return SMTP_ADDRESS_TOO_LONG;
	return utf8_check(&parser, utf8);
}
