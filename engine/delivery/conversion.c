#include "engine/delivery/conversion.h"

#include <stdlib.h>

#include "engine/delivery/body_reader.h"
#include "engine/smtp/downgrade.h"
#include "engine/smtp/scan.h"

enum {
	COST = 4, /* what it needs at most, in lengths of the message: itself and the result */
	MEMORY_SHARE = 4, /* of memory_bytes */
};

struct conversion {
	struct engine *engine;
	struct worker *worker;
	struct delivery *delivery;
	struct os_op op;
	struct body_reader *reader; /* while it reads */
	char *whole;		    /* the body, if it was on disk; until it is converted */
	uint64_t filled_bytes;
	uint64_t counted_bytes; /* in engine->converting_bytes */
	struct mime_output output;
	const char *why;
	bool dot_lines, no_final_crlf;
	void (*done)(struct delivery *delivery);
};

static bool claim(struct conversion *conversion, uint64_t max)
{
	_Atomic uint64_t *all = &conversion->engine->converting_bytes;
	uint64_t cost = conversion->delivery->job->message->body_bytes * COST;

	if (atomic_fetch_add_explicit(all, cost, memory_order_relaxed) + cost > max) {
		atomic_fetch_sub_explicit(all, cost, memory_order_relaxed);
		return false;
	}
	conversion->counted_bytes = cost;
	return true;
}

/* Anywhere: touches nothing but the conversion and what the delivery holds still. */
static void convert(struct conversion *conversion, struct span body)
{
	struct smtp_scan scan;

	conversion->why = downgrade_message(conversion->delivery->transaction.prefix, body,
					    &conversion->output);
	free(conversion->whole);
	conversion->whole = NULL;
	if (conversion->why) {
		mime_output_free(&conversion->output);
		return;
	}
	smtp_scan_init(&scan);
	smtp_scan_feed(&scan, span_of(conversion->output.at, conversion->output.len));
	smtp_scan_finish(&scan);
	conversion->dot_lines = scan.dot_line;
	conversion->no_final_crlf = !smtp_scan_ends_in_crlf(&scan);
}

/* ── bodies on disk ───────────────────────────────────────────────────────────────── */

static void run(struct os_op *op)
{
	struct conversion *conversion = container_of(op, struct conversion, op);

	convert(conversion, span_of(conversion->whole, conversion->filled_bytes));
}

static void on_converted(struct os_op *op)
{
	struct conversion *conversion = container_of(op, struct conversion, op);

	conversion->done(conversion->delivery);
}

static void on_read(void *context)
{
	struct conversion *conversion = context;

	conversion->reader = NULL;
	if (conversion->delivery->damaged) {
		conversion->done(conversion->delivery);
		return;
	}
	conversion->op.done = on_converted;
	os_compute(conversion->worker->loop, &conversion->op, run);
}

static void on_piece(void *context, enum queue_status status)
{
	struct conversion *conversion = context;
	uint64_t wanted = conversion->delivery->job->message->body_bytes;

	if (status == QUEUE_OK) {
		struct span piece = body_reader_next(conversion->reader);

		assert(piece.len <= wanted - conversion->filled_bytes);
		memcpy(conversion->whole + conversion->filled_bytes, piece.at, piece.len);
		conversion->filled_bytes += piece.len;
		if (conversion->filled_bytes < wanted) {
			body_reader_next(conversion->reader); /* asks for the next */
			return;
		}
	}
	conversion->delivery->damaged |= status != QUEUE_OK;
	body_reader_destroy(conversion->reader, on_read);
}

/* False: no memory. */
static bool read_whole(struct conversion *conversion)
{
	struct queue_message *message = conversion->delivery->job->message;

	conversion->whole = malloc(message->body_bytes);
	if (conversion->whole)
		conversion->reader =
			body_reader_create(conversion->worker->loop, message, on_piece, conversion);
	return conversion->reader != NULL;
}

/* ── for the connection ───────────────────────────────────────────────────────────── */

enum conversion_status conversion_begin(struct worker *worker, struct delivery *delivery,
					void (*done)(struct delivery *delivery))
{
	struct queue_message *message = delivery->job->message;
	uint64_t max = worker->config->memory_bytes / MEMORY_SHARE;
	struct conversion *conversion;

	if (delivery->conversion)
		return CONVERSION_READY;
	conversion = calloc(1, sizeof(*conversion));
	if (!conversion)
		return CONVERSION_NO_ROOM;
	conversion->engine = worker->engine;
	conversion->worker = worker;
	conversion->delivery = delivery;
	conversion->done = done;
	delivery->conversion = conversion;
	if (message->body_bytes > max / COST) {
		conversion->why = "it is too long to be converted";
		return CONVERSION_READY;
	}
	if (!claim(conversion, max))
		goto no_room;
	if (!(message->flags & FORMAT_BIG)) {
		convert(conversion, message->body);
		return CONVERSION_READY;
	}
	if (read_whole(conversion))
		return CONVERSION_BUSY;
no_room:
	delivery->conversion = NULL;
	conversion_destroy(conversion);
	return CONVERSION_NO_ROOM;
}

const char *conversion_why(const struct conversion *conversion)
{
	return conversion->why;
}

void conversion_use(const struct conversion *conversion, struct smtp_transaction *transaction)
{
	assert(!conversion->why);
	transaction->eightbit = transaction->binary = false;
	transaction->dot_lines = conversion->dot_lines;
	transaction->no_final_crlf = conversion->no_final_crlf;
	transaction->body_bytes = conversion->output.len;
	transaction->body = span_of(conversion->output.at, conversion->output.len);
}

void conversion_destroy(struct conversion *conversion)
{
	if (!conversion)
		return;
	assert(!conversion->reader);
	atomic_fetch_sub_explicit(&conversion->engine->converting_bytes, conversion->counted_bytes,
				  memory_order_relaxed);
	mime_output_free(&conversion->output);
	free(conversion->whole);
	free(conversion);
}
