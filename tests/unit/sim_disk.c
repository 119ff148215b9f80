/* What the simulated disk grants and what it takes back: the daemon's promises stand on this. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/file_facts.h"
#include "tests/unit/sim_disk_stage.h"

/* ── contents ── */

static void an_unsynced_write_may_vanish_tear_or_stay_at_a_power_cut(void **state)
{
	int none = 0, some = 0, all = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd, count;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, 'o', 0);
		assert_int_equal(os_file_sync(fd), 0);
		put_page(fd, 'n', 0);
		crash(true);
		count = count_letter(open_file("a", OS_READ), 0, 'n', 'o');
		assert_int_equal(count % 512, 0);
		none += count == 0;
		some += count > 0 && count < PAGE;
		all += count == PAGE;
	}
	assert_true(none > 0 && some > 0 && all > 0);
}

static void an_older_unsynced_content_may_be_what_stays(void **state)
{
	int middle = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, '1', 0);
		assert_int_equal(os_file_sync(fd), 0);
		put_page(fd, '2', 0);
		put_page(fd, '3', 0);
		crash(true);
		os_file_read(open_file("a", OS_READ), page, sizeof(page), 0);
		middle += memchr(page, '2', sizeof(page)) != NULL;
	}
	assert_true(middle > 0);
}

static void a_synced_write_survives(void **state)
{
	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, 'x', 0);
		put_page(fd, 'x', 3);
		assert_int_equal(os_file_sync(fd), 0);
		crash(true);
		fd = open_file("a", OS_READ);
		assert_int_equal(os_file_size(fd), 4 * PAGE);
		assert_int_equal(count_letter(fd, 0, 'x', 0), PAGE);
		assert_int_equal(count_letter(fd, 1, 'x', 0), 0);
		assert_int_equal(count_letter(fd, 3, 'x', 0), PAGE);
	}
}

static void a_durable_write_survives_and_its_neighbour_need_not(void **state)
{
	int lost = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		uint64_t delay_ns;
		int fd;

		fresh_disk();
		fd = os_file_open(spool, "a", OS_READ | OS_WRITE | OS_CREATE_NEW | OS_DIRECT, 0);
		os_file_sync(spool);
		put_page(fd, 'n', 0);
		memset(page, 'd', sizeof(page));
		assert_int_equal(disk_finish(disk_begin_write(fd, page, PAGE, PAGE,
							      OS_WRITE_DURABLE, &delay_ns)),
				 PAGE);
		crash(true);
		fd = open_file("a", OS_READ);
		assert_int_equal(count_letter(fd, 1, 'd', 0), PAGE);
		lost += count_letter(fd, 0, 'n', 0) < PAGE;
	}
	assert_true(lost > 0);
}

static void a_durable_write_that_is_not_finished_is_left_to_chance(void **state)
{
	static struct disk_work *unfinished[TRIES]; /* a life's, which ends with its process */
	int none = 0, all = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		uint64_t delay_ns;
		int fd, count;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, 0, 0);
		assert_int_equal(os_file_sync(fd), 0);
		memset(page, 'd', sizeof(page));
		unfinished[i] = disk_begin_write(fd, page, PAGE, 0, OS_WRITE_DURABLE, &delay_ns);
		assert_non_null(unfinished[i]);
		crash(true);
		count = count_letter(open_file("a", OS_READ), 0, 'd', 0);
		none += count == 0;
		all += count == PAGE;
	}
	assert_true(none > 0 && all > 0);
}

static void a_sync_covers_what_was_written_before_it_began(void **state)
{
	int lost = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		struct disk_work *work;
		uint64_t delay_ns;
		int fd;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, 'b', 0);
		work = disk_begin_sync(fd, &delay_ns);
		put_page(fd, 'l', 1);
		assert_int_equal(disk_finish(work), 0);
		crash(true);
		fd = open_file("a", OS_READ);
		assert_int_equal(count_letter(fd, 0, 'b', 0), PAGE);
		lost += count_letter(fd, 1, 'l', 0) < PAGE;
	}
	assert_true(lost > 0);
}

static void the_size_of_an_unsynced_file_may_fall_back(void **state)
{
	int back = 0, kept = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int64_t size;
		int fd;

		fresh_disk();
		fd = new_file("a");
		put_page(fd, 'x', 0);
		os_file_sync(fd);
		put_page(fd, 'y', 1);
		crash(true);
		fd = open_file("a", OS_READ);
		size = os_file_size(fd);
		assert_in_range(size, PAGE, 2 * PAGE);
		assert_int_equal(count_letter(fd, 0, 'x', 0), PAGE);
		back += size == PAGE;
		kept += size == 2 * PAGE;
	}
	assert_true(back > 0 && kept > 0);
}

static void kill_9_keeps_the_cache_and_it_is_still_not_durable(void **state)
{
	int lost = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		fresh_disk();
		put_page(new_file("a"), 'x', 0);
		crash(false);
		assert_int_equal(count_letter(open_file("a", OS_READ), 0, 'x', 0), PAGE);
		crash(true);
		lost += count_letter(open_file("a", OS_READ), 0, 'x', 0) < PAGE;
	}
	assert_true(lost > 0);
}

/* 'o' is durable, and of 'n' that fails. */
static int badly_synced_file(void)
{
	int fd = new_file("a");

	put_page(fd, 'o', 0);
	assert_int_equal(os_file_sync(fd), 0);
	put_page(fd, 'n', 0);
	sky.sync_fails = 1000000;
	assert_int_equal(os_file_sync(fd), -EIO);
	sky.sync_fails = 0;
	return fd;
}

static void a_failed_sync_lies_the_second_time(void **state)
{
	int lost = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = badly_synced_file();
		assert_int_equal(os_file_sync(fd), 0);
		assert_int_equal(count_letter(fd, 0, 'n', 'o'), PAGE); /* the cache has it */
		crash(true);
		lost += count_letter(open_file("a", OS_READ), 0, 'n', 'o') < PAGE;
		assert_int_equal(disk_failures(), 1);
	}
	assert_true(lost > 0);
}

static void after_a_failed_sync_the_truth_is_past_the_cache(void **state)
{
	int direct, fd = badly_synced_file();

	(void)state;
	direct = open_file("a", OS_READ | OS_DIRECT);
	assert_true(count_letter(direct, 0, 'n', 'o') < PAGE);
	assert_int_equal(count_letter(fd, 0, 'n', 'o'), PAGE);
	assert_int_equal(os_file_drop_cache(fd), 0);
	assert_true(count_letter(fd, 0, 'n', 'o') < PAGE);
}

static bool read_is_found(int fd)
{
	jmp_buf here;
	volatile bool found = true;

	finding = &here;
	if (setjmp(here) == 0) {
		count_letter(fd, 0, 'n', 'o');
		found = false;
	}
	finding = NULL;
	return found;
}

static void the_next_life_may_not_believe_it(void **state)
{
	int fd = badly_synced_file();

	(void)state;
	assert_false(read_is_found(fd));
	crash(false);
	fd = open_file("a", OS_READ);
	assert_true(read_is_found(fd));
	os_file_drop_cache(fd);
	assert_false(read_is_found(fd));
}

static int32_t put_durably(int fd)
{
	uint64_t delay_ns;

	return disk_finish(disk_begin_write(fd, page, PAGE, 0, OS_WRITE_DURABLE, &delay_ns));
}

static void a_failed_direct_write_may_be_there(void **state)
{
	int none = 0, some = 0, all = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd, count;

		fresh_disk();
		fd = open_file("a", OS_READ | OS_WRITE | OS_CREATE_NEW | OS_DIRECT);
		memset(page, 'o', sizeof(page));
		assert_int_equal(put_durably(fd), PAGE);
		memset(page, 'n', sizeof(page));
		sky.sync_fails = 1000000;
		assert_int_equal(put_durably(fd), -EIO);
		sky.sync_fails = 0;
		count = count_letter(fd, 0, 'n', 'o');
		none += count == 0;
		some += count > 0 && count < PAGE;
		all += count == PAGE;
	}
	assert_true(none > 0 && some > 0 && all > 0);
}

/* How many of TRIES durable writes fail. */
static int count_failures(int fd)
{
	int failures = 0;

	for (int i = 0; i < TRIES; i++)
		failures += put_durably(fd) < 0;
	return failures;
}

static void a_bad_spell_begins_at_a_commit_and_ends(void **state)
{
	int other = new_file("a"), commit, failures;

	(void)state;
	os_mkdir(spool, "seg", 0700);
	commit = open_file("seg/a", OS_WRITE | OS_CREATE);
	sky.bad_spells = 1000000;
	sky.disk_us = 1000;
	assert_int_equal(count_failures(other), 0);
	put_durably(commit);
	failures = count_failures(other);
	assert_true(failures > TRIES / 2 && failures < TRIES);
	now_ns = UINT64_C(1000) * OS_NS_PER_S;
	assert_int_equal(count_failures(other), 0);
}

static void what_a_dying_disk_calls_done_may_vanish(void **state)
{
	int done = 0, lost = 0;

	(void)state;
	sky.deaths = 1000000;
	for (int i = 0; i < TRIES; i++) {
		int32_t result;
		int fd;

		fresh_disk();
		fd = new_file("a");
		memset(page, 'd', sizeof(page));
		result = put_durably(fd);
		assert_true(result == PAGE || result == -EIO);
		crash(false); /* as by a power cut */
		done += result == PAGE;
		lost += result == PAGE && count_letter(open_file("a", OS_READ), 0, 'd', 0) < PAGE;
	}
	assert_int_equal(cuts, TRIES);
	assert_true(done > 0 && done < TRIES && lost > 0);
}

static void a_sync_at_the_death_may_lie_and_no_later_one(void **state)
{
	int lies = 0;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		struct disk_work *work;
		uint64_t delay_ns;
		int fd, dying;

		fresh_disk();
		fd = new_file("a");
		dying = new_file("b");
		put_page(fd, 'x', 0);
		work = disk_begin_sync(fd, &delay_ns);
		sky.deaths = 1000000;
		put_durably(dying);
		sky.deaths = 0;
		lies += disk_finish(work) == 0;
		assert_int_equal(os_file_sync(fd), -EIO);
		assert_int_equal(os_file_sync(spool), -EIO);
	}
	assert_true(lies > 0 && lies < TRIES);
}

static void nothing_that_begins_on_a_dead_disk_succeeds(void **state)
{
	int dying = new_file("a"), cold = new_file("b");
	struct iovec iov = { "line\n", 5 };

	(void)state;
	put_page(cold, 'x', 0);
	assert_int_equal(os_file_sync(cold), 0);
	os_file_drop_cache(cold);
	sky.deaths = 1000000;
	put_durably(dying);
	assert_int_equal(put_durably(dying), -EIO);
	assert_int_equal(put_page(dying, 'x', 1), -EIO);
	assert_int_equal(os_file_append(open_file("a", OS_APPEND), &iov, 1), -EIO);
	assert_int_equal(os_file_read(cold, page, PAGE, 0), -EIO);
	assert_int_equal(os_file_truncate(cold, 0), -EROFS);
	assert_int_equal(os_file_open(spool, "c", OS_WRITE | OS_CREATE, 0600), -EROFS);
	assert_int_equal(os_mkdir(spool, "d", 0700), -EROFS);
	assert_int_equal(os_rename(spool, "b", spool, "c"), -EROFS);
	assert_int_equal(os_unlink(spool, "b"), -EROFS);
	sky.deaths = 0;
	crash(false);
	assert_int_equal(count_letter(open_file("b", OS_READ), 0, 'x', 0), PAGE);
	assert_int_equal(put_durably(open_file("b", OS_WRITE)), PAGE);
}

static void direct_transfers_have_to_be_aligned(void **state)
{
	int fd = open_file("a", OS_READ | OS_WRITE | OS_CREATE_NEW | OS_DIRECT);

	(void)state;
	assert_int_equal(os_file_write(fd, page, 512, 0), -EINVAL);
	assert_int_equal(os_file_write(fd, page, PAGE, 100), -EINVAL);
	assert_int_equal(os_file_read(fd, page + 8, PAGE - 4096, 0), -EINVAL);
	assert_int_equal(os_file_write(fd, page, PAGE, PAGE), PAGE);
}

static void a_flipped_bit_stays(void **state)
{
	int fd = new_file("a");

	(void)state;
	put_page(fd, 0, 0);
	os_file_sync(fd);
	sky.bit_flips = 1000000;
	os_file_read(fd, page, sizeof(page), 0);
	assert_int_equal(disk_flips(), 0); /* cached */
	os_file_drop_cache(fd);
	os_file_read(fd, page, sizeof(page), 0);
	assert_int_equal(disk_flips(), 1);
	sky.bit_flips = 0;
	for (int again = 0; again < 2; again++) {
		int bits = 0;

		os_file_read(open_file("a", OS_READ), page, sizeof(page), 0);
		for (int i = 0; i < PAGE; i++)
			bits += __builtin_popcount((unsigned char)page[i]);
		assert_int_equal(bits, 1);
		crash(true);
	}
}

static void reads_past_the_cache_may_fail(void **state)
{
	int fd = new_file("a");

	(void)state;
	put_page(fd, 'x', 0);
	os_file_sync(fd);
	sky.read_fails = 1000000;
	assert_int_equal(os_file_read(fd, page, PAGE, 0), PAGE);
	os_file_drop_cache(fd);
	assert_int_equal(os_file_read(fd, page, PAGE, 0), -EIO);
	assert_int_equal(disk_failures(), 1);
}

static void the_worlds_own_files_never_fail(void **state)
{
	char *bytes;
	size_t count;

	(void)state;
	disk_put("/etc/stafette.conf", "a = 1\n", 6);
	crash(true);
	sky.read_fails = sky.bit_flips = 1000000;
	assert_int_equal(os_file_load(OS_CURRENT_FOLDER, "/etc/stafette.conf", 100, &bytes, &count),
			 0);
	assert_string_equal(bytes, "a = 1\n");
	free(bytes);
	assert_int_equal(os_file_load(OS_CURRENT_FOLDER, "/etc/stafette.conf", 5, &bytes, &count),
			 -EFBIG);
}

/* ── room ── */

static void a_full_disk_takes_what_fits_and_written_blocks_again(void **state)
{
	static _Alignas(PAGE) char much[4 * PAGE];
	uint64_t free_bytes, total;
	int fd = new_file("a");

	(void)state;
	sky.disk_bytes = (2 * PAGE);
	assert_int_equal(os_file_write(fd, much, sizeof(much), 0), 2 * PAGE);
	assert_int_equal(os_file_write(fd, much, PAGE, 2 * PAGE), -ENOSPC);
	assert_int_equal(os_file_write(fd, much, 2 * PAGE, 0), 2 * PAGE);
	assert_int_equal(os_file_space(spool, &free_bytes, &total), 0);
	assert_int_equal(free_bytes, 0);
	assert_int_equal(os_file_truncate(fd, PAGE), 0);
	os_file_space(spool, &free_bytes, &total);
	assert_int_equal(free_bytes, PAGE);
}

static void an_unlinked_file_keeps_its_room_until_it_is_closed(void **state)
{
	uint64_t free_bytes, total;
	int fd = new_file("a");

	(void)state;
	put_page(fd, 'x', 0);
	assert_int_equal(os_unlink(spool, "a"), 0);
	assert_int_equal(count_letter(fd, 0, 'x', 0), PAGE);
	os_file_space(spool, &free_bytes, &total);
	assert_int_equal(free_bytes, total - PAGE);
	os_file_close(fd);
	os_file_space(spool, &free_bytes, &total);
	assert_int_equal(free_bytes, total);
}

static void what_a_power_cut_takes_has_no_room_any_more(void **state)
{
	uint64_t free_bytes, total;

	(void)state;
	for (int i = 0; i < TRIES; i++) {
		int fd;

		fresh_disk();
		fd = new_file("a");
		for (uint64_t index = 0; index < 8; index++)
			put_page(fd, 'x', index);
		crash(true);
		os_unlink(spool, "a");
		os_file_space(spool, &free_bytes, &total);
		assert_int_equal(free_bytes, total);
	}
}

/* ── calls ── */

static void what_is_not_there_cannot_be_used(void **state)
{
	(void)state;
	os_file_close(new_file("a"));
	assert_int_equal(os_file_open(77, "a", OS_READ, 0), -EBADF);
	assert_true(os_file_open(spool, "../spool/./a", OS_READ, 0) >= 0);
	sky.no_direct = 1;
	assert_int_equal(os_file_open(spool, "a", OS_READ | OS_DIRECT, 0), -EINVAL);
}

static void a_lock_goes_with_its_life(void **state)
{
	int first = new_file("lock"), second = open_file("lock", OS_READ);

	(void)state;
	assert_int_equal(os_file_lock(first), 0);
	assert_int_equal(os_file_lock(first), 0);
	assert_int_equal(os_file_lock(second), -EWOULDBLOCK);
	os_file_sync(spool);
	crash(false);
	assert_int_equal(os_file_lock(open_file("lock", OS_READ)), 0);
}

static void append(int fd, const char *text)
{
	struct iovec iov = { (char *)text, strlen(text) };

	assert_int_equal(os_file_append(fd, &iov, 1), strlen(text));
}

static void whole_lines_of_the_delivery_log_are_told(void **state)
{
	int fd = os_file_open(OS_CURRENT_FOLDER, "/log/delivery.log",
			      OS_WRITE | OS_APPEND | OS_CREATE, 0);

	(void)state;
	append(fd, "one\ntw");
	assert_string_equal(told, "one|");
	append(fd, "o\n");
	assert_string_equal(told, "one|two|");
	append(2, "notice\n");
	assert_string_equal(told, "one|two|notice|");
	append(open_file("other", OS_APPEND | OS_CREATE), "three\n");
	assert_string_equal(told, "one|two|notice|");
}

static void a_short_append_says_how_much(void **state)
{
	int fd = open_file("a", OS_APPEND | OS_CREATE);
	struct iovec iov[] = { { "01234", 5 }, { "56789", 5 } };
	ssize_t put;
	size_t count;

	(void)state;
	sky.short_writes = 1000000;
	put = os_file_append(fd, iov, 2);
	assert_in_range(put, 1, 10);
	assert_memory_equal(disk_look("/spool/a", &count), "0123456789", (size_t)put);
	assert_int_equal(count, put);
}

static void usage_counts_below_a_folder(void **state)
{
	uint64_t files, bytes;

	(void)state;
	os_mkdir(spool, "sub", 0700);
	put_page(open_file("sub/a", OS_WRITE | OS_CREATE), 'x', 0);
	put_page(open_file("b", OS_WRITE | OS_CREATE), 'x', 1);
	disk_usage("/spool", &files, &bytes);
	assert_int_equal(files, 2);
	assert_int_equal(bytes, 3 * PAGE);
}

static void a_file_counts_as_open_until_it_is_closed(void **state)
{
	const char *path;
	uint32_t before = disk_open_count(&path);
	int fd = open_file("a", OS_WRITE | OS_CREATE);

	(void)state;
	assert_int_equal(disk_open_count(&path), before + 1);
	assert_non_null(path);
	os_file_close(fd);
	assert_int_equal(disk_open_count(&path), before);
}

static int setup_facts(void **state)
{
	setup(state);
	facts_folder = spool;
	return 0;
}

#define FACT_ROW(name) cmocka_unit_test_setup(name, setup_facts)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		FACTS(FACT_ROW),
		ROW(an_unsynced_write_may_vanish_tear_or_stay_at_a_power_cut),
		ROW(an_older_unsynced_content_may_be_what_stays),
		ROW(a_synced_write_survives),
		ROW(a_durable_write_survives_and_its_neighbour_need_not),
		ROW(a_durable_write_that_is_not_finished_is_left_to_chance),
		ROW(a_sync_covers_what_was_written_before_it_began),
		ROW(the_size_of_an_unsynced_file_may_fall_back),
		ROW(kill_9_keeps_the_cache_and_it_is_still_not_durable),
		ROW(a_failed_sync_lies_the_second_time),
		ROW(after_a_failed_sync_the_truth_is_past_the_cache),
		ROW(the_next_life_may_not_believe_it),
		ROW(a_failed_direct_write_may_be_there),
		ROW(a_bad_spell_begins_at_a_commit_and_ends),
		ROW(what_a_dying_disk_calls_done_may_vanish),
		ROW(a_sync_at_the_death_may_lie_and_no_later_one),
		ROW(nothing_that_begins_on_a_dead_disk_succeeds),
		ROW(direct_transfers_have_to_be_aligned),
		ROW(a_flipped_bit_stays),
		ROW(reads_past_the_cache_may_fail),
		ROW(the_worlds_own_files_never_fail),
		ROW(a_full_disk_takes_what_fits_and_written_blocks_again),
		ROW(an_unlinked_file_keeps_its_room_until_it_is_closed),
		ROW(what_a_power_cut_takes_has_no_room_any_more),
		ROW(what_is_not_there_cannot_be_used),
		ROW(a_lock_goes_with_its_life),
		ROW(whole_lines_of_the_delivery_log_are_told),
		ROW(a_short_append_says_how_much),
		ROW(usage_counts_below_a_folder),
		ROW(a_file_counts_as_open_until_it_is_closed),
	};

	return cmocka_run_group_tests_name("sim_disk", tests, NULL, NULL);
}
