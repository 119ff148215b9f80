/*
 * disk_private - what the simulated disk is made of; for its own files only.
 *
 *   disk.c (descriptors) ──► disk_work.c (one read, write or sync, and its faults)
 *   disk_names.c         ──► disk_tree.c (folders, and changes not yet durable)
 *                            disk_pages.c (contents)
 *
 * Everything here lies in the arena, but descriptors and work, which die with the life. No
 * function of disk_tree and disk_pages sleeps, so what they do is one instant.
 */
#ifndef SIM_DISK_PRIVATE_H
#define SIM_DISK_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/list.h"
#include "tests/sim/disk.h"

#define DISK_PAGE_BYTES	  4096U
#define DISK_SECTOR_BYTES 512U
#define DISK_NAME_BYTES	  64U
#define DISK_ALWAYS	  1000000U /* a rate per million */

enum disk_page_state {
	PAGE_CLEAN = 0, /* the disk has what the cache has */
	PAGE_DIRTY,	/* `durable` is what the disk has for certain */
	PAGE_STALE,	/* as DIRTY, but a failed sync has forgotten it: no sync writes it */
};

struct disk_page {
	char *live;	/* NULL: zeros */
	char *durable;	/* NULL: zeros; means something only if the page is not clean */
	uint64_t stamp; /* of the write that made it dirty */
	uint8_t state;	/* enum disk_page_state */
	uint8_t lost;	/* 1 + the life in which a failed sync made it STALE; 0: none did */
	bool written;	/* takes room */
	bool cached;	/* reads don't reach the disk */
};

enum disk_view {
	DISK_LIVE,
	DISK_DURABLE,
	DISK_VIEWS,
};

/* A file or a folder. */
struct disk_node {
	struct list link; /* disk->nodes */
	uint32_t number;
	bool folder;
	bool calm;    /* the world's own file: no faults */
	bool counted; /* its blocks are in disk->used_bytes */
	bool log;     /* its lines go to the ledger */
	mode_t mode;
	char label[2 * DISK_NAME_BYTES];
	/* What keeps it: entries that name it, descriptors and work, changes not yet durable. */
	uint32_t links[DISK_VIEWS];
	uint32_t open_count;
	uint32_t change_count;
	/* a folder */
	struct disk_node *parent;
	struct list entries[DISK_VIEWS];
	/* a file */
	struct disk_page *pages;
	uint64_t page_count; /* in `pages`; beyond there are zeros */
	uint64_t block_count, dirty_count;
	uint64_t size, durable_size;
	uint64_t size_stamp;  /* of the write that changed it last */
	uint64_t lines_bytes; /* of a log: told so far */
	bool size_dirty;
};

struct disk_entry {
	struct list link;
	struct disk_node *node;
	char name[DISK_NAME_BYTES];
};

/* A name that comes (no `from`), goes (no `to`) or moves, in the live tree only so far. */
struct disk_change {
	struct list link; /* disk->changes, oldest first */
	uint64_t stamp;
	struct disk_node *node, *from, *to;
	char from_name[DISK_NAME_BYTES], to_name[DISK_NAME_BYTES];
	bool from_synced, to_synced;
	bool lost; /* by a failed sync: no sync brings it to the disk */
	bool kept; /* at a power cut */
};

struct disk_state {
	struct list nodes, changes;
	struct disk_node *root;
	uint64_t used_bytes;
	uint64_t stamp; /* counts writes and changes */
	uint32_t last_number, changes_count;
	uint64_t flips, failures;
	uint64_t bad_until_ns; /* much fails before that */
	bool dead;	       /* nothing reaches it any more, up to a power cut */
};

extern struct disk_state *disk; /* in the arena */

/* ── disk.c ── */
/* Others run meanwhile: what was looked up before has to be looked up again. */
void disk_sleep(uint64_t delay_ns);
/* The folder that a name begins at; NULL: there is none. */
struct disk_node *disk_folder(int fd);

/* ── disk_tree.c ── */
void tree_create(void);
/* 0, or -ENOENT, -ENOTDIR, -ENAMETOOLONG. *node_out is NULL if the last name is not there;
 * *folder_out and `name` are where it would be ("" for a folder itself). */
int tree_walk(struct disk_node *folder, const char *path, struct disk_node **folder_out,
	      char name[static DISK_NAME_BYTES], struct disk_node **node_out);
struct disk_node *tree_make(struct disk_node *folder, const char *name, bool is_folder);
/* Whatever `to_name` was is gone. */
void tree_move(struct disk_node *from, const char *from_name, struct disk_node *to,
	       const char *to_name, struct disk_node *node);
void tree_remove(struct disk_node *folder, const char *name, struct disk_node *node);
/* Changes of `folder` up to `stamp`. */
void tree_sync(struct disk_node *folder, uint64_t stamp);
void tree_sync_fail(struct disk_node *folder, uint64_t stamp);
/* Keeps some changes and forgets the others; the live tree is then the durable one. */
void tree_cut(void);
/* After anything of its `links`, `open_count` or `change_count` has gone: frees it, or its room. */
void tree_release(struct disk_node *node);

/* ── disk_pages.c ── */
/* Makes room for [offset, offset + count): how many of these bytes may be written. */
size_t pages_grant(struct disk_node *node, uint64_t offset, size_t count);
/* Writes what was granted. Past the cache with `direct`. */
void pages_write(struct disk_node *node, const char *bytes, size_t count, uint64_t offset,
		 bool direct);
/* Up to the end of the file. */
size_t pages_read(struct disk_node *node, char *bytes, size_t count, uint64_t offset, bool direct);
/* All that is durable of a file; the caller frees. */
char *pages_durable(const struct disk_node *node, size_t *count_out);
/* Would reading this go to the disk? */
bool pages_miss(const struct disk_node *node, size_t count, uint64_t offset, bool direct);
/* Damages one bit that such a read is about to get; false if the disk has none there. */
bool pages_flip(struct disk_node *node, size_t count, uint64_t offset, bool direct);
/* Writes of these bytes up to `stamp` are durable, and the size. */
void pages_sync(struct disk_node *node, uint64_t offset, uint64_t count, uint64_t stamp);
/* They are not, and never will be. With `direct` the cache knows. */
void pages_sync_fail(struct disk_node *node, uint64_t offset, uint64_t count, uint64_t stamp,
		     bool direct);
void pages_truncate(struct disk_node *node, uint64_t size);
void pages_drop_cache(struct disk_node *node);
/* Each sector of what is dirty stays `keep_permille` times in a thousand. */
void pages_cut(struct disk_node *node, uint32_t keep_permille);
void pages_free(struct disk_node *node);
/* What the weather leaves. */
uint64_t pages_room_bytes(void);

/* ── disk_work.c ── */
struct disk_descriptor {
	struct disk_node *node; /* NULL: free */
	int flags;		/* of os_file_open() */
	bool locked;
	uint32_t busy_count; /* work that has begun */
};

/* As disk_begin_*(). The work holds the node. */
struct disk_work *work_begin_read(struct disk_descriptor *descriptor, void *bytes, size_t count,
				  uint64_t offset, uint64_t *delay_ns_out);
struct disk_work *work_begin_write(struct disk_descriptor *descriptor, const void *bytes,
				   size_t count, uint64_t offset, int flags,
				   uint64_t *delay_ns_out);
struct disk_work *work_begin_sync(struct disk_descriptor *descriptor, uint64_t *delay_ns_out);
/* One whose result is already known. */
struct disk_work *work_begin_failed(int32_t result, uint64_t *delay_ns_out);
/* How long an operation takes. */
uint64_t work_delay_ns(void);

enum disk_name_work {
	NAME_OPEN,
	NAME_CREATE,
	NAME_LIST,
	NAME_RENAME,
	NAME_UNLINK,
	NAME_MKDIR,
	NAME_TRUNCATE,
	NAME_WORKS,
};

/* 0, or the error that the weather has for this. `node`: what is named, or the folder where it
 * is to be. Counted as work_fails() does. */
int work_name_error(const struct disk_node *node, enum disk_name_work work);
/* Counts a failure that the weather wants; never on a calm node. */
bool work_fails(const struct disk_node *node, uint32_t per_million, const char *what);

#endif
