/*
 * ledger_recycled - nothing live lies in a file that goes back to free/ (R6, R10).
 *
 * Of a segment the daemon's own index tells. Of a journal its records do: what it says last of a
 * job that still waits is said again, or more, in another file, and durably.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/check.h"
#include "queue/crc.h"
#include "queue/format.h"
#include "queue/queue.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/shared.h"

/* A job that waits, and the highest version of it that the journals have. */
struct waiting {
	uint64_t message;
	uint16_t first;
	uint32_t gone, kept; /* in the one that goes, in the others; 0: none */
};

struct leaving {
	uint32_t sequence;
	struct waiting *jobs; /* by message and first */
	size_t count, room;
};

/* ── segments ─────────────────────────────────────────────────────────────────────── */

/* What can't be read is damaged, and stays so wherever it lay. */
static void check_elsewhere(void *context, const struct format_job *job)
{
	const struct leaving *leaving = context;
	char id[QUEUE_ID_TEXT_BYTES];

	if (job->segment != leaving->sequence || (job->flags & FORMAT_JOB_DAMAGED) != 0)
		return;
	queue_id_text(job->message, id);
	sim_finding("seg/%08x goes to free/, and %s waits in it", leaving->sequence, id);
}

/* ── journals ─────────────────────────────────────────────────────────────────────── */

static int compare(const void *left, const void *right)
{
	const struct waiting *a = left, *b = right;

	if (a->message != b->message)
		return a->message < b->message ? -1 : 1;
	return (a->first > b->first) - (a->first < b->first);
}

static void count_job(void *context, const struct format_job *job)
{
	(void)job;
	((struct leaving *)context)->room++;
}

static void add_job(void *context, const struct format_job *job)
{
	struct leaving *leaving = context;

	leaving->jobs[leaving->count++] =
		(struct waiting){ .message = job->message, .first = job->first };
}

static void note_record(const struct leaving *leaving, const struct format_job *record, bool goes)
{
	struct waiting key = { .message = record->message, .first = record->first };
	struct waiting *job = bsearch(&key, leaving->jobs, leaving->count, sizeof(key), compare);
	uint32_t *version = job ? goes ? &job->gone : &job->kept : NULL;

	if (version && *version < record->version)
		*version = record->version;
}

static void read_records(const struct leaving *leaving, const char *at, const char *end, bool goes)
{
	while (end - at >= (ptrdiff_t)sizeof(struct format_job)) {
		struct format_job record;
		struct format_define define;

		memcpy(&record, at, sizeof(record));
		memcpy(&define, at, sizeof(define));
		if (record.type == FORMAT_JOB)
			note_record(leaving, &record, goes);
		at += sizeof(record) * (record.type < FORMAT_DEST ? 1 : define.units);
	}
}

/* The chunk at `bytes`, whole and of this life of the file: its length, or 0. */
static uint32_t chunk_bytes(uint32_t sequence, const char *bytes, size_t count)
{
	struct format_chunk chunk;

	memcpy(&chunk, bytes, sizeof(chunk));
	if (chunk.magic != FORMAT_CHUNK_MAGIC || chunk.sequence != sequence ||
	    chunk.bytes < sizeof(chunk) || chunk.bytes > count ||
	    crc_record(sequence, bytes, chunk.bytes, offsetof(struct format_chunk, crc)) !=
		    chunk.crc)
		return 0;
	return chunk.bytes;
}

/* A chunk begins on a page; the first page is the file's header. */
static void read_journal(void *context, const char *name, const char *bytes, size_t count)
{
	const struct leaving *leaving = context;
	uint32_t sequence = (uint32_t)strtoul(name, NULL, 16), length;

	for (size_t at = FORMAT_PAGE_BYTES; at < count;) {
		length = chunk_bytes(sequence, bytes + at, count - at);
		if (length == 0)
			return;
		read_records(leaving, bytes + at + sizeof(struct format_chunk), bytes + at + length,
			     sequence == leaving->sequence);
		at += (length + FORMAT_PAGE_BYTES - 1) / FORMAT_PAGE_BYTES * FORMAT_PAGE_BYTES;
	}
}

static void check_kept(const struct leaving *leaving)
{
	for (size_t i = 0; i < leaving->count; i++) {
		const struct waiting *job = &leaving->jobs[i];
		char id[QUEUE_ID_TEXT_BYTES];

		if (job->gone <= job->kept)
			continue;
		queue_id_text(job->message, id);
		sim_finding("jnl/%08x goes to free/ with version %u of %s; the others have %u",
			    leaving->sequence, job->gone, id, job->kept);
	}
}

/* On a disk that damages or fails, a chunk is there that nobody believes, or is not there. */
static void check_journal(struct leaving *leaving)
{
	if (disk_flips() + disk_failures() > 0 || ledger_book()->reads_fail)
		return;
	shared_each_job(count_job, leaving);
	leaving->jobs = calloc(leaving->room + 1, sizeof(*leaving->jobs));
	if (!leaving->jobs)
		sim_finding("no memory for what waits");
	shared_each_job(add_job, leaving);
	qsort(leaving->jobs, leaving->count, sizeof(*leaving->jobs), compare);
	if (leaving->count > 0)
		disk_each_durable("/spool/jnl", read_journal, leaving);
	check_kept(leaving);
	free(leaving->jobs);
}

void ledger_recycled(bool journal, const char *name)
{
	struct leaving leaving = { .sequence = (uint32_t)strtoul(name, NULL, 16) };

	if (journal)
		check_journal(&leaving);
	else
		shared_each_job(check_elsewhere, &leaving);
}
