/*
 * scan - what a message is made of, noted while its octets stream by.
 *
 * Promise: the same answers however the stream is split.
 * Non-promise: nothing is kept of the text; a header field counts by its name alone.
 *
 * Thread: pure.
 * Source: RFC 5322, 2.1.1, 2.2; RFC 5321, 4.5.3.1.6, 6.3.
 */
#ifndef ENGINE_SMTP_SCAN_H
#define ENGINE_SMTP_SCAN_H

#include "engine/smtp/lines.h"
#include "os/span.h"

enum { SMTP_SCAN_NAME_MAX = 16 };

struct smtp_scan {
	uint64_t bytes;
	uint64_t header_bytes; /* with the empty line, once header_done */
	bool header_done;
	uint32_t received_count;
	bool has_date, has_message_id;
	bool eightbit, nul, bare_cr, bare_lf;
	bool header_eightbit; /* eightbit, in the header */
	bool long_line;	      /* over 998 octets without its CRLF */
	bool dot_line;	      /* a line begins with a dot */
	/* private: */
	struct smtp_lines lines;
	uint64_t line_at; /* where the line began */
	char name[SMTP_SCAN_NAME_MAX];
	uint8_t name_len; /* how much of the line's beginning is in `name` */
	bool header_long; /* the line is longer than `name` */
};

void smtp_scan_init(struct smtp_scan *scan);
void smtp_scan_feed(struct smtp_scan *scan, struct span bytes);
/* The message is whole: settles what a CR or an unfinished line at its end means. */
void smtp_scan_finish(struct smtp_scan *scan);

/* True for an empty message, too. */
static inline bool smtp_scan_ends_in_crlf(const struct smtp_scan *scan)
{
	return scan->lines.start;
}

#endif
