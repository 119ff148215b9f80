/*
 * escape - text that others chose, made harmless for a log and for a terminal.
 *
 * Promise: the result is printable, and one line for every reader: no control character (C0, DEL,
 * C1), no other end of a line (U+2028, U+2029), nothing that turns the order of the text around it
 * and no byte that is not part of valid UTF-8 passes; the characters become \uXXXX, the bytes
 * \u00XX.
 * Thread: pure functions.
 * Source: RFC 8259, 7; RFC 3629.
 */
#ifndef ENGINE_LOG_ESCAPE_H
#define ENGINE_LOG_ESCAPE_H

#include "os/span.h"

/* The inside of a JSON string. Writes at most `room` bytes, whole characters only; returns how
 * much of `text` that was. */
size_t log_escape(struct span text, char *out, size_t room, size_t *used_out);

/* The same for people: '"' and '\' pass as they are. */
size_t log_escape_plain(struct span text, char *out, size_t room, size_t *used_out);

#endif
