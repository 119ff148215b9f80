/*
 * scan - the chunks of one segment or journal file, verified, in order; and the records in them.
 *
 *   scan_begin() ─► scan_next() ─► SCAN_CHUNK   verified: its records
 *                       ▲      ├─► SCAN_DAMAGE  below a durable end, not verified: what is in
 *                       └──────┘                there is believed record by record
 *                              └─► SCAN_END     nothing of this life follows, or a torn tail
 *
 * A chunk that does not verify is a torn tail only at or beyond every known durable end: those
 * that the caller knows, those that valid chunks tell, and any later valid chunk. Below one
 * it is damage.
 *
 * A page that can't be read is damage as well, and so is the chunk that it belongs to: no crash
 * makes one. Where it hides the last chunk nobody knows how far that goes: to the end of the file,
 * unless the next one says that nothing was there.
 *
 * Promise: any bytes may be in the file: every length is checked before it is used.
 * Non-promise: what else pages that can't be read hide is not looked for: they count as zero.
 *
 * Thread: plain data of its owner; reads block.
 * Source: queue/format.h; queue/README.md, "Found states".
 */
#ifndef QUEUE_SCAN_H
#define QUEUE_SCAN_H

#include <stdbool.h>

#include "os/span.h"
#include "queue/format.h"

enum { SCAN_WINDOW_PAGES = 2 * FORMAT_CHUNK_BYTES_MAX / FORMAT_PAGE_BYTES };

enum scan_found { SCAN_CHUNK, SCAN_DAMAGE, SCAN_END };

struct scan_input {
	int fd; /* borrowed until the end of the scan */
	uint32_t sequence;
	uint64_t bytes;		/* of the file */
	uint32_t durable_pages; /* the highest durable end known from elsewhere */
	uint32_t named_pages;	/* the end by the next file's header; 0: none tells */
	bool closed;		/* the spool was stopped in order: there are no torn tails */
	bool ended;		/* `durable_pages` is the end: what lies behind it is void */
};

/* Verified records, or a damaged stretch; borrowed from the scan until the next call. */
struct scan_extent {
	uint64_t offset; /* of bytes.at in the file */
	struct span bytes;
	uint32_t records; /* SCAN_CHUNK: as its header says */
	bool verified;
};

struct scan {
	/* What SCAN_END found. */
	uint32_t end_pages; /* behind the last valid chunk or damage; 1: there is none */
	bool torn;	    /* something of this life begins there */
	/* private: */
	struct scan_input input;
	char *buffer;
	uint64_t window_at;
	size_t window_bytes;
	bool unreadable[SCAN_WINDOW_PAGES]; /* of the window */
	uint32_t page, page_count, number;
	uint32_t damage_page, damage_end;
	bool last;
};

bool scan_init(struct scan *scan); /* false: no memory */
void scan_deinit(struct scan *scan);

void scan_begin(struct scan *scan, const struct scan_input *input);
enum scan_found scan_next(struct scan *scan, struct scan_extent *out);

/* ── records ──────────────────────────────────────────────────────────────────────── */

/* Walks the records of an extent: starts with { .extent, .sequence }. */
struct scan_cursor {
	struct scan_extent extent; /* what is left of it */
	uint32_t sequence;
	uint32_t bad; /* units or stretches skipped although the chunk was verified */
};

struct scan_message {
	struct format_message head;
	uint64_t offset;      /* of the head in the file */
	struct span envelope; /* at == NULL: damaged */
	struct span body;     /* as stored: the body, or struct format_big and its CRCs */
	bool body_good;
};

/* The next message whose head is sound; false: none is left. */
bool scan_next_message(struct scan_cursor *cursor, struct scan_message *out);

struct scan_record {
	uint8_t type; /* enum format_record_type: which of these is there */
	const struct format_job *job;
	const struct format_mark *mark;
	const struct format_start *start;
	const struct format_define *define; /* DEST, TEXT, CLASS, POLICY */
	struct span text;		    /* of the definition */
};

/* The next journal record; false: none is left. The extent lies on an 8-byte boundary. */
bool scan_next_record(struct scan_cursor *cursor, struct scan_record *out);

#endif
