/* A segment from hostile bytes: chunk and message checksums are mended first, so that lengths
 * and counts behind them are reached. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "queue/crc.h"
#include "queue/envelope.h"
#include "queue/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEQUENCE = 7, PAGES_MAX = 16 };

static void mend_messages(char *bytes, size_t size)
{
	for (size_t at = 0; at + sizeof(struct format_message) <= size; at += FORMAT_RECORD_ALIGN) {
		struct format_message *head = (void *)(bytes + at);

		if (head->magic == FORMAT_MESSAGE_MAGIC)
			head->crc = crc_record(SEQUENCE, head, sizeof(*head),
					       offsetof(struct format_message, crc));
	}
}

static void mend_chunks(char *bytes, size_t size)
{
	for (size_t at = FORMAT_PAGE_BYTES; at + FORMAT_PAGE_BYTES <= size;
	     at += FORMAT_PAGE_BYTES) {
		struct format_chunk *chunk = (void *)(bytes + at);

		if (chunk->magic != FORMAT_CHUNK_MAGIC || chunk->bytes < sizeof(*chunk) ||
		    chunk->bytes > size - at)
			continue;
		chunk->sequence = SEQUENCE;
		chunk->crc = crc_record(SEQUENCE, chunk, chunk->bytes,
					offsetof(struct format_chunk, crc));
	}
}

static void walk(int fd, size_t size, bool closed)
{
	static struct scan scan; /* its buffer is too large to be had anew for every input */
	struct scan_message message;
	struct scan_extent extent;

	if (!scan.buffer)
		assert(scan_init(&scan));
	scan_begin(&scan, &(struct scan_input){ .fd = fd,
						.sequence = SEQUENCE,
						.bytes = size,
						.durable_pages = closed ? 3 : 0,
						.closed = closed });
	while (scan_next(&scan, &extent) != SCAN_END) {
		struct scan_cursor cursor = { .extent = extent, .sequence = SEQUENCE };

		assert(extent.offset + extent.bytes.len <= size);
		while (scan_next_message(&cursor, &message))
			assert(!message.envelope.at || envelope_check(message.envelope));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char bytes[PAGES_MAX * FORMAT_PAGE_BYTES] __attribute__((aligned(4096)));
	size_t pages = (size + FORMAT_PAGE_BYTES - 1) / FORMAT_PAGE_BYTES + 1;
	size_t file_bytes = pages * FORMAT_PAGE_BYTES;

	if (pages > PAGES_MAX)
		return 0;
	memset(bytes, 0, file_bytes);
	memcpy(bytes + FORMAT_PAGE_BYTES, data, size); /* what the file's header says is not used */
	mend_messages(bytes, file_bytes);
	mend_chunks(bytes, file_bytes);
	int fd = memfd_create("segment", 0);

	assert(write(fd, bytes, file_bytes) == (ssize_t)file_bytes);
	walk(fd, file_bytes, false);
	walk(fd, file_bytes, true);
	close(fd);
	return 0;
}
