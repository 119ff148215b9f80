/*
 * pattern - the messages that the source sends: a header with an id, and lines of text up to
 * an exact size.
 *
 * Promise: CRLF only, no line begins with a dot, the last line is whole: the same bytes go by
 * DATA and by BDAT.
 */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include "bench/buffer.h"

#define PATTERN_ID_LENGTH  16
#define PATTERN_KIND_COUNT 6

struct pattern {
	struct pattern_kind {
		char *text; /* owned */
		size_t length;
		uint32_t share; /* of 100 messages */
		size_t id_at[3];
	} kinds[PATTERN_KIND_COUNT];
	uint32_t kind_count;
};

/* Messages of one size, or "mixed"; of at least some 300 bytes. */
void pattern_init(struct pattern *pattern, const char *sizes, const char *from);
/* The kind of the n-th message: the same in every run. */
const struct pattern_kind *pattern_kind(const struct pattern *pattern, uint64_t number);
/* Appends one with this id. */
void pattern_put(const struct pattern_kind *kind, uint64_t id, struct buffer *out);
void pattern_id_text(uint64_t id, char out[static PATTERN_ID_LENGTH]);

#endif
