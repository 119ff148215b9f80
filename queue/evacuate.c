/* Survivors to COLD segments. */
#include "queue/evacuate.h"

#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"
#include "queue/load.h"
#include "queue/stream.h"

enum {
	EVACUATE_SLOTS_PER_TURN = 16384,
	EVACUATE_FIRST_BYTES = 16 << 10,
	EVACUATE_RETRY_MS = 10000,
	EVACUATE_UNREAD_MS = 300000, /* as often a delivery tries to read its message */
};

static struct queue_stream *evacuate_stream(struct evacuate *evacuate)
{
	return container_of(evacuate, struct queue_stream, evacuate);
}

/* ── choosing ─────────────────────────────────────────────────────────────────────── */

static bool evacuate_is_worth(const struct queue_stream *stream, const struct segment *segment)
{
	uint64_t after_s = stream->space_low ? 0 : stream->options.evacuate_after_s;
	struct os_mono sealed = segment->sealed.ns == 0 ? stream->began : segment->sealed;

	return segment->live > 0 && !segment->evacuated && segment != stream->commit.segment &&
	       segment->tape != stream->evacuate.tape.file && segment_is_sparse(segment) &&
	       stream_is_marked(stream, segment) && stream_mono(stream).ns >= segment->again.ns &&
	       stream_mono(stream).ns >= sealed.ns + after_s * OS_NS_PER_S;
}

static void evacuate_choose(struct queue_stream *stream)
{
	struct evacuate *evacuate = &stream->evacuate;

	if (stream_mono(stream).ns < evacuate->retry_at.ns)
		return;
	for (uint32_t i = 0; i < stream->segments.count; i++) {
		struct segment *segment = stream->segments.list[i];

		if (!evacuate_is_worth(stream, segment))
			continue;
		evacuate->source = segment;
		segment->reads++;
		evacuate->cursor = evacuate->move_count = 0;
		evacuate->staged = evacuate->first = 0;
		evacuate->passed_over = false;
		evacuate->state = EVACUATE_COLLECT;
		return;
	}
	evacuate->retry_at = os_mono_add_ms(stream_mono(stream), OS_NS_PER_S / OS_NS_PER_MS);
}

/* ── collecting ───────────────────────────────────────────────────────────────────── */

static int evacuate_compare(const void *a, const void *b)
{
	const struct evacuate_move *left = a, *right = b;

	return left->place < right->place ? -1 : left->place > right->place;
}

static bool evacuate_add(struct evacuate *evacuate, const struct format_job *job, uint32_t slot)
{
	if (evacuate->move_count == evacuate->move_capacity) {
		uint32_t capacity =
			evacuate->move_capacity == 0 ? 256 : evacuate->move_capacity * 2;
		struct evacuate_move *grown = realloc(evacuate->moves, capacity * sizeof(*grown));

		if (grown == NULL)
			return false;
		evacuate->moves = grown;
		evacuate->move_capacity = capacity;
	}
	evacuate->moves[evacuate->move_count++] = (struct evacuate_move){ .place = job->place,
									  .slot = slot,
									  .message = job->message };
	return true;
}

/* `complete`: all of it was looked at, and what is still there is damaged. */
static void evacuate_end(struct queue_stream *stream, bool complete)
{
	struct evacuate *evacuate = &stream->evacuate;

	evacuate->source->reads--;
	evacuate->source->evacuated = complete;
	evacuate->source = NULL;
	evacuate->state = EVACUATE_IDLE;
	free(evacuate->chunk);
	free(evacuate->bytes);
	evacuate->chunk = evacuate->bytes = NULL;
	stream->reclaim.look = true;
}

static void evacuate_collect(struct queue_stream *stream)
{
	struct evacuate *evacuate = &stream->evacuate;
	uint32_t sequence = segment_sequence(evacuate->source);

	for (uint32_t i = 0; i < EVACUATE_SLOTS_PER_TURN; i++) {
		const struct format_job *job;

		if (evacuate->cursor == stream->index.used)
			break;
		job = index_job(&stream->index, evacuate->cursor);
		if (job->state != 0 && job->segment == sequence &&
		    !evacuate_add(evacuate, job, evacuate->cursor)) {
			evacuate_end(stream, false);
			return;
		}
		evacuate->cursor++;
	}
	if (evacuate->cursor < stream->index.used)
		return;
	if (evacuate->move_count > 0)
		qsort(evacuate->moves, evacuate->move_count, sizeof(*evacuate->moves),
		      evacuate_compare);
	evacuate->used = sizeof(struct format_chunk);
	evacuate->records = 0;
	evacuate->chunk = aligned_alloc(FORMAT_PAGE_BYTES, tape_chunk_bytes_max(&evacuate->tape));
	evacuate->state = EVACUATE_COPY;
	if (evacuate->chunk == NULL)
		evacuate_end(stream, false);
}

/* ── copying ──────────────────────────────────────────────────────────────────────── */

static bool evacuate_still(const struct queue_stream *stream, const struct evacuate_move *move)
{
	const struct format_job *job = index_job(&stream->index, move->slot);

	return job->state != 0 && job->message == move->message && job->place == move->place &&
	       job->segment == segment_sequence(stream->evacuate.source);
}

/* The segment is tried again later. */
static void evacuate_put_off(struct queue_stream *stream)
{
	evacuate_end(stream, false);
	stream->evacuate.retry_at = os_mono_add_ms(stream_mono(stream), EVACUATE_RETRY_MS);
}

/* Others come first: a disk that does not give this one may give them. */
static void evacuate_end_unread(struct queue_stream *stream)
{
	stream->evacuate.source->again = os_mono_add_ms(stream_mono(stream), EVACUATE_UNREAD_MS);
	evacuate_end(stream, false);
}

static void evacuate_write(struct evacuate *evacuate)
{
	if (!segments_reserve(&evacuate_stream(evacuate)->segments)) {
		evacuate_put_off(evacuate_stream(evacuate));
		return;
	}
	evacuate->state = EVACUATE_WRITE;
	tape_write(&evacuate->tape, evacuate->chunk, evacuate->used, evacuate->records);
}

/* The moves of one message; false: the chunk has no room for it. */
static bool evacuate_stage(struct evacuate *evacuate, const char *record, uint32_t bytes)
{
	uint32_t place = evacuate->moves[evacuate->staged].place;

	if (bytes > tape_chunk_bytes_max(&evacuate->tape) - evacuate->used)
		return false;
	memcpy(evacuate->chunk + evacuate->used, record, bytes);
	while (evacuate->staged < evacuate->move_count &&
	       evacuate->moves[evacuate->staged].place == place)
		evacuate->moves[evacuate->staged++].record_at = evacuate->used;
	evacuate->used += bytes;
	evacuate->records++;
	return true;
}

static void evacuate_on_read(struct os_op *op);

/* It stays where it is for now. */
static void evacuate_pass_over(struct evacuate *evacuate)
{
	evacuate->passed_over = true;
	evacuate->staged++;
}

static bool evacuate_submit(struct evacuate *evacuate, uint32_t record_bytes)
{
	uint64_t at = (uint64_t)evacuate->moves[evacuate->staged].place * FORMAT_RECORD_ALIGN;
	size_t count;

	evacuate->skip = (uint32_t)(at % FORMAT_PAGE_BYTES);
	count = ((size_t)evacuate->skip + record_bytes + FORMAT_PAGE_BYTES - 1) /
		FORMAT_PAGE_BYTES * FORMAT_PAGE_BYTES;
	if (count > evacuate->count || evacuate->bytes == NULL) {
		free(evacuate->bytes);
		evacuate->bytes = aligned_alloc(FORMAT_PAGE_BYTES, count);
		evacuate->count = count;
	}
	if (evacuate->bytes == NULL)
		return false;
	evacuate->state = EVACUATE_READ;
	evacuate->read.done = evacuate_on_read;
	os_read(evacuate->tape.loop, &evacuate->read, evacuate->source->tape->file.fd,
		evacuate->bytes, count, at - evacuate->skip);
	return true;
}

static void evacuate_on_read(struct os_op *op)
{
	struct evacuate *evacuate = container_of(op, struct evacuate, read);
	struct evacuate_move *move = &evacuate->moves[evacuate->staged];
	const char *record = evacuate->bytes + evacuate->skip;
	enum load_found found = LOAD_DAMAGED;
	struct format_message header;
	uint32_t bytes = 0;

	evacuate->state = EVACUATE_COPY;
	if (op->result < 0) {
		evacuate_pass_over(evacuate);
		return;
	}
	if (op->result > (int32_t)evacuate->skip)
		found = load_check(record, (size_t)op->result - evacuate->skip,
				   segment_sequence(evacuate->source), move->message, &header,
				   &bytes);
	if (found == LOAD_MORE && (size_t)bytes + evacuate->skip > evacuate->count) {
		if (!evacuate_submit(evacuate, bytes))
			evacuate_pass_over(evacuate);
		return;
	}
	if (found != LOAD_WHOLE) {
		evacuate->staged++; /* stays where it is; its delivery will say what is wrong */
		return;
	}
	if (!evacuate_stage(evacuate, record, bytes))
		evacuate_write(evacuate);
}

static void evacuate_copy(struct queue_stream *stream)
{
	struct evacuate *evacuate = &stream->evacuate;

	while (evacuate->staged < evacuate->move_count &&
	       !evacuate_still(stream, &evacuate->moves[evacuate->staged]))
		evacuate->staged++;
	if (evacuate->staged < evacuate->move_count) {
		if (!evacuate_submit(evacuate, EVACUATE_FIRST_BYTES))
			evacuate_end(stream, false);
		return;
	}
	if (evacuate->records > 0)
		evacuate_write(evacuate);
	else if (evacuate->passed_over)
		evacuate_end_unread(stream);
	else
		evacuate_end(stream, true);
}

/* ── the chunk ────────────────────────────────────────────────────────────────────── */

static void evacuate_seal(struct tape *tape, char *chunk, uint32_t bytes, uint64_t offset)
{
	struct evacuate *evacuate = container_of(tape, struct evacuate, tape);
	uint32_t sequence = tape->file->file.sequence, last = 0;
	struct format_message header;

	(void)offset;
	for (uint32_t i = evacuate->first; i < evacuate->staged; i++) {
		uint32_t at = evacuate->moves[i].record_at;

		if (at == 0 || at == last)
			continue;
		assert(at + sizeof(header) <= bytes);
		memcpy(&header, chunk + at, sizeof(header));
		header.crc = crc_record(sequence, &header, sizeof(header),
					offsetof(struct format_message, crc));
		memcpy(chunk + at, &header, sizeof(header));
		last = at;
	}
}

static void evacuate_opened(struct tape *tape, struct tape_file *file)
{
	struct evacuate *evacuate = container_of(tape, struct evacuate, tape);

	if (evacuate->target != NULL)
		evacuate->target->sealed = os_loop_mono(tape->loop);
	evacuate->target = segments_add(&evacuate_stream(evacuate)->segments, file, FORMAT_COLD);
}

/* The message is durable at its new place: now the job may say so. */
static void evacuate_move_job(struct queue_stream *stream, const struct evacuate_move *move,
			      uint64_t offset)
{
	struct evacuate *evacuate = &stream->evacuate;
	struct format_job job;

	if (move->record_at == 0 || !evacuate_still(stream, move))
		return;
	job = *index_job(&stream->index, move->slot);
	job.segment = segment_sequence(evacuate->target);
	job.place = (uint32_t)((offset + move->record_at) / FORMAT_RECORD_ALIGN);
	job.version++;
	index_store(&stream->index, move->slot, &job);
	evacuate->source->journal_number = stream_record(stream, move->slot);
	evacuate->source->live--;
	evacuate->target->live++;
	evacuate->target->jobs++;
}

static void evacuate_written(struct tape *tape, enum queue_status status, uint64_t offset)
{
	struct evacuate *evacuate = container_of(tape, struct evacuate, tape);
	struct queue_stream *stream = evacuate_stream(evacuate);

	if (status == QUEUE_OK) {
		for (uint32_t i = evacuate->first; i < evacuate->staged; i++)
			evacuate_move_job(stream, &evacuate->moves[i], offset);
		stream->evacuated += evacuate->records;
	} else if (status == QUEUE_BROKEN) {
		stream_break(stream, "a cold segment could not be written");
	}
	evacuate->first = evacuate->staged;
	evacuate->used = sizeof(struct format_chunk);
	evacuate->records = 0;
	evacuate->state = EVACUATE_COPY;
	if (status != QUEUE_OK)
		evacuate_put_off(stream); /* a full disk */
}

static const struct tape_events evacuate_tape_events = { evacuate_seal, evacuate_opened,
							 evacuate_written };

void evacuate_turn(struct queue_stream *stream)
{
	struct evacuate *evacuate = &stream->evacuate;

	if (stream->broken || stream->state != STREAM_RUNNING)
		return;
	if (evacuate->state == EVACUATE_IDLE)
		evacuate_choose(stream);
	if (evacuate->state == EVACUATE_COLLECT)
		evacuate_collect(stream);
	else if (evacuate->state == EVACUATE_COPY)
		evacuate_copy(stream);
}

bool evacuate_busy(const struct evacuate *evacuate)
{
	return evacuate->state == EVACUATE_COLLECT || evacuate->state == EVACUATE_COPY;
}

bool evacuate_quiet(const struct evacuate *evacuate)
{
	return !evacuate->read.busy && tape_quiet(&evacuate->tape);
}

bool evacuate_init(struct evacuate *evacuate)
{
	evacuate->tape.kind = FORMAT_COLD;
	evacuate->tape.second_chance = true;
	evacuate->tape.lazy = true;
	evacuate->tape.events = &evacuate_tape_events;
	return tape_init(&evacuate->tape);
}

void evacuate_deinit(struct evacuate *evacuate)
{
	tape_deinit(&evacuate->tape);
	free(evacuate->moves);
	free(evacuate->chunk);
	free(evacuate->bytes);
}
