/*
 * scan - see scan.h. The header is read line by line, everything in blocks.
 */
#include "engine/smtp/scan.h"

#include "os/check.h"

enum { LINE_MAX_BYTES = 998 };

void smtp_scan_init(struct smtp_scan *scan)
{
	*scan = (struct smtp_scan){ .lines.start = true };
}

/* A header line is whole; `name` has how it began, at least one octet. */
static void header_line(struct smtp_scan *scan)
{
	struct span line = span_of(scan->name, scan->name_len);

	switch (scan->name[0] | 32) {
	case 'r':
		scan->received_count += span_starts_nocase(line, "Received:");
		break;
	case 'd':
		scan->has_date |= span_starts_nocase(line, "Date:");
		break;
	case 'm':
		scan->has_message_id |= span_starts_nocase(line, "Message-ID:");
		break;
	default:
		break;
	}
}

static bool line_is_empty(const struct smtp_scan *scan)
{
	return !scan->header_long &&
	       (scan->name_len == 0 || (scan->name_len == 1 && scan->name[0] == '\r'));
}

/* What octets there are, at least one of. The compiler makes vectors of such a loop. */
struct octets {
	bool high, nul;
};

static struct octets octets_of(struct span text)
{
	uint8_t least = UINT8_MAX, all = 0;

	for (size_t i = 0; i < text.len; i++) {
		uint8_t octet = (uint8_t)text.at[i];

		all |= octet;
		least = octet < least ? octet : least;
	}
	return (struct octets){ .high = all & 0x80, .nul = least == 0 };
}

/* `offset`: of these bytes in the message. */
static void header_feed(struct smtp_scan *scan, struct span bytes, uint64_t offset)
{
	while (bytes.len > 0 && !scan->header_done) {
		const char *lf = memchr(bytes.at, '\n', bytes.len);
		size_t len = lf ? (size_t)(lf - bytes.at) : bytes.len;
		size_t room = SMTP_SCAN_NAME_MAX - scan->name_len;
		size_t take = len < room ? len : room;

		scan->header_eightbit |= octets_of(span_of(bytes.at, len)).high;
		memcpy(scan->name + scan->name_len, bytes.at, take);
		scan->name_len += (uint8_t)take;
		scan->header_long |= take < len;
		offset += len + (lf ? 1 : 0);
		if (!lf)
			return;
		if (line_is_empty(scan)) {
			scan->header_done = true;
			scan->header_bytes = offset;
		} else {
			header_line(scan);
		}
		scan->name_len = 0;
		scan->header_long = false;
		bytes = span_skip(bytes, len + 1);
	}
}

/* Lines that end in this block, which begins at `offset` of the message. Only the first of them can
 * be long: a block has less room than that. */
static inline void lines_measure(struct smtp_scan *scan, uint64_t crlf, uint64_t offset)
{
	if (crlf == 0)
		return;
	scan->long_line |=
		offset + (uint64_t)__builtin_ctzll(crlf) + 1 - scan->line_at > LINE_MAX_BYTES + 2;
	scan->line_at = offset + SMTP_LINES_BLOCK - (uint64_t)__builtin_clzll(crlf);
}

void smtp_scan_feed(struct smtp_scan *scan, struct span bytes)
{
	struct octets octets = octets_of(bytes);
	uint64_t cr_bare = 0, lf_bare = 0, dots = 0;

	if (!scan->header_done)
		header_feed(scan, bytes, scan->bytes);
	for (size_t i = 0; i < bytes.len; i += SMTP_LINES_BLOCK) {
		struct smtp_lines_block block =
			smtp_lines_read(&scan->lines, bytes.at + i, bytes.len - i);

		cr_bare |= block.cr_bare;
		lf_bare |= block.lf_bare;
		dots |= block.dot_start;
		lines_measure(scan, block.crlf, scan->bytes + i);
	}
	scan->bytes += bytes.len;
	scan->eightbit |= octets.high;
	scan->nul |= octets.nul;
	scan->bare_cr |= cr_bare != 0;
	scan->bare_lf |= lf_bare != 0;
	scan->dot_line |= dots != 0;
}

void smtp_scan_finish(struct smtp_scan *scan)
{
	scan->bare_cr |= scan->lines.cr;
	scan->long_line |= scan->bytes - scan->line_at > LINE_MAX_BYTES;
	if (scan->header_done)
		return;
	if (scan->name_len > 0)
		header_line(scan);
	scan->header_done = true;
	scan->header_bytes = scan->bytes;
}
