/*
 * Recovery of the spool as a whole: its files, whose they are, and the superblock.
 */
#include "queue/recover.h"
#include "tests/unit/queue_scene.h"
#include "tests/unit/read_refuse.h"

static void file_states_have_their_fates(void **state)
{
	struct scene scene = scene_make(false);
	struct spool_file lost = spool_file(scene.spool, FORMAT_HOT, 0x20, PAGES);
	struct spool_file next = spool_file(scene.spool, FORMAT_HOT, 0x21, PAGES);
	struct spool_file bad = spool_file(scene.spool, FORMAT_HOT, 0x22, PAGES);
	struct spool_file earlier = spool_file(scene.spool, FORMAT_HOT, 0x23, PAGES);
	struct spool_file freed = spool_file(scene.spool, FORMAT_HOT, 0x24, PAGES);
	struct spool_file reused = spool_file(scene.spool, FORMAT_JOURNAL, 0x25, PAGES);
	static const enum recovered_fate expected[] = {
		RECOVERED_QUARANTINE, /* README */
		RECOVERED_KEEP,	      RECOVERED_KEEP,	 RECOVERED_KEEP,    RECOVERED_KEEP,
		RECOVERED_QUARANTINE, RECOVERED_RECYCLE, RECOVERED_RECYCLE, RECOVERED_RECYCLE,
	};
	char path[128];

	(void)state;
	spool_message(&lost, &(struct spool_message){ .id = 1, .recipients = "a@b.example" });
	spool_damage(&lost, 0, 64);
	spool_follows(scene.spool, &next, FORMAT_HOT, 0x20, lost.page);
	spool_damage(&bad, 0, 64);
	spool_write_header(&earlier, spool_header(scene.spool, FORMAT_HOT, 5));
	spool_write_header(&freed, spool_header(scene.spool, FORMAT_FREE, 0x24));
	spool_mark(&reused, 0, 0);
	spool_write_header(&reused, spool_header(scene.spool, FORMAT_HOT, 0x26));
	snprintf(path, sizeof(path), "%s/seg/README", scene.spool->path);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->found.file_count, array_count(expected));
	for (size_t i = 0; i < array_count(expected); i++)
		assert_int_equal(scene.spool->found.files[i].fate, expected[i]);
	assert_true(scene.spool->found.files[3].header_lost);
	assert_false(scene.spool->found.streams_damaged);
	assert_non_null(spool_job(scene.spool, 1, 0));
	assert_int_equal(scene.spool->found.sequence_limit, 0x26);
	assert_int_equal(spool_problems(scene.spool, RECOVERED_STRANGE_FILE), 2);
	close(lost.fd), close(next.fd), close(bad.fd), close(earlier.fd), close(freed.fd);
	close(reused.fd);
	scene_end(&scene);
}

/* A segment without its header, and what its first chunk looks like. */
static const struct first_chunk_case {
	const char *name;
	enum { DAMAGED, EARLIER } header;
	enum { NO_CHUNK, UNREADABLE, BROKEN } chunk;
	enum recovered_fate fate;
} first_chunks[] = {
	{ "an earlier header, no chunk", EARLIER, NO_CHUNK, RECOVERED_RECYCLE },
	{ "an earlier header, a chunk that can't be read", EARLIER, UNREADABLE, RECOVERED_KEEP },
	{ "an earlier header, a chunk that does not verify", EARLIER, BROKEN, RECOVERED_KEEP },
	{ "a damaged header, no chunk", DAMAGED, NO_CHUNK, RECOVERED_QUARANTINE },
	{ "a damaged header, a chunk that can't be read", DAMAGED, UNREADABLE, RECOVERED_KEEP },
	{ "a damaged header, a chunk that does not verify", DAMAGED, BROKEN, RECOVERED_KEEP },
};

/* Two messages; the second has a record, and its octets are sound in any case. */
static void add_first_chunk(struct scene *scene, struct spool_file *file)
{
	struct spool_chunk chunk = { 0 };
	char body[FORMAT_PAGE_BYTES + 1] = { 0 };
	uint32_t at;

	memset(body, 'x', FORMAT_PAGE_BYTES);
	chunk_message(
		&chunk, file->sequence,
		&(struct spool_message){ .id = 1, .recipients = "a@b.example", .body = body });
	at = chunk_message(&chunk, file->sequence,
			   &(struct spool_message){ .id = 2, .recipients = "a@b.example" });
	spool_write(file, &chunk);
	add_state(scene, spool_state(2, 2, 1, file->sequence, (FORMAT_PAGE_BYTES + at) / 8));
}

static void first_chunk_row(void **state)
{
	const struct first_chunk_case *row = *state;
	struct scene scene = scene_make(false);
	struct spool_file file = spool_file(scene.spool, FORMAT_HOT, 0x20, PAGES);
	const struct recovered_file *found;

	if (row->chunk != NO_CHUNK)
		add_first_chunk(&scene, &file);
	if (row->chunk == UNREADABLE)
		make_unreadable(file.fd, FORMAT_PAGE_BYTES, FORMAT_PAGE_BYTES);
	else if (row->chunk == BROKEN)
		spool_damage(&file, FORMAT_PAGE_BYTES + 2000, 1);
	if (row->header == EARLIER)
		spool_write_header(&file, spool_header(scene.spool, FORMAT_HOT, 5));
	else
		spool_damage(&file, 0, 64);
	spool_recover(scene.spool);
	unreadable.count = 0;
	found = &scene.spool->found.files[scene.spool->found.file_count - 1];
	assert_int_equal(found->sequence, file.sequence);
	assert_int_equal(found->fate, row->fate);
	assert_int_equal(found->header_lost, row->fate == RECOVERED_KEEP);
	assert_int_equal(scene.spool->stream.damaged, row->fate == RECOVERED_KEEP);
	if (row->chunk != NO_CHUNK) {
		assert_int_equal(spool_problems(scene.spool, RECOVERED_SEGMENT_DAMAGE), 2);
		assert_false(spool_job(scene.spool, 2, 0)->job.flags & FORMAT_JOB_HELD);
	}
	close(file.fd);
	scene_end(&scene);
}

static void a_headless_journal_of_nobody_damages_all_streams(void **state)
{
	struct scene scene = scene_make(false);

	(void)state;
	add_message(&scene, 1, "a@b.example");
	spool_damage(&scene.journal, 0, 64);
	spool_recover(scene.spool);
	assert_true(scene.spool->found.streams_damaged);
	assert_true(scene.spool->stream.journal_damaged);
	assert_true(spool_job(scene.spool, 1, 0)->job.flags & FORMAT_JOB_HELD);
	scene_end(&scene);
}

/* A journal of stream 1 whose header is lost; its name 1 is another than that of stream 0. The job
 * of message 2, at byte 4096 of OTHER_SEGMENT, is in it. */
enum { OTHER_SEGMENT = 0x20, OTHER_JOURNAL = 0x21 };

static void add_other_stream(struct scene *scene)
{
	struct spool_file segment = spool_file(scene->spool, FORMAT_HOT, OTHER_SEGMENT, PAGES);
	struct spool_file journal = spool_file(scene->spool, FORMAT_JOURNAL, OTHER_JOURNAL, PAGES);
	struct format_file head = spool_header(scene->spool, FORMAT_HOT, OTHER_SEGMENT);
	uint32_t place = spool_message(
		&segment, &(struct spool_message){ .id = 2, .recipients = "x@other.example" });
	struct format_job job = spool_state(2, 2, 1, OTHER_SEGMENT, place);

	head.stream = 1;
	spool_write_header(&segment, head);
	spool_define(&journal, FORMAT_DEST, 1, "other.example");
	job.dest = 1;
	spool_record(&journal, &job);
	spool_damage(&journal, 0, 64);
	close(segment.fd), close(journal.fd);
}

static void add_waiting(struct scene *scene)
{
	struct format_job job = spool_state(1, 2, 1, SEGMENT, add_message(scene, 1, "a@b.example"));

	job.dest = 1;
	add_state(scene, job);
}

static void a_headless_journal_belongs_to_the_stream_whose_messages_it_names(void **state)
{
	struct scene scene = scene_make(true);

	(void)state;
	add_waiting(&scene);
	add_other_stream(&scene);
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->found.files[3].sequence, OTHER_JOURNAL);
	assert_int_equal(scene.spool->found.files[3].stream, 1);
	assert_false(scene.spool->found.streams_damaged);
	assert_null(spool_job(scene.spool, 2, 0));
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.flags, 0);
	scene_end(&scene);
}

static void a_headless_segment_belongs_to_the_stream_whose_journal_names_it(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file journal = spool_file(scene.spool, FORMAT_JOURNAL, OTHER_JOURNAL, PAGES);
	struct format_file head = spool_header(scene.spool, FORMAT_JOURNAL, OTHER_JOURNAL);

	(void)state;
	head.stream = 1;
	spool_write_header(&journal, head);
	add_waiting(&scene); /* in SEGMENT */
	spool_mark(&journal, SEGMENT, 512);
	spool_damage(&scene.journal, FORMAT_PAGE_BYTES, FORMAT_PAGE_BYTES * 3);
	spool_damage(&scene.segment, 0, 64);
	spool_recover(scene.spool);
	assert_int_equal(scene.spool->found.files[0].sequence, SEGMENT);
	assert_int_equal(scene.spool->found.files[0].stream, 1);
	assert_false(scene.spool->found.streams_damaged);
	close(journal.fd);
	scene_end(&scene);
}

static void names_of_a_journal_of_nobody_are_not_believed(void **state)
{
	struct scene scene = scene_make(true);
	struct spool_file segment = { .sequence = OTHER_SEGMENT };
	struct recovered *found;
	char path[128];

	(void)state;
	add_waiting(&scene);
	add_other_stream(&scene);
	spool_file_path(scene.spool, false, OTHER_SEGMENT, path);
	segment.fd = open(path, O_RDWR);
	spool_damage(&segment, 0, 64); /* so that nothing tells of stream 1 */
	found = spool_recover(scene.spool);
	assert_true(scene.spool->found.streams_damaged);
	assert_int_equal(found->name_count, 2);
	assert_int_equal(spool_job(scene.spool, 1, 0)->job.dest, found->names[0].id);
	assert_int_equal(spool_job(scene.spool, 2, 0)->job.dest, found->names[1].id);
	assert_true(span_equal(found->names[0].text, span_text("b.example")));
	assert_true(span_equal(found->names[1].text, span_text("other.example")));
	assert_true(spool_job(scene.spool, 2, 0)->unrecorded);
	close(segment.fd);
	scene_end(&scene);
}

static void an_unnamed_big_file_is_removed_only_without_damage(void **state)
{
	struct scene scene = scene_make(true);
	char path[128], text[] = "0000000000001";
	struct format_job job;
	uint64_t *ids;
	size_t count;

	(void)state;
	for (int id = 1; id <= 3; id++) {
		text[12] = (char)('0' + id);
		snprintf(path, sizeof(path), "%s/big/%s", scene.spool->path, text);
		close(open(path, O_CREAT | O_WRONLY, 0600));
	}
	job = spool_state(2, 2, 1, SEGMENT, add_message(&scene, 2, "a@b.example"));
	job.flags = FORMAT_JOB_BIG;
	add_state(&scene, job);
	spool_recover(scene.spool);
	assert_int_equal(
		recover_unnamed_big(&scene.spool->found, &scene.spool->stream, 1, &ids, &count),
		RECOVER_OK);
	assert_int_equal(count, 2);
	assert_true(ids[0] + ids[1] == 4);
	free(ids);
	scene.spool->stream.damaged = true;
	assert_int_equal(
		recover_unnamed_big(&scene.spool->found, &scene.spool->stream, 1, &ids, &count),
		RECOVER_OK);
	assert_int_equal(count, 0);
	scene_end(&scene);
}

static void the_valid_superblock_with_the_higher_generation_wins(void **state)
{
	struct spool *spool = spool_make(true);
	struct format_super super = spool->super, out;
	uint32_t copy;
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/super", spool->path);
	int fd = open(path, O_RDWR), folder = open(spool->path, O_RDONLY | O_DIRECTORY);

	super.generation = 9;
	super.crc = crc_header(&super, sizeof(super), offsetof(struct format_super, crc));
	assert_int_equal(pwrite(fd, &super, sizeof(super), 4096), sizeof(super));
	assert_int_equal(recover_super(folder, RECOVER_FROM_CACHE, &out, &copy), RECOVER_OK);
	assert_int_equal(copy, 1);
	assert_int_equal(pwrite(fd, "x", 1, 4096 + 40), 1); /* torn */
	assert_int_equal(recover_super(folder, RECOVER_FROM_CACHE, &out, &copy), RECOVER_OK);
	assert_int_equal(copy, 0);
	assert_int_equal(out.generation, 1);
	/* The torn one may have given out a block of ids: not again. */
	assert_true(out.block_limit > spool->super.block_limit);
	assert_true(out.epoch > spool->super.epoch);
	assert_true(out.sequence_limit > spool->super.sequence_limit);
	assert_int_equal(out.clean, 0);
	assert_int_equal(pwrite(fd, "x", 1, 40), 1);
	assert_int_equal(recover_super(folder, RECOVER_FROM_CACHE, &out, &copy), RECOVER_DAMAGED);
	super.features_incompatible = UINT64_C(1) << 63;
	super.crc = crc_header(&super, sizeof(super), offsetof(struct format_super, crc));
	assert_int_equal(pwrite(fd, &super, sizeof(super), 0), sizeof(super));
	assert_int_equal(recover_super(folder, RECOVER_FROM_CACHE, &out, &copy),
			 RECOVER_INCOMPATIBLE);
	close(fd);
	unlink(path);
	assert_int_equal(recover_super(folder, RECOVER_FROM_CACHE, &out, &copy), RECOVER_ABSENT);
	close(folder);
	spool_remove(spool);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_states_have_their_fates),
		cmocka_unit_test(a_headless_journal_of_nobody_damages_all_streams),
		cmocka_unit_test(a_headless_journal_belongs_to_the_stream_whose_messages_it_names),
		cmocka_unit_test(a_headless_segment_belongs_to_the_stream_whose_journal_names_it),
		cmocka_unit_test(names_of_a_journal_of_nobody_are_not_believed),
		cmocka_unit_test(an_unnamed_big_file_is_removed_only_without_damage),
		cmocka_unit_test(the_valid_superblock_with_the_higher_generation_wins),
	};
	struct CMUnitTest rows[array_count(first_chunks)];

	for (size_t i = 0; i < array_count(rows); i++)
		rows[i] = (struct CMUnitTest){ .name = first_chunks[i].name,
					       .test_func = first_chunk_row,
					       .initial_state = (void *)&first_chunks[i] };
	int failed = cmocka_run_group_tests_name("first chunks", rows, NULL, NULL);

	return failed + cmocka_run_group_tests_name("recover spool", tests, NULL, NULL);
}
