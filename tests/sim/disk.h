/*
 * disk - a simulated file system, and what a crash makes of it.
 *
 * Files have a live content (the page cache) and a durable one; folders have entries and
 * unsynced operations on them. It implements the blocking file half of os/os.h (os_file_*,
 * os_rename, os_unlink, os_mkdir, os_folder_list) under the same names, and gives the loop
 * the operations below. Everything lives in the arena except descriptors, which die with the
 * life.
 *
 * At a power cut each sector (512 bytes) of an unsynced write is kept or dropped on its own,
 * earlier unsynced contents may have been written back; unsynced creations, renames and
 * unlinks are kept or dropped one by one, as far as that makes a legal tree (a rename is
 * atomic, and durable once both folders are synced); sizes of unsynced files may fall back.
 * A failed sync marks the pages clean: the cache has them, the disk never will, and a later
 * sync says 0.
 *
 * A disk that dies under a running machine (on btrfs: os_file_on_btrfs()) takes nothing more. Of
 * what was waited for in that moment some is said to be done, and is as unsynced as the rest;
 * whatever begins later fails. Soon after comes a power cut, without which nobody gets back to it.
 *
 * Only os_file_append() moves less than asked: the others of os.h promise not to. Files that
 * the world put there never fail. Folders are neither moved nor removed.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <stdint.h>

#include "os/os.h"

/* An empty file system with "/spool" and "/etc"; before the first life. */
void disk_create(void);
/* Between two lives. A dead disk comes back, as after a power cut. */
void disk_crash(bool power_cut);

/* The world's own hand: whole files, by path, never failing, durable at once. */
void disk_put(const char *path, const void *bytes, size_t count);
/* What was appended to `path` so far (live); lent until the next change. */
const char *disk_look(const char *path, size_t *count_out);
/* Files and bytes below a folder; for bounds. */
void disk_usage(const char *folder, uint64_t *files_out, uint64_t *bytes_out);
/* The files of a folder whose names are durable, with the bytes that are: lent during the call. */
void disk_each_durable(const char *folder,
		       void (*each)(void *context, const char *name, const char *bytes,
				    size_t count),
		       void *context);
/* Descriptors that this life has open; *path_out: of one of them, or NULL. */
uint32_t disk_open_count(const char **path_out);
/* Bits that the disk itself has flipped so far, and syncs and writes that it failed: if there
 * were none, nothing may be reported as damaged. */
uint64_t disk_flips(void);
uint64_t disk_failures(void);

/* For the loop: takes effect at the instant of the call, as the kernel would begin it; the result
 * as in os.h; *delay_ns_out: when it is to be completed. DURABLE writes and syncs are durable only
 * at completion: the loop calls disk_finish() then, and a crash before that leaves it to chance. */
struct disk_work; /* opaque: what has begun and is not finished */
struct disk_work *disk_begin_read(int fd, void *bytes, size_t count, uint64_t offset,
				  uint64_t *delay_ns_out);
struct disk_work *disk_begin_write(int fd, const void *bytes, size_t count, uint64_t offset,
				   int flags, uint64_t *delay_ns_out);
struct disk_work *disk_begin_sync(int fd, uint64_t *delay_ns_out);
/* The result; frees it. Bytes of a read are copied here. */
int32_t disk_finish(struct disk_work *work);

#endif
