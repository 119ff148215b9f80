#include "engine/delivery/body_reader.h"

#include <stdlib.h>

enum { PIECE_BYTES = 1 << 20 };

struct body_reader {
	struct os_loop *loop;
	struct queue_message *message;
	struct queue_body_read read;
	void (*ready)(void *context, enum queue_status status);
	void (*gone)(void *context);
	void *context;
	bool reading, filled;
	char bytes[PIECE_BYTES];
};

static void end(struct body_reader *reader)
{
	void (*gone)(void *context) = reader->gone;
	void *context = reader->context;

	free(reader);
	gone(context);
}

static void on_read(struct queue_body_read *read, enum queue_status status)
{
	struct body_reader *reader = container_of(read, struct body_reader, read);

	reader->reading = false;
	if (reader->gone) {
		end(reader);
		return;
	}
	reader->filled = status == QUEUE_OK;
	reader->ready(reader->context, status);
}

static void start(struct body_reader *reader)
{
	reader->reading = true;
	queue_body_read(reader->loop, reader->message, &reader->read);
}

struct body_reader *body_reader_create(struct os_loop *loop, struct queue_message *message,
				       void (*ready)(void *context, enum queue_status status),
				       void *context)
{
	struct body_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return NULL;
	memset(reader, 0, offsetof(struct body_reader, bytes));
	reader->loop = loop;
	reader->message = message;
	reader->ready = ready;
	reader->context = context;
	reader->read.done = on_read;
	reader->read.bytes = reader->bytes;
	start(reader);
	return reader;
}

struct span body_reader_next(struct body_reader *reader)
{
	uint64_t end_offset = reader->read.offset + reader->read.count_out;

	if (reader->filled) {
		reader->filled = false;
		return span_of(reader->bytes, reader->read.count_out);
	}
	if (!reader->reading && end_offset < reader->message->body_bytes) {
		reader->read.offset = end_offset;
		start(reader);
	}
	return span_of(NULL, 0);
}

void body_reader_destroy(struct body_reader *reader, void (*gone)(void *context))
{
	reader->gone = gone;
	if (!reader->reading)
		end(reader);
}
