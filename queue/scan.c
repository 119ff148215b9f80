#include "queue/scan.h"

#include <stdlib.h>

#include "os/check.h"
#include "os/os.h"
#include "queue/crc.h"
#include "queue/envelope.h"

/* A damaged stretch that is longer comes in pieces which overlap by the largest record. */
#define SCAN_BUFFER_BYTES  ((size_t)SCAN_WINDOW_PAGES * FORMAT_PAGE_BYTES)
#define SCAN_OVERLAP_BYTES ((size_t)3 << 20)
static_assert(FORMAT_SEGMENT_BODY_MAX + FORMAT_ENVELOPE_BYTES_MAX + FORMAT_PAGE_BYTES <= (3 << 20),
	      "a message fits into the overlap");

bool scan_init(struct scan *scan)
{
	memset(scan, 0, sizeof(*scan));
	scan->buffer = aligned_alloc(FORMAT_PAGE_BYTES, SCAN_BUFFER_BYTES);
	return scan->buffer != NULL;
}

void scan_deinit(struct scan *scan)
{
	free(scan->buffer);
	scan->buffer = NULL;
}

void scan_begin(struct scan *scan, const struct scan_input *input)
{
	char *buffer = scan->buffer;

	assert(buffer != NULL);
	*scan = (struct scan){
		.end_pages = 1,
		.input = *input,
		.buffer = buffer,
		.page = 1,
		.page_count = (uint32_t)(input->bytes / FORMAT_PAGE_BYTES),
	};
	if (scan->input.durable_pages > scan->page_count)
		scan->input.durable_pages = scan->page_count;
	if (input->ended)
		scan->page_count = scan->input.durable_pages;
}

/* ── reading ──────────────────────────────────────────────────────────────────────── */

/* One bad page must not hide its neighbours: reads page by page, zeros for the unreadable. */
static void read_pages(struct scan *scan, char *to, size_t count, uint64_t offset)
{
	for (size_t done = 0; done < count; done += FORMAT_PAGE_BYTES) {
		ssize_t got =
			os_file_read(scan->input.fd, to + done, FORMAT_PAGE_BYTES, offset + done);

		if (got == FORMAT_PAGE_BYTES)
			continue;
		memset(to + done, 0, FORMAT_PAGE_BYTES);
		scan->unreadable[(size_t)(to + done - scan->buffer) / FORMAT_PAGE_BYTES] = true;
	}
}

/* `count` bytes at `offset`, both inside the file, from the window, which moves on if it has to. */
static const char *scan_fetch(struct scan *scan, uint64_t offset, size_t count)
{
	uint64_t window_end = scan->window_at + scan->window_bytes;
	uint64_t file_end = (uint64_t)scan->page_count * FORMAT_PAGE_BYTES;
	size_t kept = 0;

	assert(count <= SCAN_BUFFER_BYTES && offset + count <= file_end);
	if (offset >= scan->window_at && offset + count <= window_end)
		return scan->buffer + (offset - scan->window_at);
	assert(offset % FORMAT_PAGE_BYTES == 0);
	if (offset >= scan->window_at && offset < window_end) {
		size_t gone = (size_t)(offset - scan->window_at);

		kept = (size_t)(window_end - offset);
		memmove(scan->buffer, scan->buffer + gone, kept);
		memmove(scan->unreadable, scan->unreadable + gone / FORMAT_PAGE_BYTES,
			kept / FORMAT_PAGE_BYTES);
	}
	memset(scan->unreadable + kept / FORMAT_PAGE_BYTES, 0,
	       SCAN_WINDOW_PAGES - kept / FORMAT_PAGE_BYTES);
	size_t wanted = SCAN_BUFFER_BYTES - kept;

	if (wanted > file_end - offset - kept)
		wanted = (size_t)(file_end - offset - kept);
	ssize_t got = os_file_read(scan->input.fd, scan->buffer + kept, wanted, offset + kept);

	if (got < 0 || (size_t)got != wanted)
		read_pages(scan, scan->buffer + kept, wanted, offset + kept);
	scan->window_at = offset;
	scan->window_bytes = kept + wanted;
	return scan->buffer;
}

/* ── chunks ───────────────────────────────────────────────────────────────────────── */

static uint32_t chunk_pages(const struct format_chunk *chunk)
{
	return (chunk->bytes + FORMAT_PAGE_BYTES - 1) / FORMAT_PAGE_BYTES;
}

/* A chunk of this life begins at `page`, whether it is whole or not. */
static bool chunk_begun(struct scan *scan, uint32_t page, struct format_chunk *out)
{
	memcpy(out, scan_fetch(scan, (uint64_t)page * FORMAT_PAGE_BYTES, FORMAT_PAGE_BYTES),
	       sizeof(*out));
	return out->magic == FORMAT_CHUNK_MAGIC && out->sequence == scan->input.sequence;
}

static bool chunk_valid(struct scan *scan, uint32_t page, struct format_chunk *out)
{
	if (page >= scan->page_count || !chunk_begun(scan, page, out))
		return false;
	if (out->bytes < sizeof(*out) || out->bytes > FORMAT_CHUNK_BYTES_MAX ||
	    chunk_pages(out) > scan->page_count - page || out->number < scan->number)
		return false;
	const char *bytes = scan_fetch(scan, (uint64_t)page * FORMAT_PAGE_BYTES,
				       (size_t)chunk_pages(out) * FORMAT_PAGE_BYTES);

	return crc_record(out->sequence, bytes, out->bytes, offsetof(struct format_chunk, crc)) ==
	       out->crc;
}

static enum scan_found emit_chunk(struct scan *scan, const struct format_chunk *chunk,
				  struct scan_extent *out)
{
	uint64_t offset = (uint64_t)scan->page * FORMAT_PAGE_BYTES;
	size_t pages_bytes = (size_t)chunk_pages(chunk) * FORMAT_PAGE_BYTES;

	*out = (struct scan_extent){
		.offset = offset + sizeof(*chunk),
		.bytes = span_of(scan_fetch(scan, offset, pages_bytes) + sizeof(*chunk),
				 chunk->bytes - sizeof(*chunk)),
		.records = chunk->records,
		.verified = true,
	};
	scan->page += chunk_pages(chunk);
	scan->number = chunk->number + 1;
	scan->end_pages = scan->page;
	if (chunk->durable_end > scan->input.durable_pages &&
	    chunk->durable_end <= scan->page_count)
		scan->input.durable_pages = chunk->durable_end;
	return SCAN_CHUNK;
}

static enum scan_found emit_damage(struct scan *scan, struct scan_extent *out)
{
	uint64_t offset = (uint64_t)scan->damage_page * FORMAT_PAGE_BYTES;
	size_t count = (size_t)(scan->damage_end - scan->damage_page) * FORMAT_PAGE_BYTES;

	if (count > SCAN_BUFFER_BYTES) {
		count = SCAN_BUFFER_BYTES;
		scan->damage_page += (uint32_t)((count - SCAN_OVERLAP_BYTES) / FORMAT_PAGE_BYTES);
	} else {
		scan->damage_page = scan->damage_end;
	}
	*out = (struct scan_extent){ .offset = offset,
				     .bytes = span_of(scan_fetch(scan, offset, count), count) };
	return SCAN_DAMAGE;
}

/* Where the chunk that was begun at the bad page says that it ends; the page itself: none was. */
static uint32_t begun_end(struct scan *scan, uint32_t page)
{
	struct format_chunk chunk;
	uint32_t pages = 1;

	if (page >= scan->page_count || !chunk_begun(scan, page, &chunk))
		return page;
	if (chunk.bytes > 0 && chunk.bytes <= FORMAT_CHUNK_BYTES_MAX)
		pages = chunk_pages(&chunk);
	return pages < scan->page_count - page ? page + pages : scan->page_count;
}

/* The bad page, or one of the chunk that was begun there. */
static bool begun_is_unreadable(struct scan *scan, uint32_t page, uint32_t begun)
{
	uint32_t pages = begun > page ? begun - page : 1, first;

	if (page >= scan->page_count)
		return false;
	scan_fetch(scan, (uint64_t)page * FORMAT_PAGE_BYTES, (size_t)pages * FORMAT_PAGE_BYTES);
	first = page - (uint32_t)(scan->window_at / FORMAT_PAGE_BYTES);
	return memchr(scan->unreadable + first, true, pages) != NULL;
}

/* Where the stretch that begins at the bad page ends; the page itself: no damage, only a tail. */
static uint32_t damage_end(struct scan *scan)
{
	uint32_t page = scan->page, durable = scan->input.durable_pages;
	/* Before the window moves on: a second try may go otherwise. */
	uint32_t begun = begun_end(scan, page);
	bool unreadable = begun_is_unreadable(scan, page, begun);
	struct format_chunk chunk;

	for (uint32_t later = page + 1; later < scan->page_count; later++)
		if (chunk_valid(scan, later, &chunk))
			return later;
	scan->last = true;
	if (unreadable && scan->input.named_pages == 0)
		return scan->page_count;
	if (durable > page || scan->input.closed)
		return begun > durable ? begun : durable;
	scan->torn = begun > page;
	return page;
}

enum scan_found scan_next(struct scan *scan, struct scan_extent *out)
{
	struct format_chunk chunk;

	if (scan->damage_page < scan->damage_end)
		return emit_damage(scan, out);
	if (scan->last)
		return SCAN_END;
	if (chunk_valid(scan, scan->page, &chunk))
		return emit_chunk(scan, &chunk, out);
	scan->damage_page = scan->page;
	scan->damage_end = damage_end(scan);
	if (scan->damage_end <= scan->damage_page)
		return SCAN_END;
	scan->page = scan->end_pages = scan->damage_end;
	return emit_damage(scan, out);
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static size_t align_record(size_t bytes)
{
	return (bytes + FORMAT_RECORD_ALIGN - 1) & ~(size_t)(FORMAT_RECORD_ALIGN - 1);
}

static void cursor_skip(struct scan_cursor *cursor, size_t count)
{
	struct scan_extent *extent = &cursor->extent;

	if (count > extent->bytes.len)
		count = extent->bytes.len;
	extent->bytes = span_skip(extent->bytes, count);
	extent->offset += count;
}

static bool message_head(const struct scan_cursor *cursor, struct format_message *out)
{
	struct span rest = cursor->extent.bytes;

	memcpy(out, rest.at, sizeof(*out));
	return out->magic == FORMAT_MESSAGE_MAGIC &&
	       crc_record(cursor->sequence, out, sizeof(*out),
			  offsetof(struct format_message, crc)) == out->crc;
}

/* Bytes of the body's place in the segment; 0 with false: they make no sense. */
static bool stored_bytes(const struct format_message *head, struct span rest, size_t *out)
{
	struct format_big big;

	if (!(head->flags & FORMAT_BIG)) {
		*out = head->body_bytes;
		return head->body_bytes <= FORMAT_SEGMENT_BODY_MAX;
	}
	if (rest.len < sizeof(big))
		return false;
	memcpy(&big, rest.at, sizeof(big));
	*out = sizeof(big) + (size_t)big.crc_count * sizeof(uint32_t);
	return big.bytes == head->body_bytes && big.crc_count == format_big_crc_count(big.bytes);
}

/* `rest` begins behind the head. How much of it belongs to the message. */
static size_t message_parts(struct scan_message *out, struct span rest, bool verified)
{
	size_t envelope_bytes = align_record(out->head.envelope_bytes), body_bytes;

	out->envelope = out->body = (struct span){ NULL, 0 };
	out->body_good = false;
	if (out->head.envelope_bytes > FORMAT_ENVELOPE_BYTES_MAX ||
	    out->head.envelope_bytes > rest.len)
		return 0;
	struct span envelope = span_of(rest.at, out->head.envelope_bytes);

	if ((verified || crc_of(envelope.at, envelope.len) == out->head.envelope_crc) &&
	    envelope_check(envelope))
		out->envelope = envelope;
	if (envelope_bytes > rest.len)
		return rest.len;
	rest = span_skip(rest, envelope_bytes);
	if (!stored_bytes(&out->head, rest, &body_bytes) || body_bytes > rest.len)
		return envelope_bytes;
	out->body = span_of(rest.at, body_bytes);
	out->body_good = verified || crc_of(rest.at, body_bytes) == out->head.body_crc;
	return envelope_bytes + align_record(body_bytes);
}

bool scan_next_message(struct scan_cursor *cursor, struct scan_message *out)
{
	bool gap = false;

	while (cursor->extent.bytes.len >= sizeof(out->head)) {
		if (message_head(cursor, &out->head)) {
			out->offset = cursor->extent.offset;
			cursor_skip(cursor, sizeof(out->head));
			cursor_skip(cursor, message_parts(out, cursor->extent.bytes,
							  cursor->extent.verified));
			return true;
		}
		cursor->bad += cursor->extent.verified && !gap;
		gap = true;
		cursor_skip(cursor, FORMAT_RECORD_ALIGN);
	}
	return false;
}

/* ── journal records ──────────────────────────────────────────────────────────────── */

enum { UNIT_BYTES = 64, UNITS_MAX = 8 };

static bool define_parse(struct span rest, struct scan_record *out, size_t *bytes_out)
{
	const struct format_define *define = (const void *)rest.at;

	*bytes_out = (size_t)define->units * UNIT_BYTES;
	if (define->units < 1 || define->units > UNITS_MAX || *bytes_out > rest.len ||
	    define->bytes > *bytes_out - offsetof(struct format_define, text))
		return false;
	out->define = define;
	out->text = span_of(rest.at + offsetof(struct format_define, text), define->bytes);
	return true;
}

static bool record_parse(const struct scan_cursor *cursor, struct scan_record *out,
			 size_t *bytes_out)
{
	struct span rest = cursor->extent.bytes;
	uint32_t crc;

	*out = (struct scan_record){
		.type = ((const struct format_job *)(const void *)rest.at)->type
	};
	*bytes_out = UNIT_BYTES;
	switch (out->type) {
	case FORMAT_JOB:
		out->job = (const void *)rest.at;
		break;
	case FORMAT_MARK:
		out->mark = (const void *)rest.at;
		break;
	case FORMAT_START:
		out->start = (const void *)rest.at;
		break;
	case FORMAT_DEST:
	case FORMAT_TEXT:
	case FORMAT_CLASS:
	case FORMAT_POLICY:
		if (!define_parse(rest, out, bytes_out))
			return false;
		break;
	default: /* of a compatible later version: passed on without a pointer */
		break;
	}
	memcpy(&crc, rest.at, sizeof(crc));
	return crc_record(cursor->sequence, rest.at, *bytes_out, 0) == crc;
}

bool scan_next_record(struct scan_cursor *cursor, struct scan_record *out)
{
	size_t bytes;

	assert((uintptr_t)cursor->extent.bytes.at % 8 == 0);
	while (cursor->extent.bytes.len >= UNIT_BYTES) {
		bool good = record_parse(cursor, out, &bytes);

		cursor_skip(cursor, good ? bytes : UNIT_BYTES);
		if (good)
			return true;
		cursor->bad += cursor->extent.verified;
	}
	return false;
}
