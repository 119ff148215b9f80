/* Messages back from disk. */
#include "queue/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"
#include "queue/envelope.h"
#include "queue/message.h"
#include "queue/stream.h"

enum {
	LOAD_FIRST_BYTES = 16 << 10,
	LOAD_HOPE_S = 86400, /* after its expiry: so long a message that can't be read is tried */
};

struct load {
	struct os_op op;
	struct queue_stream *stream;
	struct queue_job *job;
	struct segment *segment;
	struct list link;
	char *bytes; /* owned; 4096 aligned */
	size_t count;
	uint64_t offset; /* of `bytes` in the file */
	uint32_t skip;	 /* where in them the message begins */
	struct queue_message *message;
	enum queue_status status;
};

/* ── checking ─────────────────────────────────────────────────────────────────────── */

static uint32_t load_big_bytes(const char *record, uint32_t body_at)
{
	struct format_big big;

	memcpy(&big, record + body_at, sizeof(big));
	return big.crc_count > FORMAT_CHUNK_BYTES_MAX / sizeof(uint32_t)
		       ? 0
		       : (uint32_t)(sizeof(big) + big.crc_count * sizeof(uint32_t));
}

static bool load_header_is_good(const struct format_message *header, uint32_t sequence,
				uint64_t message)
{
	return header->magic == FORMAT_MESSAGE_MAGIC &&
	       header->crc == crc_record(sequence, header, sizeof(*header),
					 offsetof(struct format_message, crc)) &&
	       header->id == message && header->envelope_bytes <= FORMAT_ENVELOPE_BYTES_MAX &&
	       ((header->flags & FORMAT_BIG) != 0 || header->body_bytes <= FORMAT_CHUNK_BYTES_MAX);
}

enum load_found load_check(const char *bytes, size_t count, uint32_t sequence, uint64_t message,
			   struct format_message *header_out, uint32_t *bytes_out)
{
	struct format_message header;
	struct commit_layout layout;
	uint32_t body_bytes;

	*bytes_out = sizeof(header);
	if (count < sizeof(header))
		return LOAD_MORE;
	memcpy(&header, bytes, sizeof(header));
	if (!load_header_is_good(&header, sequence, message))
		return LOAD_DAMAGED;
	layout = commit_layout(&header, sizeof(struct format_big));
	*bytes_out = layout.bytes;
	if (count < layout.bytes)
		return LOAD_MORE;
	if (header.envelope_crc != crc_of(bytes + sizeof(header), header.envelope_bytes) ||
	    !envelope_check(span_of(bytes + sizeof(header), header.envelope_bytes)))
		return LOAD_DAMAGED;
	*header_out = header;
	body_bytes = (uint32_t)header.body_bytes;
	if ((header.flags & FORMAT_BIG) != 0) {
		body_bytes = load_big_bytes(bytes, layout.body_at);
		if (body_bytes == 0)
			return LOAD_BODY_DAMAGED;
		layout = commit_layout(&header, body_bytes);
		*bytes_out = layout.bytes;
		if (count < layout.bytes)
			return LOAD_MORE;
	}
	return header.body_crc == crc_of(bytes + layout.body_at, body_bytes) ? LOAD_WHOLE
									     : LOAD_BODY_DAMAGED;
}

/* ── the end ──────────────────────────────────────────────────────────────────────── */

/* How many recipients the job has: its envelope tells. */
static void load_set_count(struct queue_job *job)
{
	struct envelope_job_cursor cursor = { .rest = job->message->envelope };

	while (envelope_next_job(&cursor)) {
		if (cursor.first == job->first) {
			job->count = (uint16_t)cursor.count;
			return;
		}
	}
}

/* A disk that has not answered until now counts as one that returns damage: the job has to end. */
static bool load_is_hopeless(const struct load *load)
{
	const struct queue_job *job = load->job;
	int64_t now_s = os_loop_wall(load->stream->loop).us / OS_US_PER_S;

	return job->expired && now_s >= (int64_t)job->expiry_s + LOAD_HOPE_S;
}

static void load_end(struct load *load)
{
	struct queue_stream *stream = load->stream;
	struct queue_job *job = load->job;
	enum queue_status status = load->status;

	if (status == QUEUE_BROKEN && load_is_hopeless(load))
		status = QUEUE_DAMAGED;
	if (status != QUEUE_OK && status != QUEUE_DAMAGED) {
		queue_message_unref(load->message);
		load->message = NULL;
	}
	job->message = load->message;
	if (job->message != NULL)
		load_set_count(job);
	if (status == QUEUE_DAMAGED)
		job->flags |= FORMAT_JOB_DAMAGED;
	if (load->segment != NULL)
		load->segment->reads--;
	list_remove(&job->loading);
	stream->background--;
	stream->loads++;
	free(load->bytes);
	free(load);
	stream->events->loaded(stream->context, job, status);
}

/* ── a big body ───────────────────────────────────────────────────────────────────── */

static void load_run_open(struct os_op *op)
{
	struct load *load = container_of(op, struct load, op);
	char name[QUEUE_ID_TEXT_BYTES];

	queue_id_text(load->message->id, name);
	op->result = os_file_open(load->stream->pool->folders[POOL_BIG], name, OS_READ, 0);
	if (op->result < 0)
		return;
	int64_t bytes = os_file_size(op->result);

	if (bytes >= 0 && (uint64_t)bytes == load->message->body_bytes)
		return;
	os_file_close(op->result);
	op->result = bytes < 0 ? (int32_t)bytes : -ENODATA; /* unknown is not damaged */
}

static void load_on_open(struct os_op *op)
{
	struct load *load = container_of(op, struct load, op);

	if (op->result >= 0)
		load->message->private->big_fd = op->result;
	else if (op->result == -ENODATA || op->result == -ENOENT)
		load->status = QUEUE_DAMAGED;
	else
		load->status = pool_error_passes(op->result) ? QUEUE_SPACE : QUEUE_BROKEN;
	load_end(load);
}

static bool load_set_big(struct load *load, const char *record, uint32_t body_at)
{
	struct message_private *private = load->message->private;
	struct format_big big;

	memcpy(&big, record + body_at, sizeof(big));
	private->crc_count = big.crc_count;
	private->crcs = malloc(big.crc_count * sizeof(uint32_t) + 1);
	if (private->crcs == NULL || big.bytes != load->message->body_bytes ||
	    big.crc_count != format_big_crc_count(big.bytes))
		return false;
	memcpy(private->crcs, record + body_at + sizeof(big), big.crc_count * sizeof(uint32_t));
	return true;
}

/* ── reading ──────────────────────────────────────────────────────────────────────── */

static bool load_make_message(struct load *load, const struct format_message *header)
{
	struct queue_message *message = message_create(load->stream, header->id);
	const char *record = load->bytes + load->skip;

	if (message == NULL)
		return false;
	message->arrival_us = header->arrival_us;
	message->body_bytes = header->body_bytes;
	message->expiry_s = header->expiry_s;
	message->flags = header->flags;
	message->priority = header->priority;
	message->envelope = span_of(record + sizeof(*header), header->envelope_bytes);
	message->private->bytes = load->bytes;
	message->private->used = message->private->capacity = load->count;
	message_count_memory(message);
	load->bytes = NULL;
	load->message = message;
	return true;
}

static void load_finish(struct load *load, const struct format_message *header, bool body_good)
{
	struct commit_layout layout = commit_layout(header, 0);
	const char *record = load->bytes + load->skip;

	if (!load_make_message(load, header)) {
		load->status = QUEUE_SPACE;
		load_end(load);
		return;
	}
	load->status = body_good ? QUEUE_OK : QUEUE_DAMAGED;
	if (body_good && (header->flags & FORMAT_BIG) == 0)
		load->message->body = span_of(record + layout.body_at, header->body_bytes);
	if (!body_good || (header->flags & FORMAT_BIG) == 0) {
		load_end(load);
		return;
	}
	if (!load_set_big(load, record, layout.body_at)) {
		load->status = load->message->private->crcs == NULL ? QUEUE_SPACE : QUEUE_DAMAGED;
		load_end(load);
		return;
	}
	load->op.done = load_on_open;
	os_offload(load->stream->loop, &load->op, load_run_open);
}

static void load_on_read(struct os_op *op);

static bool load_submit(struct load *load, uint32_t record_bytes)
{
	size_t count = ((size_t)load->skip + record_bytes + FORMAT_PAGE_BYTES - 1) /
		       FORMAT_PAGE_BYTES * FORMAT_PAGE_BYTES;

	free(load->bytes);
	load->count = count;
	load->bytes = aligned_alloc(FORMAT_PAGE_BYTES, count);
	if (load->bytes == NULL)
		return false;
	load->op.done = load_on_read;
	os_read(load->stream->loop, &load->op, load->segment->tape->file.fd, load->bytes, count,
		load->offset);
	return true;
}

static void load_fail(struct load *load, enum queue_status status)
{
	load->status = status;
	load_end(load);
}

static void load_on_read(struct os_op *op)
{
	struct load *load = container_of(op, struct load, op);
	struct format_message header;
	enum load_found found;
	uint32_t needed;

	if (op->result < 0) {
		/* A cable, a controller, a path that is switched: only bytes that are here and
		 * wrong are damage. */
		load_fail(load, QUEUE_BROKEN);
		return;
	}
	if ((uint32_t)op->result < load->skip) {
		load_fail(load, QUEUE_DAMAGED);
		return;
	}
	found = load_check(load->bytes + load->skip, (size_t)op->result - load->skip,
			   segment_sequence(load->segment), load->job->message_id, &header,
			   &needed);
	if (found == LOAD_MORE) {
		if (needed + load->skip <= load->count)
			load_fail(load, QUEUE_DAMAGED); /* the file ends here */
		else if (!load_submit(load, needed))
			load_fail(load, QUEUE_SPACE);
	} else if (found == LOAD_DAMAGED) {
		load_fail(load, QUEUE_DAMAGED);
	} else {
		load_finish(load, &header, found == LOAD_WHOLE);
	}
}

static void load_run_nothing(struct os_op *op)
{
	op->result = 0;
}

/* The segment is not there: said later, as everything is. */
static void load_on_missing(struct os_op *op)
{
	load_fail(container_of(op, struct load, op), QUEUE_DAMAGED);
}

static void load_on_no_memory(struct os_op *op)
{
	load_fail(container_of(op, struct load, op), QUEUE_SPACE);
}

struct load *load_create(void)
{
	return calloc(1, sizeof(struct load));
}

void load_start(struct queue_stream *stream, struct queue_job *job, struct load *load)
{
	const struct format_job *state = index_job(&stream->index, job->slot);
	uint64_t at = (uint64_t)state->place * FORMAT_RECORD_ALIGN;

	load->stream = stream;
	load->job = job;
	list_init(&load->link);
	list_push_back(&load->link, &job->loading);
	load->skip = (uint32_t)(at % FORMAT_PAGE_BYTES);
	load->offset = at - load->skip;
	load->segment = segments_find(&stream->segments, state->segment);
	stream->background++;
	if (load->segment == NULL) {
		load->op.done = load_on_missing;
		os_offload(stream->loop, &load->op, load_run_nothing);
		return;
	}
	load->segment->reads++;
	if (!load_submit(load, LOAD_FIRST_BYTES - load->skip)) {
		load->segment->reads--;
		load->segment = NULL;
		load->op.done = load_on_no_memory;
		os_offload(stream->loop, &load->op, load_run_nothing);
	}
}
