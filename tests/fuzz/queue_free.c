/*
 * What lies in free/ at a start: files with names and first pages as the input says, their
 * checksums mended or not. What stays is of a size that is used, is free for sure and is counted
 * once; what holds a chunk of its life is never among it.
 *
 *   input: repeated { how, offset of a change, its length, bytes }
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue/crc.h"
#include "queue/pool.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	FILES_MAX = 6,
	SEGMENT_BYTES = 3 * FORMAT_PAGE_BYTES,
	JOURNAL_BYTES = 2 * FORMAT_PAGE_BYTES
};

/* The first octet of a file. */
enum {
	IS_JOURNAL = 1,
	IS_IN_USE = 2,
	HAS_CHUNK = 4,
	IS_EMPTY = 8,
	IS_CUT = 16,
	NAME_IS_ODD = 32,
	KEEPS_CHECKSUM = 64,
	IS_FOREIGN = 128,
};

static struct pool pool;
static uint32_t reports;

static void pool_begin(void)
{
	folder_make();
	assert(pool_open_folders(&pool, folder) == 0);
	memcpy(pool.uuid, "spool of a test", 16);
	pool.epoch = 7;
	pool.segment_bytes = SEGMENT_BYTES;
	pool.journal_bytes = JOURNAL_BYTES;
}

static void on_report(void *context, bool problem, const char *line)
{
	(void)context;
	assert(problem && line[0] != '\0');
	reports++;
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

static size_t change(char *page, struct span rest)
{
	size_t at, len;

	if (rest.len < 2)
		return rest.len;
	at = (uint8_t)rest.at[0] * 2u;
	len = (uint8_t)rest.at[1] % 32;
	rest = span_skip(rest, 2);
	len = len < rest.len ? len : rest.len;
	if (len > 0)
		memcpy(page + at, rest.at, len);
	return 2 + len;
}

/* Returns how much it took of `rest`. */
static size_t file_make(uint32_t number, uint8_t what, struct span rest)
{
	static char bytes[SEGMENT_BYTES];
	size_t count = what & IS_JOURNAL ? JOURNAL_BYTES : SEGMENT_BYTES, used = 0;
	struct format_file header = {
		.magic = FORMAT_FILE_MAGIC,
		.kind = !(what & IS_IN_USE) ? FORMAT_FREE
			: what & IS_JOURNAL ? FORMAT_JOURNAL
					    : FORMAT_HOT,
		.bytes = count,
		.sequence = 0x100 + number,
	};
	struct format_chunk chunk = { .magic = FORMAT_CHUNK_MAGIC, .sequence = header.sequence };
	char name[32];
	int fd;

	memset(bytes, 0, sizeof(bytes));
	memcpy(header.uuid, what & IS_FOREIGN ? "spool of another" : "spool of a test", 16);
	header.crc = crc_header(&header, sizeof(header), offsetof(struct format_file, crc));
	if (what & HAS_CHUNK)
		memcpy(bytes + FORMAT_PAGE_BYTES, &chunk, sizeof(chunk));
	if (!(what & IS_EMPTY)) {
		memcpy(bytes, &header, sizeof(header));
		used = change(bytes, rest);
		memcpy(&header, bytes, sizeof(header));
		if (!(what & KEEPS_CHECKSUM))
			header.crc = crc_header(&header, sizeof(header),
						offsetof(struct format_file, crc));
		memcpy(bytes, &header, sizeof(header));
	}
	snprintf(name, sizeof(name), what & NAME_IS_ODD ? "%07X" : "%08x", 0xa0 + number);
	fd = openat(pool.folders[POOL_FREE], name, O_CREAT | O_TRUNC | O_RDWR, 0600);
	assert(fd >= 0);
	if (what & IS_CUT)
		count = used > 1 ? (uint8_t)rest.at[1] * 64u : 0;
	assert(pwrite(fd, bytes, count < sizeof(bytes) ? count : sizeof(bytes), 0) >= 0);
	close(fd);
	return used;
}

/* ── what stays ───────────────────────────────────────────────────────────────────── */

static struct kept {
	uint32_t files, moved;
} kept;

static bool counted(const struct pool_free *list, uint32_t sequence)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < list->count; i++)
		found += list->sequences[i] == sequence;
	assert(found <= 1);
	return found;
}

static int check_free(void *context, const char *name)
{
	struct format_file header;
	uint32_t sequence = (uint32_t)strtoul(name, NULL, 16);
	bool segment = counted(&pool.segments, sequence);
	int fd = os_file_open(pool.folders[POOL_FREE], name, OS_READ, 0);

	(void)context;
	assert(fd >= 0 && segment + counted(&pool.journals, sequence) == 1);
	assert(os_file_size(fd) == (segment ? SEGMENT_BYTES : JOURNAL_BYTES));
	assert(os_file_read(fd, &header, sizeof(header), 0) == sizeof(header));
	assert(header.kind == FORMAT_FREE && memcmp(header.uuid, pool.uuid, 16) == 0);
	assert(header.crc ==
	       crc_header(&header, sizeof(header), offsetof(struct format_file, crc)));
	os_file_close(fd);
	kept.files++;
	return os_unlink(pool.folders[POOL_FREE], name);
}

static int count_moved(void *context, const char *name)
{
	(void)context;
	kept.moved++;
	return os_unlink(pool.folders[POOL_QUARANTINE], name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size);

	if (size < 1 || size > 1024)
		return 0;
	if (pool.segment_bytes == 0)
		pool_begin();
	for (uint32_t i = 0; i < FILES_MAX && rest.len > 0; i++) {
		uint8_t what = (uint8_t)rest.at[0];

		rest = span_skip(rest, 1);
		rest = span_skip(rest, file_make(i, what, rest));
	}
	pool.segments.count = pool.journals.count = reports = 0;
	kept = (struct kept){ 0 };
	assert(pool_scan_free(&pool, on_report, NULL) == 0);
	assert(os_folder_list(pool.folders[POOL_FREE], check_free, NULL) == 0);
	assert(os_folder_list(pool.folders[POOL_QUARANTINE], count_moved, NULL) == 0);
	assert(kept.files == pool.segments.count + pool.journals.count);
	assert(kept.moved == reports);
	return 0;
}
