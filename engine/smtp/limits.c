/*
 * limits - see limits.h.
 */
#include "engine/smtp/limits.h"

#include "engine/smtp/command.h"

enum { DIGITS_MAX = 6 }; /* RFC 9422, 4 */

static void take(struct span value, uint32_t *limit)
{
	uint64_t number;

	if (value.len > DIGITS_MAX || !smtp_number_parse(value, &number) || value.at[0] == '0')
		return;
	if (*limit == 0 || number < *limit)
		*limit = (uint32_t)number;
}

static void word_take(struct span word, struct smtp_limits *limits)
{
	const char *equals = memchr(word.at, '=', word.len);
	struct span name = span_of(word.at, equals ? (size_t)(equals - word.at) : 0);

	if (!equals)
		return;
	if (span_equal_nocase(name, span_text("MAILMAX")))
		take(span_skip(word, name.len + 1), &limits->mail_max);
	else if (span_equal_nocase(name, span_text("RCPTMAX")))
		take(span_skip(word, name.len + 1), &limits->rcpt_max);
}

struct smtp_limits smtp_limits_parse(struct span text)
{
	struct smtp_limits limits = { 0 };

	while (text.len > 0) {
		const char *blank = memchr(text.at, ' ', text.len);
		size_t len = blank ? (size_t)(blank - text.at) : text.len;

		if (len > 0)
			word_take(span_of(text.at, len), &limits);
		text = span_skip(text, len + (blank != NULL));
	}
	return limits;
}
