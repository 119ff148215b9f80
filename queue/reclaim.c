/* Recycling of segments, cleaning of journals. */
#include "queue/reclaim.h"

#include <stdlib.h>

#include "queue/stream.h"

enum {
	RECLAIM_SLOTS_PER_TURN = 4096,
	RECLAIM_NAMES_PER_TURN = 1024,
	RECLAIM_AGAIN_MS = 1000,
	RECLAIM_FILES_MIN = 4, /* so many journal files are never too many */
};

/* ── segments ─────────────────────────────────────────────────────────────────────── */

static bool reclaim_is_written(const struct queue_stream *stream, const struct segment *segment)
{
	return segment == stream->commit.segment || segment->tape == stream->evacuate.tape.file;
}

/* R6 */
static bool reclaim_may_recycle(const struct queue_stream *stream, const struct segment *segment)
{
	return segment->live == 0 && segment->reads == 0 && !reclaim_is_written(stream, segment) &&
	       segment->journal_number <= stream->journal.durable &&
	       stream_is_marked(stream, segment);
}

/* No room, no memory: the file stays where it is for a while, with either header. The header is
 * written anew each time, so a sync of it that failed says nothing of the next. */
static bool reclaim_waits(struct queue_stream *stream, const struct pool_request *request)
{
	if (!pool_error_passes(request->status) || request->quarantine)
		return false;
	stream->reclaim.again = os_mono_add_ms(stream_mono(stream), RECLAIM_AGAIN_MS);
	return true;
}

static bool reclaim_is_due(const struct queue_stream *stream)
{
	return stream_mono(stream).ns >= stream->reclaim.again.ns;
}

static void reclaim_on_segment(struct pool_request *request)
{
	struct queue_stream *stream = container_of(request, struct queue_stream, reclaim.segment);

	stream->reclaim.segment_waits = reclaim_waits(stream, request);
	if (stream->reclaim.segment_waits)
		return;
	if (request->status != 0)
		stream_break(stream, "a segment could not be moved to free/");
	free(stream->reclaim.segment_file);
	stream->reclaim.segment_file = NULL;
	stream->reclaim.recycled_segments++;
	stream->reclaim.look = true;
}

static void reclaim_send(struct queue_stream *stream, struct pool_request *request,
			 enum format_kind kind, struct tape_file *file,
			 void (*done)(struct pool_request *request))
{
	request->pool = stream->pool;
	request->kind = kind;
	request->stream = stream->number;
	request->file = file->file;
	request->quarantine = file->damaged;
	request->done = done;
	pool_recycle(stream->loop, request);
}

static void reclaim_segments(struct queue_stream *stream)
{
	struct reclaim *reclaim = &stream->reclaim;

	if (reclaim->segment_waits && reclaim_is_due(stream)) {
		reclaim->segment_waits = false;
		pool_recycle(stream->loop, &reclaim->segment);
	}
	if (!reclaim->look || reclaim->segment.op.busy || reclaim->segment_waits)
		return;
	for (uint32_t i = 0; i < stream->segments.count; i++) {
		struct segment *segment = stream->segments.list[i];

		if (!reclaim_may_recycle(stream, segment))
			continue;
		reclaim->segment_file = segments_remove(&stream->segments, segment);
		reclaim_send(stream, &reclaim->segment, FORMAT_HOT, reclaim->segment_file,
			     reclaim_on_segment);
		return;
	}
	reclaim->look = false;
}

/* ── journals ─────────────────────────────────────────────────────────────────────── */

/* A damaged journal makes each recovery doubt the stream: it is cleaned away soon. */
static bool reclaim_has_damage(const struct queue_stream *stream)
{
	for (uint32_t i = 0; i < stream->journal.file_count; i++)
		if (stream->journal.files[i].tape->damaged)
			return true;
	return false;
}

/* The size stays within max(4 files, 2 x live bytes), and the padding of small chunks. */
static bool reclaim_is_long(const struct queue_stream *stream)
{
	uint64_t live = (uint64_t)stream->index.live * sizeof(struct format_job);
	uint64_t bytes = (uint64_t)stream->journal.file_count *
			 pool_kind_bytes(stream->pool, FORMAT_JOURNAL);

	if (reclaim_has_damage(stream))
		return stream->journal.file_count > 1;
	return stream->journal.file_count >= RECLAIM_FILES_MIN && bytes > 2 * live;
}

static void reclaim_append_again(struct queue_stream *stream, uint32_t sequence, uint32_t count)
{
	struct reclaim *reclaim = &stream->reclaim;

	for (; count > 0 && reclaim->cursor < stream->index.used; count--, reclaim->cursor++) {
		const struct index_side *side = index_side(&stream->index, reclaim->cursor);

		if (index_job(&stream->index, reclaim->cursor)->state != 0 && side->journal != 0 &&
		    side->journal <= sequence)
			stream_record(stream, reclaim->cursor);
	}
	if (reclaim->cursor < stream->index.used)
		return;
	reclaim->cursor = 0;
	reclaim->state = RECLAIM_NAMES;
}

static void reclaim_names(struct queue_stream *stream, uint32_t sequence)
{
	struct reclaim *reclaim = &stream->reclaim;

	if (names_clean(&stream->names, sequence, &reclaim->cursor, RECLAIM_NAMES_PER_TURN))
		return;
	/* START and MARK are current as well. */
	stream_append_start(stream);
	stream_append_mark(stream);
	reclaim->number = stream->journal.appended;
	reclaim->state = RECLAIM_DURABLE;
}

static void reclaim_on_journal(struct pool_request *request)
{
	struct queue_stream *stream = container_of(request, struct queue_stream, reclaim.journal);

	stream->reclaim.journal_waits = reclaim_waits(stream, request);
	if (stream->reclaim.journal_waits)
		return;
	if (request->status != 0)
		stream_break(stream, "a journal could not be moved to free/");
	free(stream->reclaim.journal_file);
	stream->reclaim.journal_file = NULL;
	stream->reclaim.recycled_journals++;
	stream->reclaim.state = RECLAIM_IDLE;
}

/* R10: what was current is durable in newer files, and a durable MARK covers every message
 * whose final record goes away with this file. Older files are gone already. */
static void reclaim_drop(struct queue_stream *stream)
{
	struct reclaim *reclaim = &stream->reclaim;
	const struct journal_file *oldest = &stream->journal.files[0];

	if (stream->journal.durable < reclaim->number ||
	    !journal_place_before(oldest->done, stream->mark.durable))
		return;
	reclaim->state = RECLAIM_RENAME;
	reclaim->journal_file = journal_drop_oldest(&stream->journal);
	reclaim_send(stream, &reclaim->journal, FORMAT_JOURNAL, reclaim->journal_file,
		     reclaim_on_journal);
}

static void reclaim_journals(struct queue_stream *stream)
{
	struct reclaim *reclaim = &stream->reclaim;
	uint32_t sequence;

	if (reclaim->journal_waits && reclaim_is_due(stream)) {
		reclaim->journal_waits = false;
		pool_recycle(stream->loop, &reclaim->journal);
	}
	if (reclaim->state == RECLAIM_RENAME)
		return;
	if (reclaim->state == RECLAIM_IDLE) {
		if (!reclaim_is_long(stream))
			return;
		reclaim->cursor = 0;
		reclaim->state = RECLAIM_SLOTS;
	}
	sequence = stream->journal.files[0].tape->file.sequence;
	if (reclaim->state == RECLAIM_SLOTS)
		reclaim_append_again(stream, sequence, RECLAIM_SLOTS_PER_TURN);
	else if (reclaim->state == RECLAIM_NAMES)
		reclaim_names(stream, sequence);
	else
		reclaim_drop(stream);
}

void reclaim_turn(struct queue_stream *stream)
{
	if (stream->state != STREAM_RUNNING || stream->broken)
		return;
	reclaim_segments(stream);
	reclaim_journals(stream);
}

bool reclaim_busy(const struct queue_stream *stream)
{
	return stream->state == STREAM_RUNNING &&
	       (stream->reclaim.state == RECLAIM_SLOTS || stream->reclaim.state == RECLAIM_NAMES);
}

bool reclaim_quiet(const struct reclaim *reclaim)
{
	return !reclaim->segment.op.busy && !reclaim->journal.op.busy;
}

void reclaim_deinit(struct reclaim *reclaim)
{
	assert(reclaim_quiet(reclaim));
	if (reclaim->segment_waits)
		os_file_close(reclaim->segment.file.fd);
	if (reclaim->journal_waits)
		os_file_close(reclaim->journal.file.fd);
	free(reclaim->journal_file);
	free(reclaim->segment_file);
}
