/*
 * file_facts - what the daemon relies on of files, as rows that run twice: on the kernel
 * (os_facts.c) and on the simulated disk (sim_disk.c). So the simulator grants what is true.
 *
 * Thread: the test's. The includer has included cmocka.h, and sets facts_folder before each row.
 */
#ifndef TESTS_UNIT_FILE_FACTS_H
#define TESTS_UNIT_FILE_FACTS_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "os/os.h"

enum { FACTS_PAGE = 4096 };

static int facts_folder;

static _Alignas(FACTS_PAGE) char facts_bytes[2 * FACTS_PAGE];

static int facts_open(const char *name, int flags)
{
	int fd = os_file_open(facts_folder, name, flags, 0600);

	assert_true(fd >= 0);
	return fd;
}

/* Past the cache, where the file system can. */
static int facts_open_direct(const char *name)
{
	int fd = os_file_open(facts_folder, name, OS_READ | OS_WRITE | OS_CREATE | OS_DIRECT, 0600);

	return fd == -EINVAL ? facts_open(name, OS_READ | OS_WRITE | OS_CREATE) : fd;
}

static void facts_write(int fd, char letter, uint64_t offset)
{
	memset(facts_bytes, letter, FACTS_PAGE);
	assert_int_equal(os_file_write(fd, facts_bytes, FACTS_PAGE, offset), FACTS_PAGE);
}

static void facts_expect(int fd, char letter, uint64_t offset)
{
	memset(facts_bytes, '?', FACTS_PAGE);
	assert_int_equal(os_file_read(fd, facts_bytes, FACTS_PAGE, offset), FACTS_PAGE);
	for (int i = 0; i < FACTS_PAGE; i++)
		assert_int_equal(facts_bytes[i], letter);
}

static bool facts_there(const char *name)
{
	int fd = os_file_open(facts_folder, name, OS_READ, 0);

	if (fd >= 0)
		os_file_close(fd);
	return fd >= 0;
}

/* ── contents ── */

static void a_direct_read_sees_what_was_written_through_the_cache(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE), direct = facts_open_direct("a");

	(void)state;
	facts_write(fd, 'x', 0);
	facts_expect(direct, 'x', 0);
	os_file_close(fd);
	os_file_close(direct);
}

static void a_direct_write_is_seen_through_the_cache(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE), direct = facts_open_direct("a");

	(void)state;
	facts_write(fd, 'x', 0);
	facts_expect(fd, 'x', 0);
	facts_write(direct, 'y', 0);
	facts_expect(fd, 'y', 0);
	os_file_close(fd);
	os_file_close(direct);
}

static void a_hole_reads_as_zeros(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE);

	(void)state;
	facts_write(fd, 'x', 2 * FACTS_PAGE);
	facts_expect(fd, '\0', FACTS_PAGE);
	assert_int_equal(os_file_size(fd), 3 * FACTS_PAGE);
	os_file_close(fd);
}

static void what_is_cut_off_reads_as_zeros_when_the_file_grows_again(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE);

	(void)state;
	facts_write(fd, 'x', 0);
	assert_int_equal(os_file_truncate(fd, 100), 0);
	facts_write(fd, 'y', FACTS_PAGE);
	assert_int_equal(os_file_read(fd, facts_bytes, FACTS_PAGE, 0), FACTS_PAGE);
	assert_int_equal(facts_bytes[99], 'x');
	assert_int_equal(facts_bytes[100], '\0');
	assert_int_equal(facts_bytes[FACTS_PAGE - 1], '\0');
	os_file_close(fd);
}

static void a_read_is_short_only_at_the_end(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE), direct = facts_open_direct("a");

	(void)state;
	assert_int_equal(os_file_write(fd, "0123456789", 10, 0), 10);
	assert_int_equal(os_file_read(fd, facts_bytes, FACTS_PAGE, 4), 6);
	assert_int_equal(os_file_read(fd, facts_bytes, FACTS_PAGE, 10), 0);
	assert_int_equal(os_file_read(direct, facts_bytes, FACTS_PAGE, 0), 10);
	assert_int_equal(os_file_read(direct, facts_bytes, FACTS_PAGE, FACTS_PAGE), 0);
	os_file_close(fd);
	os_file_close(direct);
}

static void dropping_the_cache_loses_nothing_that_was_not_synced(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE);

	(void)state;
	facts_write(fd, 'x', 0);
	assert_int_equal(os_file_drop_cache(fd), 0);
	facts_expect(fd, 'x', 0);
	os_file_close(fd);
}

static void a_sync_needs_no_right_to_write(void **state)
{
	int fd;

	(void)state;
	os_file_close(facts_open("a", OS_WRITE | OS_CREATE));
	fd = facts_open("a", OS_READ);
	assert_int_equal(os_file_sync(fd), 0);
	assert_int_equal(os_file_write(fd, "x", 1, 0), -EBADF);
	os_file_close(fd);
}

static void appends_go_to_the_end_as_it_is_now(void **state)
{
	int one = facts_open("a", OS_APPEND | OS_CREATE), two = facts_open("a", OS_APPEND);
	struct iovec iov[] = { { "ab", 2 }, { "cd", 2 } };

	(void)state;
	assert_int_equal(os_file_append(one, iov, 2), 4);
	assert_int_equal(os_file_append(two, iov, 1), 2);
	assert_int_equal(os_file_append(one, iov, 2), 4);
	os_file_close(one);
	os_file_close(two);
	two = facts_open("a", OS_READ);
	assert_int_equal(os_file_read(two, facts_bytes, 100, 0), 10);
	assert_memory_equal(facts_bytes, "abcdababcd", 10);
	os_file_close(two);
}

/* ── names ── */

static void opening_says_why_not(void **state)
{
	(void)state;
	os_file_close(facts_open("a", OS_WRITE | OS_CREATE_NEW));
	assert_int_equal(os_file_open(facts_folder, "b", OS_READ, 0), -ENOENT);
	assert_int_equal(os_file_open(facts_folder, "a", OS_WRITE | OS_CREATE_NEW, 0), -EEXIST);
	assert_int_equal(os_file_open(facts_folder, "a/b", OS_READ, 0), -ENOTDIR);
	assert_int_equal(os_file_open(facts_folder, "no/b", OS_WRITE | OS_CREATE, 0), -ENOENT);
	assert_int_equal(os_file_open(facts_folder, "a", OS_READ | OS_FOLDER, 0), -ENOTDIR);
	assert_int_equal(os_file_open(facts_folder, ".", OS_WRITE, 0), -EISDIR);
	assert_int_equal(os_mkdir(facts_folder, "a", 0700), -ENOTDIR);
	assert_int_equal(os_unlink(facts_folder, "b"), -ENOENT);
	assert_int_equal(os_rename(facts_folder, "b", facts_folder, "a"), -ENOENT);
}

static void an_open_file_outlives_its_name(void **state)
{
	int fd = facts_open("a", OS_READ | OS_WRITE | OS_CREATE);

	(void)state;
	facts_write(fd, 'x', 0);
	assert_int_equal(os_unlink(facts_folder, "a"), 0);
	assert_false(facts_there("a"));
	facts_expect(fd, 'x', 0);
	os_file_close(fd);
}

static void a_rename_takes_the_place_of_another_file(void **state)
{
	int old = facts_open("old", OS_READ | OS_WRITE | OS_CREATE);
	int new = facts_open("new", OS_READ | OS_WRITE | OS_CREATE), fd;

	(void)state;
	facts_write(old, 'o', 0);
	facts_write(new, 'n', 0);
	assert_int_equal(os_rename(facts_folder, "new", facts_folder, "old"), 0);
	assert_false(facts_there("new"));
	fd = facts_open("old", OS_READ);
	facts_expect(fd, 'n', 0);
	facts_expect(old, 'o', 0); /* still open */
	assert_int_equal(os_rename(facts_folder, "old", facts_folder, "old"), 0);
	assert_true(facts_there("old"));
	os_file_close(old);
	os_file_close(new);
	os_file_close(fd);
}

static void a_lock_is_of_one_opening(void **state)
{
	int first = facts_open("lock", OS_READ | OS_CREATE), second = facts_open("lock", OS_READ);

	(void)state;
	assert_int_equal(os_file_lock(first), 0);
	assert_int_equal(os_file_lock(first), 0);
	assert_int_equal(os_file_lock(second), -EWOULDBLOCK);
	os_file_close(first);
	assert_int_equal(os_file_lock(second), 0);
	os_file_close(second);
}

static int facts_unlink(void *context, const char *name)
{
	++*(int *)context;
	return os_unlink(facts_folder, name);
}

static void a_folder_may_lose_its_files_while_it_is_listed(void **state)
{
	int count = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%d", i);
		os_file_close(facts_open(name, OS_WRITE | OS_CREATE));
	}
	assert_int_equal(os_folder_list(facts_folder, facts_unlink, &count), 0);
	assert_int_equal(count, 20);
}

#define FACTS(row)                                                                                 \
	row(a_direct_read_sees_what_was_written_through_the_cache),                                \
		row(a_direct_write_is_seen_through_the_cache), row(a_hole_reads_as_zeros),         \
		row(what_is_cut_off_reads_as_zeros_when_the_file_grows_again),                     \
		row(a_read_is_short_only_at_the_end),                                              \
		row(dropping_the_cache_loses_nothing_that_was_not_synced),                         \
		row(a_sync_needs_no_right_to_write), row(appends_go_to_the_end_as_it_is_now),      \
		row(opening_says_why_not), row(an_open_file_outlives_its_name),                    \
		row(a_rename_takes_the_place_of_another_file), row(a_lock_is_of_one_opening),      \
		row(a_folder_may_lose_its_files_while_it_is_listed)

#endif
