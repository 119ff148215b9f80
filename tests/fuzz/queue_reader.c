/*
 * Single messages by their place, from a segment and a file in big/ of any bytes, with right
 * checksums or not: what is handed out is what is in the files, whole, and nothing of it changes
 * unseen.
 *
 *   input: { mend what?, octets of the body / 256 and % 256, how long is the big file?, which octet
 *            is spoiled / 256 and % 256, by what }, body or the start of the big file, segment
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"
#include "queue/crc.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "queue/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEQUENCE = 7, CONTROL_BYTES = 7, MIB = 1 << 20, SEGMENT_BYTES_MAX = 64 << 10 };
enum mend { MEND_NOT = 1, MEND_BODY_NOT = 2, MEND_BIG_NOT = 4 };

static struct {
	char folder[64];
	int segments, big, segment; /* the file */
	char bytes[SEGMENT_BYTES_MAX + 8] __attribute__((aligned(8)));
	size_t len;
	char *big_bytes;
	size_t big_len;
} spool;

static void remove_folder(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", spool.folder);
	if (system(command) != 0)
		fprintf(stderr, "%s: still there\n", spool.folder);
}

static int folder_make(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", spool.folder, name);
	assert(mkdir(path, 0700) == 0);
	return open(path, O_RDONLY | O_DIRECTORY);
}

static void spool_make(void)
{
	strcpy(spool.folder, "/dev/shm/stafette-fuzz-XXXXXX");
	assert(mkdtemp(spool.folder) != NULL);
	atexit(remove_folder);
	spool.segments = folder_make("seg");
	spool.big = folder_make("big");
	spool.segment = openat(spool.segments, "00000007", O_RDWR | O_CREAT, 0600);
	assert(spool.segments >= 0 && spool.big >= 0 && spool.segment >= 0);
	spool.big_bytes = calloc(1, 4 * MIB);
	assert(spool.big_bytes);
}

/* ── checksums that are right, over whatever ──────────────────────────────────────── */

static size_t body_at(const struct format_message *head)
{
	return sizeof(*head) + ((head->envelope_bytes + 7) & ~(size_t)7);
}

static void mend_big(struct format_big *big, size_t room)
{
	uint32_t *crcs = (void *)(big + 1);
	size_t count = (spool.big_len + MIB - 1) / MIB;

	if (room < sizeof(*big) + count * sizeof(*crcs))
		return;
	*big = (struct format_big){ .bytes = spool.big_len, .crc_count = (uint32_t)count };
	for (size_t i = 0; i < count; i++)
		crcs[i] = crc_of(spool.big_bytes + i * MIB,
				 spool.big_len - i * MIB < MIB ? spool.big_len - i * MIB : MIB);
}

static void mend_message(struct format_message *head, size_t room, int mend)
{
	uint64_t body = head->body_bytes;

	if (head->envelope_bytes <= room - sizeof(*head))
		head->envelope_crc = crc_of(head + 1, head->envelope_bytes);
	if (body_at(head) < room) {
		char *at = (char *)head + body_at(head);

		room -= body_at(head);
		if (head->flags & FORMAT_BIG && !(mend & MEND_BIG_NOT)) {
			mend_big((void *)at, room);
			body = head->body_bytes = spool.big_len;
		}
		if (head->flags & FORMAT_BIG)
			body = sizeof(struct format_big) + 4 * (body / MIB + (body % MIB > 0));
		if (body <= room && !(mend & MEND_BODY_NOT))
			head->body_crc = crc_of(at, (size_t)body);
	}
	head->crc = crc_record(SEQUENCE, head, sizeof(*head), offsetof(struct format_message, crc));
}

/* ── what is read ─────────────────────────────────────────────────────────────────── */

struct body {
	const struct reader_message *message;
	const char *expected; /* NULL: beyond what there is */
	size_t len, room;
	uint32_t pieces;
};

static void each_piece(void *context, struct span piece)
{
	struct body *body = context;

	assert(piece.len <= MIB && body->len + piece.len <= body->room);
	assert(piece.len == 0 || memcmp(body->expected + body->len, piece.at, piece.len) == 0);
	body->len += piece.len;
	body->pieces++;
}

static enum reader_status check_body(struct reader *reader, const struct reader_message *message)
{
	bool big = message->head.flags & FORMAT_BIG;
	struct body body = { .expected = big ? spool.big_bytes : spool.bytes + message->body_at,
			     .room = big ? spool.big_len : spool.len - message->body_at };
	enum reader_status status;

	if (!big && message->body_at > spool.len)
		body.room = 0;
	status = reader_body(reader, message, each_piece, &body);
	assert(status == READER_OK || status == READER_DAMAGED);
	assert(status != READER_OK || body.len == message->head.body_bytes);
	assert(status == READER_OK || big || body.pieces == 0);
	return status;
}

/* One octet is changed under a reader that has said OK. */
static void check_spoiled(struct reader *reader, const struct reader_message *message,
			  const uint8_t *data)
{
	bool big = message->head.flags & FORMAT_BIG;
	size_t len = (size_t)message->head.body_bytes, at = (size_t)(data[4] << 8 | data[5]);
	int fd = spool.segment;
	char name[QUEUE_ID_TEXT_BYTES], octet;

	if (len == 0 || data[6] == 0)
		return;
	at = (big ? at * 61 : at) % len;
	queue_id_text(message->head.id, name);
	if (big)
		fd = openat(spool.big, name, O_RDWR);
	octet = (char)((big ? spool.big_bytes : spool.bytes + message->body_at)[at] ^ data[6]);
	assert(pwrite(fd, &octet, 1, (off_t)(at + (big ? 0 : message->body_at))) == 1);
	octet = (char)(octet ^ data[6]);
	assert(check_body(reader, message) == READER_DAMAGED);
	assert(pwrite(fd, &octet, 1, (off_t)(at + (big ? 0 : message->body_at))) == 1);
	if (big)
		close(fd);
}

static void check_message(struct reader *reader, size_t at, const uint8_t *data)
{
	struct format_message *head = (void *)(spool.bytes + at);
	struct reader_message message;
	char name[QUEUE_ID_TEXT_BYTES];
	enum reader_status status;

	queue_id_text(head->id, name);
	int fd = openat(spool.big, name, O_RDWR | O_CREAT, 0600);

	assert(fd >= 0 && pwrite(fd, spool.big_bytes, spool.big_len, 0) == (ssize_t)spool.big_len);
	close(fd);
	status = reader_message(reader, head->id, SEQUENCE, (uint32_t)(at / 8), &message);
	if (status == READER_OK) {
		assert(memcmp(&message.head, head, sizeof(*head)) == 0);
		assert(message.envelope.len == head->envelope_bytes);
		assert(memcmp(message.envelope.at, head + 1, message.envelope.len) == 0);
		assert(envelope_check(message.envelope) && message.body_at == at + body_at(head));
		if (check_body(reader, &message) == READER_OK)
			check_spoiled(reader, &message, data);
	}
	assert(reader_message(reader, head->id + 1, SEQUENCE, (uint32_t)(at / 8), &message) ==
	       READER_GONE);
	unlinkat(spool.big, name, 0);
}

/* ── the files ────────────────────────────────────────────────────────────────────── */

static void fill(const uint8_t *data, size_t size)
{
	static const size_t more[] = { 0, 0, 0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB };
	size_t big = (size_t)data[1] << 8 | data[2];
	struct span rest = span_of(data + CONTROL_BYTES, size - CONTROL_BYTES);

	big = big < rest.len ? big : rest.len;
	memset(spool.big_bytes, 0, spool.big_len);
	memcpy(spool.big_bytes, rest.at, big);
	spool.big_len = big + more[data[3] % array_count(more)];
	rest = span_skip(rest, big);
	spool.len = rest.len;
	memcpy(spool.bytes, rest.at, rest.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct reader *reader;

	if (size < CONTROL_BYTES || size > SEGMENT_BYTES_MAX)
		return 0;
	if (!spool.folder[0])
		spool_make();
	fill(data, size);
	for (size_t at = 0; at + sizeof(struct format_message) <= spool.len; at += 8) {
		struct format_message *head = (void *)(spool.bytes + at);

		if (head->magic == FORMAT_MESSAGE_MAGIC && !(data[0] & MEND_NOT))
			mend_message(head, spool.len - at, data[0]);
	}
	assert(pwrite(spool.segment, spool.bytes, spool.len, 0) == (ssize_t)spool.len);
	assert(ftruncate(spool.segment, (off_t)spool.len) == 0);
	reader = reader_create(spool.segments, spool.big);
	assert(reader);
	for (size_t at = 0; at + sizeof(struct format_message) <= spool.len; at += 8)
		if (((struct format_message *)(spool.bytes + at))->magic == FORMAT_MESSAGE_MAGIC)
			check_message(reader, at, data);
	reader_destroy(reader);
	return 0;
}
