/* Chunks and records of one file: what is verified, what is damage, what is only a tail. */
#include "queue/scan.h"

#include "tests/unit/queue_spool.h"
#include "tests/unit/read_refuse.h"

enum { PAGES = 32, SEQUENCE = 0x10 };

/* What a scan came upon: 'c' a chunk, 'd' a damaged stretch. */
struct walk {
	char found[64];
	uint32_t messages, records, bad;
	uint32_t end_pages;
	bool torn;
};

static uint32_t named_pages; /* in what is walked next */

static struct walk walk_file(const struct spool_file *file, uint32_t durable, bool closed)
{
	struct walk walk = { 0 };
	struct scan_message message;
	struct scan_record record;
	struct scan_extent extent;
	enum scan_found found;
	struct scan scan;

	assert_true(scan_init(&scan));
	scan_begin(&scan, &(struct scan_input){ .fd = file->fd,
						.sequence = file->sequence,
						.bytes = PAGES * FORMAT_PAGE_BYTES,
						.durable_pages = durable,
						.named_pages = named_pages,
						.closed = closed });
	for (size_t i = 0; (found = scan_next(&scan, &extent)) != SCAN_END; i++) {
		struct scan_cursor cursor = { .extent = extent, .sequence = file->sequence };

		assert_true(i < sizeof(walk.found) - 1);
		walk.found[i] = found == SCAN_CHUNK ? 'c' : 'd';
		while (scan_next_message(&cursor, &message))
			walk.messages++;
		cursor = (struct scan_cursor){ .extent = extent, .sequence = file->sequence };
		while (scan_next_record(&cursor, &record))
			walk.records++;
		walk.bad += cursor.bad;
	}
	assert_int_equal(scan_next(&scan, &extent), SCAN_END); /* and stays there */
	walk.end_pages = scan.end_pages;
	walk.torn = scan.torn;
	scan_deinit(&scan);
	return walk;
}

/* ── chunks ───────────────────────────────────────────────────────────────────────── */

/* Three chunks of a page each, then one of two pages. */
struct chunk_case {
	const char *name;
	uint64_t at; /* where bytes are overwritten */
	size_t count;
	uint32_t durable; /* known from elsewhere, in pages */
	bool closed;
	const char *found;
	uint32_t end_pages;
	bool torn;
};

#define PAGE(n) ((uint64_t)(n)*FORMAT_PAGE_BYTES)

static const struct chunk_case chunk_cases[] = {
	{ "a whole file", 0, 0, 0, false, "cccc", 6, false },
	{ "a bad last chunk is a torn tail", PAGE(4) + 5000, 1, 0, false, "ccc", 4, true },
	{ "a bad last chunk at the durable end is a torn tail", PAGE(4) + 5000, 1, 4, false, "ccc",
	  4, true },
	{ "a bad last chunk below the durable end is damage", PAGE(4) + 5000, 1, 5, false, "cccd",
	  6, false },
	{ "a bad last chunk after an orderly stop is damage", PAGE(4) + 5000, 1, 0, true, "cccd", 6,
	  false },
	{ "a bad chunk before a good one is damage", PAGE(2) + 80, 1, 0, false, "cdcc", 6, false },
	{ "a bad chunk header before a good one is damage", PAGE(2), 8, 0, false, "cdcc", 6,
	  false },
	{ "two bad chunks in a row are one stretch", PAGE(2) + 80, 4096, 0, false, "cdc", 6,
	  false },
	{ "a bad first chunk is damage", PAGE(1) + 8, 4, 0, false, "dccc", 6, false },
	{ "an impossible length is damage", PAGE(1) + 16, 4, 0, false, "dccc", 6, false },
	{ "nothing but a torn chunk", PAGE(1) + 70, 5 * 4096, 0, false, "", 1, true },
	{ "a last chunk whose header is gone leaves no trace", PAGE(4), 8192, 0, false, "ccc", 4,
	  false },
	{ "beyond a lost header the durable end still tells", PAGE(4), 8192, 6, false, "cccd", 6,
	  false },
	{ "a durable end beyond the file is cut to it", PAGE(4), 8192, 9999, false, "cccd", PAGES,
	  false },
};

/* Three of one page, and one of two. */
static struct spool_file four_chunks(struct spool *spool)
{
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, PAGES);
	char body[5001];

	memset(body, 'x', 5000);
	body[5000] = 0;
	for (uint64_t id = 1; id <= 3; id++)
		spool_message(&file, &(struct spool_message){ .id = id, .recipients = "a@b" });
	spool_message(&file, &(struct spool_message){ .id = 4, .recipients = "a@b", .body = body });
	return file;
}

static void chunk_row(void **state)
{
	const struct chunk_case *row = *state;
	struct spool *spool = spool_make(true);
	struct spool_file file = four_chunks(spool);
	struct walk walk;

	spool_damage(&file, row->at, row->count);
	walk = walk_file(&file, row->durable, row->closed);
	assert_string_equal(walk.found, row->found);
	assert_int_equal(walk.end_pages, row->end_pages);
	assert_int_equal(walk.torn, row->torn);
	close(file.fd);
	spool_remove(spool);
}

/* The same chunks, and pages that can't be read. */
struct unreadable_case {
	const char *name;
	uint64_t at;
	uint32_t named, durable;
	const char *found;
	uint32_t messages, end_pages;
	bool torn;
};

static const struct unreadable_case unreadable_cases[] = {
	{ "unreadable: the first page of the last chunk", PAGE(4), 0, 0, "cccd", 3, PAGES, false },
	{ "unreadable: a later page of the last chunk", PAGE(5), 0, 0, "cccd", 4, PAGES, false },
	{ "unreadable: the first page of it, with a record that points there", PAGE(4), 0, 5,
	  "cccd", 3, PAGES, false },
	{ "unreadable: the first page behind the last chunk", PAGE(6), 0, 0, "ccccd", 4, PAGES,
	  false },
	{ "unreadable: behind the end that the next file names", PAGE(6), 6, 6, "cccc", 4, 6,
	  false },
	{ "unreadable: within the end that the next file names", PAGE(4), 6, 6, "cccd", 3, 6,
	  false },
	{ "unreadable: far behind the last chunk", PAGE(7), 0, 0, "cccc", 4, 6, false },
	{ "unreadable: a chunk before a good one", PAGE(2), 0, 0, "cdcc", 3, 6, false },
};

static void unreadable_row(void **state)
{
	const struct unreadable_case *row = *state;
	struct spool *spool = spool_make(true);
	struct spool_file file = four_chunks(spool);
	struct walk walk;

	make_unreadable(file.fd, row->at, FORMAT_PAGE_BYTES);
	named_pages = row->named;
	walk = walk_file(&file, row->durable, false);
	named_pages = 0;
	unreadable.count = 0;
	assert_string_equal(walk.found, row->found);
	assert_int_equal(walk.messages, row->messages);
	assert_int_equal(walk.end_pages, row->end_pages);
	assert_int_equal(walk.torn, row->torn);
	close(file.fd);
	spool_remove(spool);
}

static void a_chunk_of_another_sequence_ends_the_file(void **state)
{
	struct spool *spool = spool_make(true);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, PAGES);
	struct spool_message message = { .id = 1, .recipients = "a@b" };
	struct walk walk;

	(void)state;
	spool_message(&file, &message);
	file.sequence++;
	spool_message(&file, &message);
	file.sequence--;
	walk = walk_file(&file, 0, true);
	assert_string_equal(walk.found, "c");
	assert_false(walk.torn);
	close(file.fd);
	spool_remove(spool);
}

static void an_earlier_chunk_number_is_not_taken_for_the_next(void **state)
{
	struct spool *spool = spool_make(true);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, PAGES);
	struct spool_message message = { .id = 1, .recipients = "a@b" };

	(void)state;
	spool_message(&file, &message);
	spool_message(&file, &message);
	file.number = 1;
	spool_message(&file, &message);
	assert_string_equal(walk_file(&file, 0, false).found, "cc");
	close(file.fd);
	spool_remove(spool);
}

static void chunks_across_the_edge_of_the_buffer_are_read_whole(void **state)
{
	struct spool *spool = spool_make(true);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, 8000);
	char *body = malloc(1000001);
	struct scan_extent extent;
	struct scan_message message;
	struct scan scan;
	uint64_t next = 1;

	(void)state;
	memset(body, 'x', 1000000);
	body[1000000] = 0;
	for (uint64_t id = 1; id <= 28; id++)
		spool_message(&file, &(struct spool_message){
					     .id = id, .recipients = "a@b", .body = body });
	scan_init(&scan);
	scan_begin(&scan, &(struct scan_input){
				  .fd = file.fd, .sequence = SEQUENCE, .bytes = PAGE(8000) });
	while (scan_next(&scan, &extent) == SCAN_CHUNK) {
		struct scan_cursor cursor = { .extent = extent, .sequence = SEQUENCE };

		assert_true(scan_next_message(&cursor, &message));
		assert_true(message.head.id == next++ && message.body_good);
		assert_int_equal(crc_of(message.body.at, message.body.len), message.head.body_crc);
	}
	assert_int_equal(next, 29);
	scan_deinit(&scan);
	free(body);
	close(file.fd);
	spool_remove(spool);
}

static void a_long_damaged_stretch_comes_in_pieces_that_overlap(void **state)
{
	enum { LONG = 5000 };
	struct spool *spool = spool_make(true);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, LONG);
	struct scan_extent extent;
	uint64_t covered = FORMAT_PAGE_BYTES;
	struct scan scan;

	(void)state;
	scan_init(&scan);
	scan_begin(&scan, &(struct scan_input){ .fd = file.fd,
						.sequence = SEQUENCE,
						.bytes = PAGE(LONG),
						.durable_pages = LONG });
	while (scan_next(&scan, &extent) == SCAN_DAMAGE) {
		assert_true(extent.offset <= covered);
		covered = extent.offset + extent.bytes.len;
	}
	assert_int_equal(covered, PAGE(LONG));
	scan_deinit(&scan);
	close(file.fd);
	spool_remove(spool);
}

static void an_unreadable_file_is_zeros_and_no_crash(void **state)
{
	struct spool_file file = { .fd = -1, .sequence = SEQUENCE };

	(void)state;
	assert_string_equal(walk_file(&file, 3, false).found, "d");
}

/* ── records ──────────────────────────────────────────────────────────────────────── */

static void all_messages_of_a_chunk_are_found(void **state)
{
	struct spool *spool = spool_make(true);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, PAGES);
	struct spool_chunk chunk = { 0 };
	struct walk walk;

	(void)state;
	for (uint64_t id = 1; id <= 50; id++)
		chunk_message(&chunk, SEQUENCE,
			      &(struct spool_message){ .id = id, .recipients = "a@b c@d" });
	spool_write(&file, &chunk);
	walk = walk_file(&file, 0, false);
	assert_int_equal(walk.messages, 50);
	close(file.fd);
	spool_remove(spool);
}

static void all_kinds_of_journal_records_are_found(void **state)
{
	struct spool *spool = spool_make(true);
	struct spool_file file = spool_file(spool, FORMAT_JOURNAL, SEQUENCE, PAGES);
	struct format_job job = spool_state(1, 1, 1, 5, 512);
	struct format_mark mark = { .type = FORMAT_MARK, .segment = 9 };
	struct format_start start = { .type = FORMAT_START, .epoch = 3 };
	struct spool_chunk chunk = { 0 };
	char text[497];
	struct walk walk;

	(void)state;
	memset(text, 't', 496);
	text[496] = 0;
	chunk_define(&chunk, SEQUENCE, FORMAT_DEST, 1, "b.example");
	chunk_define(&chunk, SEQUENCE, FORMAT_TEXT, 1, text); /* 8 units */
	chunk_record(&chunk, SEQUENCE, &job, 64);
	chunk_record(&chunk, SEQUENCE, &mark, 64);
	chunk_record(&chunk, SEQUENCE, &start, 64);
	spool_write(&file, &chunk);
	walk = walk_file(&file, 0, false);
	assert_int_equal(walk.records, 5);
	close(file.fd);
	spool_remove(spool);
}

/* One definition as hostile bytes, its checksum right. */
struct define_case {
	const char *name;
	uint8_t units;
	uint16_t bytes;
	bool found;
};

static const struct define_case define_cases[] = {
	{ "a definition of one unit", 1, 48, true },
	{ "more text than its units hold", 1, 49, false },
	{ "no units", 0, 0, false },
	{ "nine units", 9, 0, false },
	{ "more units than the chunk has", 3, 0, false },
};

static void define_row(void **state)
{
	const struct define_case *row = *state;
	_Alignas(64) char bytes[128] = { 0 };
	struct format_define define = {
		.type = FORMAT_TEXT, .units = row->units, .bytes = row->bytes, .id = 1
	};
	size_t covered = row->units == 1 ? 64 : 128;
	struct scan_cursor cursor = { .extent = { .bytes = { bytes, 128 } }, .sequence = 1 };
	struct scan_record record;

	memcpy(bytes, &define, sizeof(define));
	define.crc = crc_record(1, bytes, covered, 0);
	memcpy(bytes, &define, sizeof(define));
	assert_int_equal(scan_next_record(&cursor, &record), row->found);
	if (row->found)
		assert_int_equal(record.text.len, row->bytes);
}

/* What a failed write (R9) left in a file: its messages were promised, if at all, from the next. */
static uint64_t jobs_behind_the_end_that_the_next_tells(uint32_t epoch)
{
	struct spool *spool = spool_make(false);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, PAGES);
	struct spool_file next = spool_file(spool, FORMAT_HOT, SEQUENCE + 1, PAGES);
	struct format_file head = spool_header(spool, FORMAT_HOT, SEQUENCE + 1);
	uint64_t jobs;

	spool_message(&file, &(struct spool_message){ .id = 1, .recipients = "a@b.example" });
	head.previous_sequence = SEQUENCE;
	head.previous_end = file.page;
	head.epoch = epoch;
	spool_write_header(&next, head);
	spool_message(&file, &(struct spool_message){ .id = 2, .recipients = "a@b.example" });
	jobs = spool_recover(spool)->job_count;
	assert_int_equal(spool->stream.problems.count, 0);
	close(next.fd);
	close(file.fd);
	spool_remove(spool);
	return jobs;
}

static void a_chunk_behind_the_end_that_the_next_header_tells_is_void(void **state)
{
	(void)state;
	assert_int_equal(jobs_behind_the_end_that_the_next_tells(7), 1);
}

/* A later run says what recovery believed then. */
static void the_end_that_another_run_tells_voids_nothing(void **state)
{
	(void)state;
	assert_int_equal(jobs_behind_the_end_that_the_next_tells(8), 2);
}

/* It had none before, so the header behind it names the file before it. */
static void the_failed_first_chunk_of_a_file_is_void(void **state)
{
	struct spool *spool = spool_make(false);
	struct spool_file file = spool_file(spool, FORMAT_HOT, SEQUENCE, PAGES);
	struct spool_file failed = spool_file(spool, FORMAT_HOT, SEQUENCE + 1, PAGES);
	struct spool_file next = spool_file(spool, FORMAT_HOT, SEQUENCE + 2, PAGES);
	struct format_file head = spool_header(spool, FORMAT_HOT, SEQUENCE + 2);

	(void)state;
	spool_message(&file, &(struct spool_message){ .id = 1, .recipients = "a@b.example" });
	spool_message(&failed, &(struct spool_message){ .id = 2, .recipients = "a@b.example" });
	head.previous_sequence = SEQUENCE;
	head.previous_end = file.page;
	spool_write_header(&next, head);
	assert_int_equal(spool_recover(spool)->job_count, 1);
	assert_int_equal(spool->stream.problems.count, 0);
	close(next.fd);
	close(failed.fd);
	close(file.fd);
	spool_remove(spool);
}

int main(void)
{
	static const struct CMUnitTest facts[] = {
		cmocka_unit_test(a_chunk_of_another_sequence_ends_the_file),
		cmocka_unit_test(an_earlier_chunk_number_is_not_taken_for_the_next),
		cmocka_unit_test(chunks_across_the_edge_of_the_buffer_are_read_whole),
		cmocka_unit_test(a_long_damaged_stretch_comes_in_pieces_that_overlap),
		cmocka_unit_test(an_unreadable_file_is_zeros_and_no_crash),
		cmocka_unit_test(all_messages_of_a_chunk_are_found),
		cmocka_unit_test(all_kinds_of_journal_records_are_found),
		cmocka_unit_test(a_chunk_behind_the_end_that_the_next_header_tells_is_void),
		cmocka_unit_test(the_end_that_another_run_tells_voids_nothing),
		cmocka_unit_test(the_failed_first_chunk_of_a_file_is_void),
	};
	struct CMUnitTest rows[array_count(chunk_cases) + array_count(unreadable_cases) +
			       array_count(define_cases)];
	size_t count = 0;

	for (size_t i = 0; i < array_count(chunk_cases); i++)
		rows[count++] = (struct CMUnitTest){ .name = chunk_cases[i].name,
						     .test_func = chunk_row,
						     .initial_state = (void *)&chunk_cases[i] };
	for (size_t i = 0; i < array_count(unreadable_cases); i++)
		rows[count++] =
			(struct CMUnitTest){ .name = unreadable_cases[i].name,
					     .test_func = unreadable_row,
					     .initial_state = (void *)&unreadable_cases[i] };
	for (size_t i = 0; i < array_count(define_cases); i++)
		rows[count++] = (struct CMUnitTest){ .name = define_cases[i].name,
						     .test_func = define_row,
						     .initial_state = (void *)&define_cases[i] };
	int failed = cmocka_run_group_tests_name("scan", rows, NULL, NULL);

	return failed + cmocka_run_group_tests(facts, NULL, NULL);
}
