/*
 * file - blocking calls on files and folders: for start-up, helper threads and tools.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "os/os.h"

/* os.h does not include fcntl.h. */
#if OS_CURRENT_FOLDER != AT_FDCWD
#error "OS_CURRENT_FOLDER has to be AT_FDCWD"
#endif

/* ── one file ─────────────────────────────────────────────────────────────────────── */

int os_file_open(int folder, const char *name, int flags, mode_t mode)
{
	int how = O_CLOEXEC | O_NOCTTY;
	int fd;

	if ((flags & OS_READ) && (flags & (OS_WRITE | OS_APPEND)))
		how |= O_RDWR;
	else if (flags & (OS_WRITE | OS_APPEND))
		how |= O_WRONLY;
	else
		how |= O_RDONLY;
	how |= (flags & OS_CREATE_NEW) ? O_CREAT | O_EXCL : 0;
	how |= (flags & OS_CREATE) ? O_CREAT : 0;
	how |= (flags & OS_DIRECT) ? O_DIRECT : 0;
	how |= (flags & OS_FOLDER) ? O_DIRECTORY : 0;
	how |= (flags & OS_APPEND) ? O_APPEND : 0;
	how |= (flags & OS_STRANGE) ? O_NOFOLLOW | O_NONBLOCK : 0;
	do
		fd = openat(folder, name, how, mode);
	while (fd < 0 && errno == EINTR);
	return fd >= 0 ? fd : -errno;
}

void os_file_close(int fd)
{
	close(fd);
}

ssize_t os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	size_t have = 0;

	while (have < count) {
		ssize_t got = pread(fd, (char *)bytes + have, count - have, (off_t)(offset + have));

		if (got == 0)
			break;
		if (got > 0)
			have += (size_t)got;
		else if (errno == EINVAL && have > 0)
			break; /* a direct read may not go on from the odd end of a file */
		else if (errno != EINTR)
			return -errno;
	}
	return (ssize_t)have;
}

ssize_t os_file_write(int fd, const void *bytes, size_t count, uint64_t offset)
{
	size_t done = 0;

	while (done < count) {
		ssize_t put = pwrite(fd, (const char *)bytes + done, count - done,
				     (off_t)(offset + done));

		if (put > 0)
			done += (size_t)put;
		else if (put < 0 && errno == ENOSPC && done > 0)
			break;
		else if (put == 0 || errno != EINTR)
			return put == 0 ? -EIO : -errno;
	}
	return (ssize_t)done;
}

ssize_t os_file_append(int fd, const struct iovec *iov, int count)
{
	ssize_t put;

	do
		put = writev(fd, iov, count);
	while (put < 0 && errno == EINTR);
	return put >= 0 ? put : -errno;
}

int os_file_sync(int fd)
{
	struct stat info;

	if (fstat(fd, &info) != 0)
		return -errno;
	return (S_ISDIR(info.st_mode) ? fsync(fd) : fdatasync(fd)) == 0 ? 0 : -errno;
}

bool os_file_on_btrfs(int fd)
{
	struct statfs info;

	return fstatfs(fd, &info) == 0 && info.f_type == BTRFS_SUPER_MAGIC;
}

bool os_file_on_tmpfs(int fd)
{
	struct statfs info;

	return fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
}

int64_t os_file_size(int fd)
{
	struct stat info;

	return fstat(fd, &info) == 0 ? info.st_size : -errno;
}

int os_file_truncate(int fd, uint64_t bytes)
{
	int result;

	do
		result = ftruncate(fd, (off_t)bytes);
	while (result != 0 && errno == EINTR);
	return result == 0 ? 0 : -errno;
}

int os_file_drop_cache(int fd)
{
	return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

int os_file_lock(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
}

int os_file_mode(int fd, uint32_t *mode_out)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return -errno;
	*mode_out = status.st_mode & 07777;
	return 0;
}

int os_file_set_mode(int fd, uint32_t mode)
{
	return fchmod(fd, mode) == 0 ? 0 : -errno;
}

int os_file_facts(int fd, struct os_file_facts *out)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return -errno;
	*out = (struct os_file_facts){
		.inode = status.st_ino,
		.bytes = (uint64_t)status.st_size,
		.owner = status.st_uid,
		.links = (uint32_t)status.st_nlink,
		.regular = S_ISREG(status.st_mode),
		.modified = { (int64_t)status.st_mtim.tv_sec * OS_US_PER_S +
			      status.st_mtim.tv_nsec / 1000 },
	};
	return 0;
}

int os_file_resemble(int fd, int other_fd)
{
	struct stat other;

	if (fstat(other_fd, &other) < 0 || fchown(fd, other.st_uid, other.st_gid) < 0 ||
	    fchmod(fd, other.st_mode & 07777) < 0)
		return -errno;
	return 0;
}

int os_file_group(int fd, const char *group)
{
	char text[64 << 10]; /* the members' names have to fit, too */
	struct group entry, *found = NULL;
	int error = getgrnam_r(group, &entry, text, sizeof(text), &found);

	if (found == NULL)
		return error == 0 ? -ENOENT : -error;
	return fchown(fd, (uid_t)-1, found->gr_gid) == 0 ? 0 : -errno;
}

int os_path_real(const char *path, char *out, size_t bytes)
{
	char *real = realpath(path, NULL);
	size_t length;

	if (real == NULL)
		return -errno;
	length = strlen(real);
	if (length < bytes)
		memcpy(out, real, length + 1);
	free(real);
	return length < bytes ? 0 : -ENAMETOOLONG;
}

int os_file_space(int fd, uint64_t *free_out, uint64_t *total_out)
{
	struct statvfs info;

	if (fstatvfs(fd, &info) != 0)
		return -errno;
	*free_out = (uint64_t)info.f_bavail * info.f_frsize;
	*total_out = (uint64_t)info.f_blocks * info.f_frsize;
	return 0;
}

/* Files of /proc and pipes don't tell their size, so this reads until the end. */
static int file_load(int fd, size_t bytes_max, char **out, size_t *count_out)
{
	size_t room = 4096, have = 0;
	char *bytes = malloc(room + 1);

	while (bytes != NULL) {
		ssize_t got = read(fd, bytes + have, room - have);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 || have + (size_t)got > bytes_max) {
			int error = got < 0 ? -errno : -EFBIG;

			free(bytes);
			return error;
		}
		if (got == 0) {
			bytes[have] = '\0';
			*out = bytes;
			*count_out = have;
			return 0;
		}
		have += (size_t)got;
		if (have == room) {
			char *more = realloc(bytes, room * 2 + 1);

			if (more == NULL)
				free(bytes);
			bytes = more;
			room *= 2;
		}
	}
	return -ENOMEM;
}

int os_file_load(int folder, const char *name, size_t bytes_max, char **out, size_t *count_out)
{
	int fd = os_file_open(folder, name, OS_READ, 0);
	int result;

	if (fd < 0)
		return fd;
	result = file_load(fd, bytes_max, out, count_out);
	close(fd);
	return result;
}

/* ── names ────────────────────────────────────────────────────────────────────────── */

int os_rename(int from_folder, const char *from, int to_folder, const char *to)
{
	return renameat(from_folder, from, to_folder, to) == 0 ? 0 : -errno;
}

int os_unlink(int folder, const char *name)
{
	return unlinkat(folder, name, 0) == 0 ? 0 : -errno;
}

/* Only where the file system copies on write (btrfs); elsewhere it is refused, and no matter. */
static void overwrite_in_place(int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int flags;

	if (fd < 0)
		return;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
	close(fd);
}

int os_mkdir(int folder, const char *name, mode_t mode)
{
	struct stat info;

	if (mkdirat(folder, name, mode) == 0) {
		overwrite_in_place(folder, name);
		return 0;
	}
	if (errno != EEXIST)
		return -errno;
	if (fstatat(folder, name, &info, 0) != 0)
		return -errno;
	return S_ISDIR(info.st_mode) ? 0 : -ENOTDIR;
}

static int sync_parent(const char *path)
{
	int folder = openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int parent = folder < 0 ? -1 : openat(folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = parent < 0 || fsync(parent) != 0 ? -errno : 0;

	if (parent >= 0)
		close(parent);
	if (folder >= 0)
		close(folder);
	return error;
}

int os_mkdir_durable(const char *path, mode_t mode)
{
	int error;

	if (mkdirat(AT_FDCWD, path, mode) != 0) { /* it is there, or can't be made */
		error = os_mkdir(AT_FDCWD, path, mode);
		if (error == 0)
			sync_parent(path); /* for a run that was killed between the two */
		return error;
	}
	overwrite_in_place(AT_FDCWD, path);
	error = sync_parent(path);
	if (error != 0)
		unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
	return error;
}

int os_folder_list(int folder, int (*each)(void *context, const char *name), void *context)
{
	/* A descriptor of its own: the place where reading stands is not the caller's. */
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	int result = 0;
	DIR *dir;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (dir == NULL) {
		result = -errno;
		close(fd);
		return result;
	}
	while (result == 0) {
		errno = 0;
		entry = readdir(dir);
		if (entry == NULL) {
			result = -errno;
			break;
		}
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			result = each(context, entry->d_name);
	}
	closedir(dir);
	return result;
}
