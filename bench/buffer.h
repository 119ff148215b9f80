/*
 * buffer - bytes that grow at the end and leave at the front; memory is kept for the next use.
 */
#ifndef BENCH_BUFFER_H
#define BENCH_BUFFER_H

#include <stdlib.h>

#include "os/check.h"
#include "os/span.h"

struct buffer {
	char *at;
	size_t length, room; /* room: from `at` on */
	char *memory;	     /* owned; what has left lies between it and `at` */
};

/* Room for `count` more; the caller fills it and adds to `length`. */
static inline char *buffer_space(struct buffer *buffer, size_t count)
{
	size_t gone = (size_t)(buffer->at - buffer->memory);

	if (buffer->room - buffer->length >= count)
		return buffer->at + buffer->length;
	if (gone > 0) {
		memmove(buffer->memory, buffer->at, buffer->length);
		buffer->at = buffer->memory;
		buffer->room += gone;
	}
	/* Half of it free at least, so that moves stay rare. */
	if ((buffer->length + count) * 2 > buffer->room) {
		buffer->room = (buffer->length + count) * 2;
		buffer->at = buffer->memory = realloc(buffer->memory, buffer->room);
		assert(buffer->at != NULL);
	}
	return buffer->at + buffer->length;
}

static inline void buffer_put(struct buffer *buffer, const void *bytes, size_t count)
{
	memcpy(buffer_space(buffer, count), bytes, count);
	buffer->length += count;
}

static inline void buffer_put_text(struct buffer *buffer, const char *text)
{
	buffer_put(buffer, text, strlen(text));
}

static inline void buffer_drop(struct buffer *buffer, size_t count)
{
	assert(count <= buffer->length);
	buffer->at += count;
	buffer->length -= count;
	buffer->room -= count;
}

static inline void buffer_free(struct buffer *buffer)
{
	free(buffer->memory);
	*buffer = (struct buffer){ 0 };
}

#endif
