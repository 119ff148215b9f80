/* The small parts of a stream, one by one: names, schedule, index, mark, free files. */
#include "os/prng.h"
#include "tests/unit/queue_world.h"

static const uint8_t index_uuid[16] = { 0xee, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

/* ── names ────────────────────────────────────────────────────────────────────────── */

static const struct mask_case {
	const char *name, *text, *masked;
} mask_cases[] = {
	{ "plain words stay", "mailbox full", "mailbox full" },
	{ "a code stays", "5.7.1 relaying denied", "5.7.1 relaying denied" },
	{ "a three digit code stays", "550 no", "550 no" },
	{ "an address goes", "<joe@example.com>: unknown", "<@>: unknown" },
	{ "an id goes", "queued as 4XyzZ1abc", "queued as #" },
	{ "a number goes", "try again in 300s", "try again in #" },
	{ "an IP address goes", "[192.0.2.1] blocked", "[#] blocked" },
	{ "a long code-like word goes", "5.1234.99999", "#" },
	{ "nothing stays nothing", "", "" },
};

/* What is kept of a reply's text; in `out`. */
static size_t masked(struct span text, char out[static NAMES_BYTES_MAX])
{
	struct names names = { 0 };
	struct index index;
	struct span host, kept;

	assert_int_equal(index_init(&index, index_uuid, 3, 9, 1 << 17), 0);
	assert_true(names_init(&names, NULL, &index));
	uint32_t id = names_text(&names, span_text("h"), text, false);

	names_split(names_get(&names, NAMES_TEXT, id), &host, &kept);
	assert_true(span_equal(host, span_text("h")));
	memcpy(out, kept.at, kept.len);
	names_deinit(&names);
	index_deinit(&index, index_uuid, 3);
	return kept.len;
}

static void test_mask(void **state)
{
	const struct mask_case *row = *state;
	char out[NAMES_BYTES_MAX];
	size_t len = masked(span_text(row->text), out);

	assert_true(span_equal(span_of(out, len), span_text(row->masked)));
}

static void test_mask_keeps_to_its_room(void **state)
{
	char text[NAMES_BYTES_MAX + 100], out[NAMES_BYTES_MAX];

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(masked(span_of(text, sizeof(text)), out), NAMES_BYTES_MAX - 2);
}

/* ── schedule ─────────────────────────────────────────────────────────────────────── */

static void test_schedule_in_order(void **state)
{
	struct schedule schedule = { 0 };
	struct prng prng = { 1 };
	uint32_t last = 0, slot;
	static uint32_t due[5000];

	(void)state;
	assert_int_equal(schedule_next(&schedule), UINT32_MAX);
	assert_true(schedule_reserve(&schedule, array_count(due)));
	for (uint32_t i = 0; i < array_count(due); i++) {
		due[i] = (uint32_t)prng_below(&prng, 1000);
		schedule_push(&schedule, due[i], i);
	}
	assert_false(schedule.count == 0);
	for (uint32_t i = 0; i < array_count(due); i++) {
		assert_true(schedule_pop(&schedule, 1000, &slot));
		assert_true(due[slot] >= last);
		last = due[slot];
	}
	assert_false(schedule_pop(&schedule, UINT32_MAX - 1, &slot));
	schedule_deinit(&schedule);
}

static void test_schedule_not_before(void **state)
{
	struct schedule schedule = { 0 };
	uint32_t slot;

	(void)state;
	assert_true(schedule_reserve(&schedule, 1));
	schedule_push(&schedule, 100, 7);
	assert_false(schedule_pop(&schedule, 99, &slot));
	assert_int_equal(schedule_next(&schedule), 100);
	assert_true(schedule_pop(&schedule, 100, &slot));
	assert_int_equal(slot, 7);
	schedule_deinit(&schedule);
}

/* ── mark ─────────────────────────────────────────────────────────────────────────── */

static void test_mark_ring_grows(void **state)
{
	struct mark mark = { 0 };

	(void)state;
	for (uint32_t i = 0; i < 3000; i++) {
		assert_true(mark_reserve(&mark, 1));
		assert_int_equal(
			mark_push(&mark, (struct journal_place){ 1, i }, i, (struct os_mono){ 0 }),
			i);
		if (i % 3 == 0)
			mark_pop(&mark);
	}
	assert_int_equal(mark_first(&mark)->slot, 1000);
	mark_deinit(&mark);
}

static void test_mark_durable_only_when_written(void **state)
{
	struct mark mark = { 0 };

	(void)state;
	mark_appended(&mark, (struct journal_place){ 5, 9 }, 10);
	mark_on_durable(&mark, 9);
	assert_int_equal(mark.durable.segment, 0);
	mark_on_durable(&mark, 10);
	assert_int_equal(mark.durable.segment, 5);
}

/* ── index ────────────────────────────────────────────────────────────────────────── */

static void test_index_is_seen(void **state)
{
	struct index index;
	struct index_view view;
	struct format_job job = { .state = FORMAT_WAITING, .message = 77 }, seen;
	uint32_t slot, other;

	(void)state;
	assert_int_equal(index_init(&index, index_uuid, 3, 9, 1 << 17), 0);
	assert_true(index_reserve(&index, 2));
	slot = index_take(&index, &job);
	job.message = 78;
	other = index_take(&index, &job);
	assert_int_equal(index_view_open(&view, index_uuid, 3), 0);
	assert_int_equal(index_view_header(&view)->epoch, 9);
	assert_int_equal(index_view_count(&view), 2);
	assert_true(index_read(&view, slot, &seen));
	assert_int_equal(seen.message, 77);
	job.message = 79;
	index_store(&index, slot, &job);
	assert_true(index_read(&view, slot, &seen));
	assert_int_equal(seen.message, 79);
	index_release(&index, slot);
	assert_false(index_read(&view, slot, &seen));
	assert_true(index_read(&view, other, &seen));
	index_view_close(&view);
	index_deinit(&index, index_uuid, 3);
	assert_true(index_view_open(&view, index_uuid, 3) < 0);
}

static void test_index_has_an_end(void **state)
{
	struct index index;

	(void)state;
	assert_int_equal(index_init(&index, index_uuid, 4, 1, INDEX_EXTENT_SLOTS), 0);
	assert_true(index_reserve(&index, INDEX_EXTENT_SLOTS));
	assert_false(index_reserve(&index, 1));
	index_unreserve(&index, 1);
	assert_true(index_reserve(&index, 1));
	index_deinit(&index, index_uuid, 4);
}

/* ── free files: what may lie in free/ at a start ─────────────────────────────────── */

static void store(const char *path, const void *bytes, size_t count, off_t offset)
{
	FILE *file = fopen(path, "r+");

	if (file == NULL)
		file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fseek(file, offset, SEEK_SET), 0);
	assert_int_equal(fwrite(bytes, 1, count, file), count);
	fclose(file);
}

static bool exists(const struct world *world, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", world->path, name);
	return access(path, F_OK) == 0;
}

/* A file in free/ with a header of this spool, and perhaps a chunk of that life. */
static void make_free_file(struct world *world, const char *name, enum format_kind kind, bool chunk)
{
	struct format_file header = { .kind = (uint16_t)kind, .sequence = 900, .bytes = 1 << 20 };
	struct format_chunk first = { .magic = FORMAT_CHUNK_MAGIC, .sequence = 900 };
	char page[FORMAT_PAGE_BYTES], path[128];

	snprintf(path, sizeof(path), "%s/free/%s", world->path, name);
	pool_make_header(&world->queue->pool, page, &header);
	store(path, page, sizeof(page), 0);
	if (chunk)
		store(path, &first, sizeof(first), FORMAT_PAGE_BYTES);
	assert_int_equal(truncate(path, 1 << 20), 0);
}

static void test_free_files_at_start(void **state)
{
	static const char zeros[FORMAT_PAGE_BYTES];
	struct world *world = *state;
	char path[128];
	uint32_t problems;

	world_begin(world);
	make_free_file(world, "00000900", FORMAT_FREE, false);
	make_free_file(world, "00000901", FORMAT_HOT, false);
	make_free_file(world, "00000902", FORMAT_HOT, true);
	snprintf(path, sizeof(path), "%s/free/00000903", world->path);
	store(path, zeros, sizeof(zeros), 0);
	snprintf(path, sizeof(path), "%s/free/notes.txt", world->path);
	store(path, "hello", 5, 0);
	world_end(world);
	world_begin(world);
	problems = world->problems;
	assert_int_equal(problems, 2);
	assert_true(exists(world, "quarantine/00000902"));
	assert_true(exists(world, "quarantine/notes.txt"));
	assert_false(exists(world, "free/00000903"));
	assert_false(exists(world, "quarantine/00000901"));
	world_end(world);
}

static void test_strange_names_at_start(void **state)
{
	static const char *const names[] = {
		"seg/notes.txt",
		"seg/00000007.copy-of-an-operator-who-was-careful",
		"jnl/a name of more than twenty-three octets",
	};
	static const char *const moved[] = {
		"quarantine/notes.txt",
		"quarantine/00000007.copy-of-an-operator-who-was-careful",
		"quarantine/a name of more than twenty-three octets",
	};
	struct world *world = *state;
	char path[128];

	world_begin(world);
	for (size_t i = 0; i < array_count(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", world->path, names[i]);
		store(path, "hello", 5, 0);
	}
	world_end(world);
	world_begin(world);
	for (size_t i = 0; i < array_count(names); i++) {
		assert_true(exists(world, moved[i]));
	}
	world_end(world);
}

static void test_free_files_of_one_size_serve_both(void **state)
{
	struct world *world = *state;
	const struct pool *pool;
	char name[16];

	world_begin(world);
	assert_int_equal(world->queue->pool.segment_bytes, world->queue->pool.journal_bytes);
	for (uint32_t i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "%08x", 0x900 + i);
		make_free_file(world, name, FORMAT_FREE, false);
	}
	world_end(world);
	world_begin(world);
	pool = &world->queue->pool;
	assert_true(pool->journals.count >= 2);
	assert_true(pool->segments.count >= 2);
	world_end(world);
}

static void test_second_daemon_is_refused(void **state)
{
	struct world *world = *state;
	char error[512] = "";

	world_begin(world);
	assert_null(queue_open(&world->options, NULL, NULL, error));
	assert_non_null(strstr(error, "locked"));
	world_end(world);
}

static void test_epoch_and_sequences_never_go_back(void **state)
{
	struct world *world = *state;
	uint32_t epoch, sequence;
	uint64_t id;

	world_begin(world);
	epoch = world->queue->pool.super.now.epoch;
	sequence = world->queue->pool.super.next_sequence;
	id = world_accept_one(world, "a.example", 1);
	world_reopen(world);
	assert_int_equal(world->queue->pool.super.now.epoch, epoch + 1);
	assert_true(world->queue->pool.super.next_sequence > sequence);
	assert_true(world_accept_one(world, "a.example", 1) > id);
	world_end(world);
}

#define world_test(name, function)                                                                 \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

int main(void)
{
	struct CMUnitTest rows[array_count(mask_cases)];
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mask_keeps_to_its_room),
		{ "the schedule is in order", test_schedule_in_order, NULL, NULL, NULL },
		{ "nothing is due before its time", test_schedule_not_before, NULL, NULL, NULL },
		{ "the mark's ring grows", test_mark_ring_grows, NULL, NULL, NULL },
		{ "a mark is durable when it is written", test_mark_durable_only_when_written, NULL,
		  NULL, NULL },
		{ "a reader sees the index", test_index_is_seen, NULL, NULL, NULL },
		{ "the index has an end", test_index_has_an_end, NULL, NULL, NULL },
		world_test("what may lie in free/ at a start", test_free_files_at_start),
		world_test("strange names at a start", test_strange_names_at_start),
		world_test("free files of one size serve both kinds",
			   test_free_files_of_one_size_serve_both),
		world_test("a second daemon is refused", test_second_daemon_is_refused),
		world_test("epochs, sequences and ids never go back",
			   test_epoch_and_sequences_never_go_back),
	};
	int failed;

	for (size_t i = 0; i < array_count(mask_cases); i++)
		rows[i] = (struct CMUnitTest){ mask_cases[i].name, test_mask, NULL, NULL,
					       (void *)&mask_cases[i] };
	failed = cmocka_run_group_tests_name("names_mask", rows, NULL, NULL);
	return failed + cmocka_run_group_tests_name("queue_parts", tests, NULL, NULL);
}
