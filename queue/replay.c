#include "queue/replay.h"

#include <stdlib.h>

#include "os/check.h"

enum {
	BUCKETS_MIN = 1024,
	JOBS_MIN = 1024,
	BUCKETS_HINT_MAX = 1 << 25,
	AHEAD_BYTES = 32 * sizeof(struct format_job),
};

/* ── the table: open addressing, at most half full ────────────────────────────────── */

static size_t bucket_of(const struct replay *replay, uint64_t message, uint16_t first)
{
	uint64_t x = (message ^ (uint64_t)first << 48) * UINT64_C(0x9e3779b97f4a7c15);

	return (size_t)(x ^ x >> 32) & (replay->bucket_count - 1);
}

/* `array` with room for `count` elements; false: no memory, and nothing changed. */
static bool reserve(void *array, size_t count, size_t *size, size_t element_bytes, size_t min)
{
	void **at = array;
	size_t wanted = *size ? *size : min;

	if (count <= *size)
		return true;
	while (wanted < count)
		wanted *= 2;
	void *larger = realloc(*at, wanted * element_bytes);

	if (!larger)
		return false;
	*at = larger;
	*size = wanted;
	return true;
}

bool replay_init(struct replay *replay, uint64_t records_hint)
{
	memset(replay, 0, sizeof(*replay));
	replay->bucket_count = BUCKETS_MIN;
	while (replay->bucket_count < 2 * records_hint && replay->bucket_count < BUCKETS_HINT_MAX)
		replay->bucket_count *= 2;
	replay->buckets = calloc(replay->bucket_count, sizeof(*replay->buckets));
	if (replay->buckets == NULL)
		return false;
	/* Address space, for the most part; without it the array grows as it has to. */
	if (records_hint < BUCKETS_HINT_MAX)
		(void)reserve(&replay->jobs, records_hint, &replay->job_size, sizeof(*replay->jobs),
			      JOBS_MIN);
	return true;
}

void replay_deinit(struct replay *replay)
{
	free(replay->jobs);
	free(replay->buckets);
	free(replay->names);
	free(replay->arena);
	memset(replay, 0, sizeof(*replay));
}

/* The bucket that holds the job, or the empty one where it belongs. */
static uint32_t *bucket_find(const struct replay *replay, uint64_t message, uint16_t first)
{
	size_t bucket = bucket_of(replay, message, first);

	for (;; bucket = (bucket + 1) & (replay->bucket_count - 1)) {
		uint32_t *at = &replay->buckets[bucket];

		if (*at == 0)
			return at;
		const struct format_job *job = &replay->jobs[*at - 1].job;

		if (job->message == message && job->first == first)
			return at;
	}
}

static bool buckets_double(struct replay *replay)
{
	uint32_t *old = replay->buckets;
	uint32_t *larger = calloc(replay->bucket_count * 2, sizeof(*larger));

	if (!larger)
		return false;
	free(old);
	replay->buckets = larger;
	replay->bucket_count *= 2;
	assert(replay->jobs || replay->job_count == 0);
	for (size_t i = 0; i < replay->job_count; i++) {
		const struct format_job *job = &replay->jobs[i].job;

		*bucket_find(replay, job->message, job->first) = (uint32_t)i + 1;
	}
	return true;
}

struct recovered_job *replay_find(const struct replay *replay, uint64_t message, uint16_t first)
{
	uint32_t index = *bucket_find(replay, message, first);

	return index ? &replay->jobs[index - 1] : NULL;
}

struct recovered_job *replay_add(struct replay *replay, uint64_t message, uint16_t first)
{
	if ((replay->job_count * 2 >= replay->bucket_count && !buckets_double(replay)) ||
	    replay->job_count >= UINT32_MAX - 1 ||
	    !reserve(&replay->jobs, replay->job_count + 1, &replay->job_size, sizeof(*replay->jobs),
		     JOBS_MIN)) {
		replay->no_memory = true;
		return NULL;
	}
	assert(replay->jobs);
	uint32_t *bucket = bucket_find(replay, message, first);
	struct recovered_job *added = &replay->jobs[replay->job_count++];

	assert(*bucket == 0);
	*bucket = (uint32_t)replay->job_count;
	memset(added, 0, sizeof(*added));
	added->job.message = message;
	added->job.first = first;
	return added;
}

/* ── records ──────────────────────────────────────────────────────────────────────── */

/* They are given out one by one from 1: no spool comes so far, and what is new has ids left. */
static bool is_name_id(uint32_t id)
{
	return id <= INT32_MAX;
}

static bool job_makes_sense(const struct format_job *job)
{
	return job->state >= FORMAT_WAITING && job->state <= FORMAT_REMOVED &&
	       (job->state == FORMAT_WAITING) == (job->pending != 0) && job->version > 0 &&
	       is_name_id(job->dest) && is_name_id(job->class_id) && is_name_id(job->text);
}

static bool define_makes_sense(const struct format_define *define)
{
	return define->id > 0 && is_name_id(define->id);
}

/* All but the checksum, which depends on the file. */
static bool same_state(const struct format_job *a, const struct format_job *b)
{
	enum { FROM = offsetof(struct format_job, type) };

	return memcmp((const char *)a + FROM, (const char *)b + FROM, sizeof(*a) - FROM) == 0;
}

static void take_job(struct replay *replay, uint32_t sequence, const struct format_job *job)
{
	struct recovered_job *known = replay_find(replay, job->message, job->first);

	if (!known)
		known = replay_add(replay, job->message, job->first);
	else if (known->job.version > job->version)
		return;
	else if (known->job.version == job->version && !same_state(&known->job, job)) {
		replay->clashes++;
		replay->clash_message = job->message;
	}
	if (!known)
		return;
	known->job = *job;
	known->job.crc = 0;
	known->journal = sequence;
}

static void take_mark(struct replay *replay, const struct format_mark *mark)
{
	struct recovered_place place = { mark->segment, mark->place };

	if (recovered_before(replay->mark, place))
		replay->mark = place;
	if (mark->wall_us > replay->wall_us)
		replay->wall_us = mark->wall_us;
	expiry_last_take(&replay->clock, (int64_t)mark->wall_us, mark->believed_us);
}

void replay_add_name(struct replay *replay, uint8_t type, uint32_t id, uint32_t until_s,
		     uint32_t journal, struct span text)
{
	/* One octet more: there is an arena also where no name has a text. */
	if (replay->arena_bytes + text.len > UINT32_MAX ||
	    !reserve(&replay->names, replay->name_count + 1, &replay->name_size,
		     sizeof(*replay->names), 256) ||
	    !reserve(&replay->arena, replay->arena_bytes + text.len + 1, &replay->arena_size, 1,
		     4096)) {
		replay->no_memory = true;
		return;
	}
	replay->names[replay->name_count++] = (struct replay_name){
		.type = type,
		.id = id,
		.until_s = until_s,
		.journal = journal,
		.at = (uint32_t)replay->arena_bytes,
		.len = (uint32_t)text.len,
	};
	if (text.len > 0)
		memcpy(replay->arena + replay->arena_bytes, text.at, text.len);
	replay->arena_bytes += text.len;
}

/* The table is much larger than any cache, and records are in no order that it knows: what the
 * records to come will touch is asked for ahead. Their bytes are not verified yet, which is no
 * matter here. (Always inline: GCC 12 takes such a function for one without effect, and drops it.)
 */
static inline __attribute__((always_inline)) void look_ahead(const struct replay *replay,
							     struct span rest)
{
	const struct format_job *far = (const void *)(rest.at + AHEAD_BYTES);
	const struct format_job *near = (const void *)(rest.at + AHEAD_BYTES / 2);
	uint32_t known;

	if (rest.len < AHEAD_BYTES + sizeof(*far))
		return;
	__builtin_prefetch(&replay->buckets[bucket_of(replay, far->message, far->first)]);
	known = replay->buckets[bucket_of(replay, near->message, near->first)];
	if (known != 0)
		__builtin_prefetch(&replay->jobs[known - 1]);
}

uint32_t replay_extent(struct replay *replay, uint32_t sequence, const struct scan_extent *extent)
{
	struct scan_cursor cursor = { .extent = *extent, .sequence = sequence };
	struct scan_record record;
	uint32_t senseless = 0;

	while (!replay->no_memory && scan_next_record(&cursor, &record)) {
		if (record.job && job_makes_sense(record.job))
			take_job(replay, sequence, record.job);
		else if (record.mark)
			take_mark(replay, record.mark);
		else if (record.start && record.start->epoch > replay->start_epoch)
			replay->start_epoch = record.start->epoch;
		else if (record.define && replay->skip_names)
			continue;
		else if (record.define && define_makes_sense(record.define))
			replay_add_name(replay, record.type, record.define->id,
					record.define->until_s, sequence, record.text);
		else if (record.job || record.define)
			senseless++;
		look_ahead(replay, cursor.extent.bytes);
	}
	replay->senseless += senseless;
	return cursor.bad + senseless;
}
