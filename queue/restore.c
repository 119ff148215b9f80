/* A stream as recovery found it. */
#include <errno.h>
#include <stdlib.h>

#include "queue/stream.h"

enum {
	RESTORE_BURST = 10000,	/* overdue jobs that become ready at once, and each second */
	RESTORE_SPREAD_S = 300, /* over so long at most */
};

static int restore_open(struct queue_stream *stream, enum pool_folder folder, uint32_t sequence,
			uint64_t bytes, struct tape_file **out)
{
	struct tape_file *tape = calloc(1, sizeof(*tape));
	char name[POOL_NAME_BYTES];

	if (tape == NULL)
		return -ENOMEM;
	pool_file_name(sequence, name);
	tape->file.fd =
		os_file_open(stream->pool->folders[folder], name,
			     OS_READ | OS_WRITE | (stream->pool->direct ? OS_DIRECT : 0), 0);
	if (tape->file.fd < 0) {
		int error = tape->file.fd;

		free(tape);
		return error;
	}
	tape->file.sequence = sequence;
	tape->file.bytes = bytes;
	*out = tape;
	return 0;
}

static bool restore_is_usual(const struct queue_stream *stream, enum format_kind kind,
			     uint64_t bytes, bool damaged)
{
	return !damaged && bytes == pool_kind_bytes(stream->pool, kind);
}

/* Taken ahead and never written to: nothing is lost with it. */
static int restore_recycle(struct queue_stream *stream, enum format_kind kind,
			   struct tape_file *tape)
{
	int error = pool_recycle_now(stream->pool, kind, &tape->file);

	if (tape->file.fd >= 0)
		os_file_close(tape->file.fd);
	free(tape);
	return error;
}

static int restore_segments(struct queue_stream *stream, const struct recovered *recovered)
{
	for (size_t i = 0; i < recovered->segment_count; i++) {
		const struct recovered_segment *found = &recovered->segments[i];
		struct segment *segment;
		struct tape_file *tape;
		int error =
			restore_open(stream, POOL_SEGMENTS, found->sequence, found->bytes, &tape);

		if (error != 0)
			return error;
		if (found->scanned && found->end_pages <= 1 && found->live == 0 &&
		    restore_is_usual(stream, FORMAT_HOT, found->bytes, found->damaged)) {
			error = restore_recycle(stream, FORMAT_HOT, tape);
			if (error != 0)
				return error;
			continue;
		}
		if (!segments_reserve(&stream->segments)) {
			os_file_close(tape->file.fd);
			free(tape);
			return -ENOMEM;
		}
		tape->end_pages = found->end_pages != 0
					  ? found->end_pages
					  : (uint32_t)(found->bytes / FORMAT_PAGE_BYTES);
		tape->damaged = found->damaged;
		segment = segments_add(&stream->segments, tape, found->kind);
		segment->recovered = true;
		if (found->kind == FORMAT_HOT && found->end_pages > 1) {
			stream->commit.tape.previous_sequence = found->sequence;
			stream->commit.tape.previous_end = found->end_pages;
		}
	}
	return 0;
}

static int restore_journals(struct queue_stream *stream, const struct recovered *recovered)
{
	for (size_t i = 0; i < recovered->journal_count; i++) {
		const struct recovered_journal *found = &recovered->journals[i];
		struct journal_place done = { 0 };
		struct tape_file *tape;
		int error =
			restore_open(stream, POOL_JOURNALS, found->sequence, found->bytes, &tape);

		if (error != 0)
			return error;
		if (found->end_pages <= 1 && found->current == 0 &&
		    restore_is_usual(stream, FORMAT_JOURNAL, found->bytes, found->damaged)) {
			error = restore_recycle(stream, FORMAT_JOURNAL, tape);
			if (error != 0)
				return error;
			continue;
		}
		if (!journal_reserve_file(&stream->journal)) {
			os_file_close(tape->file.fd);
			free(tape);
			return -ENOMEM;
		}
		tape->end_pages = found->end_pages;
		tape->damaged = found->damaged;
		if (found->has_done)
			done = (struct journal_place){ found->done.segment, found->done.place };
		journal_adopt(&stream->journal, tape, done);
		if (found->end_pages > 1 && !found->owner_guessed) {
			stream->journal.tape.previous_sequence = found->sequence;
			stream->journal.tape.previous_end = found->end_pages;
		}
	}
	return 0;
}

static bool restore_names(struct queue_stream *stream, const struct recovered *recovered)
{
	for (size_t i = 0; i < recovered->name_count; i++) {
		const struct recovered_name *name = &recovered->names[i];
		bool good = true;

		if (name->type == FORMAT_DEST)
			good = names_restore(&stream->names, NAMES_DEST, name->id, name->text,
					     name->journal);
		else if (name->type == FORMAT_TEXT)
			good = names_restore(&stream->names, NAMES_TEXT, name->id, name->text,
					     name->journal);
		if (!good)
			return false;
	}
	return names_set_next(&stream->names, NAMES_DEST, recovered->next_name[FORMAT_DEST]) &&
	       names_set_next(&stream->names, NAMES_TEXT, recovered->next_name[FORMAT_TEXT]) &&
	       stream_reserve_dests(stream, recovered->next_name[FORMAT_DEST] + 1);
}

/* A number that no record defines any more: the jobs under it are still to be delivered. */
static bool restore_lost_names(struct queue_stream *stream, struct format_job *job)
{
	if (!names_has(&stream->names, NAMES_TEXT, job->text))
		job->text = 0;
	return names_has(&stream->names, NAMES_DEST, job->dest) ||
	       (names_restore(&stream->names, NAMES_DEST, job->dest, span_text("invalid"), 0) &&
		stream_reserve_dests(stream, job->dest + 1));
}

/* A report found without its consequence: R8 is completed here, before START. */
static void restore_final(struct queue_stream *stream, const struct format_job *job)
{
	const struct segment *segment = segments_find(&stream->segments, job->segment);
	struct journal_place place = { 0 };

	if (segment != NULL && segment->kind == FORMAT_HOT)
		place = (struct journal_place){ job->segment, job->place };
	journal_append_done(&stream->journal, job, place);
}

/* Overdue jobs are spread over time rather than fired at once. */
static uint32_t restore_due(const struct format_job *job, uint32_t now_s, uint32_t *overdue)
{
	uint32_t late;

	if (job->due_s > now_s)
		return job->due_s;
	late = (*overdue)++ / RESTORE_BURST;
	return now_s + (late < RESTORE_SPREAD_S ? late : late % RESTORE_SPREAD_S);
}

static bool restore_waiting(struct queue_stream *stream, const struct recovered_job *found,
			    uint32_t now_s, uint32_t *overdue)
{
	struct format_job job = found->job;
	struct segment *segment = segments_find(&stream->segments, job.segment);
	struct index_side *side;
	uint32_t slot;

	if (!restore_lost_names(stream, &job))
		return false;
	if ((job.flags & FORMAT_JOB_BIG) != 0 && !big_knows(&stream->big, job.message) &&
	    !big_reserve(&stream->big))
		return false;
	if (found->flagged)
		job.version++;
	names_use(&stream->names, NAMES_DEST, job.dest);
	names_use(&stream->names, NAMES_TEXT, job.text);
	slot = index_take(&stream->index, &job);
	side = index_side(&stream->index, slot);
	side->journal = found->journal;
	side->flagged = found->flagged;
	if (segment != NULL)
		segment->live++;
	if ((job.flags & FORMAT_JOB_BIG) != 0)
		big_use(&stream->big, job.message);
	if (found->unrecorded || found->journal == 0)
		stream_record(stream, slot);
	if ((job.flags & FORMAT_JOB_HELD) == 0) {
		side->list = INDEX_SCHEDULED;
		schedule_push(&stream->schedule, restore_due(&job, now_s, overdue), slot);
	}
	return true;
}

int stream_restore(struct queue_stream *stream, const struct recovered *recovered, uint32_t now_s)
{
	uint32_t count = (uint32_t)recovered->job_count, overdue = 0;
	int error = restore_segments(stream, recovered);

	if (error == 0)
		error = restore_journals(stream, recovered);
	if (error != 0)
		return error;
	if (!restore_names(stream, recovered) || !index_reserve(&stream->index, count) ||
	    !schedule_reserve(&stream->schedule, count))
		return -ENOMEM;
	stream->restored_end =
		(struct journal_place){ recovered->end.segment, recovered->end.place };
	for (size_t i = 0; i < recovered->job_count; i++) {
		const struct recovered_job *found = &recovered->jobs[i];

		if (found->job.state == FORMAT_WAITING) {
			if (!restore_waiting(stream, found, now_s, &overdue))
				return -ENOMEM;
		} else {
			index_unreserve(&stream->index, 1);
			restore_final(stream, &found->job);
		}
	}
	return 0;
}
