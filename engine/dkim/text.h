/*
 * text - text that grows: a header as it arrives, its canonical form, signatures.
 *
 * Promise: what was added is there, in order; or `failed` is set, and stays so until the reset:
 * then there was no memory, or more than `max` bytes.
 *
 * Thread: its owner's.
 */
#ifndef ENGINE_DKIM_TEXT_H
#define ENGINE_DKIM_TEXT_H

#include "os/span.h"

struct dkim_text {
	char *at; /* owned */
	size_t len, size, max;
	bool failed;
};

void dkim_text_init(struct dkim_text *text, size_t max);
void dkim_text_deinit(struct dkim_text *text);
/* Empty again; what grew beyond a few KiB is given back. */
void dkim_text_reset(struct dkim_text *text);
void dkim_text_add(struct dkim_text *text, struct span bytes);

static inline void dkim_text_put(struct dkim_text *text, char octet)
{
	if (text->len < text->size)
		text->at[text->len++] = octet;
	else
		dkim_text_add(text, span_of(&octet, 1));
}

static inline struct span dkim_text_span(const struct dkim_text *text)
{
	return span_of(text->at, text->len);
}

#endif
