/* The shared index: what tools see while the owner writes, and of an index that is damaged. */
#include "queue/index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const uint8_t uuid[16] = "test of index.c";
static struct index written;
static struct index_view view;
static _Atomic bool stop;

enum { SLOTS = 3, READS = 200000 };

/* All fields of one version tell its number. */
static struct format_job version(uint32_t number)
{
	struct format_job job = { .type = FORMAT_JOB, .state = FORMAT_WAITING };

	job.version = job.segment = job.place = job.due_s = job.expiry_s = number;
	job.message = job.pending = number;
	job.dest = job.text = job.class_id = number;
	return job;
}

static int set_up(void **state)
{
	(void)state;
	stop = false;
	assert_int_equal(index_init(&written, uuid, 3, 1, 100), 0);
	assert_int_equal(index_view_open(&view, uuid, 3), 0);
	index_view_close(&view);
	assert_true(index_reserve(&written, SLOTS));
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct format_job job = version(1);

		assert_int_equal(index_take(&written, &job), i);
	}
	assert_int_equal(index_view_open(&view, uuid, 3), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	index_view_close(&view);
	index_deinit(&written, uuid, 3);
	return 0;
}

static void writer_run(void *context)
{
	(void)context;
	for (uint32_t number = 2; !atomic_load(&stop); number++)
		for (uint32_t slot = 0; slot < SLOTS; slot++) {
			struct format_job job = version(number);

			index_store(&written, slot, &job);
		}
}

static void a_slot_that_is_read_was_there_at_some_moment(void **state)
{
	struct os_thread *writer;
	uint32_t torn = 0, read = 0;

	(void)state;
	assert_int_equal(os_thread_start(&writer, "writer", writer_run, NULL), 0);
	for (uint32_t i = 0; i < READS; i++) {
		struct format_job job, whole;

		if (!index_read(&view, i % SLOTS, &job))
			continue;
		whole = version(job.version);
		whole.crc = job.crc;
		torn += memcmp(&job, &whole, sizeof(job)) != 0;
		read++;
	}
	atomic_store(&stop, true);
	os_thread_join(writer);
	assert_int_equal(torn, 0);
	assert_true(read > 0);
}

static void a_slot_that_is_being_written_is_not_read(void **state)
{
	struct format_job *slot = (struct format_job *)index_job(&written, 1), job;

	(void)state;
	slot->crc |= 1;
	assert_false(index_read(&view, 1, &job));
	assert_true(index_read(&view, 0, &job));
}

static void a_released_slot_is_not_a_job(void **state)
{
	struct format_job job;

	(void)state;
	index_release(&written, 2);
	assert_false(index_read(&view, 2, &job));
	assert_int_equal(index_view_count(&view), SLOTS);
}

static void counts_beyond_the_mapping_are_cut(void **state)
{
	struct index_header *header = written.slots.at;

	(void)state;
	atomic_store(&header->used, UINT64_MAX);
	assert_int_equal(index_view_count(&view),
			 (view.slots.bytes - sizeof(*header)) / sizeof(struct format_job));
}

static void a_name_longer_than_what_is_published_is_not_read(void **state)
{
	struct format_define define = { .type = FORMAT_DEST, .units = 1, .id = 1 };
	struct format_define *published;
	struct index_view fresh;
	uint64_t at = 0;

	(void)state;
	assert_true(index_publish_name(&written, &define));
	assert_int_equal(index_view_open(&fresh, uuid, 3), 0);
	assert_non_null(index_view_name(&fresh, &at));
	assert_int_equal(at, 1);
	assert_null(index_view_name(&fresh, &at));
	published =
		(struct format_define *)((char *)written.names.at + sizeof(struct index_header));
	for (int units = 0; units < 256; units += units < 2 ? 2 : 253) {
		published->units = (uint8_t)units;
		at = 0;
		assert_null(index_view_name(&fresh, &at));
		assert_int_equal(at, 0);
	}
	index_view_close(&fresh);
}

/* The clock of index_sweep(); a machine that was started just now has no time long ago. */
static uint64_t later_ns;

struct os_mono __real_os_mono_now(void);
struct os_mono __wrap_os_mono_now(void);

struct os_mono __wrap_os_mono_now(void)
{
	return (struct os_mono){ __real_os_mono_now().ns + later_ns };
}

/* What a killed process leaves: is it there after a sweep, `ms` after its last turn? */
static bool stays_after_death(uint64_t ms)
{
	static const uint8_t killed[16] = "killed index.c";
	pid_t child = fork();
	bool stays;

	assert_true(child >= 0);
	if (child == 0) {
		if (index_init(&written, killed, 1, 1, 100) != 0 || !index_reserve(&written, 1))
			_exit(1);
		index_beat(&written, os_mono_now());
		_exit(0);
	}
	assert_int_equal(waitpid(child, NULL, 0), child);
	later_ns = ms * OS_NS_PER_MS;
	index_sweep();
	later_ns = 0;
	stays = index_view_open(&view, killed, 1) == 0;
	if (stays)
		index_view_close(&view);
	index_remove(killed, 1);
	return stays;
}

static void what_a_killed_process_left_is_removed_after_an_hour(void **state)
{
	(void)state;
	assert_true(stays_after_death(60 * 1000));
	assert_false(stays_after_death(2 * 3600 * 1000));
}

/* Anybody may put something of such a name there: a pipe would never be opened. */
static void a_sweep_is_not_held_up_by_strangers(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "/dev/shm/stafette-strange-%d.slots", (int)getpid());
	assert_int_equal(mkfifo(path, 0600), 0);
	index_sweep();
	assert_int_equal(unlink(path), 0);
}

static void a_process_that_lives_keeps_its_index(void **state)
{
	(void)state;
	index_beat(&written, (struct os_mono){ 0 });
	index_sweep();
	index_view_close(&view);
	assert_int_equal(index_view_open(&view, uuid, 3), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_slot_that_is_read_was_there_at_some_moment,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_slot_that_is_being_written_is_not_read, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_released_slot_is_not_a_job, set_up, tear_down),
		cmocka_unit_test_setup_teardown(counts_beyond_the_mapping_are_cut, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_name_longer_than_what_is_published_is_not_read,
						set_up, tear_down),
		cmocka_unit_test(what_a_killed_process_left_is_removed_after_an_hour),
		cmocka_unit_test(a_sweep_is_not_held_up_by_strangers),
		cmocka_unit_test_setup_teardown(a_process_that_lives_keeps_its_index, set_up,
						tear_down),
	};

	return cmocka_run_group_tests_name("index", tests, NULL, NULL);
}
