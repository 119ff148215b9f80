/*
 * bounce_words - the part of a report that is written for people: what happened, to whom, in
 * the remote server's own words, and what can be done.
 *
 * Thread: pure.
 */
#ifndef ENGINE_BOUNCE_WORDS_H
#define ENGINE_BOUNCE_WORDS_H

#include "engine/report/bounce_writer.h"

/* "Subject" of the kind. */
const char *bounce_subject(enum bounce_kind kind);
/* The text, lines with CRLF. */
void bounce_words(struct bounce_writer *writer, const struct bounce *bounce);

/* The status of a recipient as the report gives it, never 0: its class fits the kind. */
uint16_t bounce_status(const struct bounce_recipient *recipient);

#endif
