/*
 * The start after anything happened to the files: a spool of real files, with a message in each
 * state, is changed as the input says, its checksums are mended or not, and recovery reads all of
 * it. It must end with a verdict, and with jobs that make sense. One file may have a second name.
 *
 *   input: what to mend and how to look, { file and folder, length, second name } or none, then
 *   repeated { file, page, offset in it, length, bytes }
 */
#include <sanitizer/asan_interface.h>

#include "tests/unit/queue_spool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILES = 5, PAGES = 8, STREAMS = 4, IMAGE_BYTES = PAGES * FORMAT_PAGE_BYTES };

/* The first octet; its lower bits: checksums of that file stay wrong. */
enum { FROM_DISK = 0x20, SECOND_NAME = 0x40, RUNNING = 0x80 };

static const struct place {
	const char *name;
	uint32_t sequence; /* 0: the superblock */
} places[FILES] = {
	{ "super", 0 },	       { "seg/00000003", 3 }, { "seg/00000005", 5 },
	{ "jnl/00000002", 2 }, { "jnl/00000004", 4 },
};

static char folder[64], again[512]; /* again: the path of the second name; empty: none */
static struct image {
	char before[IMAGE_BYTES], now[IMAGE_BYTES] __attribute__((aligned(4096)));
	size_t bytes;
	int fd;
} images[FILES];

/* ── the buffers of scans ─────────────────────────────────────────────────────────── */

/* Taken once: to poison 16 MiB anew for each scan would be most of the work. What is read lies in
 * the first octets, where the sanitizer goes on seeing a use after release. */
enum { LARGE_BYTES = 1 << 20, LARGE_COUNT = 2, FRESH = 0xBE };
static struct large {
	void *at;
	size_t bytes;
	bool taken;
} larges[LARGE_COUNT];

void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *at);
void __wrap_free(void *at);

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
	for (size_t i = 0; bytes >= LARGE_BYTES && i < array_count(larges); i++) {
		struct large *large = &larges[i];

		if (large->taken || (large->at && large->bytes != bytes))
			continue;
		if (!large->at)
			large->at = __real_aligned_alloc(alignment, bytes);
		large->bytes = bytes;
		large->taken = large->at != NULL;
		ASAN_UNPOISON_MEMORY_REGION(large->at, IMAGE_BYTES);
		return large->at ? memset(large->at, FRESH, IMAGE_BYTES) : NULL;
	}
	return __real_aligned_alloc(alignment, bytes);
}

void __wrap_free(void *at)
{
	for (size_t i = 0; at && i < array_count(larges); i++) {
		if (larges[i].at != at)
			continue;
		assert(larges[i].taken);
		larges[i].taken = false;
		ASAN_POISON_MEMORY_REGION(at, IMAGE_BYTES);
		return;
	}
	__real_free(at);
}

/* ── the files ────────────────────────────────────────────────────────────────────── */

static void remove_folder(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (system(command) != 0)
		fprintf(stderr, "%s: still there\n", folder);
}

/* What cmocka's functions do in a unit test. */
void _assert_int_equal(const LargestIntegralType a, const LargestIntegralType b, const char *file,
		       int line)
{
	if (a != b)
		fprintf(stderr, "%s:%d\n", file, line);
	assert(a == b);
}

void _assert_true(const LargestIntegralType result, const char *expression, const char *file,
		  int line)
{
	if (!result)
		fprintf(stderr, "%s:%d: %s\n", file, line, expression);
	assert(result);
}

/* Two segments and two journals of one stream: done, waiting, unrecorded, a report's origin, and
 * that of a file. */
static void spool_fill(struct spool *spool)
{
	struct spool_file journal = spool_file(spool, FORMAT_JOURNAL, 2, PAGES);
	struct spool_file segment = spool_file(spool, FORMAT_HOT, 3, PAGES);
	struct spool_message message = { .id = 11, .recipients = "a@x.example b@y.example" };
	struct spool_message report = {
		.id = 14,
		.recipients = "s@z.example",
		.origin = { .message = 12, .recipients = 1, .kind = FORMAT_ORIGIN_BOUNCE },
	};

	uint32_t first = spool_message(&segment, &message);

	message.id = 12;
	uint32_t second = spool_message(&segment, &message);

	spool_define(&journal, FORMAT_DEST, 1, "x.example");
	spool_define(&journal, FORMAT_DEST, 2, "y.example");
	spool_define(&journal, FORMAT_TEXT, 1, "mx.y.example");

	struct format_job job = spool_state(11, 2, 0, 3, first);

	spool_record(&journal, &job);
	job = spool_state(12, 2, 1, 3, second);
	spool_record(&journal, &job);
	spool_mark(&journal, 3, first);

	struct spool_file journal_next = spool_file(spool, FORMAT_JOURNAL, 4, PAGES);

	spool_follows(spool, &journal_next, FORMAT_JOURNAL, 2, journal.page);
	job.version++;
	job.attempts++;
	spool_record(&journal_next, &job);

	struct spool_file segment_next = spool_file(spool, FORMAT_HOT, 5, PAGES);

	spool_follows(spool, &segment_next, FORMAT_HOT, 3, segment.page);
	message.id = 13;
	spool_message(&segment_next, &message);
	spool_message(&segment_next, &report);
	message.id = 15;
	message.also = (struct format_origin){ .message = 99, .kind = FORMAT_ORIGIN_FILE };
	spool_message(&segment_next, &message);
	close(journal.fd);
	close(segment.fd);
	close(journal_next.fd);
	close(segment_next.fd);
}

static void images_load(void)
{
	static const char *const folders[] = { "seg", "jnl", "big", "free", "quarantine" };
	struct spool spool = { .path = "" };
	char path[128];

	strcpy(spool.path, "/dev/shm/stafette-fuzz-XXXXXX");
	assert(mkdtemp(spool.path) != NULL);
	strcpy(folder, spool.path);
	atexit(remove_folder);
	for (size_t i = 0; i < array_count(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, folders[i]);
		assert(mkdir(path, 0700) == 0);
	}
	spool_super(&spool, false);
	spool_fill(&spool);
	for (size_t i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, places[i].name);
		images[i].fd = open(path, O_RDWR);
		assert(images[i].fd >= 0);
		ssize_t bytes = pread(images[i].fd, images[i].before, IMAGE_BYTES, 0);

		assert(bytes > 0);
		images[i].bytes = (size_t)bytes;
	}
}

/* ── checksums that are right, over whatever ──────────────────────────────────────── */

static void mend_record(struct format_chunk *chunk, uint32_t sequence, bool journal)
{
	char *bytes = (char *)chunk;
	size_t step = journal ? 64 : FORMAT_RECORD_ALIGN;

	for (size_t at = sizeof(*chunk); at + 64 <= chunk->bytes; at += step) {
		struct format_message *head = (void *)(bytes + at);
		uint32_t crc = crc_record(sequence, bytes + at, 64, 0);

		if (journal)
			memcpy(bytes + at, &crc, sizeof(crc));
		else if (head->magic == FORMAT_MESSAGE_MAGIC) {
			if (head->envelope_bytes <= chunk->bytes - at - sizeof(*head))
				head->envelope_crc = crc_of(head + 1, head->envelope_bytes);
			head->crc = crc_record(sequence, head, sizeof(*head),
					       offsetof(struct format_message, crc));
		}
	}
}

static void mend_chunks(struct image *image, uint32_t sequence, bool journal)
{
	for (size_t at = FORMAT_PAGE_BYTES; at + FORMAT_PAGE_BYTES <= image->bytes;
	     at += FORMAT_PAGE_BYTES) {
		struct format_chunk *chunk = (void *)(image->now + at);

		if (chunk->magic != FORMAT_CHUNK_MAGIC || chunk->bytes < sizeof(*chunk) ||
		    chunk->bytes > image->bytes - at)
			continue;
		mend_record(chunk, sequence, journal);
		chunk->crc = crc_record(sequence, chunk, chunk->bytes,
					offsetof(struct format_chunk, crc));
	}
}

static void mend(struct image *image, const struct place *place)
{
	struct format_file *head = (void *)image->now;

	if (place->sequence == 0) {
		for (uint32_t copy = 0; copy < 2; copy++) {
			struct format_super *super =
				(void *)(image->now + (size_t)copy * FORMAT_PAGE_BYTES);

			super->crc = crc_header(super, sizeof(*super),
						offsetof(struct format_super, crc));
		}
		return;
	}
	head->crc = crc_header(head, sizeof(*head), offsetof(struct format_file, crc));
	mend_chunks(image, place->sequence, place->name[0] == 'j');
}

/* ── what came out ────────────────────────────────────────────────────────────────── */

static void check_jobs(const struct recovered *stream)
{
	for (size_t i = 0; i < stream->job_count; i++) {
		const struct format_job *job = &stream->jobs[i].job;

		assert((job->state == FORMAT_WAITING) == (job->pending != 0));
		assert(job->state == FORMAT_WAITING || stream->jobs[i].unrecorded);
		for (size_t k = 0; k < i; k++)
			assert(stream->jobs[k].job.message != job->message ||
			       stream->jobs[k].job.first != job->first);
	}
	for (size_t i = 0; i < stream->origin_count; i++)
		assert(stream->origins[i].kind == FORMAT_ORIGIN_FILE);
	for (size_t i = 0; i < stream->name_count; i++)
		assert(stream->names[i].id < stream->next_name[stream->names[i].type]);
}

static void recover_all(uint8_t how)
{
	struct recover_options options = { .sync = how & FROM_DISK,
					   .running = how & RUNNING,
					   .now_s = SPOOL_NOW_S };
	struct recovered_spool spool;
	struct recovered streams[STREAMS] = { 0 };
	char error[RECOVER_ERROR_BYTES] = "";
	uint32_t count = 0;
	bool whole = true;

	if (recover_spool(OS_CURRENT_FOLDER, folder,
			  how & FROM_DISK ? RECOVER_FROM_DISK : RECOVER_FROM_CACHE, &spool,
			  error) != RECOVER_OK) {
		assert(error[0] != '\0');
		return;
	}
	for (; count < spool.stream_count && count < STREAMS; count++) {
		whole &= recover_stream(&spool, (uint16_t)count, &options, &streams[count]) ==
			 RECOVER_OK;
		check_jobs(&streams[count]);
	}
	if (whole && count == spool.stream_count) {
		uint64_t *ids = NULL;
		size_t id_count = 0;

		if (recover_unnamed_big(&spool, streams, count, &ids, &id_count) == RECOVER_OK)
			free(ids);
	}
	for (uint32_t i = 0; i < count; i++)
		recovered_release(&streams[i]);
	recovered_spool_release(&spool);
}

static void change(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < FILES; i++)
		memcpy(images[i].now, images[i].before, images[i].bytes);
	while (size >= 5) {
		struct image *image = &images[data[0] % FILES];
		size_t at = (size_t)(data[1] % PAGES) * FORMAT_PAGE_BYTES + data[2] * 8u;
		size_t len = 1 + data[3] % 64;

		data += 4;
		size -= 4;
		len = len < size ? len : size;
		if (at + len <= image->bytes)
			memcpy(image->now + at, data, len);
		data += len;
		size -= len;
	}
}

/* Any name that a folder may have, also that of a file in the other folder. Returns what of the
 * input it took. */
static size_t second_name(const uint8_t *data, size_t size)
{
	char first[128];
	size_t len, at;

	if (size < 2)
		return 0;
	len = data[1] < size - 2 ? data[1] : size - 2;
	snprintf(first, sizeof(first), "%s/%s", folder, places[data[0] % FILES].name);
	at = (size_t)snprintf(again, sizeof(again), "%s/%s/", folder,
			      data[0] & 0x80 ? "jnl" : "seg");
	snprintf(again + at, sizeof(again) - at, "%.*s", (int)len, (const char *)data + 2);
	if (strchr(again + at, '/') || link(first, again) != 0)
		again[0] = '\0';
	return 2 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t taken = 1;

	if (size < 1 || size > 2048)
		return 0;
	if (folder[0] == '\0')
		images_load();
	if (data[0] & SECOND_NAME)
		taken += second_name(data + 1, size - 1);
	change(data + taken, size - taken);
	for (size_t i = 0; i < FILES; i++) {
		if (!(data[0] & (1 << i)))
			mend(&images[i], &places[i]);
		assert(pwrite(images[i].fd, images[i].now, images[i].bytes, 0) ==
		       (ssize_t)images[i].bytes);
	}
	recover_all(data[0]);
	if (again[0] != '\0')
		unlink(again);
	again[0] = '\0';
	return 0;
}
