/* Chunks onto the files of one kind. */
#include "queue/tape.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"

static void tape_place(struct tape *tape);

static uint32_t tape_pages(uint32_t bytes)
{
	return (bytes + FORMAT_PAGE_BYTES - 1) / FORMAT_PAGE_BYTES;
}

uint32_t tape_chunk_bytes_max(const struct tape *tape)
{
	uint64_t room = pool_kind_bytes(tape->pool, tape->kind) - FORMAT_PAGE_BYTES;

	return room < FORMAT_CHUNK_BYTES_MAX ? (uint32_t)room : FORMAT_CHUNK_BYTES_MAX;
}

/* ── the file ahead ───────────────────────────────────────────────────────────────── */

static void tape_on_take(struct pool_request *request)
{
	struct tape *tape = container_of(request, struct tape, take);

	tape->take_error = request->status;
	if (request->status == 0) {
		tape->next = tape->blank;
		tape->blank = NULL;
		tape->next->file = request->file;
		tape->next->end_pages = 1;
	}
	if (tape->chunk != NULL && !tape->op.busy)
		tape_place(tape);
}

void tape_prepare(struct tape *tape, bool retry)
{
	if (tape->next != NULL || tape->take.op.busy || (tape->take_error != 0 && !retry))
		return;
	if (tape->blank == NULL)
		tape->blank = calloc(1, sizeof(*tape->blank));
	if (tape->blank == NULL) {
		tape->take_error = -ENOMEM;
		return;
	}
	tape->take.pool = tape->pool;
	tape->take.kind = tape->kind;
	tape->take.stream = tape->stream;
	tape->take.epoch = tape->epoch;
	tape->take.done = tape_on_take;
	pool_take(tape->loop, &tape->take);
}

/* ── writing ──────────────────────────────────────────────────────────────────────── */

static void tape_finish(struct tape *tape, enum queue_status status)
{
	uint64_t offset = tape->file == NULL
				  ? 0
				  : (uint64_t)(tape->file->end_pages - tape_pages(tape->bytes)) *
					    FORMAT_PAGE_BYTES;

	tape->chunk = NULL;
	tape->events->written(tape, status, offset);
}

static void tape_fail(struct tape *tape, int error)
{
	if (pool_error_passes(error)) {
		tape_finish(tape, QUEUE_SPACE);
		return;
	}
	if (!tape->second_chance || tape->retried) {
		tape_finish(tape, QUEUE_BROKEN);
		return;
	}
	tape->retried = true;
	tape->abandoned = true;
	tape->file->damaged = true;
	tape_place(tape);
}

static void tape_take_written(struct tape *tape)
{
	uint32_t pages = tape_pages(tape->bytes);

	tape->file->end_pages += pages;
	tape->file->chunks++;
	tape->writes++;
	tape->written_bytes += (uint64_t)pages * FORMAT_PAGE_BYTES;
	tape_finish(tape, QUEUE_OK);
}

static void tape_on_confirmed(struct os_op *op)
{
	struct tape *tape = container_of(op, struct tape, op);

	if (op->result < 0) {
		tape->in_doubt = true;
		tape_fail(tape, op->result);
	} else {
		tape_take_written(tape);
	}
}

static void tape_on_written(struct os_op *op)
{
	struct tape *tape = container_of(op, struct tape, op);
	uint32_t pages = tape_pages(tape->bytes);

	if (op->result < 0) {
		tape->in_doubt = true;
		tape_fail(tape, op->result);
	} else if ((uint64_t)op->result != (uint64_t)pages * FORMAT_PAGE_BYTES) {
		/* What is missing may be behind the chunk's last byte. */
		tape->in_doubt |= (uint32_t)op->result >= tape->bytes;
		tape_fail(tape, -ENOSPC);
	} else if (tape->pool->confirms && tape->kind == FORMAT_HOT) {
		tape->op.done = tape_on_confirmed;
		os_sync(tape->loop, &tape->op, tape->file->file.fd);
	} else {
		tape_take_written(tape);
	}
}

static void tape_submit(struct tape *tape)
{
	struct tape_file *file = tape->file;
	uint64_t offset = (uint64_t)file->end_pages * FORMAT_PAGE_BYTES;
	size_t whole = (size_t)tape_pages(tape->bytes) * FORMAT_PAGE_BYTES;
	struct format_chunk header = { .magic = FORMAT_CHUNK_MAGIC,
				       .sequence = file->file.sequence,
				       .number = file->chunks,
				       .bytes = tape->bytes,
				       .records = tape->records,
				       .durable_end = file->end_pages,
				       .epoch = tape->epoch };

	tape->events->seal(tape, tape->chunk, tape->bytes, offset);
	memcpy(tape->chunk, &header, sizeof(header));
	memset(tape->chunk + tape->bytes, 0, whole - tape->bytes);
	header.crc = crc_record(file->file.sequence, tape->chunk, tape->bytes,
				offsetof(struct format_chunk, crc));
	memcpy(tape->chunk, &header, sizeof(header));
	tape->op.done = tape_on_written;
	os_write(tape->loop, &tape->op, file->file.fd, tape->chunk, whole, offset,
		 OS_WRITE_DURABLE);
}

/* The header of the file that begins now says where the one before it ended. */
static void tape_on_header(struct os_op *op)
{
	struct tape *tape = container_of(op, struct tape, op);

	if (op->result != FORMAT_PAGE_BYTES) {
		tape_fail(tape, op->result < 0 ? op->result : -ENOSPC);
		return;
	}
	tape->headed = true;
	tape_submit(tape);
}

static void tape_write_header(struct tape *tape)
{
	tape->op.done = tape_on_header;
	os_write(tape->loop, &tape->op, tape->file->file.fd, tape->page, FORMAT_PAGE_BYTES, 0,
		 OS_WRITE_DURABLE);
}

static void tape_advance(struct tape *tape)
{
	struct tape_file *before = tape->file;
	struct format_file header = { .kind = (uint16_t)tape->kind,
				      .stream = tape->stream,
				      .epoch = tape->epoch,
				      .sequence = tape->next->file.sequence,
				      .bytes = tape->next->file.bytes };

	/* One that failed before its first chunk is passed over: nobody else would name the end
	 * of the file before it. */
	if (before != NULL && before->chunks > 0) {
		tape->previous_sequence = before->file.sequence;
		tape->previous_end = before->end_pages;
	}
	header.previous_sequence = tape->previous_sequence;
	header.previous_end = tape->previous_end;
	tape->file = tape->next;
	tape->next = NULL;
	tape->abandoned = tape->headed = false;
	tape->events->opened(tape, tape->file);
	if (!tape->lazy)
		tape_prepare(tape, true);
	pool_make_header(tape->pool, tape->page, &header);
	tape_write_header(tape);
}

/* Finds a place for the chunk in hand; comes back when a file has arrived. */
static void tape_place(struct tape *tape)
{
	uint64_t pages = tape_pages(tape->bytes);

	if (tape->file != NULL && !tape->abandoned &&
	    (tape->file->end_pages + pages) * FORMAT_PAGE_BYTES <= tape->file->file.bytes) {
		/* Not headed: there was no room for its header when it was first tried. */
		if (tape->headed)
			tape_submit(tape);
		else
			tape_write_header(tape);
		return;
	}
	if (tape->next != NULL) {
		tape_advance(tape);
		return;
	}
	if (tape->take.op.busy)
		return;
	if (tape->take_error == 0)
		tape_prepare(tape, true);
	if (tape->take.op.busy)
		return;
	/* Said once per chunk; the next tape_write() tries to take a file again. */
	if (pool_error_passes(tape->take_error))
		tape_finish(tape, QUEUE_SPACE);
	else
		tape_finish(tape, QUEUE_BROKEN);
}

void tape_write(struct tape *tape, char *chunk, uint32_t bytes, uint32_t records)
{
	assert(!tape_busy(tape) && !tape->op.busy);
	assert(bytes > sizeof(struct format_chunk) && bytes <= tape_chunk_bytes_max(tape));
	assert((uintptr_t)chunk % FORMAT_PAGE_BYTES == 0);
	tape->chunk = chunk;
	tape->bytes = bytes;
	tape->records = records;
	tape->retried = tape->in_doubt = false;
	if (tape->next == NULL && !tape->take.op.busy)
		tape->take_error = 0;
	tape_place(tape);
}

bool tape_init(struct tape *tape)
{
	tape->page = aligned_alloc(FORMAT_PAGE_BYTES, FORMAT_PAGE_BYTES);
	return tape->page != NULL;
}

void tape_start(struct tape *tape, struct os_loop *loop)
{
	tape->loop = loop;
	tape_prepare(tape, true);
}

void tape_deinit(struct tape *tape)
{
	assert(tape_quiet(tape));
	if (tape->next != NULL) {
		os_file_close(tape->next->file.fd);
		free(tape->next);
	}
	free(tape->blank);
	free(tape->page);
}
