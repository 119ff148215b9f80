/* Names on the simulated disk: what a power cut leaves of creations, renames and removals. */
#include <errno.h>

#include "tests/unit/sim_disk_stage.h"

static void an_unsynced_name_may_vanish(void **state)
{
	int there = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = open_file("a", OS_WRITE | OS_CREATE_NEW);
		put_page(fd, 'x', 0);
		assert_int_equal(os_file_sync(fd), 0);
		crash(true);
		there += is_there("a");
	}
	assert_true(there > 0 && there < TRIES);
}

static void an_unsynced_unlink_may_come_back_with_its_bytes(void **state)
{
	int there = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, 'x', 0);
		os_file_sync(fd);
		os_file_close(fd);
		os_unlink(spool, "a");
		crash(true);
		if (!is_there("a"))
			continue;
		there++;
		assert_int_equal(count_letter(open_file("a", OS_READ), 0, 'x', 0), PAGE);
	}
	assert_true(there > 0 && there < TRIES);
}

static void a_rename_is_durable_when_both_folders_are_synced(void **state)
{
	static const struct {
		bool to, from;
	} synced[] = { { false, false }, { true, false }, { false, true }, { true, true } };

	(void)state;
	for (size_t row = 0; row < array_count(synced); row++) {
		int moved = 0;

		for (int i = 0; i < TRIES; i++) {
			int to;

			fresh_disk();
			os_mkdir(spool, "to", 0700);
			os_file_close(new_file("a"));
			to = open_file("to", OS_READ | OS_FOLDER);
			assert_int_equal(os_rename(spool, "a", to, "b"), 0);
			assert_int_equal(synced[row].to ? os_file_sync(to) : 0, 0);
			assert_int_equal(synced[row].from ? os_file_sync(spool) : 0, 0);
			crash(true);
			/* Atomic: in one place, never in both or none. */
			assert_int_not_equal(is_there("a"), is_there("to/b"));
			moved += is_there("to/b");
		}
		assert_true(moved > 0);
		if (synced[row].to && synced[row].from)
			assert_int_equal(moved, TRIES);
		else
			assert_true(moved < TRIES);
	}
}

static void a_rename_over_a_file_leaves_one_of_them(void **state)
{
	int new = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = new_file("old");
		put_page(fd, 'o', 0);
		os_file_sync(fd);
		fd = new_file("new");
		put_page(fd, 'n', 0);
		os_file_sync(fd);
		assert_int_equal(os_rename(spool, "new", spool, "old"), 0);
		crash(true);
		new += count_letter(open_file("old", OS_READ), 0, 'n', 'o') > 0;
	}
	assert_true(new > 0 && new < TRIES);
}

static void synced_file(const char *name, char letter)
{
	int fd = open_file(name, OS_WRITE | OS_CREATE_NEW);

	put_page(fd, letter, 0);
	assert_int_equal(os_file_sync(fd), 0);
	os_file_close(fd);
}

static void a_later_change_is_never_kept_without_an_earlier_one_of_its_name(void **state)
{
	int second = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		fresh_disk();
		synced_file("a", '1');
		os_rename(spool, "a", spool, "b");
		synced_file("a", '2');
		crash(true);
		if (is_there("b"))
			assert_int_equal(count_letter(open_file("b", OS_READ), 0, '1', 0), PAGE);
		if (!is_there("a") || count_letter(open_file("a", OS_READ), 0, '2', '1') == 0)
			continue;
		assert_true(is_there("b"));
		second++;
	}
	assert_true(second > 0);
}

static void a_failed_sync_of_a_folder_lies_the_second_time(void **state)
{
	int there = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		fresh_disk();
		os_file_close(open_file("a", OS_WRITE | OS_CREATE_NEW));
		sky.sync_fails = 1000000;
		assert_int_equal(os_file_sync(spool), -EIO);
		sky.sync_fails = 0;
		assert_int_equal(os_file_sync(spool), 0);
		crash(true);
		there += is_there("a");
	}
	assert_true(there < TRIES);
}

static void kill_9_keeps_names(void **state)
{
	(void)state;
	os_file_close(open_file("a", OS_WRITE | OS_CREATE_NEW));
	crash(false);
	assert_true(is_there("a"));
}

static int count_entry(void *context, const char *name)
{
	(void)name;
	++*(int *)context;
	return 0;
}

static void a_file_that_was_not_named_leaves_no_room_taken(void **state)
{
	uint64_t free_bytes, total;
	int count = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		put_page(open_file(name, OS_WRITE | OS_CREATE_NEW), 'x', 0);
		os_unlink(spool, name);
	}
	os_file_sync(spool);
	crash(true);
	os_folder_list(spool, count_entry, &count);
	assert_int_equal(count, 0);
	os_file_space(spool, &free_bytes, &total);
	assert_int_equal(free_bytes, total);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		ROW(an_unsynced_name_may_vanish),
		ROW(an_unsynced_unlink_may_come_back_with_its_bytes),
		ROW(a_rename_is_durable_when_both_folders_are_synced),
		ROW(a_rename_over_a_file_leaves_one_of_them),
		ROW(a_later_change_is_never_kept_without_an_earlier_one_of_its_name),
		ROW(a_failed_sync_of_a_folder_lies_the_second_time),
		ROW(kill_9_keeps_names),
		ROW(a_file_that_was_not_named_leaves_no_room_taken),
	};

	return cmocka_run_group_tests_name("sim_disk_tree", tests, NULL, NULL);
}
