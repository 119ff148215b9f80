/* The life of a stream on its worker. */
#include "queue/stream.h"

#include <errno.h>
#include <stdlib.h>

enum {
	STREAM_TICK_MS = 1000,
	STREAM_MARK_MS = FORMAT_MARK_REPEATED_S * 1000,
	STREAM_CLOCK_SET_US = 500000, /* more than clocks drift apart in that time */
	STREAM_DUE_PER_TURN = 4096,
	STREAM_UNSYNCED_MAX = 4096, /* R4 */
	STREAM_UNSYNCED_MS_MAX = 1000,
	STREAM_ID_BLOCK = 1 << 24,
	STREAM_ID_LOW = 1 << 20, /* so many left: the next block is leased */
	STREAM_SLOTS_DEFAULT = 16 << 20,
};

/* ── ids ──────────────────────────────────────────────────────────────────────────── */

static void stream_begin_running(struct queue_stream *stream);

static void stream_on_lease(struct pool_request *request)
{
	struct queue_stream *stream = container_of(request, struct queue_stream, lease);

	if (request->status != 0) {
		/* The block in use lasts for long; without any, nothing can start. */
		if (stream->state == STREAM_STARTING)
			stream_break(stream, "the superblock could not be written");
		return;
	}
	stream->spare_id = request->first_id;
	if (stream->state == STREAM_STARTING)
		stream_begin_running(stream);
}

static void stream_lease_ids(struct queue_stream *stream)
{
	if (stream->lease.op.busy || stream->spare_id != 0)
		return;
	stream->lease.pool = stream->pool;
	stream->lease.done = stream_on_lease;
	pool_lease_ids(stream->loop, &stream->lease);
}

uint64_t stream_next_id(struct queue_stream *stream)
{
	if (stream->next_id == stream->id_end) {
		if (stream->spare_id == 0) {
			stream_lease_ids(stream);
			return 0;
		}
		stream->next_id = stream->spare_id;
		stream->id_end = stream->spare_id + STREAM_ID_BLOCK;
		stream->spare_id = 0;
	}
	return stream->next_id++;
}

/* ── MARK and START ───────────────────────────────────────────────────────────────── */

/* As far as records of jobs are concerned: R5. */
static struct journal_place stream_recorded_place(const struct queue_stream *stream)
{
	const struct mark_entry *first = mark_first(&stream->mark);
	const struct tape_file *file = stream->commit.tape.file;

	if (first != NULL)
		return first->place;
	if (file == NULL)
		return stream->restored_end;
	return (struct journal_place){
		file->file.sequence, file->end_pages * (FORMAT_PAGE_BYTES / FORMAT_RECORD_ALIGN)
	};
}

/* What the next MARK may say. */
static struct journal_place stream_mark_place(const struct queue_stream *stream)
{
	struct journal_place place = stream_recorded_place(stream);

	if (stream->origin_held && journal_place_before(stream->origin_place, place))
		return stream->origin_place;
	return place;
}

void queue_origin_gone(struct queue_stream *stream)
{
	assert(stream->origin_held);
	stream->origin_held = false;
}

bool stream_is_marked(const struct queue_stream *stream, const struct segment *segment)
{
	if (segment->kind == FORMAT_COLD)
		return true;
	if (segment->recovered)
		return !journal_place_before(stream->mark.durable, stream->restored_end);
	return segment_sequence(segment) < stream->mark.durable.segment;
}

/* What the wall clock would say, had nobody set it since the last MARK. */
static int64_t stream_unset_wall_us(const struct queue_stream *stream)
{
	uint64_t passed_ns = stream_mono(stream).ns - stream->marked.ns;

	return stream->marked_wall_us + (int64_t)(passed_ns / 1000);
}

static bool stream_clock_is_set(const struct queue_stream *stream)
{
	int64_t by_us = os_loop_wall(stream->loop).us - stream_unset_wall_us(stream);

	return by_us > STREAM_CLOCK_SET_US || by_us < -STREAM_CLOCK_SET_US;
}

/* The time is the latest that can have been seen: what was due by it may have been tried, also when
 * the clock was set back since. */
void stream_append_mark(struct queue_stream *stream)
{
	int64_t wall_us = os_loop_wall(stream->loop).us, unset_us = stream_unset_wall_us(stream);
	struct journal_place place = stream_mark_place(stream);
	struct format_mark record = {
		.type = FORMAT_MARK,
		.segment = place.segment,
		.place = place.place,
		.wall_us = (uint64_t)(unset_us > wall_us ? unset_us : wall_us),
		.believed_us = expiry_believed_us(&stream->expiry, stream_mono(stream))
	};

	stream->marked = stream_mono(stream);
	stream->marked_wall_us = wall_us;
	mark_appended(&stream->mark, place, journal_append(&stream->journal, &record, 1));
}

void stream_append_start(struct queue_stream *stream)
{
	struct format_start record = { .type = FORMAT_START, .epoch = stream->pool->epoch };

	journal_append(&stream->journal, &record, 1);
}

/* MARK moves when it can: within a second, and at once when a segment was sealed. It is repeated
 * for its time. */
static void stream_advance_mark(struct queue_stream *stream, bool tick)
{
	struct journal_place place = stream_mark_place(stream);

	if (!journal_place_before(stream->mark.said, place) &&
	    stream_mono(stream).ns < os_mono_add_ms(stream->marked, STREAM_MARK_MS).ns &&
	    !(tick && stream_clock_is_set(stream)))
		return;
	if (tick || place.segment != stream->mark.said.segment)
		stream_append_mark(stream);
}

/* ── starting ─────────────────────────────────────────────────────────────────────── */

/* Everything that recovery changed was appended by stream_restore(); START comes after it. */
static void stream_begin_running(struct queue_stream *stream)
{
	stream_append_start(stream);
	stream_append_mark(stream);
	stream->start_number = stream->journal.appended;
	journal_flush(&stream->journal, true);
}

void queue_stream_start(struct queue_stream *stream, struct os_loop *loop,
			const struct queue_events *events, void *context,
			void (*started)(void *context, struct queue_stream *stream))
{
	assert(stream->state == STREAM_IDLE);
	stream->loop = loop;
	stream->events = events;
	stream->context = context;
	stream->started = started;
	stream->state = STREAM_STARTING;
	stream->big.loop = loop;
	stream->evacuate.tape.loop = loop;
	stream->commit.tape.loop = loop;
	stream->began = os_loop_mono(loop);
	expiry_start(&stream->expiry, stream->queue->clock, stream->began, os_loop_wall(loop));
	journal_start(&stream->journal, loop);
	/* One that is only drained needs a segment at its first report, if ever. */
	stream->commit.tape.lazy = !stream->accepts;
	if (stream->accepts)
		tape_start(&stream->commit.tape, loop);
	stream_lease_ids(stream);
}

static void stream_run(struct queue_stream *stream)
{
	journal_flush(&stream->journal, false);
	stream->state = STREAM_RUNNING;
	stream->began = stream_mono(stream);
	stream->reclaim.look = true;
	stream->started(stream->context, stream);
}

/* ── stopping ─────────────────────────────────────────────────────────────────────── */

void queue_stream_stop(struct queue_stream *stream, void (*stopped)(void *context))
{
	assert(stream->state == STREAM_RUNNING || stream->state == STREAM_STARTING);
	assert(stream->lent == 0);
	stream->stopped = stopped;
	stream->state = STREAM_STOPPING;
}

/* Some state of a job is newer than its record: recovery said so. */
static void stream_record_flagged(struct queue_stream *stream)
{
	for (uint32_t slot = 0; slot < stream->index.used; slot++)
		if (index_job(&stream->index, slot)->state != 0 &&
		    index_side(&stream->index, slot)->flagged)
			stream_record(stream, slot);
}

static bool stream_is_quiet(const struct queue_stream *stream)
{
	return tape_quiet(&stream->commit.tape) && tape_quiet(&stream->journal.tape) &&
	       evacuate_quiet(&stream->evacuate) && reclaim_quiet(&stream->reclaim) &&
	       !stream->lease.op.busy && !stream->stock.op.busy && !stream->big.op.busy &&
	       stream->background == 0;
}

static void stream_stop_step(struct queue_stream *stream)
{
	commit_turn(&stream->commit);
	if (!stream->broken && !commit_idle(&stream->commit))
		return;
	if (!stream->broken && !stream->journal.flushing) {
		stream_record_accepted(stream, true);
		stream_record_flagged(stream);
		stream_append_mark(stream);
		journal_flush(&stream->journal, true);
	}
	journal_turn(&stream->journal, stream_mono(stream));
	if (!stream->broken && stream->journal.durable < stream->journal.appended)
		return;
	if (!stream->broken)
		big_turn(&stream->big, stream->journal.durable);
	if (!stream_is_quiet(stream) || (!stream->broken && !list_empty(&stream->big.done)))
		return;
	stream->state = STREAM_STOPPED;
	stream->stopped(stream->context);
}

/* ── turns ────────────────────────────────────────────────────────────────────────── */

static void stream_measure(struct queue_stream *stream)
{
	uint64_t room = atomic_load_explicit(&stream->pool->room_bytes, memory_order_relaxed);
	bool low = room < stream->options.space_low_bytes;

	if (low == stream->space_low)
		return;
	stream->space_low = low;
	if (stream->events->space != NULL)
		stream->events->space(stream->context, stream, low);
}

static void stream_on_stock(struct pool_request *request)
{
	/* Failed for want of space, most likely: the room is measured, and the next try comes. */
	atomic_store_explicit(&request->pool->stocking, false, memory_order_release);
}

/* One file of each kind lies ready in free/, so that a full one is followed at once. */
static void stream_stock(struct queue_stream *stream)
{
	if (stream->stock.op.busy ||
	    atomic_exchange_explicit(&stream->pool->stocking, true, memory_order_acquire))
		return;
	stream->stock.pool = stream->pool;
	/* In turn; when room is short it is the journals that must go on. */
	stream->stock.kind =
		stream->stock.kind == FORMAT_HOT || stream->space_low ? FORMAT_JOURNAL : FORMAT_HOT;
	stream->stock.done = stream_on_stock;
	pool_stock(stream->loop, &stream->stock);
}

static void stream_watch_clock(struct queue_stream *stream)
{
	if (expiry_look(&stream->expiry, stream_mono(stream), os_loop_wall(stream->loop)) &&
	    stream->events->clock != NULL)
		stream->events->clock(stream->context, stream, stream->expiry.doubted);
}

void queue_stream_confirm_time(struct queue_stream *stream)
{
	expiry_confirm(&stream->expiry, stream_mono(stream), os_loop_wall(stream->loop));
}

static void stream_tick(struct queue_stream *stream, struct os_mono now)
{
	stream->tick = os_mono_add_ms(now, STREAM_TICK_MS);
	index_beat(&stream->index, now);
	stream_watch_clock(stream);
	stream_tell_untold(stream);
	stream_advance_mark(stream, true);
	stream_measure(stream);
	stream_stock(stream);
	tape_prepare(&stream->journal.tape, true);
	if (stream->accepts)
		tape_prepare(&stream->commit.tape, true);
	if (stream->id_end - stream->next_id < STREAM_ID_LOW)
		stream_lease_ids(stream);
}

static void stream_running_turn(struct queue_stream *stream)
{
	struct os_mono now = stream_mono(stream);

	commit_turn(&stream->commit);
	stream_move_due(stream, STREAM_DUE_PER_TURN);
	stream_record_accepted(stream, false);
	stream_advance_mark(stream, false);
	if (now.ns >= stream->tick.ns)
		stream_tick(stream, now);
	reclaim_turn(stream);
	evacuate_turn(stream);
	big_turn(&stream->big, stream->journal.durable);
	journal_turn(&stream->journal, now);
}

void queue_stream_turn(struct queue_stream *stream)
{
	switch (stream->state) {
	case STREAM_STARTING:
		journal_turn(&stream->journal, stream_mono(stream));
		break;
	case STREAM_RUNNING:
		stream_running_turn(stream);
		break;
	case STREAM_STOPPING:
		stream_stop_step(stream);
		break;
	case STREAM_IDLE:
	case STREAM_STOPPED:
		break;
	}
}

static struct os_mono stream_due_mono(const struct queue_stream *stream)
{
	uint32_t due_s = schedule_next(&stream->schedule);
	int64_t left_us = (int64_t)due_s * OS_US_PER_S - os_loop_wall(stream->loop).us;

	if (due_s == UINT32_MAX)
		return (struct os_mono){ UINT64_MAX };
	return left_us <= 0 ? (struct os_mono){ 0 }
			    : (struct os_mono){ stream_mono(stream).ns + (uint64_t)left_us * 1000 };
}

struct os_mono queue_stream_next(const struct queue_stream *stream)
{
	struct os_mono next, due, commit;

	if (stream->state == STREAM_IDLE || stream->state == STREAM_STOPPED)
		return (struct os_mono){ UINT64_MAX };
	next = journal_next(&stream->journal);
	if (stream->state == STREAM_STOPPING && !stream->journal.flushing)
		return (struct os_mono){ 0 };
	commit = commit_next(&stream->commit);
	next = commit.ns < next.ns ? commit : next;
	if (stream->state != STREAM_RUNNING)
		return next;
	if (reclaim_busy(stream) || evacuate_busy(&stream->evacuate))
		return (struct os_mono){ 0 };
	due = stream_due_mono(stream);
	next = due.ns < next.ns ? due : next;
	return stream->tick.ns < next.ns ? stream->tick : next;
}

bool queue_stream_may_dispatch(const struct queue_stream *stream)
{
	const struct journal *journal = &stream->journal;

	return stream->state == STREAM_RUNNING && !stream->broken && !journal_is_short(journal) &&
	       journal->appended - journal->durable < STREAM_UNSYNCED_MAX &&
	       journal_age_ms(journal, stream_mono(stream)) < STREAM_UNSYNCED_MS_MAX;
}

enum queue_status queue_stream_room(const struct queue_stream *stream, uint64_t bytes)
{
	uint64_t room = atomic_load_explicit(&stream->pool->room_bytes, memory_order_relaxed);

	if (stream->broken)
		return QUEUE_BROKEN;
	if (!stream->accepts || stream->space_low || journal_is_short(&stream->journal) ||
	    room < stream->options.space_low_bytes + bytes)
		return QUEUE_SPACE;
	return QUEUE_OK;
}

void stream_break(struct queue_stream *stream, const char *what)
{
	if (stream->broken)
		return;
	stream->broken = true;
	stream->events->broken(stream->context, stream, what);
}

void queue_stream_stats(const struct queue_stream *stream, struct queue_stats *out)
{
	*out = (struct queue_stats){
		.jobs = stream->index.live,
		.accepted = stream->accepted,
		.commits = stream->commit.tape.writes,
		.syncs = stream->journal.tape.writes,
		.bytes = stream->commit.tape.written_bytes + stream->journal.tape.written_bytes +
			 stream->evacuate.tape.written_bytes,
		.body_memory = stream->body_memory,
		.loads = stream->loads,
		.evacuated = stream->evacuated,
	};
}

/* ── the journal's word ───────────────────────────────────────────────────────────── */

static void stream_on_durable(struct journal *journal)
{
	struct queue_stream *stream = container_of(journal, struct queue_stream, journal);

	mark_on_durable(&stream->mark, journal->durable);
	stream->reclaim.look = true;
	if (stream->state == STREAM_STARTING && stream->start_number != 0 &&
	    journal->durable >= stream->start_number)
		stream_run(stream);
}

static void stream_on_broken(struct journal *journal)
{
	stream_break(container_of(journal, struct queue_stream, journal),
		     "a journal could not be written");
}

static const struct journal_events stream_journal_events = { stream_on_durable, stream_on_broken };

/* ── made and unmade ──────────────────────────────────────────────────────────────── */

static void stream_set_tape(struct queue_stream *stream, struct tape *tape)
{
	tape->pool = stream->pool;
	tape->stream = stream->number;
	tape->epoch = stream->pool->epoch;
}

static int stream_init(struct queue_stream *stream, const struct queue_options *options)
{
	uint64_t slots =
		options->index_slots_max != 0 ? options->index_slots_max : STREAM_SLOTS_DEFAULT;
	int error;

	stream_set_tape(stream, &stream->journal.tape);
	stream_set_tape(stream, &stream->commit.tape);
	stream_set_tape(stream, &stream->evacuate.tape);
	list_init(&stream->free_jobs);
	big_init(&stream->big, stream->pool);
	error = index_init(&stream->index, stream->pool->uuid, stream->number, stream->pool->epoch,
			   slots);
	if (error != 0)
		return error;
	if (!journal_init(&stream->journal, &stream_journal_events, options->outcome_sync_ms) ||
	    !names_init(&stream->names, &stream->journal, &stream->index) ||
	    !commit_init(&stream->commit) || !evacuate_init(&stream->evacuate))
		return -ENOMEM;
	return 0;
}

struct queue_stream *stream_create(struct queue *queue, uint16_t number, bool accepts,
				   int *error_out)
{
	struct queue_stream *stream = calloc(1, sizeof(*stream));

	*error_out = -ENOMEM;
	if (stream == NULL)
		return NULL;
	stream->queue = queue;
	stream->options = queue->options;
	stream->pool = &queue->pool;
	stream->number = number;
	stream->accepts = accepts;
	*error_out = stream_init(stream, &queue->options);
	if (*error_out != 0) {
		stream_destroy(stream);
		return NULL;
	}
	return stream;
}

void stream_destroy(struct queue_stream *stream)
{
	if (stream == NULL)
		return;
	assert(stream->state == STREAM_IDLE || stream->state == STREAM_STOPPED);
	for (uint32_t slot = 0; slot < stream->index.used; slot++)
		queue_message_unref(index_side(&stream->index, slot)->message);
	while (!list_empty(&stream->free_jobs))
		free(container_of(list_pop_front(&stream->free_jobs), struct queue_job, loading));
	commit_deinit(&stream->commit);
	evacuate_deinit(&stream->evacuate);
	reclaim_deinit(&stream->reclaim);
	big_deinit(&stream->big);
	journal_deinit(&stream->journal);
	names_deinit(&stream->names);
	mark_deinit(&stream->mark);
	schedule_deinit(&stream->schedule);
	segments_deinit(&stream->segments);
	index_deinit(&stream->index, stream->pool->uuid, stream->number);
	free(stream->dests);
	free(stream);
}
