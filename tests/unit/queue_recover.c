/*
 * Recovery: real bytes in, jobs out. The table of found states is walked row by row.
 */
#include "queue/recover.h"

#include <time.h>

#include "queue/recover_private.h"
#include "tests/unit/queue_scene.h"
#include "tests/unit/read_refuse.h"

/* ── the table ────────────────────────────────────────────────────────────────────── */

struct decision_case {
	const char *name;
	enum found_record record;
	enum found_message message;
	enum found_journal journal;
	enum recover_decision decision;
};

static const struct decision_case decisions[] = {
	{ "a settled job needs nothing", FOUND_FINAL, FOUND_SOUND, FOUND_JOURNAL_SOUND,
	  DECIDE_SETTLED },
	{ "a settled job needs nothing, its segment gone", FOUND_FINAL, FOUND_NO_SEGMENT,
	  FOUND_JOURNAL_SOUND, DECIDE_SETTLED },
	{ "a settled job needs nothing, its journal damaged", FOUND_FINAL, FOUND_SOUND,
	  FOUND_JOURNAL_DAMAGED, DECIDE_SETTLED },
	{ "an accepted message without record becomes jobs", FOUND_NO_RECORD, FOUND_SOUND,
	  FOUND_JOURNAL_SOUND, DECIDE_MAKE },
	{ "without record in a damaged journal it may have been delivered", FOUND_NO_RECORD,
	  FOUND_SOUND, FOUND_JOURNAL_DAMAGED, DECIDE_MAKE_IN_DOUBT },
	{ "a damaged body is held", FOUND_NO_RECORD, FOUND_BODY_DAMAGED, FOUND_JOURNAL_SOUND,
	  DECIDE_MAKE_DAMAGED },
	{ "a damaged body and a damaged journal is held", FOUND_NO_RECORD, FOUND_BODY_DAMAGED,
	  FOUND_JOURNAL_DAMAGED, DECIDE_MAKE_DAMAGED },
	{ "a damaged envelope without record is the operator's", FOUND_NO_RECORD,
	  FOUND_ENVELOPE_DAMAGED, FOUND_JOURNAL_SOUND, DECIDE_QUARANTINE },
	{ "before MARK no record means settled", FOUND_NO_RECORD, FOUND_UNSEEN, FOUND_JOURNAL_SOUND,
	  DECIDE_SETTLED },
	{ "a waiting job before MARK is kept", FOUND_WAITING, FOUND_UNSEEN, FOUND_JOURNAL_SOUND,
	  DECIDE_KEEP },
	{ "a waiting job past MARK is kept", FOUND_WAITING, FOUND_SOUND, FOUND_JOURNAL_SOUND,
	  DECIDE_KEEP },
	{ "a waiting job in a damaged journal may have a lost outcome", FOUND_WAITING, FOUND_UNSEEN,
	  FOUND_JOURNAL_DAMAGED, DECIDE_KEEP_DUPLICATE },
	{ "a waiting job without its body is held", FOUND_WAITING, FOUND_BODY_DAMAGED,
	  FOUND_JOURNAL_SOUND, DECIDE_KEEP_DAMAGED },
	{ "a waiting job without its envelope is held", FOUND_WAITING, FOUND_ENVELOPE_DAMAGED,
	  FOUND_JOURNAL_SOUND, DECIDE_KEEP_DAMAGED },
	{ "a waiting job without its segment is held", FOUND_WAITING, FOUND_NO_SEGMENT,
	  FOUND_JOURNAL_DAMAGED, DECIDE_KEEP_DAMAGED },
};

static void decision_row(void **state)
{
	const struct decision_case *row = *state;

	assert_int_equal(recover_decide(row->record, row->message, row->journal), row->decision);
}

static void every_state_has_a_decision(void **state)
{
	(void)state;
	for (int record = FOUND_NO_RECORD; record <= FOUND_FINAL; record *= 2)
		for (int message = FOUND_UNSEEN; message <= FOUND_NO_SEGMENT; message *= 2)
			for (int journal = FOUND_JOURNAL_SOUND; journal <= FOUND_JOURNAL_DAMAGED;
			     journal *= 2)
				recover_decide((enum found_record)record,
					       (enum found_message)message,
					       (enum found_journal)journal);
}

/* ── a plain spool ────────────────────────────────────────────────────────────────── */

static void an_empty_spool_has_nothing(void **state)
{
	struct spool *spool = spool_make(true);
	struct recovered *found = spool_recover(spool);

	(void)state;
	assert_int_equal(found->job_count, 0);
	assert_int_equal(found->problems.count, 0);
	assert_int_equal(found->next_name[FORMAT_DEST], 1);
	spool_remove(spool);
}

static void a_clean_stop_keeps_what_was_recorded(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t one = add_message(&scene, 1, "a@b.example c@b.example");
	uint32_t two = add_message(&scene, 2, "a@b.example");
	struct format_job job = spool_state(1, 3, 2, SEGMENT, one);
	struct recovered *found;

	(void)state;
	job.due_s = 5;
	add_state(&scene, job);
	add_state(&scene, spool_state(2, 2, 0, SEGMENT, two));
	spool_mark(&scene.journal, SEGMENT, scene.segment.page * 512);
	found = spool_recover(scene.spool);
	assert_int_equal(found->job_count, 1);
	assert_int_equal(found->finals, 1);
	assert_int_equal(found->problems.count, 0);
	assert_false(found->damaged);
	assert_memory_equal(&found->jobs[0].job.type, &job.type, sizeof(job) - 4);
	assert_int_equal(found->jobs[0].journal, JOURNAL);
	assert_false(found->jobs[0].unrecorded || found->jobs[0].flagged);
	assert_int_equal(found->segment_count, 1);
	assert_int_equal(found->segments[0].live, 1);
	assert_int_equal(found->end.segment, SEGMENT);
	assert_int_equal(found->end.place, scene.segment.page * 512);
	assert_int_equal(found->mark.place, found->end.place);
	assert_true(found->journals[0].has_done);
	assert_int_equal(found->journals[0].done.place, two);
	assert_int_equal(found->journals[0].current, 2); /* the job and its domain */
	assert_int_equal(found->name_count, 1);
	assert_int_equal(found->names[0].text.len, 9);
	assert_int_equal(found->next_name[FORMAT_DEST], 2);
	scene_end(&scene);
}

static void every_job_of_an_unrecorded_message_is_made(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place;
	struct recovered *found;
	struct recovered_job *job;

	(void)state;
	place = spool_message(&scene.segment,
			      &(struct spool_message){ .id = 1,
						       .recipients = "x@c.example a@b.example "
								     "d@b.example",
						       .flags = FORMAT_8BIT | FORMAT_UTF8 });
	found = spool_recover(scene.spool);
	assert_int_equal(found->job_count, 2);
	job = spool_job(scene.spool, 1, 0);
	assert_true(job->unrecorded);
	assert_int_equal(job->journal, 0);
	assert_int_equal(job->job.pending, 3);
	assert_int_equal(job->job.state, FORMAT_WAITING);
	assert_int_equal(job->job.version, 1);
	assert_int_equal(job->job.place, place);
	assert_int_equal(job->job.dest, 1);
	assert_int_equal(job->job.flags, FORMAT_JOB_NEEDS_8BIT | FORMAT_JOB_NEEDS_UTF8);
	assert_int_equal(job->job.expiry_s, SPOOL_NOW_S + 1000);
	assert_int_equal(job->job.due_s, SPOOL_NOW_S - 100);
	job = spool_job(scene.spool, 1, 2);
	assert_int_equal(job->job.dest, 2); /* a new domain */
	assert_int_equal(found->name_count, 2);
	assert_int_equal(found->names[1].journal, 0);
	assert_memory_equal(found->names[1].text.at, "c.example", 9);
	assert_int_equal(found->next_name[FORMAT_DEST], 3);
	scene_end(&scene);
}

static void partial_recipients_stay_partial(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@b.example b@b.example c@b.example");

	(void)state;
	add_state(&scene, spool_state(1, 2, 7, SEGMENT, place));
	add_state(&scene, spool_state(1, 3, 5, SEGMENT, place));
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.pending, 5);
	assert_false(spool_job(scene.spool, 1, 0)->unrecorded);
	scene_end(&scene);
}

static void a_message_before_mark_is_not_made_again(void **state)
{
	struct scene scene = scene_make(true);

	(void)state;
	add_message(&scene, 1, "a@b.example");
	spool_mark(&scene.journal, SEGMENT, scene.segment.page * 512);
	add_message(&scene, 2, "a@b.example");
	spool_recover(scene.spool);
	assert_null(spool_job(scene.spool, 1, 0));
	assert_non_null(spool_job(scene.spool, 2, 0));
	assert_int_equal(scene.spool->stream.messages_scanned, 1);
	scene_end(&scene);
}

static void a_missing_mark_scans_from_the_beginning(void **state)
{
	struct scene scene = scene_make(true);

	(void)state;
	add_message(&scene, 1, "a@b.example");
	add_message(&scene, 2, "a@b.example");
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->stream.job_count, 2);
	scene_end(&scene);
}

static void a_cold_segment_is_not_scanned(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file cold = spool_file(scene.spool, FORMAT_COLD, LATER_SEGMENT, PAGES);
	struct spool_message message = { .id = 1, .recipients = "a@b.example" };
	uint32_t place = spool_message(&cold, &message);

	(void)state;
	message.id = 2; /* a dead copy */
	spool_message(&cold, &message);
	add_state(&scene, spool_state(1, 2, 1, LATER_SEGMENT, place));
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->stream.job_count, 1);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.segment, LATER_SEGMENT);
	assert_false(scene.spool->stream.damaged);
	close(cold.fd);
	scene_end(&scene);
}

/* ── unclean ──────────────────────────────────────────────────────────────────────── */

static void due_jobs_are_maybe_duplicates_after_an_unclean_stop(void **state)
{
	struct scene scene = scene_make(false);
	uint32_t one = add_message(&scene, 1, "a@b.example");
	uint32_t two = add_message(&scene, 2, "a@b.example");
	struct format_job due = spool_state(1, 2, 1, SEGMENT, one);

	(void)state;
	due.due_s = SPOOL_NOW_S;
	add_state(&scene, due);
	add_state(&scene, spool_state(2, 2, 1, SEGMENT, two)); /* due later */
	add_message(&scene, 3, "a@b.example");		       /* being tried at once */
	spool_recover(scene.spool);
	assert_true(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_MAYBE_DUPLICATE);
	assert_true(spool_job(scene.spool, 1, 0)->flagged);
	assert_false(spool_job(scene.spool, 1, 0)->unrecorded);
	assert_false(spool_job(scene.spool, 2, 0)->job.flags & FORMAT_JOB_MAYBE_DUPLICATE);
	assert_true(spool_job(scene.spool, 3, 0)->job.flags & FORMAT_JOB_MAYBE_DUPLICATE);
	scene_end(&scene);
}

static void what_was_tried_is_known_where_the_clock_was_set_back(void **state)
{
	static const struct {
		const char *name;
		int32_t due_s, marked_s; /* from SPOOL_NOW_S on */
		bool recorded, suspect;
	} rows[] = {
		{ "due by the newest MARK", 1000, 1000, true, true },
		{ "due before MARK would be repeated", 1600, 1000, true, true },
		{ "due later", 1601, 1000, true, false },
		{ "due soon, the clock is right", 5, -1, true, false },
		{ "just taken", 2000, 1000, false, true },
	};

	(void)state;
	for (size_t i = 0; i < array_count(rows); i++) {
		struct scene scene = scene_make(false);
		struct spool_message message = { .id = 1,
						 .recipients = "a@b.example",
						 .arrival_s = rows[i].due_s };
		uint32_t place = spool_message(&scene.segment, &message);
		struct format_job job = spool_state(1, 2, 1, SEGMENT, place);
		struct format_mark mark = { .type = FORMAT_MARK,
					    .segment = SEGMENT,
					    .place = place,
					    .wall_us = (uint64_t)(SPOOL_NOW_S + rows[i].marked_s) *
						       OS_US_PER_S };

		job.due_s = (uint32_t)(SPOOL_NOW_S + rows[i].due_s);
		spool_record(&scene.journal, &mark);
		if (rows[i].recorded)
			add_state(&scene, job);
		spool_recover(scene.spool);
		if (!(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_MAYBE_DUPLICATE) ==
		    rows[i].suspect)
			fail_msg("%s", rows[i].name);
		scene_end(&scene);
	}
}

/* Cuts the last chunk of the segment at every page and at every 512 bytes of the last one. */
static void a_torn_tail_is_cut_at_every_page(void **state)
{
	char *body = malloc(20001);

	(void)state;
	memset(body, 'x', 20000);
	body[20000] = 0;
	for (uint32_t keep = 0; keep <= 20000; keep += keep % 4096 ? 3584 : 512) {
		struct scene scene = scene_make(false);
		struct spool_message message = { .id = 2,
						 .recipients = "a@b.example",
						 .body = body };
		uint32_t page;

		add_message(&scene, 1, "a@b.example");
		page = scene.segment.page;
		spool_message(&scene.segment, &message);
		spool_damage(&scene.segment, (uint64_t)page * 4096 + keep, 20100 - keep);
		spool_recover(scene.spool);
		assert_non_null(spool_job(scene.spool, 1, 0));
		assert_null(spool_job(scene.spool, 2, 0));
		assert_false(scene.spool->stream.damaged);
		assert_int_equal(scene.spool->stream.segments[0].end_pages, page);
		assert_int_equal(spool_problems(scene.spool, RECOVERED_TORN_TAIL), keep >= 64);
		scene_end(&scene);
	}
	free(body);
}

static void a_torn_journal_tail_is_cut(void **state)
{
	struct scene scene = scene_make(false);
	uint32_t place = add_message(&scene, 1, "a@b.example"), page;

	(void)state;
	add_state(&scene, spool_state(1, 2, 1, SEGMENT, place));
	page = scene.journal.page;
	add_state(&scene, spool_state(1, 3, 0, SEGMENT, place));
	spool_damage(&scene.journal, (uint64_t)page * 4096 + 100, 4);
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.version, 2);
	assert_false(scene.spool->stream.journal_damaged);
	scene_end(&scene);
}

static void after_a_clean_stop_a_bad_tail_is_damage(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t page;

	(void)state;
	add_message(&scene, 1, "a@b.example");
	page = scene.segment.page;
	add_message(&scene, 2, "a@b.example");
	spool_damage(&scene.segment, (uint64_t)page * 4096 + 4, 1); /* the chunk's checksum only */
	spool_recover(scene.spool);
	assert_true(scene.spool->stream.damaged);
	assert_non_null(spool_job(scene.spool, 2, 0)); /* salvaged */
	scene_end(&scene);
}

static void a_torn_tail_of_an_earlier_run_stays_one_after_a_clean_stop(void **state)
{
	struct scene scene = scene_make(true);
	struct format_file head = spool_header(scene.spool, FORMAT_HOT, SEGMENT);
	uint32_t page;

	(void)state;
	head.epoch--;
	spool_write_header(&scene.segment, head);
	add_message(&scene, 1, "a@b.example");
	page = scene.segment.page;
	add_message(&scene, 2, "a@b.example");
	spool_damage(&scene.segment, (uint64_t)page * 4096 + 4, 1);
	spool_recover(scene.spool);
	assert_false(scene.spool->stream.damaged);
	assert_null(spool_job(scene.spool, 2, 0));
	scene_end(&scene);
}

/* ── damage ───────────────────────────────────────────────────────────────────────── */

static void a_damaged_chunk_in_the_middle_is_salvaged(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_chunk chunk = { 0 };
	struct spool_message message = { .id = 2, .recipients = "a@b.example" };
	uint32_t page, second;

	(void)state;
	add_message(&scene, 1, "a@b.example");
	page = scene.segment.page;
	chunk_message(&chunk, SEGMENT, &message);
	message.id = 3;
	second = chunk_message(&chunk, SEGMENT, &message);
	message.id = 4;
	chunk_message(&chunk, SEGMENT, &message);
	spool_write(&scene.segment, &chunk);
	add_message(&scene, 5, "a@b.example");
	spool_damage(&scene.segment, (uint64_t)page * 4096 + second + 20, 1); /* its head */
	spool_recover(scene.spool);
	for (uint64_t id = 1; id <= 5; id++)
		assert_int_equal(spool_job(scene.spool, id, 0) != NULL, id != 3);
	assert_true(scene.spool->stream.damaged);
	assert_false(scene.spool->stream.journal_damaged);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_SEGMENT_DAMAGE), 1);
	scene_end(&scene);
}

static void a_damaged_chunk_header_is_salvaged(void **state)
{
	struct scene scene = scene_make(false);
	uint32_t page;

	(void)state;
	page = scene.segment.page;
	add_message(&scene, 1, "a@b.example");
	add_message(&scene, 2, "a@b.example");
	spool_damage(&scene.segment, (uint64_t)page * 4096, 64);
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->stream.job_count, 2);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_SEGMENT_DAMAGE), 1);
	scene_end(&scene);
}

static void a_damaged_body_is_held_and_a_damaged_envelope_reported(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_chunk chunk = { 0 };
	struct spool_message message = { .id = 2, .recipients = "a@b.example" };
	uint32_t page = scene.segment.page, body, envelope;

	(void)state;
	chunk_message(&chunk, SEGMENT, &message);
	body = (uint32_t)chunk.len - 4;
	message.id = 3;
	envelope = chunk_message(&chunk, SEGMENT, &message) + 64 + 10;
	spool_write(&scene.segment, &chunk);
	add_message(&scene, 4, "a@b.example");
	spool_damage(&scene.segment, (uint64_t)page * 4096 + body - 8, 1);
	spool_damage(&scene.segment, (uint64_t)page * 4096 + envelope, 1);
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 2, 0)->job.flags &
				 (FORMAT_JOB_HELD | FORMAT_JOB_DAMAGED),
			 FORMAT_JOB_HELD | FORMAT_JOB_DAMAGED);
	assert_null(spool_job(scene.spool, 3, 0));
	assert_false(spool_job(scene.spool, 4, 0)->job.flags & FORMAT_JOB_HELD);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_MESSAGE_DAMAGE), 2);
	scene_end(&scene);
}

/* Acknowledged, and no record yet: what can be read is used, and the rest is told. */
static void a_last_chunk_that_cannot_be_read_is_damage(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_chunk chunk = { 0 };
	struct spool_message message = { .id = 2, .recipients = "a@b.example" };
	char *body = calloc(1, 4097);
	uint32_t page;

	(void)state;
	add_message(&scene, 1, "a@b.example");
	page = scene.segment.page;
	message.body = memset(body, 'x', 4096);
	chunk_message(&chunk, SEGMENT, &message);
	message.id = 3;
	chunk_message(&chunk, SEGMENT, &message);
	spool_write(&scene.segment, &chunk);
	make_unreadable(scene.segment.fd, (uint64_t)page * 4096, 4096);
	spool_recover(scene.spool);
	unreadable.count = 0;
	assert_true(scene.spool->stream.damaged);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_SEGMENT_DAMAGE), 1);
	assert_null(spool_job(scene.spool, 2, 0));
	assert_non_null(spool_job(scene.spool, 3, 0));
	free(body);
	scene_end(&scene);
}

static void a_journals_last_chunk_that_cannot_be_read_is_damage(void **state)
{
	for (int ahead = 0; ahead < 2; ahead++) {
		struct scene scene = scene_make(false);
		uint32_t place = add_message(&scene, 1, "a@b.example"), page;
		struct spool_file next =
			spool_file(scene.spool, FORMAT_JOURNAL, LATER_JOURNAL, PAGES);

		(void)state;
		add_state(&scene, spool_state(1, 2, 1, SEGMENT, place));
		page = scene.journal.page;
		add_state(&scene, spool_state(1, 3, 0, SEGMENT, place));
		if (ahead)
			make_unreadable(next.fd, 4096, 4096); /* where nothing can be */
		else
			make_unreadable(scene.journal.fd, (uint64_t)page * 4096, 4096);
		spool_recover(scene.spool);
		unreadable.count = 0;
		assert_int_equal(scene.spool->stream.journal_damaged, !ahead);
		assert_int_equal(spool_problems(scene.spool, RECOVERED_JOURNAL_DAMAGE), !ahead);
		if (!ahead)
			assert_true(spool_job(scene.spool, 1, 0)->job.flags &
				    FORMAT_JOB_MAYBE_DUPLICATE);
		close(next.fd);
		scene_end(&scene);
	}
}

static void a_record_that_points_there_makes_a_tail_damage(void **state)
{
	struct scene scene = scene_make(false);
	uint32_t place = add_message(&scene, 1, "a@b.example");

	(void)state;
	add_state(&scene, spool_state(1, 2, 1, SEGMENT, place));
	spool_damage(&scene.segment, (uint64_t)place * 8 + 64 + 5, 1); /* in the envelope */
	spool_recover(scene.spool);
	assert_true(scene.spool->stream.damaged);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.flags & ~FORMAT_JOB_MAYBE_DUPLICATE,
			 FORMAT_JOB_HELD | FORMAT_JOB_DAMAGED);
	assert_true(spool_job(scene.spool, 1, 0)->unrecorded);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.version, 3);
	scene_end(&scene);
}

static void the_next_header_makes_a_tail_damage(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_file next = spool_file(scene.spool, FORMAT_HOT, LATER_SEGMENT, PAGES);
	uint32_t page = scene.segment.page;

	(void)state;
	add_message(&scene, 1, "a@b.example");
	spool_follows(scene.spool, &next, FORMAT_HOT, SEGMENT, scene.segment.page);
	spool_damage(&scene.segment, (uint64_t)page * 4096 + 30, 1);
	spool_recover(scene.spool);
	assert_true(scene.spool->stream.damaged);
	assert_non_null(spool_job(scene.spool, 1, 0));
	assert_int_equal(scene.spool->stream.end.segment, LATER_SEGMENT);
	close(next.fd);
	scene_end(&scene);
}

static void journal_damage_holds_what_has_no_state(void **state)
{
	struct scene scene = scene_make(false);
	uint32_t one = add_message(&scene, 1, "a@b.example");
	uint32_t two = add_message(&scene, 2, "a@b.example");
	uint32_t page;
	struct recovered_job *job;

	(void)state;
	add_state(&scene, spool_state(1, 2, 1, SEGMENT, one));
	page = scene.journal.page;
	add_state(&scene, spool_state(2, 2, 0, SEGMENT, two));
	spool_mark(&scene.journal, SEGMENT, scene.segment.page * 512);
	spool_damage(&scene.journal, (uint64_t)page * 4096 + 64 + 16, 1);
	spool_recover(scene.spool);
	assert_true(scene.spool->stream.journal_damaged);
	job = spool_job(scene.spool, 2, 0);
	assert_non_null(job);
	assert_int_equal(job->job.flags & (FORMAT_JOB_HELD | FORMAT_JOB_IN_DOUBT),
			 FORMAT_JOB_HELD | FORMAT_JOB_IN_DOUBT);
	job = spool_job(scene.spool, 1, 0);
	assert_int_equal(job->job.flags, FORMAT_JOB_MAYBE_DUPLICATE);
	assert_true(job->flagged);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_JOURNAL_DAMAGE), 1);
	scene_end(&scene);
}

static void a_record_inside_a_damaged_journal_chunk_is_believed(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_chunk chunk = { 0 };
	uint32_t one = add_message(&scene, 1, "a@b.example");
	uint32_t two = add_message(&scene, 2, "a@b.example");
	struct format_job job = spool_state(1, 2, 0, SEGMENT, one);
	uint32_t page = scene.journal.page;

	(void)state;
	chunk_record(&chunk, JOURNAL, &job, 64);
	job = spool_state(2, 2, 0, SEGMENT, two);
	chunk_record(&chunk, JOURNAL, &job, 64);
	spool_write(&scene.journal, &chunk);
	spool_mark(&scene.journal, 0, 0);
	spool_damage(&scene.journal, (uint64_t)page * 4096 + 64 + 30, 1);
	spool_recover(scene.spool);
	assert_non_null(spool_job(scene.spool, 1, 0));
	assert_null(spool_job(scene.spool, 2, 0));
	scene_end(&scene);
}

static void a_missing_journal_in_the_middle_is_damage(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file last = spool_file(scene.spool, FORMAT_JOURNAL, LATER_SEGMENT, PAGES);

	(void)state;
	add_message(&scene, 1, "a@b.example");
	spool_follows(scene.spool, &last, FORMAT_JOURNAL, LATER_JOURNAL, 5);
	spool_mark(&last, SEGMENT, scene.segment.page * 512);
	spool_recover(scene.spool);
	assert_true(scene.spool->stream.journal_damaged);
	assert_true(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_HELD);
	close(last.fd);
	scene_end(&scene);
}

static void journal_damage_looks_into_cold_segments_as_well(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_file cold = spool_file(scene.spool, FORMAT_COLD, LATER_SEGMENT, PAGES);
	struct spool_message message = { .id = 1, .recipients = "a@b.example" };
	uint32_t place = spool_message(&cold, &message), page = scene.journal.page;

	(void)state;
	add_state(&scene, spool_state(1, 2, 1, LATER_SEGMENT, place));
	spool_mark(&scene.journal, LATER_SEGMENT, 0);
	spool_damage(&scene.journal, (uint64_t)page * 4096 + 64 + 16, 1);
	spool_recover(scene.spool);
	assert_true(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_HELD);
	close(cold.fd);
	scene_end(&scene);
}

static void a_job_without_its_segment_is_held(void **state)
{
	struct scene scene = scene_make(true);

	(void)state;
	add_state(&scene, spool_state(1, 2, 1, 0x99, 520));
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.flags,
			 FORMAT_JOB_HELD | FORMAT_JOB_DAMAGED);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_LOST_MESSAGE), 1);
	scene_end(&scene);
}

static void a_message_found_elsewhere_is_where_it_was_found(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@b.example");

	(void)state;
	add_state(&scene, spool_state(1, 2, 1, 0x99, 520));
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.segment, SEGMENT);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.place, place);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.flags, 0);
	assert_true(spool_job(scene.spool, 1, 0)->unrecorded);
	scene_end(&scene);
}

static void a_lost_domain_comes_from_the_message(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@lost.example");
	struct format_job job = spool_state(1, 2, 1, SEGMENT, place);

	(void)state;
	job.dest = 9;
	job.text = 4;
	add_state(&scene, job);
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.dest, 10);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.text, 0);
	assert_true(spool_job(scene.spool, 1, 0)->unrecorded);
	assert_memory_equal(scene.spool->stream.names[1].text.at, "lost.example", 12);
	assert_int_equal(scene.spool->stream.next_name[FORMAT_TEXT], 5);
	scene_end(&scene);
}

/* A job of no domain would fail for that, although its message may be read again tomorrow. */
static void a_lost_domain_that_cannot_be_read_holds_the_job(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@lost.example");
	struct format_job job = spool_state(1, 2, 1, SEGMENT, place);

	(void)state;
	job.dest = 9;
	add_state(&scene, job);
	make_unreadable(scene.segment.fd, FORMAT_PAGE_BYTES, FORMAT_PAGE_BYTES);
	spool_recover(scene.spool);
	unreadable.count = 0;
	assert_true(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_HELD);
	assert_true(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_DAMAGED);
	assert_true(spool_job(scene.spool, 1, 0)->unrecorded);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_MESSAGE_DAMAGE), 1);
	scene_end(&scene);
}

/* ── recycled files, two journals ─────────────────────────────────────────────────── */

static void what_an_earlier_life_left_behind_is_not_seen(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_file old = scene.segment;
	uint32_t page;

	(void)state;
	old.sequence = 3; /* the same bytes, written under another sequence */
	for (uint64_t id = 100; id < 110; id++)
		spool_message(&old, &(struct spool_message){ .id = id, .recipients = "o@old" });
	scene.segment.page = 1;
	add_message(&scene, 1, "a@b.example");
	page = scene.segment.page;
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->stream.job_count, 1);
	assert_int_equal(scene.spool->stream.segments[0].end_pages, page);
	assert_int_equal(scene.spool->stream.problems.count, 0);
	scene_end(&scene);
}

static void the_highest_version_wins_wherever_it_is(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file later = spool_file(scene.spool, FORMAT_JOURNAL, LATER_JOURNAL, PAGES);
	uint32_t place = add_message(&scene, 1, "a@b.example b@b.example");
	struct format_job job = spool_state(1, 4, 2, SEGMENT, place);

	(void)state;
	add_state(&scene, job);
	job.version = 3;
	job.pending = 3;
	spool_record(&later, &job);
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.version, 4);
	assert_int_equal(spool_job(scene.spool, 1, 0)->journal, JOURNAL);
	assert_int_equal(scene.spool->stream.problems.count, 0);
	close(later.fd);
	scene_end(&scene);
}

static void equal_versions_that_differ_go_to_the_later_file_and_are_reported(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file later = spool_file(scene.spool, FORMAT_JOURNAL, LATER_JOURNAL, PAGES);
	uint32_t place = add_message(&scene, 1, "a@b.example b@b.example");

	(void)state;
	add_state(&scene, spool_state(1, 4, 2, SEGMENT, place));
	struct format_job job = spool_state(1, 4, 1, SEGMENT, place);

	spool_record(&later, &job);
	spool_recover(scene.spool);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.pending, 1);
	assert_int_equal(spool_job(scene.spool, 1, 0)->journal, LATER_JOURNAL);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_VERSION_CLASH), 1);
	close(later.fd);
	scene_end(&scene);
}

static void a_record_appended_again_is_no_clash(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file later = spool_file(scene.spool, FORMAT_JOURNAL, LATER_JOURNAL, PAGES);
	uint32_t place = add_message(&scene, 1, "a@b.example");
	struct format_job job = spool_state(1, 4, 1, SEGMENT, place);

	(void)state;
	add_state(&scene, job);
	spool_record(&later, &job);
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->stream.problems.count, 0);
	assert_int_equal(spool_job(scene.spool, 1, 0)->journal, LATER_JOURNAL);
	close(later.fd);
	scene_end(&scene);
}

/* ── reports ──────────────────────────────────────────────────────────────────────── */

struct report_case {
	const char *name;
	enum format_origin_kind kind;
	uint64_t pending, mask; /* of the job's record, and of the report */
	bool known, unrecorded;
	uint8_t state;
	uint64_t pending_after;
	uint16_t flags;
};

static const struct report_case reports[] = {
	{ "a bounce past MARK settles its recipients", FORMAT_ORIGIN_BOUNCE, 7, 5, true, true,
	  FORMAT_WAITING, 2, 0 },
	{ "a bounce of the last recipients ends the job", FORMAT_ORIGIN_BOUNCE, 5, 5, true, true,
	  FORMAT_BOUNCED, 0, 0 },
	{ "a bounce that is recorded already changes nothing", FORMAT_ORIGIN_BOUNCE, 2, 5, true,
	  false, FORMAT_WAITING, 2, 0 },
	{ "a delay report sets WARNED", FORMAT_ORIGIN_DELAY, 7, 7, true, true, FORMAT_WAITING, 7,
	  FORMAT_JOB_WARNED },
	{ "a success report settles its recipients", FORMAT_ORIGIN_SUCCESS, 1, 1, true, true,
	  FORMAT_DELIVERED, 0, 0 },
	{ "a drop file's origin settles nothing", FORMAT_ORIGIN_FILE, 7, 7, true, false,
	  FORMAT_WAITING, 7, 0 },
};

static void report_row(void **state)
{
	const struct report_case *row = *state;
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@b.example b@b.example c@b.example");
	struct recovered_job *job;

	add_state(&scene, spool_state(1, 2, row->pending, SEGMENT, place));
	spool_mark(&scene.journal, SEGMENT, scene.segment.page * 512);
	spool_message(&scene.segment,
		      &(struct spool_message){ .id = 2,
					       .recipients = "sender@from.example",
					       .flags = FORMAT_REPORT,
					       .origin = { .message = 1,
							   .recipients = row->mask,
							   .kind = (uint8_t)row->kind } });
	spool_recover(scene.spool);
	job = spool_job(scene.spool, 1, 0);
	assert_non_null(job);
	assert_int_equal(job->unrecorded, row->unrecorded);
	assert_int_equal(job->job.state, row->state);
	assert_int_equal(job->job.pending, row->pending_after);
	assert_int_equal(job->job.version, row->unrecorded ? 3 : 2);
	assert_int_equal(job->job.flags, row->flags);
	assert_non_null(spool_job(scene.spool, 2, 0)); /* the report itself is queued */
	assert_int_equal(scene.spool->stream.segments[0].live,
			 row->state == FORMAT_WAITING ? 2 : 1);
	scene_end(&scene);
}

static void a_report_of_all_kinds_settles_each(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@b.example b@b.example c@b.example");
	struct recovered_job *job;

	(void)state;
	add_state(&scene, spool_state(1, 2, 7, SEGMENT, place));
	spool_mark(&scene.journal, SEGMENT, scene.segment.page * 512);
	spool_message(
		&scene.segment,
		&(struct spool_message){
			.id = 2,
			.recipients = "sender@from.example",
			.flags = FORMAT_REPORT,
			.origin = { .message = 1, .recipients = 2, .kind = FORMAT_ORIGIN_SUCCESS },
			.also = { .message = 1, .recipients = 4, .kind = FORMAT_ORIGIN_BOUNCE } });
	spool_recover(scene.spool);
	job = spool_job(scene.spool, 1, 0);
	assert_non_null(job);
	assert_true(job->unrecorded);
	assert_int_equal(job->job.state, FORMAT_WAITING);
	assert_int_equal(job->job.pending, 1);
	scene_end(&scene);
}

static void a_report_about_a_settled_job_changes_nothing(void **state)
{
	struct scene scene = scene_make(true);
	uint32_t place = add_message(&scene, 1, "a@b.example");

	(void)state;
	add_state(&scene, spool_state(1, 2, 0, SEGMENT, place));
	spool_message(&scene.segment,
		      &(struct spool_message){ .id = 2,
					       .recipients = "s@from.example",
					       .origin = { .message = 1,
							   .recipients = 1,
							   .kind = FORMAT_ORIGIN_BOUNCE } });
	spool_recover(scene.spool);
	assert_null(spool_job(scene.spool, 1, 0));
	assert_int_equal(scene.spool->stream.job_count, 1);
	scene_end(&scene);
}

/* ── size ─────────────────────────────────────────────────────────────────────────── */

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void a_million_jobs(void **state)
{
	enum { JOBS = 1000000, IN_CHUNK = 1000, DOMAINS = 10000 };
	struct spool *spool = spool_make(true);
	struct spool_file journal =
		spool_file(spool, FORMAT_JOURNAL, JOURNAL, JOBS / IN_CHUNK * 16 + 2000);
	struct spool_file cold = spool_file(spool, FORMAT_COLD, SEGMENT, PAGES);
	struct spool_chunk chunk = { 0 };
	char domain[32];
	double begin;

	(void)state;
	for (uint32_t i = 1; i <= DOMAINS; i++) {
		snprintf(domain, sizeof(domain), "domain-%u.example", i);
		chunk_define(&chunk, JOURNAL, FORMAT_DEST, i, domain);
	}
	spool_write(&journal, &chunk);
	for (uint32_t i = 0; i < JOBS; i++) {
		struct format_job job =
			spool_state(UINT64_C(0x1000000) + i, 2, 1, SEGMENT, 512 + i % 10000);

		job.dest = 1 + i % DOMAINS;
		chunk_record(&chunk, JOURNAL, &job, 64);
		if (i % IN_CHUNK == IN_CHUNK - 1)
			spool_write(&journal, &chunk);
	}
	spool_mark(&journal, SEGMENT, 512);
	begin = seconds();
	spool_recover(spool);
	print_message("recovered %zu jobs in %.2f s\n", spool->stream.job_count, seconds() - begin);
	assert_int_equal(spool->stream.job_count, JOBS);
	close(journal.fd);
	close(cold.fd);
	spool_remove(spool);
}

#define FACT(function) cmocka_unit_test(function)

int main(void)
{
	static const struct CMUnitTest facts[] = {
		FACT(every_state_has_a_decision),
		FACT(an_empty_spool_has_nothing),
		FACT(a_clean_stop_keeps_what_was_recorded),
		FACT(every_job_of_an_unrecorded_message_is_made),
		FACT(partial_recipients_stay_partial),
		FACT(a_message_before_mark_is_not_made_again),
		FACT(a_missing_mark_scans_from_the_beginning),
		FACT(a_cold_segment_is_not_scanned),
		FACT(due_jobs_are_maybe_duplicates_after_an_unclean_stop),
		FACT(what_was_tried_is_known_where_the_clock_was_set_back),
		FACT(a_torn_tail_is_cut_at_every_page),
		FACT(a_torn_journal_tail_is_cut),
		FACT(after_a_clean_stop_a_bad_tail_is_damage),
		FACT(a_torn_tail_of_an_earlier_run_stays_one_after_a_clean_stop),
		FACT(a_damaged_chunk_in_the_middle_is_salvaged),
		FACT(a_damaged_chunk_header_is_salvaged),
		FACT(a_damaged_body_is_held_and_a_damaged_envelope_reported),
		FACT(a_last_chunk_that_cannot_be_read_is_damage),
		FACT(a_journals_last_chunk_that_cannot_be_read_is_damage),
		FACT(a_record_that_points_there_makes_a_tail_damage),
		FACT(the_next_header_makes_a_tail_damage),
		FACT(journal_damage_holds_what_has_no_state),
		FACT(a_record_inside_a_damaged_journal_chunk_is_believed),
		FACT(a_missing_journal_in_the_middle_is_damage),
		FACT(journal_damage_looks_into_cold_segments_as_well),
		FACT(a_job_without_its_segment_is_held),
		FACT(a_message_found_elsewhere_is_where_it_was_found),
		FACT(a_lost_domain_comes_from_the_message),
		FACT(a_lost_domain_that_cannot_be_read_holds_the_job),
		FACT(what_an_earlier_life_left_behind_is_not_seen),
		FACT(the_highest_version_wins_wherever_it_is),
		FACT(equal_versions_that_differ_go_to_the_later_file_and_are_reported),
		FACT(a_record_appended_again_is_no_clash),
		FACT(a_report_of_all_kinds_settles_each),
		FACT(a_report_about_a_settled_job_changes_nothing),
		FACT(a_million_jobs),
	};
	struct CMUnitTest rows[array_count(decisions) + array_count(reports)];
	size_t count = 0;

	for (size_t i = 0; i < array_count(decisions); i++)
		rows[count++] = (struct CMUnitTest){ .name = decisions[i].name,
						     .test_func = decision_row,
						     .initial_state = (void *)&decisions[i] };
	for (size_t i = 0; i < array_count(reports); i++)
		rows[count++] = (struct CMUnitTest){ .name = reports[i].name,
						     .test_func = report_row,
						     .initial_state = (void *)&reports[i] };
	int failed = cmocka_run_group_tests_name("found states", rows, NULL, NULL);

	return failed + cmocka_run_group_tests_name("recover", facts, NULL, NULL);
}
