#include "engine/dkim/text.h"

#include <stdlib.h>

enum { START_BYTES = 1024, KEPT_BYTES_MAX = 32 << 10 };

void dkim_text_init(struct dkim_text *text, size_t max)
{
	*text = (struct dkim_text){ .max = max };
}

void dkim_text_deinit(struct dkim_text *text)
{
	free(text->at);
	text->at = NULL;
}

void dkim_text_reset(struct dkim_text *text)
{
	if (text->size > KEPT_BYTES_MAX) {
		free(text->at);
		text->at = NULL;
		text->size = 0;
	}
	text->len = 0;
	text->failed = false;
}

static bool grow(struct dkim_text *text, size_t need)
{
	size_t size = text->size > 0 ? text->size : START_BYTES;
	char *larger;

	if (need > text->max)
		return false;
	while (size < need)
		size *= 2;
	larger = realloc(text->at, size);
	if (!larger)
		return false;
	text->at = larger;
	text->size = size;
	return true;
}

void dkim_text_add(struct dkim_text *text, struct span bytes)
{
	if (bytes.len == 0 || text->failed)
		return;
	if (text->len + bytes.len > text->size && !grow(text, text->len + bytes.len)) {
		text->failed = true;
		return;
	}
	memcpy(text->at + text->len, bytes.at, bytes.len);
	text->len += bytes.len;
}
