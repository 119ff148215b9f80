/*
 * lines - where lines end, 64 octets at a time.
 *
 *   octets   a b \r \n . x \n y
 *   cr       0 0  1  0 0 0  0 0      crlf      = lf & (cr << 1)
 *   lf       0 0  0  1 0 0  1 0      dot_start = dot & (crlf << 1)
 *   dot      0 0  0  0 1 0  0 0      bare      = lf without cr, or cr without lf
 *
 * Bodies are searched with bit masks, not octet by octet: the cost is the same for short and
 * for long lines, and a block without a surprise is done in a few dozen instructions.
 *
 * Promise: the carry joins blocks, so that nothing depends on where they begin.
 * Thread: pure.
 */
#ifndef ENGINE_SMTP_LINES_H
#define ENGINE_SMTP_LINES_H

#include "os/check.h"
#include "os/span.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { SMTP_LINES_BLOCK = 64 };

/* What the octets before this block were. */
struct smtp_lines {
	bool cr;    /* the last one was CR */
	bool start; /* the last two were CR LF, or there were none */
};

/* A bit per octet, the first the lowest. */
struct smtp_lines_block {
	uint64_t crlf;	    /* the LF of a CRLF */
	uint64_t lf_bare;   /* an LF without its CR */
	uint64_t cr_bare;   /* the octet after a CR, where it is no LF */
	uint64_t dot_start; /* a dot that begins a line */
};

/* Raw masks of up to 64 octets; those beyond `len` are 0. */
struct smtp_lines_raw {
	uint64_t cr, lf, dot;
};

#ifdef __SSE2__
static inline __attribute__((always_inline)) struct smtp_lines_raw smtp_lines_raw64(const char *at)
{
	struct smtp_lines_raw raw = { 0, 0, 0 };

	for (int i = 0; i < 4; i++) {
		__m128i octets = _mm_loadu_si128((const __m128i *)(at + i * 16));
#define MASK(vector) ((uint64_t)(uint32_t)_mm_movemask_epi8(vector) << (i * 16))
		raw.cr |= MASK(_mm_cmpeq_epi8(octets, _mm_set1_epi8('\r')));
		raw.lf |= MASK(_mm_cmpeq_epi8(octets, _mm_set1_epi8('\n')));
		raw.dot |= MASK(_mm_cmpeq_epi8(octets, _mm_set1_epi8('.')));
#undef MASK
	}
	return raw;
}
#else
static inline struct smtp_lines_raw smtp_lines_raw64(const char *at)
{
	struct smtp_lines_raw raw = { 0, 0, 0 };

	for (int i = 0; i < SMTP_LINES_BLOCK; i++) {
		uint64_t bit = (uint64_t)1 << i;

		raw.cr |= at[i] == '\r' ? bit : 0;
		raw.lf |= at[i] == '\n' ? bit : 0;
		raw.dot |= at[i] == '.' ? bit : 0;
	}
	return raw;
}
#endif

static inline __attribute__((always_inline)) struct smtp_lines_block smtp_lines_join(
	struct smtp_lines *lines, struct smtp_lines_raw raw, size_t len)
{
	uint64_t valid = ~(uint64_t)0 >> (SMTP_LINES_BLOCK - len);
	uint64_t after_cr = raw.cr << 1 | lines->cr;
	uint64_t crlf = raw.lf & after_cr;

	struct smtp_lines_block block = {
		.crlf = crlf,
		.lf_bare = raw.lf & ~after_cr,
		.cr_bare = after_cr & ~raw.lf & valid,
		.dot_start = raw.dot & (crlf << 1 | lines->start),
	};

	lines->cr = raw.cr >> (len - 1) & 1;
	lines->start = crlf >> (len - 1) & 1;
	return block;
}

/* Reads a block of `len` octets (at least 1; no more than 64 are taken) and moves `lines`
 * behind it. Inlined, so that masks that nobody asks for cost nothing. */
static inline __attribute__((always_inline)) struct smtp_lines_block smtp_lines_read(
	struct smtp_lines *lines, const char *at, size_t len)
{
	char padded[SMTP_LINES_BLOCK];

	assert(len > 0);
	if (__builtin_expect(len >= SMTP_LINES_BLOCK, true))
		return smtp_lines_join(lines, smtp_lines_raw64(at), SMTP_LINES_BLOCK);
	memset(padded, ' ', sizeof(padded));
	memcpy(padded, at, len);
	return smtp_lines_join(lines, smtp_lines_raw64(padded), len);
}

#endif
