/*
 * shared - memory that other processes may read: files of /dev/shm.
 *
 *   at                      bytes                         bytes_max
 *   ├── mapped, prefaulted ──┼── reserved: any touch faults ──┤
 *
 * The writer's addresses never move; growing maps the next extent over the reservation.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"

#define SHARED_PATH_MAX 300

static int shared_path(const char *name, char out[static SHARED_PATH_MAX])
{
	int length;

	assert(strchr(name, '/') == NULL && name[0] != '\0');
	length = snprintf(out, SHARED_PATH_MAX, "/dev/shm/%s", name);
	return length < SHARED_PATH_MAX ? 0 : -ENAMETOOLONG;
}

static size_t pages_of(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

int os_shared_create(struct os_shared *shared, const char *name, size_t bytes_max, mode_t mode)
{
	char path[SHARED_PATH_MAX];
	int result = shared_path(name, path);
	void *at;
	int fd;

	if (result != 0)
		return result;
	/* A new file: readers of an earlier process keep theirs, whole. */
	if (unlink(path) != 0 && errno != ENOENT)
		return -errno;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	bytes_max = pages_of(bytes_max);
	at = mmap(NULL, bytes_max, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED || fchmod(fd, mode) != 0) {
		result = -errno;
		if (at != MAP_FAILED)
			munmap(at, bytes_max);
		close(fd);
		unlink(path);
		return result;
	}
	/* Until its process ends, however it ends: os_shared_is_orphan(). */
	flock(fd, LOCK_SH | LOCK_NB);
	*shared = (struct os_shared){ .at = at, .bytes = 0, .bytes_max = bytes_max, .fd = fd };
	return 0;
}

int os_shared_grow(struct os_shared *shared, size_t bytes)
{
	char *place = (char *)shared->at + shared->bytes;
	size_t more;

	bytes = pages_of(bytes);
	if (bytes <= shared->bytes)
		return 0;
	if (bytes > shared->bytes_max)
		return -ENOMEM;
	more = bytes - shared->bytes;
	while (fallocate(shared->fd, 0, (off_t)shared->bytes, (off_t)more) != 0)
		if (errno != EINTR)
			return -errno;
	if (mmap(place, more, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
		 shared->fd, (off_t)shared->bytes) == MAP_FAILED)
		return -errno;
	shared->bytes = bytes;
	return 0;
}

int os_shared_open(struct os_shared *shared, const char *name)
{
	char path[SHARED_PATH_MAX];
	struct stat info;
	int result = shared_path(name, path);
	void *at = NULL;
	int fd;

	if (result != 0)
		return result;
	/* Anybody may make a name there: one that is no file must not hold us up. */
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &info) != 0)
		result = -errno;
	else if (!S_ISREG(info.st_mode))
		result = -ENOENT;
	if (result == 0 && info.st_size > 0) {
		at = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
		result = at == MAP_FAILED ? -errno : 0;
	}
	if (result != 0) {
		close(fd);
		return result;
	}
	*shared = (struct os_shared){
		.at = at,
		.bytes = (size_t)info.st_size,
		.bytes_max = (size_t)info.st_size,
		.fd = fd,
	};
	return 0;
}

void os_shared_close(struct os_shared *shared)
{
	if (shared->at != NULL)
		munmap(shared->at, shared->bytes_max);
	close(shared->fd);
	*shared = (struct os_shared){ .fd = -1 };
}

void os_shared_unlink(const char *name)
{
	char path[SHARED_PATH_MAX];

	if (shared_path(name, path) == 0)
		unlink(path);
}

int os_shared_list(int (*each)(void *context, const char *name), void *context)
{
	int folder = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result;

	if (folder < 0)
		return -errno;
	result = os_folder_list(folder, each, context);
	close(folder);
	return result;
}

bool os_shared_is_orphan(const struct os_shared *shared)
{
	if (flock(shared->fd, LOCK_EX | LOCK_NB) != 0)
		return false;
	flock(shared->fd, LOCK_UN);
	return true;
}
