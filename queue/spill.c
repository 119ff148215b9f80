/* Large bodies, piece by piece, into big/. */
#include "queue/spill.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"

enum { SPILL_MODE = 0640 };

struct spill_piece {
	struct list link;
	uint32_t used;
	char bytes[SPILL_PIECE_BYTES];
};

static void spill_step(struct spill *spill);

static enum queue_status spill_status_of(int error)
{
	return pool_error_passes(error) ? QUEUE_SPACE : QUEUE_BROKEN;
}

struct spill *spill_create(struct os_loop *loop, struct pool *pool, uint64_t id)
{
	struct spill *spill = calloc(1, sizeof(*spill));

	if (spill == NULL)
		return NULL;
	spill->loop = loop;
	spill->pool = pool;
	spill->id = id;
	spill->fd = -1;
	spill->crc_running = CRC_START;
	list_init(&spill->pieces);
	return spill;
}

/* ── bytes in ─────────────────────────────────────────────────────────────────────── */

static void spill_end_crc(struct spill *spill)
{
	uint32_t *grown = realloc(spill->crcs, (spill->crc_count + 1) * sizeof(*grown));

	if (grown == NULL) {
		spill->status = QUEUE_SPACE;
		return;
	}
	grown[spill->crc_count++] = ~spill->crc_running;
	spill->crcs = grown;
	spill->crc_running = CRC_START;
}

/* The bytes of one piece, which lie within one CRC's span. */
static void spill_count(struct spill *spill, const char *bytes, size_t count)
{
	spill->crc_running = crc_add(spill->crc_running, bytes, count);
	spill->appended += count;
	if (spill->appended % FORMAT_BIG_CRC_SPAN == 0)
		spill_end_crc(spill);
}

static struct spill_piece *spill_open_piece(struct spill *spill)
{
	struct spill_piece *piece;

	if (!list_empty(&spill->pieces)) {
		piece = container_of(spill->pieces.previous, struct spill_piece, link);
		if (piece->used < SPILL_PIECE_BYTES)
			return piece;
	}
	piece = malloc(sizeof(*piece));
	if (piece == NULL)
		return NULL;
	piece->used = 0;
	list_init(&piece->link);
	list_push_back(&spill->pieces, &piece->link);
	return piece;
}

void spill_append(struct spill *spill, struct span bytes)
{
	assert(!spill->finishing && !spill->sealed && !spill->closing);
	while (bytes.len > 0 && spill->status == QUEUE_OK) {
		struct spill_piece *piece = spill_open_piece(spill);
		size_t part;

		if (piece == NULL) {
			spill->status = QUEUE_SPACE;
			break;
		}
		part = SPILL_PIECE_BYTES - piece->used;
		part = part < bytes.len ? part : bytes.len;
		memcpy(piece->bytes + piece->used, bytes.at, part);
		piece->used += (uint32_t)part;
		spill_count(spill, bytes.at, part);
		bytes = span_skip(bytes, part);
	}
	spill_step(spill);
}

bool spill_may_append(struct spill *spill, void (*resume)(void *context), void *context)
{
	if (spill->status != QUEUE_OK || spill->appended - spill->written < SPILL_PENDING_MAX)
		return true;
	spill->resume = resume;
	spill->resume_context = context;
	return false;
}

/* ── operations ───────────────────────────────────────────────────────────────────── */

static void spill_run_open(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);
	char name[QUEUE_ID_TEXT_BYTES];

	queue_id_text(spill->id, name);
	op->result = os_file_open(spill->pool->folders[POOL_BIG], name,
				  OS_READ | OS_WRITE | OS_CREATE_NEW, SPILL_MODE);
}

static void spill_run_sync(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);

	op->result = os_file_sync(spill->fd);
	if (op->result == 0)
		op->result = pool_sync_folder(spill->pool, POOL_BIG);
}

static void spill_run_close(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);
	char name[QUEUE_ID_TEXT_BYTES];

	os_file_close(spill->fd);
	if (!spill->keep) {
		queue_id_text(spill->id, name);
		os_unlink(spill->pool->folders[POOL_BIG], name);
	}
	op->result = 0;
}

static void spill_drop_pieces(struct spill *spill)
{
	list_each(node, &spill->pieces) {
		list_remove(node);
		free(container_of(node, struct spill_piece, link));
	}
}

static void spill_fail(struct spill *spill, int error)
{
	if (spill->status == QUEUE_OK)
		spill->status = spill_status_of(error);
	spill_step(spill);
}

static void spill_on_open(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);

	spill->opened = true;
	if (op->result < 0) {
		spill_fail(spill, op->result);
		return;
	}
	spill->fd = op->result;
	spill_step(spill);
}

static void spill_on_write(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);
	struct spill_piece *piece = list_first(&spill->pieces, struct spill_piece, link);

	if (op->result != (int32_t)piece->used) {
		spill_fail(spill, op->result < 0 ? op->result : -ENOSPC);
		return;
	}
	spill->written += piece->used;
	list_remove(&piece->link);
	free(piece);
	spill_step(spill);
}

static void spill_done(struct spill *spill)
{
	void (*finished)(void *context, enum queue_status status) = spill->finished;

	spill->finished = NULL;
	finished(spill->finished_context, spill->status);
}

static void spill_on_finish(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);
	bool good = spill->finish == SPILL_READ_BACK ? (uint64_t)op->result == spill->appended
						     : op->result == 0;

	if (!good && spill->status == QUEUE_OK)
		spill->status = op->result < 0 ? spill_status_of(op->result) : QUEUE_BROKEN;
	if (spill->closing)
		spill_step(spill);
	else
		spill_done(spill);
}

static void spill_on_failed_finish(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);

	if (spill->closing)
		spill_step(spill);
	else
		spill_done(spill);
}

static void spill_on_closed(struct os_op *op)
{
	struct spill *spill = container_of(op, struct spill, op);
	void (*gone)(void *context) = spill->gone;
	void *context = spill->gone_context;

	spill_drop_pieces(spill);
	free(spill->crcs);
	free(spill);
	gone(context);
}

/* ── what comes next ──────────────────────────────────────────────────────────────── */

static void spill_offload(struct spill *spill, void (*run)(struct os_op *op),
			  void (*done)(struct os_op *op))
{
	spill->op.done = done;
	os_offload(spill->loop, &spill->op, run);
}

/* A piece is written when it is full, or when nothing comes after it. */
static bool spill_write_piece(struct spill *spill)
{
	struct spill_piece *piece;

	if (list_empty(&spill->pieces))
		return false;
	piece = list_first(&spill->pieces, struct spill_piece, link);
	if (piece->used < SPILL_PIECE_BYTES && !spill->finishing)
		return false;
	spill->op.done = spill_on_write;
	os_write(spill->loop, &spill->op, spill->fd, piece->bytes, piece->used, spill->written, 0);
	return true;
}

static void spill_start_finish(struct spill *spill)
{
	spill->finishing = false;
	if (spill->finish == SPILL_READ_BACK) {
		spill->op.done = spill_on_finish;
		os_read(spill->loop, &spill->op, spill->fd, spill->bytes_out, spill->appended, 0);
		return;
	}
	spill_offload(spill, spill_run_sync, spill_on_finish);
}

static void spill_run_nothing(struct os_op *op)
{
	op->result = 0;
}

static void spill_step(struct spill *spill)
{
	if (spill->resume != NULL && !spill->closing &&
	    (spill->status != QUEUE_OK ||
	     spill->appended - spill->written < SPILL_PENDING_MAX / 2)) {
		void (*resume)(void *context) = spill->resume;

		spill->resume = NULL;
		resume(spill->resume_context);
	}
	if (spill->op.busy)
		return;
	if (spill->closing) {
		spill_offload(spill, spill->fd >= 0 ? spill_run_close : spill_run_nothing,
			      spill_on_closed);
	} else if (spill->status != QUEUE_OK) {
		spill_drop_pieces(spill);
		if (spill->finishing) {
			spill->finishing = false;
			spill_offload(spill, spill_run_nothing, spill_on_failed_finish);
		}
	} else if (!spill->opened) {
		spill_offload(spill, spill_run_open, spill_on_open);
	} else if (!spill_write_piece(spill) && spill->finishing) {
		spill_start_finish(spill);
	}
}

void spill_finish(struct spill *spill, enum spill_finish finish, char *bytes_out,
		  void (*finished)(void *context, enum queue_status status), void *context)
{
	assert(spill->resume == NULL);
	if (!spill->sealed && spill->appended % FORMAT_BIG_CRC_SPAN != 0)
		spill_end_crc(spill);
	spill->sealed = true;
	spill->finishing = true;
	spill->finish = finish;
	spill->bytes_out = bytes_out;
	spill->finished = finished;
	spill->finished_context = context;
	spill_step(spill);
}

void spill_close(struct spill *spill, bool keep, void (*gone)(void *context), void *context)
{
	spill->closing = true;
	spill->keep = keep;
	spill->gone = gone;
	spill->gone_context = context;
	spill->resume = NULL;
	spill_step(spill);
}
