/*
 * span - bytes that somebody else owns: a pointer and a length, no terminator.
 */
#ifndef OS_SPAN_H
#define OS_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct span {
	const char *at;
	size_t len;
};

/* For printf: ("%.*s", SPAN_ARG(span)) */
#define SPAN_ARG(span) (int)(span).len, (span).at

static inline struct span span_of(const void *at, size_t len)
{
	return (struct span){ (const char *)at, len };
}

static inline struct span span_text(const char *text)
{
	return (struct span){ text, strlen(text) };
}

static inline bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

/* ASCII letters compare without case. */
static inline bool span_equal_nocase(struct span a, struct span b)
{
	return a.len == b.len && (a.len == 0 || strncasecmp(a.at, b.at, a.len) == 0);
}

static inline bool span_starts_nocase(struct span text, const char *start)
{
	size_t len = strlen(start);

	return text.len >= len && strncasecmp(text.at, start, len) == 0;
}

static inline struct span span_skip(struct span span, size_t count)
{
	return (struct span){ span.at + count, span.len - count };
}

/* As text, with what has no room cut off. */
static inline void span_copy(struct span from, char *to, size_t room)
{
	size_t len = from.len < room ? from.len : room - 1;

	if (len > 0)
		memcpy(to, from.at, len);
	to[len] = '\0';
}

#endif
