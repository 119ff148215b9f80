/*
 * dot - see dot.h. Blocks without an event pass whole; an event is a dot that begins a line
 * and, where bare CR and LF are mended, each of those.
 */
#include "engine/smtp/dot.h"

#include "os/check.h"

enum { PENDING_NONE, PENDING_DOT, PENDING_DOT_CR };

void smtp_dot_decoder_init(struct smtp_dot_decoder *decoder, bool dots, bool normalise)
{
	*decoder = (struct smtp_dot_decoder){
		.lines.start = true,
		.dots = dots,
		.normalise = normalise,
	};
}

/* The octet behind a line's first dot. */
static size_t after_dot(struct smtp_dot_decoder *decoder, char c, struct span *piece_out)
{
	if (c == '\r') {
		decoder->pending = PENDING_DOT_CR;
		return 1;
	}
	/* A dot alone before a bare LF that becomes CRLF is a line, and no stuffing. */
	decoder->pending = PENDING_NONE;
	if (decoder->normalise && c == '\n')
		*piece_out = span_text(".");
	decoder->mended = false;
	return 0;
}

/* The octet behind a line that is a dot and a CR so far. */
static size_t after_dot_cr(struct smtp_dot_decoder *decoder, char c, struct span *piece_out)
{
	decoder->pending = PENDING_NONE;
	if (c == '\n' && !decoder->mended) {
		decoder->done = true;
		return 1;
	}
	/* Otherwise the CR belongs to the line, and is pending like any other. */
	decoder->lines.cr = true;
	*piece_out = decoder->normalise ? span_text(".\r") : span_text("\r");
	decoder->mended = false;
	return 0;
}

/* A bare CR or LF at the front: CRLF in its place. What was a CR went out already. */
static size_t mend(struct smtp_dot_decoder *decoder, bool after_cr, struct span *piece_out)
{
	decoder->lines = (struct smtp_lines){ .start = true };
	decoder->mended = true;
	*piece_out = after_cr ? span_text("\n") : span_text("\r\n");
	return after_cr ? 0 : 1;
}

/* The lowest event at or after the front of `bytes`; SIZE_MAX: none. `lines` moves before it. */
static size_t event_find(struct smtp_dot_decoder *decoder, struct span bytes)
{
	struct smtp_lines lines = decoder->lines;

	for (size_t i = 0; i < bytes.len; i += SMTP_LINES_BLOCK) {
		struct smtp_lines before = lines;
		struct smtp_lines_block block =
			smtp_lines_read(&lines, bytes.at + i, bytes.len - i);
		uint64_t bare = block.lf_bare | block.cr_bare;
		uint64_t events =
			(decoder->dots ? block.dot_start : 0) | (decoder->normalise ? bare : 0);

		if (events == 0) {
			decoder->bare |= bare != 0;
			continue;
		}
		size_t offset = (size_t)__builtin_ctzll(events);

		decoder->bare |= (bare & (((uint64_t)2 << offset) - 1)) != 0;
		decoder->lines = before;
		if (offset > 0)
			smtp_lines_read(&decoder->lines, bytes.at + i, offset);
		return i + offset;
	}
	decoder->lines = lines;
	return SIZE_MAX;
}

/* All of it passes; only what is bare is noted. */
static void look(struct smtp_dot_decoder *decoder, struct span bytes)
{
	struct smtp_lines lines = decoder->lines;
	uint64_t bare = 0;

	for (size_t i = 0; i < bytes.len; i += SMTP_LINES_BLOCK) {
		struct smtp_lines_block block =
			smtp_lines_read(&lines, bytes.at + i, bytes.len - i);

		bare |= block.lf_bare | block.cr_bare;
	}
	decoder->lines = lines;
	decoder->bare |= bare != 0;
}

size_t smtp_dot_decode(struct smtp_dot_decoder *decoder, struct span bytes, struct span *piece_out)
{
	assert(!decoder->done && bytes.len > 0);
	*piece_out = span_of(bytes.at, 0);

	if (!decoder->dots && !decoder->normalise) {
		look(decoder, bytes);
		*piece_out = bytes;
		return bytes.len;
	}

	if (decoder->pending != PENDING_NONE) {
		size_t taken = decoder->pending == PENDING_DOT
				       ? after_dot(decoder, *bytes.at, piece_out)
				       : after_dot_cr(decoder, *bytes.at, piece_out);

		if (taken > 0 || piece_out->len > 0)
			return taken;
	}

	size_t event = event_find(decoder, bytes);

	if (event == SIZE_MAX)
		event = bytes.len;
	if (event > 0) {
		decoder->mended = false;
		*piece_out = span_of(bytes.at, event);
		return event;
	}
	if (decoder->normalise && decoder->lines.cr && *bytes.at != '\n')
		return mend(decoder, true, piece_out);
	if (*bytes.at == '\n')
		return mend(decoder, false, piece_out);
	decoder->pending = PENDING_DOT;
	decoder->lines.start = false;
	return 1;
}

struct span smtp_dot_decoder_finish(struct smtp_dot_decoder *decoder)
{
	bool cr = decoder->lines.cr;

	assert(!decoder->dots);
	decoder->lines.cr = false;
	decoder->bare |= cr;
	return cr && decoder->normalise ? span_text("\n") : span_text("");
}

void smtp_dot_encoder_init(struct smtp_dot_encoder *encoder)
{
	*encoder = (struct smtp_dot_encoder){ .lines.start = true };
}

size_t smtp_dot_piece(const struct smtp_dot_encoder *encoder, struct span body)
{
	struct smtp_lines lines = encoder->lines;
	uint64_t skip = encoder->doubled ? 1 : 0;

	for (size_t i = 0; i < body.len; i += SMTP_LINES_BLOCK) {
		struct smtp_lines_block block = smtp_lines_read(&lines, body.at + i, body.len - i);
		uint64_t dots = block.dot_start & ~skip;

		if (dots != 0)
			return i + (size_t)__builtin_ctzll(dots) + 1;
		skip = 0;
	}
	return body.len;
}

size_t smtp_dot_advance(struct smtp_dot_encoder *encoder, struct span body, size_t count)
{
	size_t piece = smtp_dot_piece(encoder, body);

	assert(count > 0 && count <= piece);
	/* Did it end with a dot that begins a line? Then that one stays, to be sent again. */
	struct smtp_lines before = encoder->lines;
	bool was_doubled = encoder->doubled;

	for (size_t i = 0; i + 1 < count; i += SMTP_LINES_BLOCK)
		smtp_lines_read(&before, body.at + i,
				count - 1 - i < SMTP_LINES_BLOCK ? count - 1 - i
								 : SMTP_LINES_BLOCK);
	bool stays = count == piece && body.at[count - 1] == '.' && before.start &&
		     !(was_doubled && count == 1);

	encoder->doubled = stays;
	encoder->lines = before;
	if (stays)
		return count - 1;
	smtp_lines_read(&encoder->lines, body.at + count - 1, 1);
	return count;
}
