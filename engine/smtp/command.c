/*
 * command - see command.h.
 */
#include "engine/smtp/command.h"

#include "os/check.h"

static const struct verb {
	const char *name;
	enum smtp_verb verb;
} verbs[] = {
	{ "MAIL", SMTP_VERB_MAIL },	   { "RCPT", SMTP_VERB_RCPT },
	{ "BDAT", SMTP_VERB_BDAT },	   { "DATA", SMTP_VERB_DATA },
	{ "RSET", SMTP_VERB_RSET },	   { "EHLO", SMTP_VERB_EHLO },
	{ "HELO", SMTP_VERB_HELO },	   { "NOOP", SMTP_VERB_NOOP },
	{ "QUIT", SMTP_VERB_QUIT },	   { "VRFY", SMTP_VERB_VRFY },
	{ "HELP", SMTP_VERB_HELP },	   { "EXPN", SMTP_VERB_NOT_OFFERED },
	{ "TURN", SMTP_VERB_NOT_OFFERED }, { "ETRN", SMTP_VERB_NOT_OFFERED },
	{ "ATRN", SMTP_VERB_NOT_OFFERED }, { "STARTTLS", SMTP_VERB_STARTTLS },
	{ "AUTH", SMTP_VERB_AUTH },	   { "SEND", SMTP_VERB_NOT_OFFERED },
	{ "SOML", SMTP_VERB_NOT_OFFERED }, { "SAML", SMTP_VERB_NOT_OFFERED },
	{ "XCLIENT", SMTP_VERB_XCLIENT },  { "XFORWARD", SMTP_VERB_NOT_OFFERED },
	{ "BURL", SMTP_VERB_NOT_OFFERED }, { "GET", SMTP_VERB_FOREIGN },
	{ "POST", SMTP_VERB_FOREIGN },	   { "HEAD", SMTP_VERB_FOREIGN },
	{ "PUT", SMTP_VERB_FOREIGN },	   { "DELETE", SMTP_VERB_FOREIGN },
	{ "OPTIONS", SMTP_VERB_FOREIGN },  { "CONNECT", SMTP_VERB_FOREIGN },
	{ "PATCH", SMTP_VERB_FOREIGN },	   { "TRACE", SMTP_VERB_FOREIGN },
	{ "PRI", SMTP_VERB_FOREIGN }, /* HTTP/2 */
};

static inline bool blank(char c)
{
	return c == ' ' || c == '\t';
}

static enum smtp_verb verb_find(struct span word)
{
	for (size_t i = 0; i < array_count(verbs); i++) {
		if ((word.at[0] | 32) == (verbs[i].name[0] | 32) &&
		    span_equal_nocase(word, span_text(verbs[i].name)))
			return verbs[i].verb;
	}
	return SMTP_VERB_UNKNOWN;
}

struct smtp_command smtp_command_parse(struct span line)
{
	size_t word = 0;

	while (line.len > 0 && blank(line.at[line.len - 1]))
		line.len--;
	while (word < line.len && !blank(line.at[word]))
		word++;

	struct span argument = span_skip(line, word);

	while (argument.len > 0 && blank(*argument.at))
		argument = span_skip(argument, 1);
	return (struct smtp_command){
		.verb = word > 0 ? verb_find(span_of(line.at, word)) : SMTP_VERB_UNKNOWN,
		.argument = argument,
	};
}

bool smtp_number_parse(struct span text, uint64_t *out)
{
	uint64_t number = 0;
	bool beyond = false;

	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] < '0' || text.at[i] > '9')
			return false;
		beyond |= __builtin_mul_overflow(number, 10, &number) ||
			  __builtin_add_overflow(number, (uint64_t)(text.at[i] - '0'), &number);
	}
	if (text.len > 0)
		*out = beyond ? UINT64_MAX : number;
	return text.len > 0;
}

bool smtp_bdat_parse(struct span argument, uint64_t *size_out, bool *last_out)
{
	size_t digits = 0;
	uint64_t size;

	while (digits < argument.len && !blank(argument.at[digits]))
		digits++;

	struct span rest = span_skip(argument, digits);

	while (rest.len > 0 && blank(*rest.at))
		rest = span_skip(rest, 1);
	if (!smtp_number_parse(span_of(argument.at, digits), &size) || size == UINT64_MAX)
		return false;
	if (rest.len > 0 && !span_equal_nocase(rest, span_text("LAST")))
		return false;
	*size_out = size;
	*last_out = rest.len > 0;
	return true;
}

bool smtp_keyword_skip(struct span *argument, const char *keyword)
{
	if (!span_starts_nocase(*argument, keyword))
		return false;
	*argument = span_skip(*argument, strlen(keyword));
	while (argument->len > 0 && blank(*argument->at))
		*argument = span_skip(*argument, 1);
	return true;
}
