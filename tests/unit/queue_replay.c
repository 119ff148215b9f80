/* Journal records to job states. */
#include "queue/replay.h"

#include "tests/unit/queue_spool.h"

/* Replays records one after the other, each in a journal of its own number. */
static void feed(struct replay *replay, uint32_t journal, const void *record)
{
	struct spool_chunk chunk = { 0 };
	struct scan_extent extent;

	chunk_record(&chunk, journal, record, 64);
	extent = (struct scan_extent){ .bytes = span_of(chunk.bytes + 64, chunk.len - 64),
				       .verified = true };
	replay_extent(replay, journal, &extent);
	free(chunk.bytes);
}

struct version_case {
	const char *name;
	uint32_t first_version, then_version;
	uint64_t first_pending, then_pending, wins;
	uint32_t clashes, journal;
};

static const struct version_case versions[] = {
	{ "a higher version wins", 1, 2, 3, 1, 1, 0, 6 },
	{ "a lower version that comes later loses", 2, 1, 1, 3, 1, 0, 5 },
	{ "an equal version with the same content is one appended again", 2, 2, 1, 1, 1, 0, 6 },
	{ "an equal version with other content goes to the later file", 2, 2, 1, 2, 2, 1, 6 },
	{ "a final record wins over the waiting one", 1, 2, 3, 0, 0, 0, 6 },
};

static void version_row(void **state)
{
	const struct version_case *row = *state;
	struct format_job first = spool_state(9, row->first_version, row->first_pending, 1, 512);
	struct format_job then = spool_state(9, row->then_version, row->then_pending, 1, 512);
	struct replay replay;

	assert_true(replay_init(&replay, 0));
	feed(&replay, 5, &first);
	feed(&replay, 6, &then);
	assert_int_equal(replay.job_count, 1);
	assert_int_equal(replay_find(&replay, 9, 0)->job.pending, row->wins);
	assert_int_equal(replay_find(&replay, 9, 0)->journal, row->journal);
	assert_int_equal(replay.clashes, row->clashes);
	replay_deinit(&replay);
}

struct senseless_case {
	const char *name;
	uint8_t state;
	uint64_t pending;
	uint32_t version;
	bool believed;
};

static const struct senseless_case senseless[] = {
	{ "waiting with recipients", FORMAT_WAITING, 1, 1, true },
	{ "settled without", FORMAT_REMOVED, 0, 1, true },
	{ "waiting without recipients is not believed", FORMAT_WAITING, 0, 1, false },
	{ "settled with recipients is not believed", FORMAT_BOUNCED, 1, 1, false },
	{ "state 0 is not believed", 0, 0, 1, false },
	{ "an unknown state is not believed", 6, 0, 1, false },
	{ "version 0 is not believed", FORMAT_WAITING, 1, 0, false },
};

static void senseless_row(void **state)
{
	const struct senseless_case *row = *state;
	struct format_job job = spool_state(9, row->version, row->pending, 1, 512);
	struct replay replay;

	job.state = row->state;
	assert_true(replay_init(&replay, 0));
	feed(&replay, 5, &job);
	assert_int_equal(replay_find(&replay, 9, 0) != NULL, row->believed);
	assert_int_equal(replay.senseless, !row->believed);
	replay_deinit(&replay);
}

static void jobs_of_one_message_are_told_apart(void **state)
{
	struct format_job job = spool_state(9, 1, 1, 1, 512);
	struct replay replay;

	(void)state;
	assert_true(replay_init(&replay, 0));
	feed(&replay, 5, &job);
	job.first = 64;
	feed(&replay, 5, &job);
	assert_int_equal(replay.job_count, 2);
	assert_null(replay_find(&replay, 9, 65));
	assert_null(replay_find(&replay, 10, 0));
	replay_deinit(&replay);
}

static void the_table_grows_and_finds_all(void **state)
{
	struct replay replay;

	(void)state;
	assert_true(replay_init(&replay, 0));
	for (uint64_t id = 0; id < 100000; id++)
		assert_non_null(replay_add(&replay, id << 20, (uint16_t)(id % 7)));
	for (uint64_t id = 0; id < 100000; id++)
		assert_int_equal(replay_find(&replay, id << 20, (uint16_t)(id % 7))->job.message,
				 id << 20);
	replay_deinit(&replay);
}

static void the_highest_mark_and_start_stand(void **state)
{
	struct format_mark mark = { .type = FORMAT_MARK, .segment = 3, .place = 900, .wall_us = 8 };
	struct format_start start = { .type = FORMAT_START, .epoch = 4 };
	struct replay replay;

	(void)state;
	assert_true(replay_init(&replay, 0));
	feed(&replay, 5, &mark);
	mark.segment = 4;
	mark.place = 512;
	mark.wall_us = 9;
	mark.believed_us = 7;
	feed(&replay, 5, &mark);
	mark.segment = 3;
	mark.place = 1000;
	feed(&replay, 5, &mark);
	feed(&replay, 5, &start);
	assert_int_equal(replay.mark.segment, 4);
	assert_int_equal(replay.mark.place, 512);
	assert_int_equal(replay.wall_us, 9);
	assert_int_equal(replay.clock.believed_us, 8); /* where it is not told, what was seen */
	assert_int_equal(replay.start_epoch, 4);
	replay_deinit(&replay);
}

static void a_record_of_another_journal_is_not_believed(void **state)
{
	struct format_job job = spool_state(9, 1, 1, 1, 512);
	struct spool_chunk chunk = { 0 };
	struct scan_extent extent;
	struct replay replay;

	(void)state;
	chunk_record(&chunk, 5, &job, 64);
	extent = (struct scan_extent){ .bytes = span_of(chunk.bytes + 64, 64), .verified = true };
	assert_true(replay_init(&replay, 0));
	assert_int_equal(replay_extent(&replay, 6, &extent), 1);
	assert_int_equal(replay.job_count, 0);
	replay_deinit(&replay);
	free(chunk.bytes);
}

int main(void)
{
	static const struct CMUnitTest facts[] = {
		cmocka_unit_test(jobs_of_one_message_are_told_apart),
		cmocka_unit_test(the_table_grows_and_finds_all),
		cmocka_unit_test(the_highest_mark_and_start_stand),
		cmocka_unit_test(a_record_of_another_journal_is_not_believed),
	};
	struct CMUnitTest rows[array_count(versions) + array_count(senseless)];
	size_t count = 0;

	for (size_t i = 0; i < array_count(versions); i++)
		rows[count++] = (struct CMUnitTest){ .name = versions[i].name,
						     .test_func = version_row,
						     .initial_state = (void *)&versions[i] };
	for (size_t i = 0; i < array_count(senseless); i++)
		rows[count++] = (struct CMUnitTest){ .name = senseless[i].name,
						     .test_func = senseless_row,
						     .initial_state = (void *)&senseless[i] };
	int failed = cmocka_run_group_tests_name("replay", rows, NULL, NULL);

	return failed + cmocka_run_group_tests(facts, NULL, NULL);
}
