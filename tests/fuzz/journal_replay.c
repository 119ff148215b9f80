/* Journal records from hostile bytes, once as they are and once with checksums that are right,
 * so that what lies behind the checksum is reached as well. */
#include "queue/replay.h"

#include <stdlib.h>

#include "queue/crc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { UNIT = 64, SEQUENCE = 7 };

static void mend_checksums(char *bytes, size_t size)
{
	for (size_t at = 0; at + UNIT <= size;) {
		const struct format_define *define = (const void *)(bytes + at);
		size_t record = UNIT;
		uint32_t crc;

		if (define->type >= FORMAT_DEST && define->type <= FORMAT_POLICY &&
		    define->units >= 1 && (size_t)define->units * UNIT <= size - at)
			record = (size_t)define->units * UNIT;
		crc = crc_record(SEQUENCE, bytes + at, record, 0);
		memcpy(bytes + at, &crc, sizeof(crc));
		at += record;
	}
}

static void check(const struct replay *replay)
{
	for (size_t i = 0; i < replay->job_count; i++) {
		const struct format_job *job = &replay->jobs[i].job;

		assert(replay_find(replay, job->message, job->first) == &replay->jobs[i]);
		assert((job->state == FORMAT_WAITING) == (job->pending != 0));
	}
	for (size_t i = 0; i < replay->name_count; i++)
		assert((size_t)replay->names[i].at + replay->names[i].len <= replay->arena_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = aligned_alloc(UNIT, (size + UNIT) / UNIT * UNIT);
	struct scan_extent extent = { .bytes = { copy, size }, .verified = true };
	struct replay replay;

	memcpy(copy, data, size);
	assert(replay_init(&replay, 0));
	replay_extent(&replay, SEQUENCE, &extent);
	mend_checksums(copy, size);
	replay_extent(&replay, SEQUENCE, &extent);
	extent.verified = false;
	replay_extent(&replay, SEQUENCE + 1, &extent);
	check(&replay);
	replay_deinit(&replay);
	free(copy);
	return 0;
}
