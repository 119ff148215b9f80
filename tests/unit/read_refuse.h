/*
 * read_refuse - a stretch of one file that can't be read: for tests that are linked with
 * --wrap=os_file_read.
 *
 * Thread: the test's.
 */
#ifndef TESTS_UNIT_READ_REFUSE_H
#define TESTS_UNIT_READ_REFUSE_H

#include <errno.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* count 0: none. */
static struct {
	ino_t file;
	uint64_t offset, count;
} unreadable;

static inline void make_unreadable(int fd, uint64_t offset, uint64_t count)
{
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	unreadable.file = status.st_ino;
	unreadable.offset = offset;
	unreadable.count = count;
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
ssize_t __real_os_file_read(int fd, void *bytes, size_t count, uint64_t offset);
ssize_t __wrap_os_file_read(int fd, void *bytes, size_t count, uint64_t offset);

ssize_t __wrap_os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	struct stat status;

	if (unreadable.count > 0 && offset < unreadable.offset + unreadable.count &&
	    unreadable.offset < offset + count && fstat(fd, &status) == 0 &&
	    status.st_ino == unreadable.file)
		return -EIO;
	return __real_os_file_read(fd, bytes, count, offset);
}
/* NOLINTEND(bugprone-reserved-identifier) */

#endif
