/*
 * pool - the folders of a spool and its files: fully written ahead, taken, recycled.
 *
 *   free/ ── header of the new life, sync ── rename, sync both folders ──► seg/ or jnl/
 *         ◄── rename, sync both folders ── header FREE, sync ──────────────
 *
 * The header is the truth and the folder only follows: a file is FREE from the moment its
 * header says so on the disk, wherever its name is then (README.md, "free files").
 *
 * Promise: a file that pool_take() returned may take its first chunk (R0): header, size and
 * name are durable, and all its blocks are written, so that a later write into it changes no
 * file-system metadata. A file that pool_recycle() is done with is durably in free/.
 * Non-promise: what an earlier life left in the file is still there; the sequence in every CRC
 * tells.
 *
 * Thread: requests run through os_offload() of the owner's loop; the shared lists are locked.
 * Source: queue/README.md.
 */
#ifndef QUEUE_POOL_H
#define QUEUE_POOL_H

#include <errno.h>
#include <stdatomic.h>

#include "os/os.h"
#include "queue/super.h"
#include "queue/word_lock.h"

enum pool_folder {
	POOL_ROOT,
	POOL_SEGMENTS,
	POOL_JOURNALS,
	POOL_BIG,
	POOL_FREE,
	POOL_QUARANTINE,
	POOL_FOLDER_COUNT
};

#define POOL_NAME_BYTES 16

/* Names in free/, all of one size. */
struct pool_free {
	uint32_t *sequences; /* owned: of the earlier life, which is the name */
	uint32_t count, capacity;
};

struct pool {
	/* constant from queue_open() on: what the superblock says, without its lock */
	int folders[POOL_FOLDER_COUNT];
	uint8_t uuid[16];
	uint32_t epoch, segment_bytes, journal_bytes;
	bool direct;   /* the file system can O_DIRECT */
	bool confirms; /* a sync of it may say "done" falsely: a message waits for a second */
	/* shared, under `lock` */
	struct word_lock lock;
	struct super super;
	struct pool_free segments, journals;
	/* shared, under `folder_lock` */
	struct word_lock folder_lock;
	bool folder_broken[POOL_FOLDER_COUNT]; /* a sync of it has failed */
	/* shared: a hint, no order needed */
	_Atomic uint64_t room_bytes;	    /* on the file system, with what free/ holds */
	_Atomic uint64_t file_system_bytes; /* free, without what free/ holds */
	_Atomic bool stocking;		    /* one pool_stock() at a time */
};

/* A file of a stream: open, with a header that names it. */
struct pool_file {
	int fd;
	uint32_t sequence;
	uint64_t bytes;
};

/* Opens the folders of `path`, makes those that are missing. 0 or -errno. */
int pool_open_folders(struct pool *pool, const char *path);
/* Takes the constants from the superblock. */
void pool_set_constants(struct pool *pool);
/* Reads free/: what R0 left halfway is made free again, what has data there that nobody can
 * explain goes to quarantine/. `report` as in queue_open(). */
int pool_scan_free(struct pool *pool, void (*report)(void *context, bool problem, const char *line),
		   void *context);
/* Closes and frees; accepts a pool that is all zero except folders at -1. */
void pool_deinit(struct pool *pool);

/* Whether what failed with this -errno may go well later: for want of room, descriptors or
 * memory. Anything else is the disk's. */
static inline bool pool_error_passes(int error)
{
	return error == -ENOSPC || error == -EDQUOT || error == -ENOMEM || error == -EMFILE ||
	       error == -ENFILE;
}

/* Blocking: names durable. What a failed sync has lost is not known, and a later one would say
 * nothing of it, whoever calls it (R9): so one at a time, and -EIO ever after a failed one. */
int pool_sync_folder(struct pool *pool, enum pool_folder folder);

/* "%08x" */
void pool_file_name(uint32_t sequence, char out[static POOL_NAME_BYTES]);
/* seg/ or jnl/ */
enum pool_folder pool_kind_folder(enum format_kind kind);
uint64_t pool_kind_bytes(const struct pool *pool, enum format_kind kind);
/* The header page of a file, checksum and all. */
void pool_make_header(const struct pool *pool, char page[static FORMAT_PAGE_BYTES],
		      const struct format_file *file);

/* ── operations: fill the input, set `done`, submit; `op` is private ──────────────── */

struct pool_request {
	struct os_op op;
	struct pool *pool;
	void (*done)(struct pool_request *request);
	/* input */
	enum format_kind kind;
	uint16_t stream;
	uint32_t epoch;
	bool quarantine; /* recycle: to quarantine/ instead */
	/* recycle: input; its fd is closed (-1), but where pool_error_passes(status): then it may
	 * be given again. take: output. */
	struct pool_file file;
	uint64_t first_id; /* lease: output */
	int status;	   /* 0 or -errno; take: nothing was taken */
};

/* A file of `kind`, from free/ or newly written. */
void pool_take(struct os_loop *loop, struct pool_request *request);
/* Makes `file` free. Nothing may be in flight on it. */
void pool_recycle(struct os_loop *loop, struct pool_request *request);
/* Writes one file ahead if free/ has none of `kind`, and measures the room. */
void pool_stock(struct os_loop *loop, struct pool_request *request);
/* A block of message ids. */
void pool_lease_ids(struct os_loop *loop, struct pool_request *request);

/* The same, blocking: for queue_open() and queue_close(). The file is closed in any case but an
 * error that passes. */
int pool_recycle_now(struct pool *pool, enum format_kind kind, struct pool_file *file);
int pool_quarantine_now(struct pool *pool, enum pool_folder from, const char *name);

#endif
