/*
 * dot - transparency: the dots that DATA adds to lines, undone and done.
 *
 *   wire   ..x CRLF . CRLF          body   .x CRLF
 *
 * Promise: CRLF . CRLF alone ends the data, however the octets arrive. Nothing is copied:
 * pieces lie in the input (or are a constant of ours).
 * Non-promise: bare CR and LF pass as they are, and are noted, unless `normalise` is set: then
 * each becomes CRLF, a dot after it is undone like any other, but it never takes part in the
 * end of the data.
 *
 * Thread: pure.
 * Source: RFC 5321, 4.5.2, 2.3.8.
 */
#ifndef ENGINE_SMTP_DOT_H
#define ENGINE_SMTP_DOT_H

#include "engine/smtp/lines.h"
#include "os/span.h"

/* Reads a stream. With `dots` false it only looks after CR and LF (BDAT). */
struct smtp_dot_decoder {
	struct smtp_lines lines;
	bool dots, normalise;
	bool bare;	 /* a bare CR or LF was seen */
	bool mended;	 /* the line began after a bare CR or LF that became CRLF */
	uint8_t pending; /* private: a dot, or a dot and a CR, that begin a line */
	bool done;	 /* the end of the data was read */
};

void smtp_dot_decoder_init(struct smtp_dot_decoder *decoder, bool dots, bool normalise);
/*
 * Takes octets from the front of `bytes` and returns how many: none behind the end of the data,
 * and 0 only with a piece. `piece_out` is what they mean, often empty at a dot; borrowed from
 * `bytes` or constant.
 */
size_t smtp_dot_decode(struct smtp_dot_decoder *decoder, struct span bytes, struct span *piece_out);
/* The stream is over (BDAT LAST): what CR is left is bare. Returns what is still to be added. */
struct span smtp_dot_decoder_finish(struct smtp_dot_decoder *decoder);

/*
 * Writes a body: pieces of it that are sent one after the other. A piece ends with each dot
 * that begins a line, and the next begins with the same dot: so it goes out twice.
 */
struct smtp_dot_encoder {
	struct smtp_lines lines; /* of what lies before the next octet */
	bool doubled;		 /* the next octet is a dot that was sent once already */
};

void smtp_dot_encoder_init(struct smtp_dot_encoder *encoder);
/* How long the next piece at the front of `body` is; `encoder` is not moved. */
size_t smtp_dot_piece(const struct smtp_dot_encoder *encoder, struct span body);
/* `count` octets of that piece are gone: returns by how many the body moves on. */
size_t smtp_dot_advance(struct smtp_dot_encoder *encoder, struct span body, size_t count);

#endif
