/* Bodies: small ones in memory, large ones through a spill. */
#include "queue/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"
#include "queue/stream.h"

enum {
	MESSAGE_SPILL_BYTES = 128 << 10,
	MESSAGE_FIRST_BYTES = 4096 + 512, /* a usual body, and its envelope behind it */
};

struct message_whole {
	struct queue_message message;
	struct message_private private;
};

/* ── life ─────────────────────────────────────────────────────────────────────────── */

struct queue_message *message_create(struct queue_stream *stream, uint64_t id)
{
	struct message_whole *whole = calloc(1, sizeof(*whole));

	if (whole == NULL)
		return NULL;
	whole->message.id = id;
	whole->message.stream = stream;
	whole->message.references = 1;
	whole->message.private = &whole->private;
	whole->private.big_fd = -1;
	whole->private.crc_running = CRC_START;
	return &whole->message;
}

struct queue_message *queue_message_create(struct queue_stream *stream)
{
	uint64_t id = stream_next_id(stream);
	struct queue_message *message = id == 0 ? NULL : message_create(stream, id);

	if (message != NULL)
		message->arrival_us = os_loop_wall(stream->loop).us;
	return message;
}

struct queue_message *queue_message_ref(struct queue_message *message)
{
	assert(message->references > 0);
	message->references++;
	return message;
}

static void message_on_gone(void *context)
{
	struct queue_stream *stream = context;

	assert(stream->background > 0);
	stream->background--;
}

void queue_message_unref(struct queue_message *message)
{
	struct message_private *private;

	if (message == NULL || --message->references > 0)
		return;
	private = message->private;
	message->stream->body_memory -= private->counted;
	if (private->spill != NULL) {
		message->stream->background++;
		spill_close(private->spill, false, message_on_gone, message->stream);
	}
	if (private->big_fd >= 0)
		os_close(private->big_fd);
	free(private->crcs);
	free(private->bytes);
	free(container_of(message, struct message_whole, message));
}

void message_count_memory(struct queue_message *message)
{
	struct message_private *private = message->private;

	assert(private->counted == 0);
	private->counted = private->capacity + sizeof(struct message_whole);
	message->stream->body_memory += private->counted;
}

/* ── bytes in ─────────────────────────────────────────────────────────────────────── */

static bool message_room(struct message_private *private, size_t count)
{
	size_t capacity = private->capacity == 0 ? MESSAGE_FIRST_BYTES : private->capacity;
	char *grown;

	if (private->used + count <= private->capacity)
		return true;
	while (capacity < private->used + count)
		capacity *= 2;
	grown = realloc(private->bytes, capacity);
	if (grown == NULL)
		return false;
	private->bytes = grown;
	private->capacity = capacity;
	return true;
}

static void message_starve(struct message_private *private)
{
	private->starved = true;
	free(private->bytes);
	private->bytes = NULL;
	private->used = private->capacity = 0;
}

/* From now on the body goes to a file. */
static void message_start_spill(struct queue_message *message)
{
	struct message_private *private = message->private;

	private->spill = spill_create(message->stream->loop, message->stream->pool, message->id);
	if (private->spill == NULL) {
		message_starve(private);
		return;
	}
	spill_append(private->spill, span_of(private->bytes, private->used));
	free(private->bytes);
	private->bytes = NULL;
	private->used = private->capacity = 0;
}

void queue_message_append(struct queue_message *message, struct span bytes)
{
	struct message_private *private = message->private;

	if (bytes.len == 0 || private->starved)
		return;
	message->body_bytes += bytes.len;
	private->crc_running = crc_add(private->crc_running, bytes.at, bytes.len);
	if (private->spill == NULL && private->used + bytes.len > MESSAGE_SPILL_BYTES)
		message_start_spill(message);
	if (private->spill != NULL) {
		spill_append(private->spill, bytes);
		return;
	}
	if (private->starved || !message_room(private, bytes.len)) {
		message_starve(private);
		return;
	}
	memcpy(private->bytes + private->used, bytes.at, bytes.len);
	private->used += bytes.len;
}

bool queue_message_may_append(struct queue_message *message, void (*resume)(void *context),
			      void *context)
{
	return message->private->spill == NULL ||
	       spill_may_append(message->private->spill, resume, context);
}

enum queue_status queue_message_status(const struct queue_message *message)
{
	if (message->private->starved)
		return QUEUE_SPACE;
	return message->private->spill == NULL ? QUEUE_OK : message->private->spill->status;
}

bool message_set_envelope(struct queue_message *message, struct span envelope)
{
	struct message_private *private = message->private;

	if (!message_room(private, envelope.len))
		return false;
	memcpy(private->bytes + private->used, envelope.at, envelope.len);
	/* The body of a big message is in its file. */
	message->body = private->used == 0 && private->spill != NULL
				? (struct span){ 0 }
				: span_of(private->bytes, private->used);
	message->envelope = span_of(private->bytes + private->used, envelope.len);
	return true;
}

/* ── a big body, out ──────────────────────────────────────────────────────────────── */

static void message_on_body_read(struct os_op *op)
{
	struct queue_body_read *read = container_of(op, struct queue_body_read, op);
	struct message_private *private = read->message->private;
	uint64_t part = read->offset / FORMAT_BIG_CRC_SPAN;
	uint64_t left = read->message->body_bytes - read->offset;
	uint64_t count = left < FORMAT_BIG_CRC_SPAN ? left : FORMAT_BIG_CRC_SPAN;
	enum queue_status status = QUEUE_OK;

	if (op->result < 0)
		status = QUEUE_BROKEN;
	else if (op->result != (int64_t)count || crc_of(read->bytes, count) != private->crcs[part])
		status = QUEUE_DAMAGED;
	else
		read->count_out = (uint32_t)count;
	read->done(read, status);
}

void queue_body_read(struct os_loop *loop, struct queue_message *message,
		     struct queue_body_read *read)
{
	uint64_t left = message->body_bytes - read->offset;

	assert((message->flags & FORMAT_BIG) != 0 && message->private->big_fd >= 0);
	assert(read->offset % FORMAT_BIG_CRC_SPAN == 0 && read->offset < message->body_bytes);
	assert(read->offset / FORMAT_BIG_CRC_SPAN < message->private->crc_count);
	read->message = message;
	read->op.done = message_on_body_read;
	os_read(loop, &read->op, message->private->big_fd, read->bytes,
		left < FORMAT_BIG_CRC_SPAN ? left : FORMAT_BIG_CRC_SPAN, read->offset);
}
