/*
 * replies - finds the ends of SMTP replies in a stream.
 */
#ifndef BENCH_REPLIES_H
#define BENCH_REPLIES_H

#include "os/span.h"

struct replies {
	char head[4]; /* of the line that is being read */
	size_t column;
};

/* Takes the next whole reply off `bytes`: its code; 0 if there is none yet, and `bytes` is
 * empty then. */
static inline int replies_next(struct replies *replies, struct span *bytes)
{
	while (bytes->len > 0) {
		const char *end = memchr(bytes->at, '\n', bytes->len);
		size_t count = end != NULL ? (size_t)(end - bytes->at) + 1 : bytes->len;
		const char *head = replies->head;

		for (size_t i = 0; i < count && replies->column < sizeof(replies->head); i++)
			replies->head[replies->column++] = bytes->at[i];
		*bytes = span_skip(*bytes, count);
		if (end == NULL)
			break;
		replies->column = 0;
		if (head[3] != '-')
			return (head[0] - '0') * 100 + (head[1] - '0') * 10 + (head[2] - '0');
	}
	return 0;
}

#endif
