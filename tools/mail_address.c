/*
 * mail_address - see mail_address.h. A mailbox is gathered token by token; what turns out to
 * be a display name ('<' follows) or a group's name (':' follows) is thrown away.
 */
#include "tools/mail_address.h"

#include "os/check.h"

struct parser {
	struct span rest;
	mail_address_found *found;
	void *context;
	char address[MAIL_ADDRESS_BYTES];
	size_t len;
	bool angle;	  /* between '<' and '>' */
	bool angle_done;  /* nothing but a comment may follow */
	bool in_group;	  /* ':' was seen, and no ';' yet */
	bool words_apart; /* two words stand side by side: a display name, no address */
};

static void start_over(struct parser *parser)
{
	parser->len = 0;
	parser->angle = parser->angle_done = parser->words_apart = false;
}

static bool put(struct parser *parser, struct span token)
{
	if (parser->len + token.len >= sizeof(parser->address) || memchr(token.at, '\0', token.len))
		return false;
	memcpy(parser->address + parser->len, token.at, token.len);
	parser->len += token.len;
	parser->address[parser->len] = '\0';
	return true;
}

/* How long a comment, quoted string or domain literal is; 0: it has no end. */
static size_t enclosed_length(struct span text, char open, char close)
{
	size_t depth = 0;

	for (size_t i = 0; i < text.len; i++) {
		char octet = text.at[i];

		if (octet == '\\')
			i++;
		else if (octet == close && (open != close || i > 0)) {
			if (--depth == 0)
				return i + 1;
		} else if (octet == open && (open == '(' || i == 0))
			depth++;
	}
	return 0;
}

static size_t atom_length(struct span text)
{
	size_t len = 0;

	while (len < text.len && (unsigned char)text.at[len] > ' ' && text.at[len] != 0x7f &&
	       !strchr("()<>[]:;@\\,.\"", text.at[len]))
		len++;
	return len;
}

/* The end of a mailbox. An empty one is nothing: ", ,". "<>" is no address. */
static bool end_mailbox(struct parser *parser)
{
	bool good = !parser->angle;

	if (good && parser->len > 0) {
		good = !parser->words_apart && parser->address[parser->len - 1] != '@';
		if (good)
			parser->found(parser->context, parser->address);
	} else if (parser->angle_done) {
		good = false;
	}
	start_over(parser);
	return good;
}

static bool joins(char octet)
{
	return octet == '.' || octet == '@';
}

/* Atom, quoted string or literal: goes on where a dot or '@' stands before it. */
static bool take_word(struct parser *parser, size_t len)
{
	struct span token = { parser->rest.at, len };

	if (len == 0 || parser->angle_done)
		return false;
	parser->rest = span_skip(parser->rest, len);
	if (parser->len > 0 && !joins(parser->address[parser->len - 1])) {
		if (parser->angle)
			return false;
		parser->words_apart = true;
		parser->len = 0; /* a display name: only what it is followed by counts */
	}
	return put(parser, token);
}

static bool take_join(struct parser *parser)
{
	struct span token = { parser->rest.at, 1 };

	parser->rest = span_skip(parser->rest, 1);
	if (parser->angle_done)
		return false;
	/* "J. Public" is a display name with a dot, as many write it. */
	if (token.at[0] == '@' && parser->len == 0)
		return false;
	return put(parser, token);
}

/* "<@a,@b:" is a route of old. */
static bool skip_route(struct parser *parser)
{
	const char *colon;

	if (parser->rest.len == 0 || parser->rest.at[0] != '@')
		return true;
	colon = memchr(parser->rest.at, ':', parser->rest.len);
	if (!colon)
		return false;
	parser->rest = span_skip(parser->rest, (size_t)(colon - parser->rest.at) + 1);
	return true;
}

static bool take_special(struct parser *parser)
{
	char octet = parser->rest.at[0];

	parser->rest = span_skip(parser->rest, 1);
	switch (octet) {
	case '<':
		if (parser->angle || parser->angle_done)
			return false;
		start_over(parser);
		parser->angle = true;
		return skip_route(parser);
	case '>':
		if (!parser->angle)
			return false;
		parser->angle = false;
		parser->angle_done = true;
		return true;
	case ':': /* what stood before was the name of a group */
		if (parser->angle || parser->angle_done || parser->in_group)
			return false;
		start_over(parser);
		parser->in_group = true;
		return true;
	case ';':
		parser->in_group = false;
		return end_mailbox(parser);
	case ',':
		return end_mailbox(parser);
	default:
		return false;
	}
}

static bool take_token(struct parser *parser)
{
	struct span rest = parser->rest;
	char octet = rest.at[0];
	size_t len;

	if (octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n') {
		parser->rest = span_skip(rest, 1);
		return true;
	}
	if (octet == '(') {
		len = enclosed_length(rest, '(', ')');
		parser->rest = span_skip(rest, len);
		return len > 0;
	}
	if (octet == '"')
		return take_word(parser, enclosed_length(rest, '"', '"'));
	if (octet == '[')
		return take_word(parser, enclosed_length(rest, '[', ']'));
	if (joins(octet))
		return take_join(parser);
	len = atom_length(rest);
	return len > 0 ? take_word(parser, len) : take_special(parser);
}

bool mail_addresses(struct span text, mail_address_found *found, void *context)
{
	struct parser parser = { .rest = text, .found = found, .context = context };

	while (parser.rest.len > 0)
		if (!take_token(&parser))
			return false;
	return end_mailbox(&parser);
}
