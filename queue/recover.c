/* One stream, from its files to the decision about each job. */
#include "queue/recover.h"

#include <stdio.h>
#include <stdlib.h>

#include "os/check.h"
#include "os/os.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "queue/recover_private.h"

/* ── found state -> decision; README.md, "Found states" ───────────────────────────── */

#define ANY_MESSAGE                                                                                \
	(FOUND_UNSEEN | FOUND_SOUND | FOUND_BODY_DAMAGED | FOUND_ENVELOPE_DAMAGED |                \
	 FOUND_NO_SEGMENT)
#define ANY_JOURNAL (FOUND_JOURNAL_SOUND | FOUND_JOURNAL_DAMAGED)

/* The first row that fits. */
static const struct {
	unsigned record, message, journal;
	enum recover_decision decision;
} job_decisions[] = {
	/* newest record, its message, the stream's journal, decision */
	{ FOUND_FINAL, ANY_MESSAGE, ANY_JOURNAL, DECIDE_SETTLED },
	{ FOUND_NO_RECORD, FOUND_SOUND, FOUND_JOURNAL_SOUND, DECIDE_MAKE },
	{ FOUND_NO_RECORD, FOUND_SOUND, FOUND_JOURNAL_DAMAGED, DECIDE_MAKE_IN_DOUBT },
	{ FOUND_NO_RECORD, FOUND_BODY_DAMAGED, ANY_JOURNAL, DECIDE_MAKE_DAMAGED },
	{ FOUND_NO_RECORD, FOUND_ENVELOPE_DAMAGED, ANY_JOURNAL, DECIDE_QUARANTINE },
	/* Before MARK every job has a record, unless it was settled and cleaned away. */
	{ FOUND_NO_RECORD, FOUND_UNSEEN | FOUND_NO_SEGMENT, ANY_JOURNAL, DECIDE_SETTLED },
	{ FOUND_WAITING, FOUND_BODY_DAMAGED | FOUND_ENVELOPE_DAMAGED | FOUND_NO_SEGMENT,
	  ANY_JOURNAL, DECIDE_KEEP_DAMAGED },
	{ FOUND_WAITING, FOUND_UNSEEN | FOUND_SOUND, FOUND_JOURNAL_SOUND, DECIDE_KEEP },
	{ FOUND_WAITING, FOUND_UNSEEN | FOUND_SOUND, FOUND_JOURNAL_DAMAGED, DECIDE_KEEP_DUPLICATE },
};

/* What a decision does to the job's flags. */
static const uint16_t decision_flags[] = {
	[DECIDE_MAKE] = 0,
	[DECIDE_MAKE_IN_DOUBT] = FORMAT_JOB_HELD | FORMAT_JOB_IN_DOUBT,
	[DECIDE_MAKE_DAMAGED] = FORMAT_JOB_HELD | FORMAT_JOB_DAMAGED,
	[DECIDE_KEEP] = 0,
	[DECIDE_KEEP_DUPLICATE] = FORMAT_JOB_MAYBE_DUPLICATE,
	[DECIDE_KEEP_DAMAGED] = FORMAT_JOB_HELD | FORMAT_JOB_DAMAGED,
};

uint16_t recover_decision_flags(enum recover_decision decision)
{
	return decision_flags[decision];
}

enum recover_decision recover_decide(enum found_record record, enum found_message message,
				     enum found_journal journal)
{
	for (size_t i = 0; i < array_count(job_decisions); i++)
		if (job_decisions[i].record & record && job_decisions[i].message & message &&
		    job_decisions[i].journal & journal)
			return job_decisions[i].decision;
	assert(false); /* the table knows every state */
	return DECIDE_KEEP;
}

/* ── the work ─────────────────────────────────────────────────────────────────────── */

/* The state is no longer what the journals say. */
void recover_change(struct recovered_job *job)
{
	job->job.version += !job->unrecorded;
	job->unrecorded = true;
}

enum found_journal recover_journal_state(const struct recover_work *work)
{
	return work->out->journal_damaged ? FOUND_JOURNAL_DAMAGED : FOUND_JOURNAL_SOUND;
}

bool recover_list_extend(struct recover_work *work, void *array, size_t count, size_t *size,
			 size_t element_bytes)
{
	void **at = array;
	size_t wanted = *size ? *size * 2 : 64;

	if (count < *size)
		return true;
	void *larger = realloc(*at, wanted * element_bytes);

	if (!larger) {
		work->status = RECOVER_NO_MEMORY;
		return false;
	}
	*at = larger;
	*size = wanted;
	return true;
}

/* ── the end: a decision about each job ───────────────────────────────────────────── */

static int compare_damaged(const void *a, const void *b)
{
	const struct recover_damaged *left = a, *right = b;

	if (recovered_before(left->place, right->place))
		return -1;
	return recovered_before(right->place, left->place);
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* Sorts what the decisions look things up in. */
static void prepare_lookups(struct recover_work *work)
{
	const struct replay *replay = &work->replay;

	if (work->damaged_count > 0)
		qsort(work->damaged, work->damaged_count, sizeof(*work->damaged), compare_damaged);
	work->defined = malloc((replay->name_count + 1) * sizeof(*work->defined));
	if (!work->defined) {
		work->status = RECOVER_NO_MEMORY;
		return;
	}
	for (size_t i = 0; i < replay->name_count; i++)
		if (replay->names[i].journal != 0)
			work->defined[work->defined_count++] =
				(uint64_t)replay->names[i].type << 32 | replay->names[i].id;
	qsort(work->defined, work->defined_count, sizeof(*work->defined), compare_u64);
}

static bool is_defined(const struct recover_work *work, uint8_t type, uint32_t id)
{
	uint64_t key = (uint64_t)type << 32 | id;

	return bsearch(&key, work->defined, work->defined_count, sizeof(key), compare_u64) != NULL;
}

static enum found_message message_state(struct recover_work *work, const struct format_job *job)
{
	const struct recovered_segment *segment = recover_find_segment(work, job->segment);
	struct recover_damaged key = { .place = { job->segment, job->place } }, *damaged = NULL;

	if (!segment || (uint64_t)job->place * FORMAT_RECORD_ALIGN >= segment->bytes)
		return FOUND_NO_SEGMENT;
	if (work->damaged_count > 0)
		damaged = bsearch(&key, work->damaged, work->damaged_count, sizeof(key),
				  compare_damaged);
	return damaged ? damaged->found : FOUND_UNSEEN;
}

static struct recovered_journal *find_journal(struct recovered *out, uint32_t sequence)
{
	for (size_t i = out->journal_count; i > 0; i--)
		if (out->journals[i - 1].sequence == sequence)
			return &out->journals[i - 1];
	return NULL;
}

/* The domain of a job whose DEST record is lost, from its message; false: it can't be read. */
static bool lost_domain(struct recover_work *work, const struct format_job *job,
			struct span *domain_out)
{
	struct envelope_job_cursor cursor = { 0 };
	enum reader_status status = READER_NO_MEMORY;
	struct reader_message message;

	if (!work->reader)
		work->reader = reader_create(work->spool->seg, work->spool->big);
	if (work->reader)
		status = reader_message(work->reader, job->message, job->segment, job->place,
					&message);
	if (status == READER_NO_MEMORY)
		work->status = RECOVER_NO_MEMORY;
	if (status == READER_OK)
		cursor.rest = message.envelope;
	while (envelope_next_job(&cursor))
		if (cursor.first == job->first) {
			*domain_out = cursor.domain;
			return true;
		}
	return false;
}

/* It must not be tried: it would fail for having no domain, which it has. */
static void hold_without_domain(struct recover_work *work, struct recovered_job *job)
{
	char id[QUEUE_ID_TEXT_BYTES];

	if (job->job.flags & FORMAT_JOB_DAMAGED)
		return; /* which was told */
	queue_id_text(job->job.message, id);
	work->out->damaged = true;
	recover_problem(&work->out->problems, RECOVERED_MESSAGE_DAMAGE,
			"message %s can't be read at seg/%08x byte %llu, and its domain stands "
			"nowhere else; its recipients are held",
			id, job->job.segment,
			(unsigned long long)job->job.place * FORMAT_RECORD_ALIGN);
	job->job.flags |= recover_decision_flags(DECIDE_KEEP_DAMAGED);
}

/* Names that the job refers to and that no journal defines: damage took them, or they are those of
 * another stream. */
static void mend_names(struct recover_work *work, struct recovered_job *job)
{
	const struct recovered_journal *journal =
		work->spool->streams_damaged ? find_journal(work->out, job->journal) : NULL;
	bool foreign = journal && journal->owner_guessed;
	struct span domain = span_text("");

	if (job->job.text != 0 && (foreign || !is_defined(work, FORMAT_TEXT, job->job.text)))
		job->job.text = 0;
	if (job->job.class_id != 0 &&
	    (foreign || !is_defined(work, FORMAT_CLASS, job->job.class_id)))
		job->job.class_id = 0;
	if (job->journal == 0 || (!foreign && is_defined(work, FORMAT_DEST, job->job.dest)))
		return;
	if (!lost_domain(work, &job->job, &domain))
		hold_without_domain(work, job);
	job->job.dest = recover_domain_id(&work->domains, &work->replay, domain,
					  &work->out->next_name[FORMAT_DEST]);
	if (job->job.dest == 0)
		work->status = RECOVER_NO_MEMORY;
	recover_change(job);
}

static void decide_waiting(struct recover_work *work, struct recovered_job *job)
{
	enum found_message message = message_state(work, &job->job);
	enum recover_decision decision =
		recover_decide(FOUND_WAITING, message, recover_journal_state(work));
	uint16_t flags = job->job.flags | recover_decision_flags(decision);

	if (message == FOUND_NO_SEGMENT) {
		char id[QUEUE_ID_TEXT_BYTES];

		queue_id_text(job->job.message, id);
		work->out->damaged = true;
		recover_problem(&work->out->problems, RECOVERED_LOST_MESSAGE,
				"message %s should be at seg/%08x byte %llu, which is not "
				"there; its recipients are held",
				id, job->job.segment,
				(unsigned long long)job->job.place * FORMAT_RECORD_ALIGN);
	}
	if (flags == job->job.flags)
		return;
	job->job.flags = flags;
	if (decision == DECIDE_KEEP_DUPLICATE)
		job->flagged = true;
	else
		recover_change(job);
}

/* The latest time that the stream is known to have seen. */
static uint64_t last_seen_s(const struct recover_work *work)
{
	int64_t super_us = work->spool->super.wall_us;
	uint64_t marked_us = work->replay.wall_us;
	uint64_t last_s =
		(super_us > (int64_t)marked_us ? (uint64_t)super_us : marked_us) / OS_US_PER_S;

	for (size_t i = 0; i < work->replay.job_count; i++) {
		const struct recovered_job *job = &work->replay.jobs[i];

		/* Due when it was taken. */
		if (job->journal == 0 && job->job.due_s > last_s)
			last_s = job->job.due_s;
	}
	return last_s;
}

/* Until when jobs were tried. The clock may be behind: it was set back, or is wrong since the power
 * came back. How late it was is known but for the time in which MARK is not repeated. */
static uint64_t last_tried_s(const struct recover_work *work)
{
	uint64_t last_s = last_seen_s(work);

	return work->options->now_s < last_s ? last_s + FORMAT_MARK_REPEATED_S
					     : work->options->now_s;
}

/* After an unclean stop the outcome of whatever could be under way may be lost. */
static void suspect(struct recovered_job *job, uint64_t tried_s)
{
	if (job->job.flags & FORMAT_JOB_MAYBE_DUPLICATE || job->job.due_s > tried_s)
		return;
	job->job.flags |= FORMAT_JOB_MAYBE_DUPLICATE;
	job->flagged = true;
}

static void count_final(struct recover_work *work, const struct recovered_job *job)
{
	const struct recovered_segment *segment = recover_find_segment(work, job->job.segment);
	struct recovered_journal *journal = find_journal(work->out, job->journal);
	struct recovered_place place = { job->job.segment, job->job.place };

	work->out->finals++;
	if (!journal || job->unrecorded)
		return;
	/* One whose segment is recycled, or that lies in a COLD one, was covered by MARK before. */
	if (!segment || segment->kind != FORMAT_HOT)
		return;
	journal->has_done = true;
	if (recovered_before(journal->done, place))
		journal->done = place;
}

static void count_waiting(struct recover_work *work, const struct recovered_job *job)
{
	struct recovered_segment *segment = recover_find_segment(work, job->job.segment);
	struct recovered_journal *journal = find_journal(work->out, job->journal);

	if (segment)
		segment->live++;
	if (journal)
		journal->current++;
}

static int compare_jobs(const void *a, const void *b)
{
	const struct format_job *left = &((const struct recovered_job *)a)->job;
	const struct format_job *right = &((const struct recovered_job *)b)->job;

	if (left->segment != right->segment)
		return left->segment < right->segment ? -1 : 1;
	if (left->place != right->place)
		return left->place < right->place ? -1 : 1;
	return (int)left->first - (int)right->first;
}

static void sort_jobs(struct recovered *out)
{
	for (size_t i = 1; i < out->job_count; i++)
		if (compare_jobs(&out->jobs[i - 1], &out->jobs[i]) > 0) {
			qsort(out->jobs, out->job_count, sizeof(*out->jobs), compare_jobs);
			return;
		}
}

/* Decides, counts, and leaves in out->jobs what the daemon has to know. */
static void decide_jobs(struct recover_work *work)
{
	struct replay *replay = &work->replay;
	struct recovered *out = work->out;
	bool unclean = !work->spool->super.clean && !work->options->running;
	uint64_t tried_s = unclean ? last_tried_s(work) : 0;
	size_t kept = 0;

	for (size_t i = 0; work->status == RECOVER_OK && i < replay->job_count; i++) {
		struct recovered_job *job = &replay->jobs[i];

		if (job->job.state == FORMAT_WAITING) {
			if (job->journal != 0)
				decide_waiting(work, job);
			mend_names(work, job);
			if (unclean)
				suspect(job, tried_s);
			job->flagged &= !job->unrecorded;
			count_waiting(work, job);
		} else {
			count_final(work, job);
			if (!job->unrecorded)
				continue;
		}
		replay->jobs[kept++] = *job;
	}
	out->jobs = replay->jobs;
	out->job_count = kept;
	replay->jobs = NULL;
	sort_jobs(out);
}

static void finish(struct recover_work *work)
{
	struct recovered *out = work->out;

	for (size_t i = 0; i < work->report_count; i++)
		recover_complete_report(work, &work->reports[i]);
	prepare_lookups(work);
	if (work->status == RECOVER_OK)
		decide_jobs(work);
	if (work->status == RECOVER_OK && !recover_names_take(&work->replay, out))
		work->status = RECOVER_NO_MEMORY;
	for (size_t i = 0; i < out->name_count; i++) {
		struct recovered_journal *journal = find_journal(out, out->names[i].journal);

		if (journal)
			journal->current++;
	}
}

/* ── the stream ───────────────────────────────────────────────────────────────────── */

static void work_release(struct recover_work *work)
{
	replay_deinit(&work->replay);
	scan_deinit(&work->scan);
	recover_domains_deinit(&work->domains);
	reader_destroy(work->reader);
	free(work->reports);
	free(work->damaged);
	free(work->defined);
}

enum recover_status recover_stream(const struct recovered_spool *spool, uint16_t stream,
				   const struct recover_options *options, struct recovered *out)
{
	struct recover_work work = { .spool = spool, .options = options, .out = out };

	*out = (struct recovered){ .stream = stream };
	if (!scan_init(&work.scan) || !recover_collect_files(&work))
		work.status = RECOVER_NO_MEMORY;
	if (work.status == RECOVER_OK)
		recover_replay_journals(&work);
	if (work.status == RECOVER_OK) {
		recover_note_references(&work);
		recover_scan_segments(&work);
	}
	if (work.status == RECOVER_OK)
		finish(&work);
	if (work.replay.no_memory || work.status == RECOVER_NO_MEMORY) {
		work.status = RECOVER_NO_MEMORY;
		snprintf(out->error, sizeof(out->error), "no memory to recover stream %u", stream);
	}
	work_release(&work);
	return work.status;
}

void recovered_release(struct recovered *recovered)
{
	free(recovered->jobs);
	free(recovered->segments);
	free(recovered->journals);
	free(recovered->names);
	free(recovered->origins);
	free(recovered->problems.list);
	free(recovered->arena);
	*recovered = (struct recovered){ .stream = recovered->stream };
}
