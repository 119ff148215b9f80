/*
 * intake - the server's side of SMTP as a stream: commands, data up to the dot, chunks.
 *
 * Promise: data end only at CRLF.CRLF, also across reads; `data` gets every byte between, the
 * final dot and its CRLF included; `end` follows the last byte.
 * Non-promise: knows no verbs; on_command calls intake_expect_dot() or intake_expect_chunk().
 */
#ifndef BENCH_INTAKE_H
#define BENCH_INTAKE_H

#include <stdbool.h>

#include "os/span.h"

#define INTAKE_LINE_MAX 4096

struct intake {
	/* Set by the owner. `line` has no CRLF; both are lent. */
	void (*on_command)(struct intake *intake, struct span line);
	void (*on_data)(struct intake *intake, struct span bytes);
	void (*on_end)(struct intake *intake); /* of the data, or of a chunk */
	/* Private. */
	enum { INTAKE_LINES = 0, INTAKE_DOT, INTAKE_CHUNK } state;
	int dot_matched; /* how much of CRLF.CRLF was seen */
	size_t chunk_left;
	size_t line_length;
	char line[INTAKE_LINE_MAX]; /* the part of a line that came earlier */
};

/* False if a line is too long: the stream cannot be read any more. */
bool intake_feed(struct intake *intake, struct span bytes);
void intake_expect_dot(struct intake *intake);
void intake_expect_chunk(struct intake *intake, size_t bytes);

#endif
