/*
 * queue_spool - a small spool made of real bytes, for the tests of recovery: files, chunks
 * and records are written with plain libc, independent of the code that writes them in the
 * daemon.
 */
#ifndef TESTS_QUEUE_SPOOL_H
#define TESTS_QUEUE_SPOOL_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "queue/crc.h"
#include "queue/envelope.h"
#include "queue/recover.h"

struct spool {
	char path[64];
	struct format_super super;
	struct recovered_spool found;
	struct recovered stream;
};

struct spool_file {
	int fd;
	uint32_t sequence, page, number;
};

struct spool_chunk {
	char *bytes; /* with room for the header */
	size_t len, size;
	uint32_t records;
};

/* ── the spool ────────────────────────────────────────────────────────────────────── */

static inline void spool_super(struct spool *spool, bool clean)
{
	char path[128], page[2 * FORMAT_PAGE_BYTES] = { 0 };

	spool->super = (struct format_super){ .magic = FORMAT_SUPER_MAGIC,
					      .version = FORMAT_VERSION,
					      .generation = 1,
					      .uuid = "spool of a test",
					      .epoch = 7,
					      .clean = clean,
					      .stream_limit = 4,
					      .sequence_limit = 1000 };
	spool->super.crc =
		crc_header(&spool->super, sizeof(spool->super), offsetof(struct format_super, crc));
	memcpy(page, &spool->super, sizeof(spool->super));
	snprintf(path, sizeof(path), "%s/super", spool->path);
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);

	assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	close(fd);
}

static inline struct spool *spool_make(bool clean)
{
	static const char *const folders[] = { "seg", "jnl", "big", "free", "quarantine" };
	struct spool *spool = calloc(1, sizeof(*spool));
	char path[128];

	strcpy(spool->path, "/tmp/stafette-spool-XXXXXX");
	assert_non_null(mkdtemp(spool->path));
	for (size_t i = 0; i < array_count(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", spool->path, folders[i]);
		assert_int_equal(mkdir(path, 0700), 0);
	}
	spool_super(spool, clean);
	return spool;
}

static inline void spool_forget(struct spool *spool)
{
	recovered_release(&spool->stream);
	recovered_spool_release(&spool->found);
}

static inline void spool_remove(struct spool *spool)
{
	char command[128];

	spool_forget(spool);
	snprintf(command, sizeof(command), "rm -rf %s", spool->path);
	assert_int_equal(system(command), 0);
	free(spool);
}

enum { SPOOL_NOW_S = 1800000000 };

/* Recovers stream 0 into spool->stream. */
static inline struct recovered *spool_recover(struct spool *spool)
{
	struct recover_options options = { .sync = true, .now_s = SPOOL_NOW_S };
	char error[RECOVER_ERROR_BYTES];

	spool_forget(spool);
	assert_int_equal(recover_spool(OS_CURRENT_FOLDER, spool->path, RECOVER_FROM_CACHE,
				       &spool->found, error),
			 RECOVER_OK);
	assert_int_equal(recover_stream(&spool->found, 0, &options, &spool->stream), RECOVER_OK);
	return &spool->stream;
}

/* The recovered job; NULL: there is none. */
static inline struct recovered_job *spool_job(struct spool *spool, uint64_t message, uint16_t first)
{
	for (size_t i = 0; i < spool->stream.job_count; i++)
		if (spool->stream.jobs[i].job.message == message &&
		    spool->stream.jobs[i].job.first == first)
			return &spool->stream.jobs[i];
	return NULL;
}

static inline size_t spool_problems(struct spool *spool, enum recovered_problem_kind kind)
{
	size_t count = 0;

	for (size_t i = 0; i < spool->stream.problems.count; i++)
		count += spool->stream.problems.list[i].kind == kind;
	for (size_t i = 0; i < spool->found.problems.count; i++)
		count += spool->found.problems.list[i].kind == kind;
	return count;
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

static inline void spool_file_path(struct spool *spool, bool journal, uint32_t sequence, char *out)
{
	snprintf(out, 128, "%s/%s/%08x", spool->path, journal ? "jnl" : "seg", sequence);
}

static inline struct format_file spool_header(struct spool *spool, enum format_kind kind,
					      uint32_t sequence)
{
	struct format_file head = {
		.magic = FORMAT_FILE_MAGIC, .kind = (uint16_t)kind, .sequence = sequence, .epoch = 7
	};

	memcpy(head.uuid, spool->super.uuid, sizeof(head.uuid));
	return head;
}

static inline void spool_write_header(struct spool_file *file, struct format_file head)
{
	head.crc = crc_header(&head, sizeof(head), offsetof(struct format_file, crc));
	assert_int_equal(pwrite(file->fd, &head, sizeof(head), 0), sizeof(head));
}

/* `pages` long, filled with what an earlier life left behind. */
static inline struct spool_file spool_file(struct spool *spool, enum format_kind kind,
					   uint32_t sequence, uint32_t pages)
{
	struct spool_file file = { .sequence = sequence, .page = 1 };
	struct format_file head = spool_header(spool, kind, sequence);
	char path[128];

	spool_file_path(spool, kind == FORMAT_JOURNAL, sequence, path);
	file.fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	assert_true(file.fd >= 0);
	assert_int_equal(ftruncate(file.fd, (off_t)pages * FORMAT_PAGE_BYTES), 0);
	head.bytes = (uint64_t)pages * FORMAT_PAGE_BYTES;
	spool_write_header(&file, head);
	return file;
}

/* The header names the file before it and its durable end. */
static inline void spool_follows(struct spool *spool, struct spool_file *file,
				 enum format_kind kind, uint32_t previous, uint32_t end)
{
	struct format_file head = spool_header(spool, kind, file->sequence);

	head.previous_sequence = previous;
	head.previous_end = end;
	spool_write_header(file, head);
}

/* Overwrites `count` bytes at `offset`. */
static inline void spool_damage(struct spool_file *file, uint64_t offset, size_t count)
{
	for (size_t i = 0; i < count; i++)
		assert_int_equal(pwrite(file->fd, "\xa5", 1, (off_t)(offset + i)), 1);
}

/* ── chunks ───────────────────────────────────────────────────────────────────────── */

static inline char *chunk_add(struct spool_chunk *chunk, const void *bytes, size_t count)
{
	size_t padded = (count + 7) & ~(size_t)7;

	if (!chunk->bytes)
		chunk->len = sizeof(struct format_chunk);
	if (chunk->len + padded > chunk->size) {
		chunk->size = (chunk->len + padded) * 2;
		chunk->bytes = realloc(chunk->bytes, chunk->size);
	}
	assert(chunk->bytes);
	char *at = chunk->bytes + chunk->len;

	memset(at, 0, padded);
	memcpy(at, bytes, count);
	chunk->len += padded;
	return at;
}

/* Writes the chunk at the end of the file, and frees it. Returns its first page. */
static inline uint32_t spool_write(struct spool_file *file, struct spool_chunk *chunk)
{
	struct format_chunk head = { .magic = FORMAT_CHUNK_MAGIC,
				     .sequence = file->sequence,
				     .number = file->number++,
				     .bytes = (uint32_t)chunk->len,
				     .records = chunk->records,
				     .durable_end = file->page,
				     .epoch = 7 };
	uint32_t page = file->page;

	memcpy(chunk->bytes, &head, sizeof(head));
	head.crc = crc_record(file->sequence, chunk->bytes, chunk->len,
			      offsetof(struct format_chunk, crc));
	memcpy(chunk->bytes, &head, sizeof(head));
	assert_int_equal(
		pwrite(file->fd, chunk->bytes, chunk->len, (off_t)page * FORMAT_PAGE_BYTES),
		chunk->len);
	file->page += (uint32_t)((chunk->len + FORMAT_PAGE_BYTES - 1) / FORMAT_PAGE_BYTES);
	free(chunk->bytes);
	*chunk = (struct spool_chunk){ 0 };
	return page;
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

struct spool_message {
	uint64_t id;
	const char *recipients; /* "a@x b@y" */
	const char *body;
	struct format_origin origin, also; /* kind 0: none */
	uint16_t flags;
	int32_t arrival_s; /* from SPOOL_NOW_S on; 0: 100 s before */
};

static inline struct span spool_envelope(struct envelope_builder *builder,
					 const struct spool_message *message)
{
	struct span bytes;
	char *copy = strdup(message->recipients), *save = NULL;

	envelope_builder_reset(builder);
	envelope_set_sender(builder, span_text(message->origin.kind ? "" : "sender@from.example"));
	for (char *one = strtok_r(copy, " ", &save); one; one = strtok_r(NULL, " ", &save)) {
		struct envelope_recipient recipient = { .address = span_text(one) };

		envelope_add_recipient(builder, &recipient);
	}
	if (message->origin.kind)
		envelope_add_origin(builder, &message->origin);
	if (message->also.kind)
		envelope_add_origin(builder, &message->also);
	assert_true(envelope_seal(builder, &bytes));
	free(copy);
	return bytes;
}

/* Adds a message; returns its offset within the chunk. */
static inline uint32_t chunk_message(struct spool_chunk *chunk, uint32_t sequence,
				     const struct spool_message *message)
{
	struct envelope_builder *builder = envelope_builder_create();
	struct span envelope = spool_envelope(builder, message);
	const char *body = message->body ? message->body : "Subject: x\r\n\r\nbody\r\n";
	int32_t arrival_s = message->arrival_s ? message->arrival_s : -100;
	struct format_message head = { .magic = FORMAT_MESSAGE_MAGIC,
				       .envelope_crc = crc_of(envelope.at, envelope.len),
				       .body_crc = crc_of(body, strlen(body)),
				       .id = message->id,
				       .arrival_us = (SPOOL_NOW_S + arrival_s) * INT64_C(1000000),
				       .body_bytes = strlen(body),
				       .envelope_bytes = (uint32_t)envelope.len,
				       .expiry_s = SPOOL_NOW_S + 1000,
				       .recipients = (uint16_t)envelope_count(envelope),
				       .flags = message->flags };

	head.crc = crc_record(sequence, &head, sizeof(head), offsetof(struct format_message, crc));
	uint32_t at = (uint32_t)(chunk_add(chunk, &head, sizeof(head)) - chunk->bytes);

	chunk_add(chunk, envelope.at, envelope.len);
	chunk_add(chunk, body, strlen(body));
	chunk->records++;
	envelope_builder_destroy(builder);
	return at;
}

/* A chunk of one message: its place. */
static inline uint32_t spool_message(struct spool_file *file, const struct spool_message *message)
{
	struct spool_chunk chunk = { 0 };
	uint32_t at = chunk_message(&chunk, file->sequence, message);

	return (spool_write(file, &chunk) * FORMAT_PAGE_BYTES + at) / 8;
}

/* ── journal records ──────────────────────────────────────────────────────────────── */

static inline void chunk_record(struct spool_chunk *chunk, uint32_t sequence, const void *record,
				size_t bytes)
{
	char *at = chunk_add(chunk, record, bytes);
	uint32_t crc = crc_record(sequence, at, bytes, 0);

	memcpy(at, &crc, sizeof(crc));
	chunk->records++;
}

static inline void chunk_define(struct spool_chunk *chunk, uint32_t sequence, uint8_t type,
				uint32_t id, const char *text)
{
	char bytes[512] = { 0 };
	struct format_define define = { .type = type, .bytes = (uint16_t)strlen(text), .id = id };

	define.units = (uint8_t)((offsetof(struct format_define, text) + strlen(text) + 63) / 64);
	memcpy(bytes, &define, sizeof(define));
	memcpy(bytes + offsetof(struct format_define, text), text, strlen(text));
	chunk_record(chunk, sequence, bytes, (size_t)define.units * 64);
}

static inline void spool_record(struct spool_file *file, const void *record)
{
	struct spool_chunk chunk = { 0 };

	chunk_record(&chunk, file->sequence, record, 64);
	spool_write(file, &chunk);
}

static inline void spool_define(struct spool_file *file, uint8_t type, uint32_t id,
				const char *text)
{
	struct spool_chunk chunk = { 0 };

	chunk_define(&chunk, file->sequence, type, id, text);
	spool_write(file, &chunk);
}

static inline void spool_mark(struct spool_file *file, uint32_t segment, uint32_t place)
{
	struct format_mark mark = { .type = FORMAT_MARK, .segment = segment, .place = place };

	spool_record(file, &mark);
}

/* A job of message `id` with `recipients` recipients, DEST 1, due long ago. */
static inline struct format_job spool_state(uint64_t id, uint32_t version, uint64_t pending,
					    uint32_t segment, uint32_t place)
{
	return (struct format_job){ .type = FORMAT_JOB,
				    .state = pending ? FORMAT_WAITING : FORMAT_DELIVERED,
				    .message = id,
				    .pending = pending,
				    .version = version,
				    .segment = segment,
				    .place = place,
				    .due_s = SPOOL_NOW_S + 500,
				    .expiry_s = SPOOL_NOW_S + 1000,
				    .attempts = 1,
				    .dest = 1 };
}

#endif
