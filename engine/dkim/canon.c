/*
 * canon - see canon.h.
 *
 * Most of a body is the same in its canonical form: runs of it are copied as they are, up to the
 * next octets that might not stay (white space that is not one space between two words, an empty
 * line). Those are looked at one by one; what stays only if something follows is remembered as
 * `blank`, `cr` and `lines`.
 */
#include "engine/dkim/canon.h"

#include "os/check.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

const char *dkim_canon_name(enum dkim_canon canon)
{
	return canon == DKIM_SIMPLE ? "simple" : "relaxed";
}

static bool is_blank(char octet)
{
	return octet == ' ' || octet == '\t';
}

/* ── header fields ────────────────────────────────────────────────────────────────── */

static bool is_line_end(struct span text, size_t at)
{
	return text.at[at] == '\r' && at + 1 < text.len && text.at[at + 1] == '\n';
}

static void relax_value(struct span value, struct dkim_text *out)
{
	bool begun = false, blank = false;

	for (size_t i = 0; i < value.len; i++) {
		if (is_blank(value.at[i])) {
			blank = true;
			continue;
		}
		if (is_line_end(value, i)) {
			i++;
			continue;
		}
		if (blank && begun)
			dkim_text_put(out, ' ');
		dkim_text_put(out, value.at[i]);
		begun = true;
		blank = false;
	}
}

void dkim_canon_field(enum dkim_canon canon, struct span field, struct dkim_text *out)
{
	const char *colon = memchr(field.at, ':', field.len);
	size_t name_len;

	assert(colon);
	if (canon == DKIM_SIMPLE) {
		dkim_text_add(out, field);
		return;
	}
	name_len = (size_t)(colon - field.at);
	while (name_len > 0 && is_blank(field.at[name_len - 1]))
		name_len--;
	for (size_t i = 0; i < name_len; i++) {
		bool upper = field.at[i] >= 'A' && field.at[i] <= 'Z';

		dkim_text_put(out, (char)(upper ? field.at[i] | 0x20 : field.at[i]));
	}
	dkim_text_put(out, ':');
	relax_value(span_skip(field, (size_t)(colon - field.at) + 1), out);
}

/* ── bodies ───────────────────────────────────────────────────────────────────────── */

void dkim_body_init(struct dkim_body *body, enum dkim_canon canon,
		    void (*sink)(void *context, struct span bytes), void *context)
{
	memset(body, 0, offsetof(struct dkim_body, staged));
	body->canon = canon;
	body->sink = sink;
	body->context = context;
}

static void flush(struct dkim_body *body)
{
	if (body->staged_len > 0)
		body->sink(body->context, span_of(body->staged, body->staged_len));
	body->staged_len = 0;
}

static void stage(struct dkim_body *body, struct span bytes)
{
	if (bytes.len > DKIM_BODY_STAGED - body->staged_len)
		flush(body);
	if (bytes.len > DKIM_BODY_STAGED) {
		body->sink(body->context, bytes);
		return;
	}
	memcpy(body->staged + body->staged_len, bytes.at, bytes.len);
	body->staged_len += bytes.len;
}

/* Something follows: what was remembered stays. */
static void settle(struct dkim_body *body)
{
	for (; body->lines > 0; body->lines--)
		stage(body, span_of("\r\n", 2));
	if (body->blank)
		stage(body, span_of(" ", 1));
	body->blank = false;
	body->any = true;
}

static void ordinary(struct dkim_body *body, char octet)
{
	settle(body);
	stage(body, span_of(&octet, 1));
}

static void one(struct dkim_body *body, char octet)
{
	if (body->cr) {
		body->cr = false;
		if (octet == '\n') {
			body->lines++;
			body->blank = false;
			return;
		}
		ordinary(body, '\r');
	}
	if (octet == '\r')
		body->cr = true;
	else if (body->canon == DKIM_RELAXED && is_blank(octet))
		body->blank = true;
	else
		ordinary(body, octet);
}

/* Does an octet need a second look? */
static inline bool is_special(char octet)
{
	return octet == '\r' || octet == ' ' || octet == '\t';
}

#ifdef __SSE2__
enum { BLOCK_BYTES = 64, BLOCK_DECIDED = BLOCK_BYTES - 2 };

static inline uint64_t mask_of(const __m128i *block, char octet)
{
	uint64_t mask = 0;

	for (int i = 0; i < BLOCK_BYTES / 16; i++)
		mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(
				_mm_cmpeq_epi8(block[i], _mm_set1_epi8(octet)))
			<< (16 * i);
	return mask;
}

/* The same as octet by octet, for the beginning of a block: how many of the first 62 octets stay
 * as they are, before the first that may not. Each depends on the two behind it. */
static size_t block_run(enum dkim_canon canon, const char *at)
{
	__m128i block[BLOCK_BYTES / 16];
	uint64_t space, tab, cr, lf, special, open;

	memcpy(block, at, sizeof(block));
	space = mask_of(block, ' ');
	tab = mask_of(block, '\t');
	cr = mask_of(block, '\r');
	lf = mask_of(block, '\n');
	special = space | tab | cr;
	open = cr & (~(lf >> 1) | special >> 2);
	if (canon == DKIM_RELAXED)
		open |= tab | (space & special >> 1);
	open |= UINT64_C(3) << BLOCK_DECIDED;
	return (size_t)__builtin_ctzll(open);
}
#endif

/* How many octets from `i` on are the same in the canonical form, whatever follows them. */
static size_t run_from(const struct dkim_body *body, struct span bytes, size_t i)
{
	const char *at = bytes.at;
	size_t begin = i;

#ifdef __SSE2__
	while (bytes.len - i >= BLOCK_BYTES) {
		size_t run = block_run(body->canon, at + i);

		i += run;
		if (run < BLOCK_DECIDED)
			return i - begin;
	}
#endif
	while (i < bytes.len) {
		if (!is_special(at[i])) {
			i++;
		} else if (at[i] == '\r') {
			if (i + 2 >= bytes.len || at[i + 1] != '\n' || is_special(at[i + 2]))
				break;
			i += 3;
		} else if (body->canon == DKIM_SIMPLE) {
			i++;
		} else {
			if (at[i] == '\t' || i + 1 >= bytes.len || is_special(at[i + 1]))
				break;
			i += 2;
		}
	}
	return i - begin;
}

void dkim_body_feed(struct dkim_body *body, struct span bytes)
{
	for (size_t i = 0; i < bytes.len;) {
		bool open = body->cr || (body->blank && is_special(bytes.at[i]));
		size_t run = open ? 0 : run_from(body, bytes, i);

		if (run == 0) {
			one(body, bytes.at[i++]);
			continue;
		}
		settle(body);
		stage(body, span_of(bytes.at + i, run));
		i += run;
	}
}

void dkim_body_end(struct dkim_body *body)
{
	if (body->cr)
		ordinary(body, '\r');
	body->cr = false;
	if (body->any || body->canon == DKIM_SIMPLE)
		stage(body, span_of("\r\n", 2));
	flush(body);
}
