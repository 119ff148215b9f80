/* The part of recovery that looks at a spool as a whole: superblock, file headers, big/. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/check.h"
#include "os/os.h"
#include "queue/crc.h"
#include "queue/queue.h"
#include "queue/recover.h"
#include "queue/recover_private.h"
#include "queue/scan.h"
#include "queue/super.h"

enum { PROBLEMS_MAX = 1000, NAME_DIGITS = 8 };

/* ── problems ─────────────────────────────────────────────────────────────────────── */

void recover_problem(struct recovered_problems *problems, enum recovered_problem_kind kind,
		     const char *format, ...)
{
	struct recovered_problem *list = problems->list;
	va_list arguments;

	if (problems->count == PROBLEMS_MAX) {
		problems->left_out++;
		return;
	}
	list = realloc(list, (problems->count + 1) * sizeof(*list));
	if (!list) {
		problems->left_out++;
		return;
	}
	problems->list = list;
	list += problems->count++;
	list->kind = kind;
	va_start(arguments, format);
	vsnprintf(list->text, sizeof(list->text), format, arguments);
	va_end(arguments);
}

/* ── the superblock ───────────────────────────────────────────────────────────────── */

static bool super_valid(const struct format_super *super)
{
	return super->magic == FORMAT_SUPER_MAGIC &&
	       crc_header(super, sizeof(*super), offsetof(struct format_super, crc)) == super->crc;
}

/* Something was written there once, and it is gone. */
static bool super_lost(const struct format_super *copy, ssize_t got)
{
	static const struct format_super nothing;

	return got < 0 || (got == (ssize_t)sizeof(*copy) && !super_valid(copy) &&
			   memcmp(copy, &nothing, sizeof(nothing)) != 0);
}

/* The copy that is lost may have been the newer one, by one super_store(): what that could have
 * given out is not given out again, and nobody knows of an orderly stop. */
static void super_catch_up(struct format_super *super)
{
	super->epoch++;
	super->block_limit++;
	super->sequence_limit += SUPER_SEQUENCES_AHEAD;
	super->clean = 0;
}

enum recover_status recover_super(int root, enum recover_from from, struct format_super *out,
				  uint32_t *copy_out)
{
	int fd = os_file_open(root, "super", OS_READ, 0);
	struct format_super copy;
	bool found = false, lost = false;

	if (fd == -ENOENT)
		return RECOVER_ABSENT;
	if (fd < 0)
		return RECOVER_UNREADABLE;
	/* The older copy is overwritten next: the newer one must not be in the cache alone. */
	if (from == RECOVER_FROM_DISK && os_file_sync(fd) != 0) {
		os_file_close(fd);
		return RECOVER_UNREADABLE;
	}
	if (from == RECOVER_FROM_DISK)
		os_file_drop_cache(fd);
	for (uint32_t i = 0; i < 2; i++) {
		ssize_t got =
			os_file_read(fd, &copy, sizeof(copy), (uint64_t)i * FORMAT_PAGE_BYTES);

		lost |= super_lost(&copy, got);
		if (got != (ssize_t)sizeof(copy) || !super_valid(&copy) ||
		    (found && copy.generation < out->generation))
			continue;
		*out = copy;
		found = true;
		if (copy_out)
			*copy_out = i;
	}
	os_file_close(fd);
	if (!found)
		return RECOVER_DAMAGED;
	if (lost)
		super_catch_up(out);
	return out->version == FORMAT_VERSION &&
			       !(out->features_incompatible & ~FORMAT_FEATURES_INCOMPATIBLE)
		       ? RECOVER_OK
		       : RECOVER_INCOMPATIBLE;
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

/* What the first page of a file says, compared with its name and folder. */
enum header {
	HEADER_OURS = 1,     /* this name, this folder, this spool */
	HEADER_FREE = 2,     /* recycled, not yet renamed */
	HEADER_EARLIER = 4,  /* of an earlier life: a lower sequence */
	HEADER_LATER = 8,    /* of a later life: it was recycled, and that is all that is lost */
	HEADER_FOREIGN = 16, /* of another spool, or of a kind that has no place here */
	HEADER_BAD = 32,     /* not verified */
};

enum chunks { CHUNKS_SOME = 1, CHUNKS_NONE = 2 };

/* Found state of a file -> what becomes of it; README.md, "Found states". The first row that
 * fits. `chunks`: whether one of the name's sequence is there, or may be. */
static const struct {
	unsigned header, chunks;
	enum recovered_fate fate;
	bool header_lost;
} file_fates[] = {
	{ HEADER_OURS, CHUNKS_SOME | CHUNKS_NONE, RECOVERED_KEEP, false },
	{ HEADER_FREE | HEADER_LATER, CHUNKS_SOME | CHUNKS_NONE, RECOVERED_RECYCLE, false },
	{ HEADER_FOREIGN, CHUNKS_SOME | CHUNKS_NONE, RECOVERED_QUARANTINE, false },
	{ HEADER_EARLIER | HEADER_BAD, CHUNKS_SOME, RECOVERED_KEEP, true },
	{ HEADER_EARLIER, CHUNKS_NONE, RECOVERED_RECYCLE, false },
	{ HEADER_BAD, CHUNKS_NONE, RECOVERED_QUARANTINE, false },
};

struct folder_walk {
	struct recovered_spool *spool;
	size_t size; /* of spool->files */
	bool journal;
};

/* "%08x" and nothing else; 0: not a name of ours. */
static uint32_t name_sequence(const char *name)
{
	if (strlen(name) != NAME_DIGITS || strspn(name, "0123456789abcdef") != NAME_DIGITS)
		return 0;
	return (uint32_t)strtoul(name, NULL, 16);
}

static int walk_add(void *context, const char *name)
{
	struct folder_walk *walk = context;
	struct recovered_spool *spool = walk->spool;

	if (spool->file_count == walk->size) {
		size_t size = walk->size ? walk->size * 2 : 64;
		struct recovered_file *larger = realloc(spool->files, size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		spool->files = larger;
		walk->size = size;
	}
	struct recovered_file *file = &spool->files[spool->file_count++];

	*file = (struct recovered_file){ .journal = walk->journal,
					 .sequence = name_sequence(name),
					 .fate = RECOVERED_QUARANTINE };
	snprintf(file->name, sizeof(file->name), "%s", name);
	return 0;
}

static enum header read_header(const struct recovered_spool *spool, struct recovered_file *file,
			       int fd)
{
	struct format_file head;

	if (os_file_read(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
	    head.magic != FORMAT_FILE_MAGIC ||
	    crc_header(&head, sizeof(head), offsetof(struct format_file, crc)) != head.crc)
		return HEADER_BAD;
	if (memcmp(head.uuid, spool->super.uuid, sizeof(head.uuid)) != 0)
		return HEADER_FOREIGN;
	if (head.kind == FORMAT_FREE)
		return HEADER_FREE;
	if (head.sequence != file->sequence)
		return head.sequence < file->sequence ? HEADER_EARLIER : HEADER_LATER;
	if (file->journal ? head.kind != FORMAT_JOURNAL
			  : head.kind != FORMAT_HOT && head.kind != FORMAT_COLD)
		return HEADER_FOREIGN;
	file->kind = head.kind;
	file->stream = head.stream;
	file->epoch = head.epoch;
	file->previous_sequence = head.previous_sequence;
	file->previous_end = head.previous_end;
	return HEADER_OURS;
}

/* One that was only begun, or that can't be read, may have been acknowledged: who knows the durable
 * end decides (scan.c). */
static enum chunks look_for_chunks(const struct recovered_file *file, int fd, struct scan *scan)
{
	struct scan_input input = { .fd = fd, .sequence = file->sequence, .bytes = file->bytes };
	struct scan_extent extent;

	scan_begin(scan, &input);
	return scan_next(scan, &extent) != SCAN_END || scan->torn ? CHUNKS_SOME : CHUNKS_NONE;
}

static void decide_fate(struct recovered_file *file, enum header header, enum chunks chunks)
{
	for (size_t i = 0; i < array_count(file_fates); i++) {
		if (!(file_fates[i].header & header) || !(file_fates[i].chunks & chunks))
			continue;
		file->fate = file_fates[i].fate;
		file->header_lost = file_fates[i].header_lost;
		return;
	}
	assert(false); /* the table knows every state */
}

/* 0, or -errno: it can't be opened, or its size not told. */
static int examine(struct recovered_spool *spool, struct recovered_file *file,
		   enum recover_from from, struct scan *scan)
{
	enum chunks chunks = CHUNKS_NONE;
	enum header header;

	if (file->sequence == 0)
		return 0;
	int fd = os_file_open(file->journal ? spool->jnl : spool->seg, file->name, OS_READ, 0);

	if (fd == -ENOENT) { /* a running daemon recycled it meanwhile */
		file->fate = RECOVERED_RECYCLE;
		return 0;
	}
	if (fd < 0)
		return fd;
	/* What a failed sync left there is not on the disk (R9). What none has seen yet stays, and
	 * recover_stream() syncs it before it believes anything. */
	if (from == RECOVER_FROM_DISK)
		os_file_drop_cache(fd);
	int64_t bytes = os_file_size(fd);

	if (bytes < 0) {
		os_file_close(fd);
		return (int)bytes;
	}
	file->bytes = (uint64_t)bytes;
	header = read_header(spool, file, fd);
	if (header == HEADER_EARLIER || header == HEADER_BAD)
		chunks = look_for_chunks(file, fd, scan);
	decide_fate(file, header, chunks);
	if (file->header_lost)
		file->kind = file->journal ? FORMAT_JOURNAL : FORMAT_HOT;
	os_file_close(fd);
	return 0;
}

static int compare_files(const void *a, const void *b)
{
	const struct recovered_file *left = a, *right = b;

	if (left->sequence != right->sequence)
		return left->sequence < right->sequence ? -1 : 1;
	return (int)left->journal - (int)right->journal;
}

static void summarize(struct recovered_spool *spool)
{
	for (size_t i = 0; i < spool->file_count; i++) {
		struct recovered_file *file = &spool->files[i];

		if (file->fate == RECOVERED_QUARANTINE)
			recover_problem(&spool->problems, RECOVERED_STRANGE_FILE,
					"%s/%s cannot be explained: for quarantine/",
					file->journal ? "jnl" : "seg", file->name);
		else if (file->header_lost)
			recover_find_owner(spool, file);
		if (file->sequence >= spool->sequence_limit)
			spool->sequence_limit =
				file->sequence < UINT32_MAX ? file->sequence + 1 : UINT32_MAX;
		if (file->fate == RECOVERED_KEEP && file->stream >= spool->stream_count)
			spool->stream_count = file->stream + 1u;
	}
}

/* ── the spool ────────────────────────────────────────────────────────────────────── */

/* All of both folders, or nothing: a segment that is not seen is mail that is forgotten. */
static int list_folders(struct folder_walk *walk)
{
	int error = os_folder_list(walk->spool->seg, walk_add, walk);

	if (error != 0)
		return error;
	walk->journal = true;
	return os_folder_list(walk->spool->jnl, walk_add, walk);
}

static enum recover_status read_folders(struct recovered_spool *spool, const char *path,
					enum recover_from from, char *error)
{
	struct folder_walk walk = { .spool = spool };
	enum recover_status status = RECOVER_OK;
	struct scan scan;
	int listed;

	if (!scan_init(&scan)) {
		scan_deinit(&scan);
		return RECOVER_NO_MEMORY;
	}
	listed = list_folders(&walk);
	if (listed != 0) {
		snprintf(error, RECOVER_ERROR_BYTES, "%s/%s can't be listed: %s", path,
			 walk.journal ? "jnl" : "seg", strerror(-listed));
		status = listed == -ENOMEM ? RECOVER_NO_MEMORY : RECOVER_UNREADABLE;
	}
	for (size_t i = 0; status == RECOVER_OK && i < spool->file_count; i++) {
		struct recovered_file *file = &spool->files[i];

		int result = examine(spool, file, from, &scan);

		if (result == 0)
			continue;
		snprintf(error, RECOVER_ERROR_BYTES,
			 "%s/%s/%s can't be opened: %s; give this user access to the spool, or "
			 "look at the kernel's log",
			 path, file->journal ? "jnl" : "seg", file->name, strerror(-result));
		status = RECOVER_UNREADABLE;
	}
	scan_deinit(&scan);
	return status;
}

static enum recover_status open_folders(struct recovered_spool *spool, int folder, const char *path,
					char *error)
{
	spool->root = os_file_open(folder, path, OS_READ | OS_FOLDER, 0);
	if (spool->root == -ENOENT) {
		snprintf(error, RECOVER_ERROR_BYTES, "there is no spool at %s", path);
		return RECOVER_ABSENT;
	}
	if (spool->root >= 0) {
		spool->seg = os_file_open(spool->root, "seg", OS_READ | OS_FOLDER, 0);
		spool->jnl = os_file_open(spool->root, "jnl", OS_READ | OS_FOLDER, 0);
		spool->big = os_file_open(spool->root, "big", OS_READ | OS_FOLDER, 0);
	}
	return RECOVER_OK;
}

static enum recover_status explain_super(enum recover_status status, const char *path, char *error)
{
	static const char *const texts[] = {
		[-RECOVER_ABSENT] = "there is no spool at %s (no file `super`)",
		[-RECOVER_INCOMPATIBLE] =
			"the spool %s was made by a newer version: start that one",
		[-RECOVER_DAMAGED] =
			"%s/super: both copies are damaged: restore it, or move the spool away",
		[-RECOVER_UNREADABLE] =
			"%s/super can't be read: mend its access, or look at the kernel's log",
	};

	if (status != RECOVER_OK)
		snprintf(error, RECOVER_ERROR_BYTES, texts[-status], path);
	return status;
}

enum recover_status recover_spool(int folder, const char *path, enum recover_from from,
				  struct recovered_spool *out,
				  char error[static RECOVER_ERROR_BYTES])
{
	enum recover_status status;

	*out = (struct recovered_spool){ .root = -1, .seg = -1, .jnl = -1, .big = -1 };
	status = open_folders(out, folder, path, error);
	if (status == RECOVER_OK)
		status = explain_super(out->root < 0 ? RECOVER_UNREADABLE
						     : recover_super(out->root, from, &out->super,
								     &out->super_copy),
				       path, error);
	if (status == RECOVER_OK &&
	    (out->seg < 0 || out->jnl < 0 || (out->big < 0 && out->big != -ENOENT))) {
		snprintf(error, RECOVER_ERROR_BYTES,
			 "%s: the folders seg, jnl or big are missing or not readable", path);
		status = RECOVER_UNREADABLE;
	}
	if (status == RECOVER_OK)
		status = read_folders(out, path, from, error);
	if (status == RECOVER_NO_MEMORY)
		snprintf(error, RECOVER_ERROR_BYTES, "no memory to read the spool %s", path);
	if (status != RECOVER_OK) {
		recovered_spool_release(out);
		return status;
	}
	if (out->file_count > 0)
		qsort(out->files, out->file_count, sizeof(*out->files), compare_files);
	summarize(out);
	return RECOVER_OK;
}

void recovered_spool_release(struct recovered_spool *spool)
{
	int *const folders[] = { &spool->root, &spool->seg, &spool->jnl, &spool->big };

	for (size_t i = 0; i < array_count(folders); i++) {
		if (*folders[i] >= 0)
			os_file_close(*folders[i]);
		*folders[i] = -1;
	}
	free(spool->files);
	free(spool->problems.list);
	spool->files = NULL;
	spool->problems = (struct recovered_problems){ 0 };
	spool->file_count = 0;
}

/* ── big/ ─────────────────────────────────────────────────────────────────────────── */

struct id_list {
	uint64_t *ids;
	size_t count, size;
};

static bool id_add(struct id_list *list, uint64_t id)
{
	if (list->count == list->size) {
		size_t size = list->size ? list->size * 2 : 64;
		uint64_t *larger = realloc(list->ids, size * sizeof(*larger));

		if (!larger)
			return false;
		list->ids = larger;
		list->size = size;
	}
	list->ids[list->count++] = id;
	return true;
}

static int big_add(void *context, const char *name)
{
	uint64_t id;

	if (queue_id_parse(span_text(name), &id) && !id_add(context, id))
		return -ENOMEM;
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* The ids of messages that still need their file in big/, sorted. */
static bool needed_ids(const struct recovered *streams, size_t stream_count, struct id_list *out)
{
	for (size_t i = 0; i < stream_count; i++)
		for (size_t j = 0; j < streams[i].job_count; j++) {
			const struct format_job *job = &streams[i].jobs[j].job;

			if (job->flags & FORMAT_JOB_BIG && job->state == FORMAT_WAITING &&
			    !id_add(out, job->message))
				return false;
		}
	if (out->count > 0)
		qsort(out->ids, out->count, sizeof(*out->ids), compare_ids);
	return true;
}

static bool anything_damaged(const struct recovered_spool *spool, const struct recovered *streams,
			     size_t stream_count)
{
	bool damaged = spool->streams_damaged;

	for (size_t i = 0; i < stream_count; i++)
		damaged |= streams[i].damaged;
	return damaged;
}

enum recover_status recover_unnamed_big(const struct recovered_spool *spool,
					const struct recovered *streams, size_t stream_count,
					uint64_t **ids_out, size_t *count_out)
{
	struct id_list present = { 0 }, needed = { 0 };
	size_t kept = 0;

	*ids_out = NULL;
	*count_out = 0;
	if (spool->big < 0 || anything_damaged(spool, streams, stream_count))
		return RECOVER_OK;
	if (os_folder_list(spool->big, big_add, &present) == -ENOMEM ||
	    !needed_ids(streams, stream_count, &needed)) {
		free(present.ids);
		free(needed.ids);
		return RECOVER_NO_MEMORY;
	}
	for (size_t i = 0; i < present.count; i++)
		if (needed.count == 0 || !bsearch(&present.ids[i], needed.ids, needed.count,
						  sizeof(*needed.ids), compare_ids))
			present.ids[kept++] = present.ids[i];
	free(needed.ids);
	*ids_out = present.ids;
	*count_out = kept;
	return RECOVER_OK;
}
