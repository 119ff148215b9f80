/* Group commit: two chunks, one filling while the other is written. */
#include "queue/commit.h"

#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"
#include "queue/envelope.h"
#include "queue/message.h"
#include "queue/stream.h"

enum { COMMIT_HOLD_US = 2000 };

static struct queue_stream *commit_stream(struct commit *commit)
{
	return container_of(commit, struct queue_stream, commit);
}

static uint32_t commit_align(uint32_t bytes)
{
	return (bytes + FORMAT_RECORD_ALIGN - 1) / FORMAT_RECORD_ALIGN * FORMAT_RECORD_ALIGN;
}

struct commit_layout commit_layout(const struct format_message *header, uint32_t big_bytes)
{
	struct commit_layout layout;

	layout.body_at = commit_align((uint32_t)sizeof(*header) + header->envelope_bytes);
	layout.bytes = commit_align(layout.body_at + ((header->flags & FORMAT_BIG) != 0
							      ? big_bytes
							      : (uint32_t)header->body_bytes));
	return layout;
}

/* ── staging ──────────────────────────────────────────────────────────────────────── */

static uint32_t commit_big_bytes(const struct spill *spill)
{
	return (uint32_t)(sizeof(struct format_big) + spill->crc_count * sizeof(uint32_t));
}

static void commit_copy_big(const struct spill *spill, char *to)
{
	struct format_big big = { .bytes = spill->appended, .crc_count = spill->crc_count };

	memcpy(to, &big, sizeof(big));
	memcpy(to + sizeof(big), spill->crcs, spill->crc_count * sizeof(uint32_t));
}

/* Zeros from the end of what was written to the next boundary. */
static void commit_pad(char *record, size_t from, size_t to)
{
	memset(record + from, 0, to - from);
}

static void commit_copy(struct commit_chunk *chunk, struct queue_accept *accept,
			struct commit_layout layout)
{
	struct queue_message *message = accept->message;
	struct message_private *private = message->private;
	struct format_message *header = &private->header;
	char *record = chunk->bytes + chunk->used;
	uint32_t body_bytes = (uint32_t)message->body.len;

	private->record_at = chunk->used;
	memcpy(record + sizeof(*header), accept->envelope.at, accept->envelope.len);
	commit_pad(record, sizeof(*header) + accept->envelope.len, layout.body_at);
	header->envelope_crc = crc_of(accept->envelope.at, accept->envelope.len);
	if ((header->flags & FORMAT_BIG) != 0) {
		body_bytes = commit_big_bytes(private->spill);
		commit_copy_big(private->spill, record + layout.body_at);
		header->body_crc = crc_of(record + layout.body_at, body_bytes);
	} else {
		memcpy(record + layout.body_at, message->body.at, body_bytes);
		header->body_crc = ~private->crc_running;
	}
	commit_pad(record, layout.body_at + body_bytes, layout.bytes);
	chunk->used += layout.bytes;
	chunk->records++;
	list_push_back(&chunk->accepts, &accept->link);
}

static bool commit_stage(struct commit *commit, struct queue_accept *accept)
{
	struct commit_chunk *chunk = &commit->chunks[commit->open];
	struct message_private *private = accept->message->private;
	uint32_t big_bytes =
		(private->header.flags & FORMAT_BIG) != 0 ? commit_big_bytes(private->spill) : 0;
	struct commit_layout layout = commit_layout(&private->header, big_bytes);

	if (layout.bytes > commit->chunk_bytes - chunk->used)
		return false;
	commit_copy(chunk, accept, layout);
	return true;
}

static void commit_stage_waiting(struct commit *commit)
{
	while (!list_empty(&commit->waiting)) {
		struct queue_accept *accept =
			list_first(&commit->waiting, struct queue_accept, link);

		list_remove(&accept->link);
		if (!commit_stage(commit, accept)) {
			list_push_front(&commit->waiting, &accept->link);
			return;
		}
	}
}

/* ── accepting ────────────────────────────────────────────────────────────────────── */

static void commit_refuse(struct commit *commit, struct queue_accept *accept,
			  enum queue_status status)
{
	accept->message->private->outcome = status;
	list_push_back(&commit->failed, &accept->link);
}

/* Counts recipients and jobs into the header; false: no memory for a domain's number. */
static bool commit_count(struct queue_stream *stream, struct queue_accept *accept,
			 struct format_message *header)
{
	struct envelope_job_cursor cursor = { .rest = accept->envelope };

	while (envelope_next_job(&cursor)) {
		header->jobs++;
		header->recipients += (uint16_t)cursor.count;
		if (stream_dest(stream, cursor.domain) == 0)
			return false;
	}
	return true;
}

static void commit_fill_header(struct queue_accept *accept, struct format_message *header)
{
	const struct queue_message *message = accept->message;

	header->magic = FORMAT_MESSAGE_MAGIC;
	header->id = message->id;
	header->arrival_us = message->arrival_us;
	header->body_bytes = message->body_bytes;
	header->envelope_bytes = (uint32_t)accept->envelope.len;
	header->expiry_s = message->expiry_s;
	header->flags = message->flags;
	header->priority = message->priority;
	if (envelope_get(accept->envelope, FORMAT_ORIGIN).at != NULL)
		header->flags |= FORMAT_REPORT;
}

/* Memory for all that the commit will make of it, so that nothing can fail after the write. */
static bool commit_reserve(struct queue_stream *stream, const struct queue_accept *accept)
{
	const struct message_private *private = accept->message->private;

	if (!index_reserve(&stream->index, private->header.jobs))
		return false;
	if (schedule_reserve(&stream->schedule, stream->index.live + stream->index.promised) &&
	    mark_reserve(&stream->mark, stream->index.promised) &&
	    ((private->header.flags & FORMAT_BIG) == 0 || big_reserve(&stream->big)))
		return true;
	index_unreserve(&stream->index, private->header.jobs);
	return false;
}

static void commit_unreserve(struct queue_stream *stream, const struct queue_accept *accept)
{
	const struct message_private *private = accept->message->private;

	index_unreserve(&stream->index, private->header.jobs);
	if ((private->header.flags & FORMAT_BIG) != 0)
		big_unreserve(&stream->big);
}

/* Body and envelope are in memory, or the body is durable in big/. */
static void commit_admit(struct commit *commit, struct queue_accept *accept)
{
	struct queue_stream *stream = commit_stream(commit);
	struct message_private *private = accept->message->private;
	uint32_t big_bytes = private->spill != NULL ? commit_big_bytes(private->spill) : 0;

	if (!message_set_envelope(accept->message, accept->envelope) ||
	    commit_layout(&private->header, big_bytes).bytes >
		    commit->chunk_bytes - sizeof(struct format_chunk) ||
	    !commit_reserve(stream, accept)) {
		commit_refuse(commit, accept, QUEUE_SPACE);
		return;
	}
	if (!list_empty(&commit->waiting) || !commit_stage(commit, accept))
		list_push_back(&commit->waiting, &accept->link);
}

static void commit_on_spill_gone(void *context)
{
	struct queue_stream *stream = context;

	assert(stream->background > 0);
	stream->background--;
}

static void commit_on_spilled(void *context, enum queue_status status)
{
	struct queue_accept *accept = context;
	struct message_private *private = accept->message->private;
	struct queue_stream *stream = accept->message->stream;
	bool keep = private->spill->finish == SPILL_KEEP;

	stream->commit.spilling--;
	if (status == QUEUE_OK && !keep &&
	    crc_of(private->bytes, private->used) != ~private->crc_running)
		status = QUEUE_BROKEN;
	if (status != QUEUE_OK) {
		commit_refuse(&stream->commit, accept, status);
		return;
	}
	if (!keep) {
		struct spill *spill = private->spill;

		private->spill = NULL;
		stream->background++;
		spill_close(spill, false, commit_on_spill_gone, stream);
	}
	commit_admit(&stream->commit, accept);
}

/* Brings a spilled body to where its size says: into memory for the segment, or to stay. */
static void commit_finish_spill(struct commit *commit, struct queue_accept *accept)
{
	struct queue_message *message = accept->message;
	struct message_private *private = message->private;
	bool keep = message->body_bytes > FORMAT_SEGMENT_BODY_MAX ||
		    message->body_bytes > commit->chunk_bytes / 4;

	if (keep) {
		private->header.flags |= FORMAT_BIG;
		message->flags |= FORMAT_BIG;
	} else {
		private->capacity = message->body_bytes + accept->envelope.len;
		private->bytes = malloc(private->capacity);
		private->used = message->body_bytes;
		if (private->bytes == NULL) {
			private->capacity = private->used = 0;
			commit_refuse(commit, accept, QUEUE_SPACE);
			return;
		}
	}
	commit->spilling++;
	spill_finish(private->spill, keep ? SPILL_KEEP : SPILL_READ_BACK, private->bytes,
		     commit_on_spilled, accept);
}

void queue_accept(struct queue_stream *stream, struct queue_accept *accept)
{
	struct queue_message *message = accept->message;
	struct format_message *header = &message->private->header;

	assert(stream->accepts || accept->settles != NULL);
	assert(message->stream == stream);
	assert((accept->settles == NULL) == (accept->verdict == NULL));
	list_init(&accept->link);
	if (message->private->spill != NULL)
		message->private->spill->resume = NULL; /* nothing more comes: nobody waits */
	*header = (struct format_message){ 0 };
	commit_fill_header(accept, header);
	if (stream->state != STREAM_RUNNING || stream->broken) {
		commit_refuse(&stream->commit, accept, QUEUE_BROKEN);
	} else if (message->private->starved || !commit_count(stream, accept, header)) {
		commit_refuse(&stream->commit, accept, QUEUE_SPACE);
	} else if (message->private->spill != NULL) {
		commit_finish_spill(&stream->commit, accept);
	} else {
		commit_admit(&stream->commit, accept);
	}
}

/* ── sealing ──────────────────────────────────────────────────────────────────────── */

static void commit_seal(struct tape *tape, char *chunk, uint32_t bytes, uint64_t offset)
{
	struct commit *commit = container_of(tape, struct commit, tape);
	struct commit_chunk *sealed = &commit->chunks[commit->open ^ 1];
	uint32_t sequence = tape->file->file.sequence;

	(void)offset;
	assert(sealed->bytes == chunk && sealed->used == bytes);
	list_each(node, &sealed->accepts) {
		struct queue_accept *accept = container_of(node, struct queue_accept, link);
		struct message_private *private = accept->message->private;

		private->header.crc =
			crc_record(sequence, &private->header, sizeof(private->header),
				   offsetof(struct format_message, crc));
		memcpy(chunk + private->record_at, &private->header, sizeof(private->header));
	}
}

static void commit_opened(struct tape *tape, struct tape_file *file)
{
	struct commit *commit = container_of(tape, struct commit, tape);
	struct queue_stream *stream = commit_stream(commit);

	if (commit->segment != NULL)
		commit->segment->sealed = os_loop_mono(tape->loop);
	commit->segment = segments_add(&stream->segments, file, FORMAT_HOT);
}

/* ── after the write ──────────────────────────────────────────────────────────────── */

/* The body stays where it is: the message reads it from there from now on. */
static void commit_keep_big(struct queue_stream *stream, struct message_private *private)
{
	struct spill *spill = private->spill;

	private->big_fd = spill->fd;
	private->crcs = spill->crcs;
	private->crc_count = spill->crc_count;
	spill->fd = -1;
	spill->crcs = NULL;
	private->spill = NULL;
	stream->background++;
	spill_close(spill, true, commit_on_spill_gone, stream);
}

static void commit_one(struct queue_stream *stream, struct queue_accept *accept,
		       struct journal_place place)
{
	struct queue_message *message = accept->message;
	bool keep;

	if (message->private->spill != NULL)
		commit_keep_big(stream, message->private);
	message_count_memory(message);
	keep = stream->body_memory <= stream->options.body_memory_bytes;
	stream_derive(stream, message, &message->private->header, place, keep);
	stream->accepted++;
	/* R8: until the file is gone, recovery has to find the message that came from it. */
	if (accept->from_file) {
		assert(!stream->origin_held);
		stream->origin_held = true;
		stream->origin_place = place;
	}
	/* R8: the report is durable; what it settles is recorded before MARK can pass it. */
	if (accept->settles != NULL)
		queue_settle(stream, accept->settles, accept->verdict);
	accept->done(accept, QUEUE_OK);
	queue_message_unref(message);
}

static void commit_fail_one(struct queue_stream *stream, struct queue_accept *accept,
			    enum queue_status status)
{
	if (stream->commit.tape.in_doubt) {
		status = QUEUE_UNKNOWN;
		/* A start that finds the record needs the body; one that does not removes it. */
		if (accept->message->private->spill != NULL)
			commit_keep_big(stream, accept->message->private);
	}
	commit_unreserve(stream, accept);
	accept->done(accept, status);
}

static void commit_written(struct tape *tape, enum queue_status status, uint64_t offset)
{
	struct commit *commit = container_of(tape, struct commit, tape);
	struct queue_stream *stream = commit_stream(commit);
	struct commit_chunk *chunk = &commit->chunks[commit->open ^ 1];
	uint32_t sequence = tape->file == NULL ? 0 : tape->file->file.sequence;
	struct list *node;

	/* A disk that fails is no full disk, and while nobody knows what became of a report its
	 * recipients must not be tried again: recovery finds out. */
	if (status == QUEUE_SPACE && tape->in_doubt)
		status = QUEUE_BROKEN;
	if (status == QUEUE_BROKEN)
		stream_break(stream, "a segment could not be written");
	while ((node = list_pop_front(&chunk->accepts)) != NULL) {
		struct queue_accept *accept = container_of(node, struct queue_accept, link);
		uint32_t at = accept->message->private->record_at;

		if (status == QUEUE_OK)
			commit_one(
				stream, accept,
				(struct journal_place){ sequence, (uint32_t)((offset + at) / 8) });
		else
			commit_fail_one(stream, accept, status);
	}
	chunk->used = sizeof(struct format_chunk);
	chunk->records = 0;
}

static const struct tape_events commit_tape_events = { commit_seal, commit_opened, commit_written };

/* ── turns ────────────────────────────────────────────────────────────────────────── */

/* Under load a write waits, up to COMMIT_HOLD_US after the one before, for as many messages as
 * that one had: on a fast disk, streams that commit whatever a turn brought would flush twice as
 * often as they need. A message alone, or after a pause, is written at once. */
static bool commit_held(const struct commit *commit)
{
	const struct commit_chunk *chunk = &commit->chunks[commit->open];

	return chunk->records < commit->batch && list_empty(&commit->waiting) &&
	       stream_mono(commit_stream((struct commit *)commit)).ns <
		       commit->sealed_at.ns + COMMIT_HOLD_US * UINT64_C(1000);
}

struct os_mono commit_next(const struct commit *commit)
{
	const struct commit_chunk *chunk = &commit->chunks[commit->open];

	if (!list_empty(&commit->failed))
		return (struct os_mono){ 0 };
	if (tape_busy(&commit->tape) || (chunk->records == 0 && list_empty(&commit->waiting)))
		return (struct os_mono){ UINT64_MAX };
	if (commit_held(commit))
		return (struct os_mono){ commit->sealed_at.ns + COMMIT_HOLD_US * UINT64_C(1000) };
	return (struct os_mono){ 0 };
}

bool commit_idle(const struct commit *commit)
{
	return !tape_busy(&commit->tape) && commit->chunks[commit->open].records == 0 &&
	       list_empty(&commit->waiting) && list_empty(&commit->failed) && commit->spilling == 0;
}

static void commit_tell_failed(struct commit *commit)
{
	struct list failed;
	struct list *node;

	list_init(&failed);
	list_splice_back(&failed, &commit->failed);
	while ((node = list_pop_front(&failed)) != NULL) {
		struct queue_accept *accept = container_of(node, struct queue_accept, link);

		accept->done(accept, accept->message->private->outcome);
	}
}

/* What is staged and what waits for it: after a failure for good, or without memory. */
static void commit_refuse_all(struct commit *commit, enum queue_status status)
{
	struct commit_chunk *chunk = &commit->chunks[commit->open];
	struct list *node;

	list_splice_back(&chunk->accepts, &commit->waiting);
	while ((node = list_pop_front(&chunk->accepts)) != NULL) {
		struct queue_accept *accept = container_of(node, struct queue_accept, link);

		commit_unreserve(commit_stream(commit), accept);
		commit_refuse(commit, accept, status);
	}
	chunk->used = sizeof(struct format_chunk);
	chunk->records = 0;
}

void commit_turn(struct commit *commit)
{
	struct commit_chunk *chunk;

	if (commit_stream(commit)->broken)
		commit_refuse_all(commit, QUEUE_BROKEN);
	commit_tell_failed(commit);
	if (tape_busy(&commit->tape))
		return;
	commit_stage_waiting(commit);
	chunk = &commit->chunks[commit->open];
	if (chunk->records == 0 || commit_held(commit))
		return;
	if (!segments_reserve(&commit_stream(commit)->segments)) {
		commit_refuse_all(commit, QUEUE_SPACE);
		return;
	}
	commit->batch = chunk->records;
	commit->sealed_at = stream_mono(commit_stream(commit));
	commit->open ^= 1;
	tape_write(&commit->tape, chunk->bytes, chunk->used, chunk->records);
	commit_stage_waiting(commit);
}

bool commit_init(struct commit *commit)
{
	list_init(&commit->waiting);
	list_init(&commit->failed);
	commit->tape.kind = FORMAT_HOT;
	commit->tape.second_chance = true;
	commit->tape.events = &commit_tape_events;
	commit->chunk_bytes = tape_chunk_bytes_max(&commit->tape);
	for (uint32_t i = 0; i < array_count(commit->chunks); i++) {
		struct commit_chunk *chunk = &commit->chunks[i];

		list_init(&chunk->accepts);
		chunk->used = sizeof(struct format_chunk);
		chunk->bytes = aligned_alloc(FORMAT_PAGE_BYTES, commit->chunk_bytes);
		if (chunk->bytes == NULL)
			return false;
		/* Touched now, so that no page fault comes with the first message. */
		memset(chunk->bytes, 0, commit->chunk_bytes);
	}
	return tape_init(&commit->tape);
}

void commit_deinit(struct commit *commit)
{
	tape_deinit(&commit->tape);
	for (uint32_t i = 0; i < array_count(commit->chunks); i++)
		free(commit->chunks[i].bytes);
}
