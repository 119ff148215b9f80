/*
 * message - a body and an envelope in memory, on their way in or out.
 *
 * Thread: the owner of the stream.
 */
#ifndef QUEUE_MESSAGE_H
#define QUEUE_MESSAGE_H

#include "queue/queue.h"
#include "queue/spill.h"

/* Lies behind its struct queue_message. */
struct message_private {
	char *bytes; /* owned: the body, then (when accepted) the envelope; or as read back */
	size_t used, capacity;
	bool starved;	      /* there was no memory for the body: it can only be refused */
	uint64_t counted;     /* in the stream's body_memory */
	uint32_t crc_running; /* of the body so far */
	struct spill *spill;  /* owned; NULL: the body is in memory */
	/* FORMAT_BIG: the file and its CRCs. */
	int big_fd;	/* -1: none */
	uint32_t *crcs; /* owned */
	uint32_t crc_count;
	/* While it is being accepted. */
	struct format_message header;
	uint32_t record_at;	   /* in its chunk */
	enum queue_status outcome; /* of an accept that never was staged */
};

/* NULL: no memory. */
struct queue_message *message_create(struct queue_stream *stream, uint64_t id);
/* Copies the envelope behind the body. False: no memory. */
bool message_set_envelope(struct queue_message *message, struct span envelope);
/* Its bytes count as body memory from now on. */
void message_count_memory(struct queue_message *message);

#endif
