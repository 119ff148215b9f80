/* Files whose header is lost, but not their chunks: whose are they? */
#include "os/os.h"
#include "queue/recover_private.h"

/* The next file of its stream names the one before it. */
static const struct recovered_file *named_by(const struct recovered_spool *spool,
					     const struct recovered_file *lost)
{
	for (size_t i = 0; i < spool->file_count; i++) {
		const struct recovered_file *file = &spool->files[i];

		if (file->fate == RECOVERED_KEEP && !file->header_lost &&
		    file->journal == lost->journal && file->previous_sequence == lost->sequence)
			return file;
	}
	return NULL;
}

static const struct recovered_file *segment_of(const struct recovered_spool *spool,
					       uint32_t sequence)
{
	for (size_t i = 0; i < spool->file_count; i++) {
		const struct recovered_file *file = &spool->files[i];

		if (file->sequence == sequence && !file->journal && file->fate == RECOVERED_KEEP &&
		    !file->header_lost)
			return file;
	}
	return NULL;
}

/* Whether records in there tell of a message in segment `wanted`; 0: in any that is there. */
static const struct recovered_file *tells_of(const struct recovered_spool *spool,
					     const struct recovered_file *journal,
					     const struct scan_extent *extent, uint32_t wanted)
{
	struct scan_cursor cursor = { .extent = *extent, .sequence = journal->sequence };
	struct scan_record record;

	while (scan_next_record(&cursor, &record)) {
		uint32_t segment = record.job	 ? record.job->segment
				   : record.mark ? record.mark->segment
						 : 0;

		if (segment != 0 && wanted == segment)
			return journal;
		if (segment != 0 && wanted == 0 && segment_of(spool, segment))
			return segment_of(spool, segment);
	}
	return NULL;
}

static const struct recovered_file *search(const struct recovered_spool *spool,
					   const struct recovered_file *journal, uint32_t wanted)
{
	const struct recovered_file *found = NULL;
	struct scan_extent extent;
	struct scan scan;
	int fd = os_file_open(spool->jnl, journal->name, OS_READ, 0);

	if (fd >= 0 && scan_init(&scan)) {
		scan_begin(&scan, &(struct scan_input){ .fd = fd,
							.sequence = journal->sequence,
							.bytes = journal->bytes });
		while (!found && scan_next(&scan, &extent) != SCAN_END)
			found = tells_of(spool, journal, &extent, wanted);
		scan_deinit(&scan);
	}
	if (fd >= 0)
		os_file_close(fd);
	return found;
}

/* A journal is about the messages of its own stream: it is that of their segment, or the
 * segment is that of the journal. NULL: no record tells. */
static const struct recovered_file *told_by_records(const struct recovered_spool *spool,
						    const struct recovered_file *lost)
{
	const struct recovered_file *found = NULL;

	if (lost->journal)
		return search(spool, lost, 0);
	for (size_t i = 0; i < spool->file_count && !found; i++) {
		const struct recovered_file *file = &spool->files[i];

		if (file->journal && file->fate == RECOVERED_KEEP && !file->header_lost)
			found = search(spool, file, lost->sequence);
	}
	return found;
}

static uint16_t lowest_stream(const struct recovered_spool *spool)
{
	uint16_t lowest = UINT16_MAX;

	for (size_t i = 0; i < spool->file_count; i++)
		if (spool->files[i].fate == RECOVERED_KEEP && !spool->files[i].header_lost &&
		    spool->files[i].stream < lowest)
			lowest = spool->files[i].stream;
	return lowest == UINT16_MAX ? 0 : lowest;
}

void recover_find_owner(struct recovered_spool *spool, struct recovered_file *lost)
{
	const struct recovered_file *by = named_by(spool, lost);
	const char *why = "the next file says that it belongs to";

	if (!by) {
		by = told_by_records(spool, lost);
		why = "records about its messages say that it belongs to";
	}
	if (!by)
		why = "whose it is cannot be known: all streams count as damaged, taken as";
	lost->stream = by ? by->stream : lowest_stream(spool);
	lost->owner_guessed = !by;
	spool->streams_damaged |= !by;
	recover_problem(&spool->problems,
			lost->journal ? RECOVERED_JOURNAL_DAMAGE : RECOVERED_SEGMENT_DAMAGE,
			"%s/%s: the header is damaged; %s stream %u", lost->journal ? "jnl" : "seg",
			lost->name, why, lost->stream);
}
