/*
 * volatile_disk - a disk with a write cache that forgets, as a file for a loop device.
 *
 *   file system ─► loop device ─► FOLDER/disk     what was written is read back at once, and
 *                                                 outlives a power cut only by a flush, or by luck
 *   test ───────────────────────► FOLDER/control  one command a write; reading it tells the counts
 *
 *   cut SEED PERCENT WRITES   after so many writes more the power goes: of the sectors that no
 *                      flush covered, PERCENT of a hundred are kept at random, the others are
 *                      what they were. All operations fail.
 *   on                 the power is back
 *   ignore-flushes     from now on flushes are acknowledged, and do nothing: a disk that lies
 *   fail [reads] [writes] [flushes]   these fail with EIO
 *   bad FROM COUNT     writes that touch these bytes fail with EIO
 *   mend               nothing fails any more, and flushes work
 *
 * Promise: a write that was complete when a flush began is kept by every later cut, unless
 * flushes are ignored. Non-promise: a sector that was written twice since the last flush
 * never shows the value between.
 *
 * Thread: FUSE's one. A test program: the disk lies in memory, and dies with it.
 */
#define FUSE_USE_VERSION  31
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fuse3/fuse.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>
#include <sys/prctl.h>

#include "os/check.h"
#include "os/prng.h"

enum { SECTOR_BYTES = 512, BAD_MAX = 64, COMMAND_BYTES = 256 };
enum { FAIL_READS = 1, FAIL_WRITES = 2, FAIL_FLUSHES = 4 };

static struct {
	size_t bytes, sectors;
	char *live;	    /* what is read */
	char *kept;	    /* what a power cut leaves */
	uint8_t *waits;	    /* by sector: 1 if it was written since the last flush */
	bool off, ignoring; /* no power; flushes do nothing */
	unsigned failing;   /* FAIL_ flags */
	struct bad_bytes {
		size_t from, end;
	} bad[BAD_MAX];
	size_t bad_count;
	struct prng prng;
	uint64_t cut_percent, cut_in; /* in so many writes; 0: not planned */
	uint64_t writes, flushes, failed, cut_sectors;
} disk;

/* ── the cache ────────────────────────────────────────────────────────────────────── */

/* The first waiting sector at or behind `from`; disk.sectors: none. */
static size_t next_waiting(size_t from)
{
	const uint8_t *found = memchr(disk.waits + from, 1, disk.sectors - from);

	return found != NULL ? (size_t)(found - disk.waits) : disk.sectors;
}

static size_t count_waiting(void)
{
	size_t count = 0;

	for (size_t at = next_waiting(0); at < disk.sectors; at = next_waiting(at + 1))
		count++;
	return count;
}

static void settle_sector(size_t sector, bool keep)
{
	char *live = disk.live + sector * SECTOR_BYTES, *kept = disk.kept + sector * SECTOR_BYTES;

	memcpy(keep ? kept : live, keep ? live : kept, SECTOR_BYTES);
	disk.waits[sector] = 0;
}

static void keep_all(void)
{
	for (size_t at = next_waiting(0); at < disk.sectors; at = next_waiting(at + 1))
		settle_sector(at, true);
}

static void cut_power(void)
{
	disk.cut_sectors = count_waiting();
	for (size_t at = next_waiting(0); at < disk.sectors; at = next_waiting(at + 1))
		settle_sector(at, prng_below(&disk.prng, 100) < disk.cut_percent);
	disk.off = true;
}

/* ── operations on the disk ───────────────────────────────────────────────────────── */

static int fail(void)
{
	disk.failed++;
	return -EIO;
}

static bool touches_bad(size_t from, size_t end)
{
	for (size_t i = 0; i < disk.bad_count; i++)
		if (from < disk.bad[i].end && disk.bad[i].from < end)
			return true;
	return false;
}

static int disk_read(char *bytes, size_t count, size_t from)
{
	if (disk.off || disk.failing & FAIL_READS)
		return fail();
	if (from >= disk.bytes)
		return 0;
	if (count > disk.bytes - from)
		count = disk.bytes - from;
	memcpy(bytes, disk.live + from, count);
	return (int)count;
}

static int disk_write(const char *bytes, size_t count, size_t from)
{
	if (from >= disk.bytes || count > disk.bytes - from)
		return -ENOSPC;
	if (disk.off || disk.failing & FAIL_WRITES || touches_bad(from, from + count))
		return fail();
	if (count == 0)
		return 0;
	memcpy(disk.live + from, bytes, count);
	memset(disk.waits + from / SECTOR_BYTES, 1,
	       (from + count - 1) / SECTOR_BYTES - from / SECTOR_BYTES + 1);
	disk.writes++;
	if (disk.cut_in > 0 && --disk.cut_in == 0)
		cut_power();
	return (int)count;
}

static int disk_flush(void)
{
	if (disk.off || disk.failing & FAIL_FLUSHES)
		return fail();
	disk.flushes++;
	if (!disk.ignoring)
		keep_all();
	return 0;
}

/* ── orders ───────────────────────────────────────────────────────────────────────── */

static unsigned failures_named(const char *words)
{
	return (strstr(words, "reads") ? FAIL_READS : 0) |
	       (strstr(words, "writes") ? FAIL_WRITES : 0) |
	       (strstr(words, "flushes") ? FAIL_FLUSHES : 0);
}

static int add_bad(const char *words)
{
	char *rest;
	size_t from = strtoull(words, &rest, 10), count = strtoull(rest, NULL, 10);

	if (count == 0 || disk.bad_count == BAD_MAX)
		return -EINVAL;
	disk.bad[disk.bad_count++] = (struct bad_bytes){ from, from + count };
	return 0;
}

static void plan_cut(const char *words)
{
	char *rest;

	disk.prng.state = strtoull(words, &rest, 10);
	disk.cut_percent = strtoull(rest, &rest, 10);
	disk.cut_in = strtoull(rest, NULL, 10);
	if (disk.cut_in == 0)
		cut_power();
}

static int obey(const char *command)
{
	if (strncmp(command, "cut ", 4) == 0)
		plan_cut(command + 4);
	else if (strcmp(command, "on") == 0)
		disk.off = false;
	else if (strcmp(command, "ignore-flushes") == 0)
		disk.ignoring = true;
	else if (strncmp(command, "fail ", 5) == 0)
		disk.failing = failures_named(command);
	else if (strncmp(command, "bad ", 4) == 0)
		return add_bad(command + 4);
	else if (strcmp(command, "mend") == 0)
		disk.failing = disk.ignoring = false, disk.bad_count = 0;
	else
		return -EINVAL;
	return 0;
}

static int control_write(const char *bytes, size_t count)
{
	char command[COMMAND_BYTES];
	int error;

	if (count >= sizeof(command))
		return -EINVAL;
	memcpy(command, bytes, count);
	command[count] = '\0';
	error = obey(command);
	return error != 0 ? error : (int)count;
}

static int control_read(char *bytes, size_t count, size_t from)
{
	char text[COMMAND_BYTES];
	int length = snprintf(text, sizeof(text), "%llu %llu %zu %llu %d\n",
			      (unsigned long long)disk.writes, (unsigned long long)disk.flushes,
			      disk.off ? (size_t)disk.cut_sectors : count_waiting(),
			      (unsigned long long)disk.failed, disk.off);

	if (from >= (size_t)length)
		return 0;
	if (count > (size_t)length - from)
		count = (size_t)length - from;
	memcpy(bytes, text + from, count);
	return (int)count;
}

/* ── the file system of two files ─────────────────────────────────────────────────── */

static bool is_disk(const char *path)
{
	return strcmp(path, "/disk") == 0;
}

static int on_getattr(const char *path, struct stat *out, struct fuse_file_info *file)
{
	(void)file;
	memset(out, 0, sizeof(*out));
	if (strcmp(path, "/") == 0) {
		out->st_mode = S_IFDIR | 0700;
		return 0;
	}
	if (!is_disk(path) && strcmp(path, "/control") != 0)
		return -ENOENT;
	out->st_mode = S_IFREG | 0600;
	out->st_nlink = 1;
	out->st_size = is_disk(path) ? (off_t)disk.bytes : 0;
	return 0;
}

static int on_open(const char *path, struct fuse_file_info *file)
{
	(void)path;
	file->direct_io = 1; /* the kernel keeps no copy of its own */
	return 0;
}

static int on_read(const char *path, char *bytes, size_t count, off_t from,
		   struct fuse_file_info *file)
{
	(void)file;
	return is_disk(path) ? disk_read(bytes, count, (size_t)from)
			     : control_read(bytes, count, (size_t)from);
}

static int on_write(const char *path, const char *bytes, size_t count, off_t from,
		    struct fuse_file_info *file)
{
	(void)file;
	return is_disk(path) ? disk_write(bytes, count, (size_t)from) : control_write(bytes, count);
}

static int on_fsync(const char *path, int data_only, struct fuse_file_info *file)
{
	(void)data_only;
	(void)file;
	return is_disk(path) ? disk_flush() : 0;
}

static const struct fuse_operations operations = {
	.getattr = on_getattr,
	.open = on_open,
	.read = on_read,
	.write = on_write,
	.fsync = on_fsync,
};

static void *take_memory(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(at != MAP_FAILED);
	return at;
}

int main(int argc, char **argv)
{
	char *fuse_argv[] = { argv[0], "-f", "-s", argc == 3 ? argv[1] : NULL };

	if (argc != 3 || (disk.bytes = strtoull(argv[2], NULL, 10) << 20) == 0) {
		fprintf(stderr, "Usage: volatile_disk FOLDER MEBIBYTES\n");
		return 64;
	}
	/* When the test dies: closes the connection in order. A killed process would unmount the
	 * file system above it while it can't answer, and hang. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	disk.sectors = disk.bytes / SECTOR_BYTES;
	disk.live = take_memory(disk.bytes);
	disk.kept = take_memory(disk.bytes);
	disk.waits = take_memory(disk.sectors);
	return fuse_main((int)array_count(fuse_argv), fuse_argv, &operations, NULL);
}
