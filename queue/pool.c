/* Files of a spool, from free/ and back. */
#include "queue/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"

enum { POOL_FILL_BYTES = 1 << 20, POOL_MODE = 0640, POOL_FOLDER_MODE = 0750 };

static const char *const pool_folder_names[POOL_FOLDER_COUNT] = {
	[POOL_ROOT] = NULL, [POOL_SEGMENTS] = "seg", [POOL_JOURNALS] = "jnl",
	[POOL_BIG] = "big", [POOL_FREE] = "free",    [POOL_QUARANTINE] = "quarantine",
};

/* ── the lock ─────────────────────────────────────────────────────────────────────── */

/* Held for list changes and for writes of the superblock. */
static void pool_lock(struct pool *pool)
{
	word_lock_take(&pool->lock);
}

static void pool_unlock(struct pool *pool)
{
	word_lock_give(&pool->lock);
}

/* ── names and headers ────────────────────────────────────────────────────────────── */

void pool_file_name(uint32_t sequence, char out[static POOL_NAME_BYTES])
{
	snprintf(out, POOL_NAME_BYTES, "%08x", sequence);
}

enum pool_folder pool_kind_folder(enum format_kind kind)
{
	assert(kind != FORMAT_FREE);
	return kind == FORMAT_JOURNAL ? POOL_JOURNALS : POOL_SEGMENTS;
}

uint64_t pool_kind_bytes(const struct pool *pool, enum format_kind kind)
{
	return kind == FORMAT_JOURNAL ? pool->journal_bytes : pool->segment_bytes;
}

static struct pool_free *pool_kind_free(struct pool *pool, enum format_kind kind)
{
	return kind == FORMAT_JOURNAL ? &pool->journals : &pool->segments;
}

void pool_make_header(const struct pool *pool, char page[static FORMAT_PAGE_BYTES],
		      const struct format_file *file)
{
	struct format_file header = *file;

	header.magic = FORMAT_FILE_MAGIC;
	memcpy(header.uuid, pool->uuid, sizeof(header.uuid));
	header.crc = crc_header(&header, sizeof(header), offsetof(struct format_file, crc));
	memset(page, 0, FORMAT_PAGE_BYTES);
	memcpy(page, &header, sizeof(header));
}

/* Writes the header page and waits for it. */
static int pool_store_header(struct pool *pool, int fd, const struct format_file *file)
{
	_Alignas(FORMAT_PAGE_BYTES) char page[FORMAT_PAGE_BYTES];
	ssize_t wrote;

	pool_make_header(pool, page, file);
	wrote = os_file_write(fd, page, sizeof(page), 0);
	if (wrote < 0)
		return (int)wrote;
	return wrote == (ssize_t)sizeof(page) ? os_file_sync(fd) : -ENOSPC;
}

int pool_sync_folder(struct pool *pool, enum pool_folder folder)
{
	int error;

	word_lock_take(&pool->folder_lock);
	error = pool->folder_broken[folder] ? -EIO : os_file_sync(pool->folders[folder]);
	pool->folder_broken[folder] = error != 0;
	word_lock_give(&pool->folder_lock);
	return error == 0 ? 0 : -EIO;
}

static bool pool_folder_is_broken(struct pool *pool, enum pool_folder folder)
{
	bool broken;

	word_lock_take(&pool->folder_lock);
	broken = pool->folder_broken[folder];
	word_lock_give(&pool->folder_lock);
	return broken;
}

static int pool_sync_folders(struct pool *pool, enum pool_folder first, enum pool_folder second)
{
	int error = pool_sync_folder(pool, first);

	return error == 0 ? pool_sync_folder(pool, second) : error;
}

static int pool_move(struct pool *pool, const char *name, enum pool_folder from,
		     const char *new_name, enum pool_folder to)
{
	int error = os_rename(pool->folders[from], name, pool->folders[to], new_name);

	return error == 0 ? pool_sync_folders(pool, to, from) : error;
}

/* ── the free lists ───────────────────────────────────────────────────────────────── */

static int pool_push(struct pool *pool, enum format_kind kind, uint32_t sequence)
{
	struct pool_free *list = pool_kind_free(pool, kind);

	if (list->count == list->capacity) {
		uint32_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
		uint32_t *grown = realloc(list->sequences, capacity * sizeof(*grown));

		if (grown == NULL)
			return -ENOMEM;
		list->sequences = grown;
		list->capacity = capacity;
	}
	list->sequences[list->count++] = sequence;
	return 0;
}

/* Files of one size are as good for the one as for the other. */
static bool pool_is_uniform(const struct pool *pool)
{
	return pool->segment_bytes == pool->journal_bytes;
}

static bool pool_pop(struct pool *pool, enum format_kind kind, uint32_t *sequence_out)
{
	struct pool_free *list = pool_kind_free(pool, kind);

	if (list->count == 0 && pool_is_uniform(pool))
		list = list == &pool->journals ? &pool->segments : &pool->journals;
	if (list->count == 0)
		return false;
	*sequence_out = list->sequences[--list->count];
	return true;
}

static int pool_push_locked(struct pool *pool, enum format_kind kind, uint32_t sequence)
{
	int error;

	pool_lock(pool);
	error = pool_push(pool, kind, sequence);
	pool_unlock(pool);
	return error;
}

static void pool_measure(struct pool *pool)
{
	uint64_t free_bytes = 0, total = 0;

	if (os_file_space(pool->folders[POOL_ROOT], &free_bytes, &total) != 0)
		return;
	atomic_store_explicit(&pool->file_system_bytes, free_bytes, memory_order_relaxed);
	pool_lock(pool);
	free_bytes += (uint64_t)pool->segments.count * pool->segment_bytes;
	pool_unlock(pool);
	atomic_store_explicit(&pool->room_bytes, free_bytes, memory_order_relaxed);
}

/* ── writing a file ahead ─────────────────────────────────────────────────────────── */

static int pool_fill(int fd, uint64_t bytes)
{
	char *zeros = aligned_alloc(FORMAT_PAGE_BYTES, POOL_FILL_BYTES);
	int error = 0;

	if (zeros == NULL)
		return -ENOMEM;
	memset(zeros, 0, POOL_FILL_BYTES);
	for (uint64_t at = 0; at < bytes && error == 0; at += POOL_FILL_BYTES) {
		ssize_t wrote = os_file_write(fd, zeros, POOL_FILL_BYTES, at);

		if (wrote < 0)
			error = (int)wrote;
		else if (wrote != POOL_FILL_BYTES)
			error = -ENOSPC;
	}
	free(zeros);
	return error == 0 ? os_file_sync(fd) : error;
}

/* A new file in free/, written through: its name is a sequence of its own. */
static int pool_write_new(struct pool *pool, enum format_kind kind, uint32_t *sequence_out)
{
	struct format_file header = { .kind = FORMAT_FREE, .bytes = pool_kind_bytes(pool, kind) };
	char name[POOL_NAME_BYTES];
	uint32_t sequence;
	int error, fd;

	pool_lock(pool);
	error = super_lease_sequence(&pool->super, &sequence);
	pool_unlock(pool);
	if (error != 0)
		return error;
	pool_file_name(sequence, name);
	fd = os_file_open(pool->folders[POOL_FREE], name,
			  OS_READ | OS_WRITE | OS_CREATE_NEW | (pool->direct ? OS_DIRECT : 0),
			  POOL_MODE);
	if (fd < 0)
		return fd;
	header.sequence = sequence;
	error = pool_fill(fd, header.bytes);
	if (error == 0)
		error = pool_store_header(pool, fd, &header);
	os_file_close(fd);
	if (error != 0) {
		os_unlink(pool->folders[POOL_FREE], name);
		return error;
	}
	*sequence_out = sequence;
	return 0;
}

/* ── taking ───────────────────────────────────────────────────────────────────────── */

/* R0: the header of the new life, then the name, each durable before the next step. */
static int pool_rename_out(struct pool *pool, struct pool_request *request, uint32_t old)
{
	struct format_file header = { .kind = (uint16_t)request->kind,
				      .stream = request->stream,
				      .epoch = request->epoch,
				      .bytes = pool_kind_bytes(pool, request->kind) };
	char old_name[POOL_NAME_BYTES], name[POOL_NAME_BYTES];
	int error, fd;

	pool_lock(pool);
	error = super_lease_sequence(&pool->super, &header.sequence);
	pool_unlock(pool);
	if (error != 0)
		return error;
	pool_file_name(old, old_name);
	pool_file_name(header.sequence, name);
	fd = os_file_open(pool->folders[POOL_FREE], old_name,
			  OS_READ | OS_WRITE | (pool->direct ? OS_DIRECT : 0), 0);
	if (fd < 0)
		return fd;
	error = pool_store_header(pool, fd, &header);
	if (error == 0)
		error = pool_move(pool, old_name, POOL_FREE, name, pool_kind_folder(request->kind));
	if (error != 0) {
		os_file_close(fd);
		return error;
	}
	request->file = (struct pool_file){ fd, header.sequence, header.bytes };
	return 0;
}

/* Journals come first: without one no outcome can be kept, and no start is possible. Files
 * in free/ that wait to be segments are given up for it. */
static int pool_write_journal(struct pool *pool, uint32_t *sequence_out)
{
	int error = pool_write_new(pool, FORMAT_JOURNAL, sequence_out);

	while (error == -ENOSPC || error == -EDQUOT) {
		char name[POOL_NAME_BYTES];
		uint32_t victim;
		bool found;

		pool_lock(pool);
		found = pool_pop(pool, FORMAT_HOT, &victim);
		pool_unlock(pool);
		if (!found)
			break;
		pool_file_name(victim, name);
		os_unlink(pool->folders[POOL_FREE], name);
		error = pool_write_new(pool, FORMAT_JOURNAL, sequence_out);
	}
	return error;
}

static int pool_find(struct pool *pool, enum format_kind kind, uint32_t *sequence_out)
{
	bool found;

	/* Each try would leave a file behind whose name may not be durable. */
	if (pool_folder_is_broken(pool, POOL_FREE) ||
	    pool_folder_is_broken(pool, pool_kind_folder(kind)))
		return -EIO;
	pool_lock(pool);
	found = pool_pop(pool, kind, sequence_out);
	pool_unlock(pool);
	if (found)
		return 0;
	return kind == FORMAT_JOURNAL ? pool_write_journal(pool, sequence_out)
				      : pool_write_new(pool, kind, sequence_out);
}

static void pool_run_take(struct os_op *op)
{
	struct pool_request *request = container_of(op, struct pool_request, op);
	struct pool *pool = request->pool;
	uint32_t old;

	request->status = pool_find(pool, request->kind, &old);
	if (request->status == 0) {
		request->status = pool_rename_out(pool, request, old);
		/* It still lies in free/, for a folder's sync never fails so; who takes it next
		 * writes its header anew. */
		if (pool_error_passes(request->status))
			pool_push_locked(pool, request->kind, old);
	}
	pool_measure(pool);
	op->result = request->status;
}

/* ── giving back ──────────────────────────────────────────────────────────────────── */

static int pool_rename_back(struct pool *pool, enum format_kind kind, const char *name)
{
	enum pool_folder from = pool_kind_folder(kind);
	int error = os_rename(pool->folders[from], name, pool->folders[POOL_FREE], name);

	return error == 0 ? pool_sync_folders(pool, POOL_FREE, from) : error;
}

int pool_recycle_now(struct pool *pool, enum format_kind kind, struct pool_file *file)
{
	struct format_file header = { .kind = FORMAT_FREE,
				      .sequence = file->sequence,
				      .bytes = file->bytes };
	char name[POOL_NAME_BYTES];
	int error = pool_store_header(pool, file->fd, &header);

	pool_file_name(file->sequence, name);
	if (error == 0)
		error = pool_rename_back(pool, kind, name);
	if (pool_error_passes(error))
		return error;
	os_file_close(file->fd);
	file->fd = -1;
	if (error != 0)
		return error;
	/* Without memory for its place in the list, the next start finds it. */
	error = pool_push_locked(pool, kind, file->sequence);
	return error == -ENOMEM ? 0 : error;
}

int pool_quarantine_now(struct pool *pool, enum pool_folder from, const char *name)
{
	return pool_move(pool, name, from, name, POOL_QUARANTINE);
}

static void pool_run_recycle(struct os_op *op)
{
	struct pool_request *request = container_of(op, struct pool_request, op);
	char name[POOL_NAME_BYTES];

	if (request->quarantine) {
		os_file_close(request->file.fd);
		request->file.fd = -1;
		pool_file_name(request->file.sequence, name);
		request->status =
			pool_quarantine_now(request->pool, pool_kind_folder(request->kind), name);
	} else {
		request->status = pool_recycle_now(request->pool, request->kind, &request->file);
	}
	op->result = request->status;
}

static void pool_run_stock(struct os_op *op)
{
	struct pool_request *request = container_of(op, struct pool_request, op);
	struct pool *pool = request->pool;
	uint32_t sequence;
	bool enough;

	pool_lock(pool);
	enough = pool_kind_free(pool, request->kind)->count > 0;
	pool_unlock(pool);
	request->status = 0;
	if (!enough) {
		request->status = pool_write_new(pool, request->kind, &sequence);
		if (request->status == 0)
			request->status = pool_push_locked(pool, request->kind, sequence);
	}
	pool_measure(pool);
	op->result = request->status;
}

static void pool_run_lease(struct os_op *op)
{
	struct pool_request *request = container_of(op, struct pool_request, op);

	pool_lock(request->pool);
	request->status = super_lease_ids(&request->pool->super, &request->first_id);
	pool_unlock(request->pool);
	op->result = request->status;
}

static void pool_request_done(struct os_op *op)
{
	struct pool_request *request = container_of(op, struct pool_request, op);

	request->done(request);
}

static void pool_submit(struct os_loop *loop, struct pool_request *request,
			void (*run)(struct os_op *op))
{
	assert(request->pool != NULL && request->done != NULL && !request->op.busy);
	request->op.done = pool_request_done;
	os_offload(loop, &request->op, run);
}

void pool_take(struct os_loop *loop, struct pool_request *request)
{
	pool_submit(loop, request, pool_run_take);
}

void pool_recycle(struct os_loop *loop, struct pool_request *request)
{
	pool_submit(loop, request, pool_run_recycle);
}

void pool_stock(struct os_loop *loop, struct pool_request *request)
{
	pool_submit(loop, request, pool_run_stock);
}

void pool_lease_ids(struct os_loop *loop, struct pool_request *request)
{
	pool_submit(loop, request, pool_run_lease);
}

/* ── opening ──────────────────────────────────────────────────────────────────────── */

int pool_open_folders(struct pool *pool, const char *path)
{
	for (uint32_t folder = 0; folder < POOL_FOLDER_COUNT; folder++)
		pool->folders[folder] = -1;
	for (uint32_t folder = 0; folder < POOL_FOLDER_COUNT; folder++) {
		const char *name = pool_folder_names[folder];
		int root = pool->folders[POOL_ROOT];
		int error = folder == POOL_ROOT ? os_mkdir_durable(path, POOL_FOLDER_MODE)
						: os_mkdir(root, name, POOL_FOLDER_MODE);

		if (error != 0 && error != -EEXIST)
			return error;
		pool->folders[folder] =
			folder == POOL_ROOT
				? os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0)
				: os_file_open(root, name, OS_READ | OS_FOLDER, 0);
		if (pool->folders[folder] < 0)
			return pool->folders[folder];
	}
	return os_file_sync(pool->folders[POOL_ROOT]);
}

void pool_deinit(struct pool *pool)
{
	for (uint32_t folder = 0; folder < POOL_FOLDER_COUNT; folder++)
		if (pool->folders[folder] >= 0)
			os_file_close(pool->folders[folder]);
	free(pool->segments.sequences);
	free(pool->journals.sequences);
}

/* What a file in free/ is, by its first two pages. */
enum pool_found {
	POOL_FOUND_FREE,
	POOL_FOUND_TAKEN,    /* R0 stopped between header and rename: no chunk yet */
	POOL_FOUND_UNFILLED, /* a crash while it was written for the first time */
	POOL_FOUND_STRANGE,  /* not ours, or holds a chunk of its life */
};

static bool pool_page_is_zero(const char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, FORMAT_PAGE_BYTES - 1) == 0;
}

static enum pool_found pool_inspect(const struct pool *pool, int fd, struct format_file *header)
{
	_Alignas(FORMAT_PAGE_BYTES) char pages[2][FORMAT_PAGE_BYTES] = { 0 };
	struct format_chunk chunk;
	ssize_t got = os_file_read(fd, pages, sizeof(pages), 0);

	if (got < 0)
		return POOL_FOUND_STRANGE;
	memcpy(header, pages[0], sizeof(*header));
	memcpy(&chunk, pages[1], sizeof(chunk));
	if (pool_page_is_zero(pages[0]))
		return POOL_FOUND_UNFILLED;
	if (header->magic != FORMAT_FILE_MAGIC ||
	    header->crc != crc_header(header, sizeof(*header), offsetof(struct format_file, crc)) ||
	    memcmp(header->uuid, pool->uuid, sizeof(header->uuid)) != 0)
		return POOL_FOUND_STRANGE;
	if (header->bytes != (uint64_t)os_file_size(fd))
		return POOL_FOUND_STRANGE;
	if (header->kind == FORMAT_FREE)
		return POOL_FOUND_FREE;
	return chunk.magic == FORMAT_CHUNK_MAGIC && chunk.sequence == header->sequence
		       ? POOL_FOUND_STRANGE
		       : POOL_FOUND_TAKEN;
}

void pool_set_constants(struct pool *pool)
{
	const struct format_super *super = &pool->super.now;

	memcpy(pool->uuid, super->uuid, sizeof(pool->uuid));
	pool->epoch = super->epoch;
	pool->segment_bytes = super->segment_bytes;
	pool->journal_bytes = super->journal_bytes;
}

struct pool_scan {
	struct pool *pool;
	void (*report)(void *context, bool problem, const char *line);
	void *context;
};

static int pool_quarantine(struct pool_scan *scan, const char *name)
{
	char line[160];

	snprintf(line, sizeof(line), "free/%s holds what no rule explains: moved to quarantine/",
		 name);
	scan->report(scan->context, true, line);
	return pool_quarantine_now(scan->pool, POOL_FREE, name);
}

/* A file that is free for sure joins its list (the shorter one, if it fits both); one of another
 * size is of no use. */
static int pool_adopt(struct pool *pool, const char *name, uint64_t bytes)
{
	uint32_t sequence = (uint32_t)strtoul(name, NULL, 16);

	if (bytes == pool->journal_bytes && pool_is_uniform(pool) &&
	    pool->journals.count < pool->segments.count)
		return pool_push_locked(pool, FORMAT_JOURNAL, sequence);
	if (bytes == pool->segment_bytes)
		return pool_push_locked(pool, FORMAT_HOT, sequence);
	if (bytes == pool->journal_bytes)
		return pool_push_locked(pool, FORMAT_JOURNAL, sequence);
	return os_unlink(pool->folders[POOL_FREE], name);
}

static int pool_scan_one(void *context, const char *name)
{
	struct pool_scan *scan = context;
	struct pool *pool = scan->pool;
	struct format_file header;
	enum pool_found found;
	int error = 0, fd;

	if (strlen(name) != 8 || strspn(name, "0123456789abcdef") != 8)
		return pool_quarantine(scan, name);
	fd = os_file_open(pool->folders[POOL_FREE], name,
			  OS_READ | OS_WRITE | (pool->direct ? OS_DIRECT : 0), 0);
	if (fd < 0)
		return fd;
	found = pool_inspect(pool, fd, &header);
	if (found == POOL_FOUND_TAKEN) {
		header.kind = FORMAT_FREE;
		error = pool_store_header(pool, fd, &header);
	}
	os_file_close(fd);
	if (error != 0)
		return error;
	if (found == POOL_FOUND_STRANGE)
		return pool_quarantine(scan, name);
	if (found == POOL_FOUND_UNFILLED)
		return os_unlink(pool->folders[POOL_FREE], name);
	return pool_adopt(pool, name, header.bytes);
}

int pool_scan_free(struct pool *pool, void (*report)(void *context, bool problem, const char *line),
		   void *context)
{
	struct pool_scan scan = { pool, report, context };
	int error = os_folder_list(pool->folders[POOL_FREE], pool_scan_one, &scan);

	pool_measure(pool);
	return error;
}
