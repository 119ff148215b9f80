/* Jobs: made of messages, ready by domain, lent, settled. */
#include <stdlib.h>
#include <string.h>

#include "queue/envelope.h"
#include "queue/load.h"
#include "queue/message.h"
#include "queue/stream.h"

enum {
	JOB_EXPIRED_LOOK = 256,	      /* slots that one call looks at */
	JOB_EXPIRED_PAUSE_MS = 5000,  /* after all were looked at */
	JOB_EXPIRED_UNTRIED_S = 3600, /* so long a job waits for its first attempt of this run */
	JOB_ACCEPTED_MS = 1000,	      /* R2 */
};

/* ── ready lists ──────────────────────────────────────────────────────────────────── */

bool stream_reserve_dests(struct queue_stream *stream, uint32_t count)
{
	uint32_t capacity = stream->dest_capacity == 0 ? 64 : stream->dest_capacity;
	struct stream_dest *grown;

	if (count <= stream->dest_capacity)
		return true;
	while (capacity < count)
		capacity *= 2;
	grown = realloc(stream->dests, capacity * sizeof(*grown));
	if (grown == NULL)
		return false;
	for (uint32_t i = stream->dest_capacity; i < capacity; i++)
		grown[i] = (struct stream_dest){ .first = INDEX_NO_SLOT,
						 .last = INDEX_NO_SLOT,
						 .stayed = INDEX_NO_SLOT };
	stream->dests = grown;
	stream->dest_capacity = capacity;
	return true;
}

uint32_t stream_dest(struct queue_stream *stream, struct span domain)
{
	uint32_t dest = names_dest(&stream->names, domain);

	return dest == 0 || !stream_reserve_dests(stream, dest + 1) ? 0 : dest;
}

static void job_tell_ready(struct queue_stream *stream, uint32_t dest)
{
	struct stream_dest *list = &stream->dests[dest];

	if (list->told || stream->state != STREAM_RUNNING)
		return;
	list->told = true;
	stream->events->ready(stream->context, stream, dest);
}

static void job_push_ready(struct queue_stream *stream, uint32_t slot, bool front)
{
	uint32_t dest = index_job(&stream->index, slot)->dest;
	struct stream_dest *list = &stream->dests[dest];
	struct index_side *side = index_side(&stream->index, slot);

	assert(side->list == INDEX_NONE);
	side->list = INDEX_READY;
	side->previous = front ? list->stayed : list->last;
	side->next = side->previous != INDEX_NO_SLOT
			     ? index_side(&stream->index, side->previous)->next
			     : list->first;
	if (side->next != INDEX_NO_SLOT)
		index_side(&stream->index, side->next)->previous = slot;
	else
		list->last = slot;
	if (side->previous != INDEX_NO_SLOT)
		index_side(&stream->index, side->previous)->next = slot;
	else
		list->first = slot;
	list->count++;
	job_tell_ready(stream, dest);
}

static void job_remove_ready(struct queue_stream *stream, uint32_t slot)
{
	struct stream_dest *list = &stream->dests[index_job(&stream->index, slot)->dest];
	struct index_side *side = index_side(&stream->index, slot);

	assert(side->list == INDEX_READY && list->count > 0);
	if (list->stayed == slot)
		list->stayed = side->previous;
	if (side->next != INDEX_NO_SLOT)
		index_side(&stream->index, side->next)->previous = side->previous;
	else
		list->last = side->previous;
	if (side->previous != INDEX_NO_SLOT)
		index_side(&stream->index, side->previous)->next = side->next;
	else
		list->first = side->next;
	side->list = INDEX_NONE;
	side->next = side->previous = INDEX_NO_SLOT;
	list->count--;
}

void stream_move_due(struct queue_stream *stream, uint32_t count)
{
	uint32_t now_s = stream_now_s(stream);
	uint32_t slot;

	while (count-- > 0 && schedule_pop(&stream->schedule, now_s, &slot)) {
		assert(index_side(&stream->index, slot)->list == INDEX_SCHEDULED);
		index_side(&stream->index, slot)->list = INDEX_NONE;
		job_push_ready(stream, slot, false);
	}
}

/* ── the journal's side of a job ──────────────────────────────────────────────────── */

uint64_t stream_record(struct queue_stream *stream, uint32_t slot)
{
	const struct format_job *job = index_job(&stream->index, slot);
	struct index_side *side = index_side(&stream->index, slot);

	/* Read before the append: the record lands there or in a newer file. */
	side->journal = journal_sequence(&stream->journal);
	side->flagged = false;
	return journal_append(&stream->journal, job, 1);
}

void stream_record_accepted(struct queue_stream *stream, bool all)
{
	uint32_t now_ms = (uint32_t)(stream_mono(stream).ns / OS_NS_PER_MS);
	const struct mark_entry *entry;

	while ((entry = mark_first(&stream->mark)) != NULL) {
		const struct index_side *side = index_side(&stream->index, entry->slot);
		/* A slot that was freed, and perhaps used again, is not this entry's any more. */
		bool unrecorded = index_job(&stream->index, entry->slot)->state != 0 &&
				  side->journal == 0 && side->mark == stream->mark.head;

		if (unrecorded && !all && now_ms - entry->accepted_ms < JOB_ACCEPTED_MS)
			return;
		if (unrecorded)
			stream_record(stream, entry->slot);
		mark_pop(&stream->mark);
	}
}

/* ── from a message ───────────────────────────────────────────────────────────────── */

static void job_make(struct queue_stream *stream, struct queue_message *message,
		     const struct format_job *job, struct journal_place place, uint32_t count,
		     bool keep)
{
	uint32_t slot = index_take(&stream->index, job);
	struct index_side *side = index_side(&stream->index, slot);

	side->count = (uint8_t)count;
	side->mark = mark_push(&stream->mark, place, slot, stream_mono(stream));
	if (keep) {
		side->message = queue_message_ref(message);
	}
	if ((job->flags & FORMAT_JOB_BIG) != 0)
		big_use(&stream->big, job->message);
	job_push_ready(stream, slot, false);
}

void stream_derive(struct queue_stream *stream, struct queue_message *message,
		   const struct format_message *header, struct journal_place place, bool keep)
{
	struct segment *segment = stream->commit.segment;
	struct envelope_job_cursor cursor = { .rest = message->envelope };
	struct format_job job;

	while (envelope_next_job(&cursor)) {
		uint32_t dest = stream_dest(stream, cursor.domain);

		assert(dest != 0); /* it has been made when the message was staged */
		names_use(&stream->names, NAMES_DEST, dest);
		recover_first_state(header, (struct recovered_place){ place.segment, place.place },
				    cursor.first, cursor.count, dest, &job);
		segment->live++;
		segment->jobs++;
		job_make(stream, message, &job, place, cursor.count, keep);
	}
}

/* ── lending ──────────────────────────────────────────────────────────────────────── */

static struct queue_job *job_alloc(struct queue_stream *stream)
{
	struct list *node = list_pop_front(&stream->free_jobs);
	struct queue_job *job =
		node != NULL ? container_of(node, struct queue_job, loading) : malloc(sizeof(*job));

	if (job == NULL)
		return NULL;
	*job = (struct queue_job){ .stream = stream };
	list_init(&job->link);
	list_init(&job->loading);
	return job;
}

static bool job_is_expired(const struct queue_stream *stream, uint32_t slot)
{
	uint64_t run_s = (stream_mono(stream).ns - stream->began.ns) / OS_NS_PER_S;

	return stream_may_expire(stream) &&
	       index_job(&stream->index, slot)->expiry_s <= stream_now_s(stream) &&
	       (index_side(&stream->index, slot)->tried || run_s >= JOB_EXPIRED_UNTRIED_S);
}

/* A held job whose message can't be read any more ends at its expiry like any other, if there is
 * an envelope to report to; one without stays held, and each start tries it once. */
static bool job_is_lost(const struct queue_stream *stream, uint32_t slot)
{
	const struct format_job *state = index_job(&stream->index, slot);
	const struct index_side *side = index_side(&stream->index, slot);

	return state->state != 0 && side->list == INDEX_NONE && !side->given_up &&
	       (state->flags & FORMAT_JOB_DAMAGED) != 0 && stream_may_expire(stream) &&
	       state->expiry_s <= stream_now_s(stream);
}

static void job_free(struct queue_stream *stream, struct queue_job *job)
{
	assert(!list_linked(&job->link) && stream->lent > 0);
	stream->lent--;
	queue_message_unref(job->message);
	list_push_front(&stream->free_jobs, &job->loading);
}

/* The slot is in its ready list, or held. NULL: no memory, and it stays there. */
static struct queue_job *job_lend(struct queue_stream *stream, uint32_t slot)
{
	const struct format_job *state = index_job(&stream->index, slot);
	struct index_side *side = index_side(&stream->index, slot);
	struct load *load = side->message == NULL ? load_create() : NULL;
	bool lost = job_is_lost(stream, slot);
	struct queue_job *job;

	if (side->message == NULL && load == NULL)
		return NULL;
	job = job_alloc(stream);
	if (job == NULL) {
		free(load);
		return NULL;
	}
	if (side->list == INDEX_READY)
		job_remove_ready(stream, slot);
	side->list = INDEX_LENT;
	stream->lent++;
	job->slot = slot;
	job->message_id = state->message;
	job->pending = state->pending;
	job->dest = state->dest;
	job->expiry_s = state->expiry_s;
	job->due_s = state->due_s;
	job->first = state->first;
	job->count = side->count;
	job->attempts = state->attempts;
	job->flags = state->flags;
	job->expired = job_is_expired(stream, slot) || lost;
	job->suspect = side->suspect;
	job->reply = state->reply;
	job->enhanced = state->enhanced;
	job->message = side->message;
	side->message = NULL;
	if (load != NULL)
		load_start(stream, job, load);
	return job;
}

struct queue_job *queue_take(struct queue_stream *stream, uint32_t dest)
{
	struct stream_dest *list = &stream->dests[dest];

	assert(dest > 0 && dest < stream->dest_capacity);
	if (stream->state != STREAM_RUNNING || list->first == INDEX_NO_SLOT) {
		list->told = false;
		return NULL;
	}
	struct queue_job *job = job_lend(stream, list->first);

	if (job == NULL)
		queue_tell_again(stream, dest);
	return job;
}

void queue_tell_again(struct queue_stream *stream, uint32_t dest)
{
	stream->dests[dest].told = false;
	stream->untold = true;
}

void stream_tell_untold(struct queue_stream *stream)
{
	if (!stream->untold)
		return;
	stream->untold = false;
	for (uint32_t dest = 1; dest < stream->dest_capacity; dest++)
		if (stream->dests[dest].first != INDEX_NO_SLOT)
			job_tell_ready(stream, dest);
}

struct queue_job *queue_take_expired(struct queue_stream *stream)
{
	if (stream->state != STREAM_RUNNING || stream_mono(stream).ns < stream->expired_pause.ns)
		return NULL;
	for (uint32_t i = 0; i < JOB_EXPIRED_LOOK; i++) {
		uint32_t slot = stream->expired_cursor++;

		if (slot >= stream->index.used) {
			stream->expired_cursor = 0;
			stream->expired_pause =
				os_mono_add_ms(stream_mono(stream), JOB_EXPIRED_PAUSE_MS);
			return NULL;
		}
		if ((index_side(&stream->index, slot)->list == INDEX_READY &&
		     job_is_expired(stream, slot)) ||
		    job_is_lost(stream, slot))
			return job_lend(stream, slot);
	}
	return NULL;
}

/* ── settling ─────────────────────────────────────────────────────────────────────── */

/* Which of the final states is shown for a job whose last recipients end with `verdict`. */
static enum format_state job_final_state(const struct queue_verdict *verdict)
{
	if (verdict->failed != 0)
		return FORMAT_BOUNCED;
	if (verdict->delivered != 0)
		return FORMAT_DELIVERED;
	return verdict->removed != 0 ? FORMAT_REMOVED : FORMAT_DISCARDED;
}

static void job_set_text(struct queue_stream *stream, struct format_job *state, uint32_t text)
{
	names_use(&stream->names, NAMES_TEXT, text);
	names_drop(&stream->names, NAMES_TEXT, state->text);
	state->text = text;
}

static void job_apply(struct queue_stream *stream, struct format_job *state,
		      const struct queue_verdict *verdict)
{
	uint64_t settled =
		verdict->delivered | verdict->failed | verdict->discarded | verdict->removed;
	uint32_t text =
		names_text(&stream->names, verdict->host, verdict->text, verdict->reply == 0);

	assert((settled & ~state->pending) == 0);
	assert((verdict->delivered & verdict->failed) == 0 &&
	       (verdict->discarded & verdict->removed) == 0);
	state->pending &= ~settled;
	state->version++;
	if (state->pending == 0)
		state->state = (uint8_t)job_final_state(verdict);
	else
		state->due_s = verdict->due_s;
	if (verdict->attempted && state->attempts < UINT16_MAX)
		state->attempts++;
	/* Both stay to the end: whatever is sent later may be a second copy. */
	if (verdict->in_doubt)
		state->flags |= FORMAT_JOB_IN_DOUBT;
	if (verdict->warned)
		state->flags |= FORMAT_JOB_WARNED;
	if (verdict->reply != 0) {
		state->reply = verdict->reply;
		state->enhanced = verdict->enhanced;
	}
	if (verdict->reply != 0 || text != 0)
		job_set_text(stream, state, text);
}

static void job_leave_segment(struct queue_stream *stream, struct segment *segment, uint64_t number)
{
	assert(segment->live > 0);
	segment->live--;
	segment->journal_number = number;
	if (segment->live == 0)
		stream->reclaim.look = true;
}

static void job_finish(struct queue_stream *stream, uint32_t slot, const struct format_job *state)
{
	struct segment *segment = segments_find(&stream->segments, state->segment);
	struct journal_place place = { 0 };
	uint64_t number;

	if (segment != NULL && segment->kind == FORMAT_HOT)
		place = (struct journal_place){ state->segment, state->place };
	number = journal_append_done(&stream->journal, state, place);
	if (segment != NULL) /* recovery may have found a job without its file */
		job_leave_segment(stream, segment, number);
	if ((state->flags & FORMAT_JOB_BIG) != 0)
		big_drop(&stream->big, state->message, number);
	names_drop(&stream->names, NAMES_DEST, state->dest);
	names_drop(&stream->names, NAMES_TEXT, state->text);
	index_release(&stream->index, slot);
}

/* Until it is due; a message that can't be read is held until it expires. */
static void job_wait(struct queue_stream *stream, uint32_t slot, struct format_job *state)
{
	struct index_side *side = index_side(&stream->index, slot);

	side->tried = true;
	if ((state->flags & FORMAT_JOB_DAMAGED) != 0)
		state->flags |= FORMAT_JOB_HELD;
	index_store(&stream->index, slot, state);
	stream_record(stream, slot);
	if ((state->flags & FORMAT_JOB_HELD) != 0)
		return;
	side->list = INDEX_SCHEDULED;
	schedule_push(&stream->schedule, state->due_s, slot);
}

void queue_settle(struct queue_stream *stream, struct queue_job *job,
		  const struct queue_verdict *verdict)
{
	struct index_side *side = index_side(&stream->index, job->slot);
	struct format_job state = *index_job(&stream->index, job->slot);

	assert(job->stream == stream && side->list == INDEX_LENT);
	assert(state.message == job->message_id && state.pending == job->pending);
	assert(!load_is_running(job));
	state.flags |= job->flags & FORMAT_JOB_DAMAGED;
	job_apply(stream, &state, verdict);
	side->list = INDEX_NONE;
	side->suspect = job->suspect;
	if (state.pending == 0) {
		job_finish(stream, job->slot, &state);
	} else {
		side->given_up = job->expired && job->message == NULL &&
				 (state.flags & FORMAT_JOB_DAMAGED) != 0;
		job_wait(stream, job->slot, &state);
	}
	job_free(stream, job);
}

void queue_return(struct queue_stream *stream, struct queue_job *job)
{
	struct index_side *side = index_side(&stream->index, job->slot);

	assert(job->stream == stream && side->list == INDEX_LENT && !load_is_running(job));
	side->list = INDEX_NONE;
	side->count = (uint8_t)job->count;
	side->suspect = job->suspect;
	if (stream->body_memory <= stream->options.body_memory_bytes &&
	    (job->flags & FORMAT_JOB_DAMAGED) == 0) {
		side->message = job->message;
		job->message = NULL;
	}
	if ((index_job(&stream->index, job->slot)->flags & FORMAT_JOB_HELD) == 0)
		job_push_ready(stream, job->slot, true);
	job_free(stream, job);
}

/* ── deferring ────────────────────────────────────────────────────────────────────── */

/* The reason is the same for all of them, so it is looked up once. */
static void job_defer(struct queue_stream *stream, uint32_t slot,
		      const struct queue_verdict *verdict, uint32_t text)
{
	struct index_side *side = index_side(&stream->index, slot);
	struct format_job state = *index_job(&stream->index, slot);

	state.version++;
	/* Due at its expiry, unless that is behind it and nobody believes the clock. */
	state.due_s = verdict->due_s > state.expiry_s && state.expiry_s >= stream_now_s(stream)
			      ? state.expiry_s + 1
			      : verdict->due_s;
	state.reply = verdict->reply;
	state.enhanced = verdict->enhanced;
	job_set_text(stream, &state, text);
	job_remove_ready(stream, slot);
	queue_message_unref(side->message);
	side->message = NULL;
	side->list = INDEX_SCHEDULED;
	index_store(&stream->index, slot, &state);
	stream_record(stream, slot);
	schedule_push(&stream->schedule, state.due_s, slot);
}

/* Somebody has to be told before it waits any longer. */
static bool job_stays(const struct queue_stream *stream, uint32_t slot, uint32_t warn_expiry_s)
{
	const struct format_job *state = index_job(&stream->index, slot);

	return job_is_expired(stream, slot) ||
	       ((state->flags & FORMAT_JOB_WARNED) == 0 && state->expiry_s <= warn_expiry_s);
}

/* The first that queue_defer() has not looked at. */
static uint32_t job_first_unseen(const struct queue_stream *stream, const struct stream_dest *list)
{
	return list->stayed == INDEX_NO_SLOT ? list->first
					     : index_side(&stream->index, list->stayed)->next;
}

uint32_t queue_defer(struct queue_stream *stream, uint32_t dest, uint32_t max,
		     uint32_t warn_expiry_s, const struct queue_verdict *verdict, bool *more_out)
{
	struct stream_dest *list = &stream->dests[dest];
	uint32_t text =
		names_text(&stream->names, verdict->host, verdict->text, verdict->reply == 0);
	uint32_t deferred = 0, slot;

	assert(dest > 0 && dest < stream->dest_capacity && stream->state == STREAM_RUNNING);
	assert(!verdict->attempted && !verdict->warned && !verdict->in_doubt);
	while (max-- > 0 && (slot = job_first_unseen(stream, list)) != INDEX_NO_SLOT) {
		index_side(&stream->index, slot)->tried = true;
		if (job_stays(stream, slot, warn_expiry_s)) {
			list->stayed = slot;
			continue;
		}
		job_defer(stream, slot, verdict, text);
		deferred++;
	}
	*more_out = job_first_unseen(stream, list) != INDEX_NO_SLOT;
	if (list->count == 0)
		list->told = false;
	return deferred;
}

void queue_job_reply(const struct queue_job *job, struct span *host_out, struct span *text_out)
{
	const struct queue_stream *stream = job->stream;
	uint32_t id = index_job(&stream->index, job->slot)->text;

	*host_out = *text_out = (struct span){ 0 };
	if (id != 0)
		names_split(names_get(&stream->names, NAMES_TEXT, id), host_out, text_out);
}

/* ── domains ──────────────────────────────────────────────────────────────────────── */

struct span queue_dest_name(const struct queue_stream *stream, uint32_t dest)
{
	return names_get(&stream->names, NAMES_DEST, dest);
}

uint32_t queue_dest_ready(const struct queue_stream *stream, uint32_t dest)
{
	assert(dest < stream->dest_capacity);
	return stream->dests[dest].count;
}
