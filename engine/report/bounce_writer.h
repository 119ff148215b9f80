/*
 * bounce_writer - the lines of a report, cleaned, folded and gathered into larger pieces.
 *
 * Promise: what goes through bounce_write_clean() and bounce_write_folded() can end no line and
 * hold no control character; ASCII unless UTF-8 is asked for and valid. The writer notes what
 * the report needs on its way (octets above 127, lines that begin with a dot).
 * Non-promise: bounce_write() and bounce_line() take their text as it is.
 *
 * Thread: pure.
 */
#ifndef ENGINE_BOUNCE_WRITER_H
#define ENGINE_BOUNCE_WRITER_H

#include "engine/report/bounce.h"

enum {
	BOUNCE_LINE_MAX = 998,	 /* without CRLF: RFC 5322, 2.1.1 */
	BOUNCE_FOLD_COLUMN = 76, /* lines of ours are folded before it where there is a space */
};

struct bounce_writer {
	bounce_append *append;
	void *context;
	struct bounce_result result;
	bool line_start;
	uint32_t used;
	char bytes[4096];
};

void bounce_writer_init(struct bounce_writer *writer, bounce_append *append, void *context);
/* Hands over what is left. */
void bounce_writer_finish(struct bounce_writer *writer);

void bounce_write(struct bounce_writer *writer, struct span bytes);
void bounce_text(struct bounce_writer *writer, const char *text);
/* The text and CRLF. */
void bounce_line(struct bounce_writer *writer, const char *text);

/* In one piece, at most `len_max` bytes: control characters become '?', and so does what is
 * above 127 unless `utf8` and all of `text` is valid UTF-8. */
void bounce_write_clean(struct bounce_writer *writer, struct span text, size_t len_max, bool utf8);
/* `first` (as it is), then the words of `text` cleaned to ASCII, folded before the column into
 * lines that begin with `next`, and CRLF. A word that fits no line is cut into several. */
void bounce_write_folded(struct bounce_writer *writer, const char *first, const char *next,
			 struct span text);

/* Some octet is above 127. */
bool bounce_eightbit(struct span text);

#endif
