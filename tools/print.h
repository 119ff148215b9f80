/*
 * print - the queue as text and as JSON.
 *
 * What came from peers is made harmless for terminals, as it is in logs: engine/log/escape.h.
 */
#ifndef TOOLS_PRINT_H
#define TOOLS_PRINT_H

#include <jansson.h>
#include <stdio.h>

#include "tools/listing.h"

#define PRINT_REASON_BYTES 1024

/* Why the job was not delivered yet: host, code and text of the last reply, or what holds it; ""
 * if there is nothing to say. */
void print_reason(const struct listing_job *job, char out[static PRINT_REASON_BYTES]);
void print_text(FILE *to, struct span text);
/* A JSON string; bytes that are no UTF-8 become U+FFFD. Owned by the caller. */
json_t *print_json_text(struct span text);
/* One line of JSON. Takes over `object`. */
void print_json_line(json_t *object);

/* As Postfix's mailq. */
struct print_mailq {
	uint64_t messages, bytes;
};
void print_mailq_message(void *context, const struct listing_message *message);
void print_mailq_end(const struct print_mailq *mailq);

/* One JSON object a line: the fields of `postqueue -j` and ours, those for each recipient and for
 * the message: most attempts, earliest next one and expiry, site and reply of the first. */
void print_json_message(void *context, const struct listing_message *message);

#endif
