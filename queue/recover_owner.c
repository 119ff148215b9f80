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

static const struct recovered_file *pointed_at(const struct recovered_spool *spool,
					       uint32_t sequence, const struct scan_extent *extent)
{
	struct scan_cursor cursor = { .extent = *extent, .sequence = sequence };
	const struct recovered_file *segment = NULL;
	struct scan_record record;

	while (!segment && scan_next_record(&cursor, &record))
		if (record.job || record.mark)
			segment = segment_of(spool, record.job ? record.job->segment
							       : record.mark->segment);
	return segment;
}

/* What a journal says of messages, it says of those of its own stream. */
static const struct recovered_file *points_at(const struct recovered_spool *spool,
					      const struct recovered_file *lost)
{
	const struct recovered_file *segment = NULL;
	struct scan_extent extent;
	struct scan scan;
	int fd = lost->journal ? os_file_open(spool->jnl, lost->name, OS_READ, 0) : -1;

	if (fd >= 0 && scan_init(&scan)) {
		scan_begin(&scan, &(struct scan_input){ .fd = fd,
							.sequence = lost->sequence,
							.bytes = lost->bytes });
		while (!segment && scan_next(&scan, &extent) != SCAN_END)
			segment = pointed_at(spool, lost->sequence, &extent);
		scan_deinit(&scan);
	}
	if (fd >= 0)
		os_file_close(fd);
	return segment;
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
		by = points_at(spool, lost);
		why = "by the messages that it is about it belongs to";
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
