/*
 * mime_output - a text that grows, and the two encodings that make any octets fit for SMTP of
 * 1982.
 *
 * Promise: lines that the encodings write have at most 76 octets; what they wrote decodes to
 * exactly the octets they were given. Quoted-printable keeps CRLF as the end of a line and writes
 * everything else that could be changed on the way as =XX: blanks at the end of a line, a CR or LF
 * alone, NUL.
 * Where a line is broken, none begins with a hyphen that didn't before: no delimiter comes to be.
 * Non-promise: a dot that begins a line is an octet like others.
 *
 * Thread: pure.
 * Source: RFC 2045, 6.7 and 6.8.
 */
#ifndef ENGINE_SMTP_MIME_OUTPUT_H
#define ENGINE_SMTP_MIME_OUTPUT_H

#include "os/span.h"

/* Zero is empty. */
struct mime_output {
	char *at; /* owned; mime_output_free() */
	size_t len, size;
	bool failed; /* no memory: what is written is not whole */
};

void mime_output_free(struct mime_output *output);

void mime_put(struct mime_output *output, struct span bytes);
/* An unfinished last line ends as it is; with `closed` a soft line break follows it, so that the
 * text ends in CRLF. */
void mime_put_quoted_printable(struct mime_output *output, struct span bytes, bool closed);
/* `closed`: the last line, too, has its CRLF. */
void mime_put_base64(struct mime_output *output, struct span bytes, bool closed);

#endif
