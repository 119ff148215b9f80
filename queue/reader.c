#include "queue/reader.h"

#include <errno.h>
#include <stdlib.h>

#include "os/check.h"
#include "os/os.h"
#include "queue/crc.h"
#include "queue/envelope.h"
#include "queue/queue.h"

/* One read gets most messages' envelopes. */
enum { READER_FILES = 64, READER_GUESS_BYTES = 4096 };

struct reader_file {
	uint32_t sequence; /* 0: none */
	int fd;
};

struct reader {
	int segments, big;
	char *buffer; /* owned */
	size_t buffer_bytes;
	struct reader_file files[READER_FILES]; /* by sequence modulo */
};

struct reader *reader_create(int segments, int big)
{
	struct reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return NULL;
	reader->segments = segments;
	reader->big = big;
	return reader;
}

void reader_destroy(struct reader *reader)
{
	if (!reader)
		return;
	for (size_t i = 0; i < READER_FILES; i++)
		if (reader->files[i].sequence != 0)
			os_file_close(reader->files[i].fd);
	free(reader->buffer);
	free(reader);
}

static void file_name(uint32_t sequence, char out[static 9])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 7; i >= 0; i--, sequence >>= 4)
		out[i] = digits[sequence & 15];
	out[8] = 0;
}

static enum reader_status why_not_open(int error)
{
	return error == -ENOENT ? READER_GONE : READER_UNREADABLE;
}

/* Open for reading, or -errno. */
static int segment_fd(struct reader *reader, uint32_t sequence)
{
	struct reader_file *file = &reader->files[sequence % READER_FILES];
	char name[9];

	if (file->sequence == sequence)
		return file->fd;
	if (file->sequence != 0)
		os_file_close(file->fd);
	file_name(sequence, name);
	file->fd = os_file_open(reader->segments, name, OS_READ, 0);
	file->sequence = file->fd >= 0 ? sequence : 0;
	return file->fd;
}

static bool buffer_reserve(struct reader *reader, size_t bytes)
{
	if (bytes <= reader->buffer_bytes)
		return true;
	char *larger = realloc(reader->buffer, bytes);

	if (!larger)
		return false;
	reader->buffer = larger;
	reader->buffer_bytes = bytes;
	return true;
}

static size_t align_record(size_t bytes)
{
	return (bytes + FORMAT_RECORD_ALIGN - 1) & ~(size_t)(FORMAT_RECORD_ALIGN - 1);
}

static bool head_matches(const struct format_message *head, uint32_t segment, uint64_t id)
{
	return head->magic == FORMAT_MESSAGE_MAGIC && head->id == id &&
	       crc_record(segment, head, sizeof(*head), offsetof(struct format_message, crc)) ==
		       head->crc &&
	       head->envelope_bytes <= FORMAT_ENVELOPE_BYTES_MAX;
}

enum reader_status reader_message(struct reader *reader, uint64_t id, uint32_t segment,
				  uint32_t place, struct reader_message *out)
{
	uint64_t offset = (uint64_t)place * FORMAT_RECORD_ALIGN;
	int fd = segment != 0 ? segment_fd(reader, segment) : -ENOENT;

	if (fd < 0)
		return why_not_open(fd);
	if (!buffer_reserve(reader, READER_GUESS_BYTES))
		return READER_NO_MEMORY;
	ssize_t got = os_file_read(fd, reader->buffer, READER_GUESS_BYTES, offset);

	if (got < 0)
		return READER_UNREADABLE;
	if (got < (ssize_t)sizeof(out->head))
		return READER_GONE;
	memcpy(&out->head, reader->buffer, sizeof(out->head));
	if (!head_matches(&out->head, segment, id))
		return READER_GONE;
	size_t wanted = sizeof(out->head) + out->head.envelope_bytes;

	if ((size_t)got < wanted) {
		if (!buffer_reserve(reader, wanted))
			return READER_NO_MEMORY;
		got = os_file_read(fd, reader->buffer, wanted, offset);
		if (got != (ssize_t)wanted)
			return got < 0 ? READER_UNREADABLE : READER_DAMAGED;
	}
	out->envelope = span_of(reader->buffer + sizeof(out->head), out->head.envelope_bytes);
	out->segment = segment;
	out->body_at = offset + sizeof(out->head) + align_record(out->head.envelope_bytes);
	return crc_of(out->envelope.at, out->envelope.len) == out->head.envelope_crc &&
			       envelope_check(out->envelope)
		       ? READER_OK
		       : READER_DAMAGED;
}

/* ── the body ─────────────────────────────────────────────────────────────────────── */

typedef void each_piece(void *context, struct span piece);

/* `count` bytes that have this CRC. */
static enum reader_status read_sound(int fd, void *bytes, size_t count, uint64_t offset,
				     uint32_t crc)
{
	ssize_t got = os_file_read(fd, bytes, count, offset);

	if (got < 0)
		return READER_UNREADABLE;
	return got == (ssize_t)count && crc_of(bytes, count) == crc ? READER_OK : READER_DAMAGED;
}

/* `bytes` of the segment, verified, in memory that is the caller's after READER_OK. */
static enum reader_status stored_part(struct reader *reader, const struct reader_message *message,
				      size_t bytes, char **part_out)
{
	int fd = segment_fd(reader, message->segment);
	enum reader_status status;
	char *part;

	if (fd < 0)
		return why_not_open(fd);
	part = malloc(bytes + 1);
	if (!part)
		return READER_NO_MEMORY;
	status = read_sound(fd, part, bytes, message->body_at, message->head.body_crc);
	if (status == READER_OK)
		*part_out = part;
	else
		free(part);
	return status;
}

static enum reader_status big_pieces(int fd, const struct format_big *big, const uint32_t *crcs,
				     each_piece *each, void *context)
{
	char *piece = malloc(FORMAT_BIG_CRC_SPAN);
	enum reader_status status = piece ? READER_OK : READER_NO_MEMORY;

	for (uint32_t i = 0; status == READER_OK && i < big->crc_count; i++) {
		uint64_t offset = (uint64_t)i * FORMAT_BIG_CRC_SPAN, left = big->bytes - offset;
		size_t wanted = left < FORMAT_BIG_CRC_SPAN ? (size_t)left : FORMAT_BIG_CRC_SPAN;

		status = read_sound(fd, piece, wanted, offset, crcs[i]);
		if (status == READER_OK)
			each(context, span_of(piece, wanted));
	}
	free(piece);
	return status;
}

static enum reader_status big_file(struct reader *reader, uint64_t id, const struct format_big *big,
				   each_piece *each, void *context)
{
	enum reader_status status;
	char name[QUEUE_ID_TEXT_BYTES];

	queue_id_text(id, name);
	int fd = reader->big >= 0 ? os_file_open(reader->big, name, OS_READ, 0) : -ENOENT;

	if (fd < 0)
		return why_not_open(fd);
	status = big_pieces(fd, big, (const void *)(big + 1), each, context);
	os_file_close(fd);
	return status;
}

static enum reader_status big_body(struct reader *reader, const struct reader_message *message,
				   each_piece *each, void *context)
{
	uint64_t pieces = format_big_crc_count(message->head.body_bytes);
	size_t bytes = sizeof(struct format_big) + (size_t)pieces * sizeof(uint32_t);
	enum reader_status status;
	char *part;

	if (pieces > FORMAT_CHUNK_BYTES_MAX / sizeof(uint32_t))
		return READER_DAMAGED;
	status = stored_part(reader, message, bytes, &part);
	if (status != READER_OK)
		return status;
	const struct format_big *big = (const void *)part;

	status = big->crc_count == pieces && big->bytes == message->head.body_bytes
			 ? big_file(reader, message->head.id, big, each, context)
			 : READER_DAMAGED;
	free(part);
	return status;
}

enum reader_status reader_body(struct reader *reader, const struct reader_message *message,
			       each_piece *each, void *context)
{
	char *part;

	if (message->head.flags & FORMAT_BIG)
		return big_body(reader, message, each, context);
	if (message->head.body_bytes > FORMAT_SEGMENT_BODY_MAX)
		return READER_DAMAGED;
	enum reader_status status =
		stored_part(reader, message, (size_t)message->head.body_bytes, &part);

	if (status != READER_OK)
		return status;
	each(context, span_of(part, (size_t)message->head.body_bytes));
	free(part);
	return READER_OK;
}
