/*
 * A body that is made into data and read back is the same body, however either side is split;
 * and the data end where they end, and nowhere before.
 */
#include "engine/smtp/dot.h"

#include <stdlib.h>

#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What goes over the wire for `body`, sent `step` octets at a time. Returns its length. */
static size_t encode(struct span body, size_t step, char *wire)
{
	struct smtp_dot_encoder encoder;
	size_t used = 0;

	smtp_dot_encoder_init(&encoder);
	while (body.len > 0) {
		size_t piece = smtp_dot_piece(&encoder, body), count = piece < step ? piece : step;

		assert(piece > 0 && piece <= body.len);
		memcpy(wire + used, body.at, count);
		used += count;
		body = span_skip(body, smtp_dot_advance(&encoder, body, count));
	}
	return used;
}

static size_t decode(struct span wire, size_t step, char *body, bool *done_out, size_t *end_out)
{
	struct smtp_dot_decoder decoder;
	size_t used = 0, end = 0;

	smtp_dot_decoder_init(&decoder, true, false);
	while (wire.len > 0 && !decoder.done) {
		struct span piece;
		size_t taken = smtp_dot_decode(
			&decoder, span_of(wire.at, wire.len < step ? wire.len : step), &piece);

		assert(taken > 0 || piece.len > 0);
		memcpy(body + used, piece.at, piece.len);
		used += piece.len;
		end += taken;
		wire = span_skip(wire, taken);
	}
	*done_out = decoder.done;
	*end_out = end;
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 4096)
		return 0;
	struct span body = span_of(data + 2, size - 2);
	char *wire = malloc(2 * size + 16), *back = malloc(2 * size + 16);
	size_t wire_len = encode(body, 1 + data[0], wire), body_len = body.len, end;
	bool line_start =
		body.len == 0 || (body.len >= 2 && memcmp(body.at + body.len - 2, "\r\n", 2) == 0);
	bool done;

	if (!line_start) {
		memcpy(wire + wire_len, "\r\n", 2);
		wire_len += 2;
		body_len += 2;
	}
	memcpy(wire + wire_len, ".\r\n!", 4);
	size_t len = decode(span_of(wire, wire_len + 4), 1 + data[1], back, &done, &end);

	assert(done && end == wire_len + 3 && len == body_len);
	assert(memcmp(back, body.at, body.len) == 0);
	free(wire);
	free(back);
	return 0;
}
