/*
 * Any message, in pieces of any size: the same canonical body and the same selected fields as in
 * one piece, and a header that is signed has one From: with a domain.
 */
#include <stdlib.h>

#include "engine/dkim/header.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_MAX = 4 << 20 };

struct seen {
	const char *why; /* of the header: why it is not signed */
	char from[IDN_DOMAIN_BYTES];
	struct dkim_text names, octets, body;
};

static void gather(void *context, struct span bytes)
{
	dkim_text_add(context, bytes);
}

static void feed(struct dkim_header *header, struct dkim_body *body, struct span bytes)
{
	char *copy = malloc(bytes.len); /* a sanitizer sees its end */
	struct span rest = span_of(copy, bytes.len);

	assert(copy);
	memcpy(copy, bytes.at, bytes.len);
	if (!header->whole)
		rest = span_skip(rest, dkim_header_feed(header, rest));
	dkim_body_feed(body, rest);
	free(copy);
}

static void look(struct seen *seen, enum dkim_canon canon, struct span message, size_t piece)
{
	static struct dkim_header header;
	struct dkim_body body;

	dkim_text_init(&seen->names, TEXT_MAX);
	dkim_text_init(&seen->octets, TEXT_MAX);
	dkim_text_init(&seen->body, TEXT_MAX);
	dkim_header_init(&header);
	dkim_body_init(&body, canon, gather, &seen->body);
	for (size_t at = 0; at < message.len; at += piece)
		feed(&header, &body,
		     span_of(message.at + at, message.len - at < piece ? message.len - at : piece));
	dkim_body_end(&body);
	seen->why = dkim_header_read(&header);
	if (!seen->why) {
		memcpy(seen->from, header.from, sizeof(seen->from));
		assert(strchr(seen->from, '.') && !strchr(seen->from, ' '));
		dkim_header_select(&header, canon, &seen->names, &seen->octets);
		dkim_header_has(&header, "a.test", "s");
	}
	dkim_header_deinit(&header);
}

static void forget(struct seen *seen)
{
	dkim_text_deinit(&seen->names);
	dkim_text_deinit(&seen->octets);
	dkim_text_deinit(&seen->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum dkim_canon canon = size > 0 && data[0] & 1 ? DKIM_SIMPLE : DKIM_RELAXED;
	size_t piece = size > 0 ? (data[0] >> 1) + 1u : 1;
	struct span message = span_of(data + (size > 0), size - (size > 0));
	struct seen whole, pieces;

	look(&whole, canon, message, message.len + 1);
	look(&pieces, canon, message, piece);
	assert(whole.why == pieces.why);
	assert(whole.why || strcmp(whole.from, pieces.from) == 0);
	assert(span_equal(dkim_text_span(&whole.names), dkim_text_span(&pieces.names)));
	assert(span_equal(dkim_text_span(&whole.octets), dkim_text_span(&pieces.octets)));
	assert(span_equal(dkim_text_span(&whole.body), dkim_text_span(&pieces.body)));
	forget(&whole);
	forget(&pieces);
	return 0;
}
