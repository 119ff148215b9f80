/* The files of one stream: journals are replayed, segments scanned from MARK. */
#include <stdio.h>
#include <stdlib.h>

#include "os/check.h"
#include "os/os.h"
#include "queue/queue.h"
#include "queue/recover_private.h"

static void problem_damage(struct recover_work *work, bool journal, uint32_t sequence,
			   const struct scan_extent *extent)
{
	unsigned long long end = extent->offset + extent->bytes.len;

	work->out->damaged = true;
	work->out->journal_damaged |= journal;
	recover_problem(
		&work->out->problems, journal ? RECOVERED_JOURNAL_DAMAGE : RECOVERED_SEGMENT_DAMAGE,
		"%s/%08x: bytes %llu to %llu are damaged; what still verifies there is used",
		journal ? "jnl" : "seg", sequence, (unsigned long long)extent->offset, end);
}

/* ── files of the stream ──────────────────────────────────────────────────────────── */

static bool is_mine(const struct recover_work *work, const struct recovered_file *file,
		    bool journal)
{
	return file->fate == RECOVERED_KEEP && file->stream == work->out->stream &&
	       file->journal == journal;
}

static const struct recovered_file *find_file(const struct recover_work *work, uint32_t sequence,
					      bool journal)
{
	for (size_t i = 0; i < work->spool->file_count; i++)
		if (work->spool->files[i].sequence == sequence &&
		    is_mine(work, &work->spool->files[i], journal))
			return &work->spool->files[i];
	return NULL;
}

/* The durable end of a file as the next of its kind and stream has it in its header. */
static uint32_t end_by_next(const struct recover_work *work, bool journal, uint32_t sequence)
{
	uint32_t end = 0;

	for (size_t i = 0; i < work->spool->file_count; i++) {
		const struct recovered_file *file = &work->spool->files[i];

		if (is_mine(work, file, journal) && file->previous_sequence == sequence &&
		    file->previous_end > end)
			end = file->previous_end;
	}
	return end;
}

/* Taken ahead: without a chunk, since its header would name the file before it by then. */
static bool is_ahead(const struct recover_work *work, const struct recovered_journal *journal)
{
	const struct recovered_file *file = find_file(work, journal->sequence, true);

	if (file->header_lost || file->previous_end > 0)
		return false;
	for (const struct recovered_journal *at = work->out->journals; at < journal; at++)
		if (at->end_pages > 1 && !at->owner_guessed)
			return true;
	return false;
}

/* A header names the last file with chunks before it: what lies between was passed over, because
 * the write of its first chunk failed. Nothing is said by one that names none, as that of a
 * stream's first file. */
static bool ends(const struct recovered_file *next, const struct recovered_file *file)
{
	return next->kind == file->kind && next->epoch == file->epoch && !next->header_lost &&
	       next->previous_end > 0 && next->sequence > file->sequence &&
	       next->previous_sequence <= file->sequence;
}

/* The run that wrote it went on to the next file, knowing what was durable in this one. A chunk
 * behind that is of a failed write (R9): what was promised of it lies in the next file, and of the
 * rest nobody knew (QUEUE_UNKNOWN). */
static bool is_ended(const struct recover_work *work, uint32_t sequence)
{
	const struct recovered_file *file = find_file(work, sequence, false);

	for (size_t i = 0; i < work->spool->file_count; i++) {
		const struct recovered_file *next = &work->spool->files[i];

		if (is_mine(work, next, false) && !file->header_lost && ends(next, file))
			return true;
	}
	return false;
}

/* The last run wrote it last and was stopped in order, so that it has no torn tail. One that an
 * earlier crash left, or a failed write (R9), stays in its file, which is never appended to. */
static bool is_closed(const struct recover_work *work, bool journal, uint32_t sequence)
{
	const struct recovered_file *file = find_file(work, sequence, journal);

	return work->spool->super.clean && !work->options->running && file &&
	       file->epoch == work->spool->super.epoch && end_by_next(work, journal, sequence) == 0;
}

bool recover_collect_files(struct recover_work *work)
{
	const struct recovered_spool *spool = work->spool;
	struct recovered *out = work->out;

	out->segments = calloc(spool->file_count + 1, sizeof(*out->segments));
	out->journals = calloc(spool->file_count + 1, sizeof(*out->journals));
	if (!out->segments || !out->journals)
		return false;
	for (size_t i = 0; i < spool->file_count; i++) {
		const struct recovered_file *file = &spool->files[i];

		if (is_mine(work, file, true))
			out->journals[out->journal_count++] = (struct recovered_journal){
				.sequence = file->sequence,
				.damaged = file->header_lost,
				.owner_guessed = file->owner_guessed,
				.bytes = file->bytes,
			};
		else if (is_mine(work, file, false))
			out->segments[out->segment_count++] = (struct recovered_segment){
				.sequence = file->sequence,
				.kind = file->kind,
				.damaged = file->header_lost,
				.bytes = file->bytes,
				.end_pages = end_by_next(work, false, file->sequence),
			};
		else
			continue;
		out->damaged |= file->header_lost;
		out->journal_damaged |= file->header_lost && file->journal;
	}
	return true;
}

/* Open, and (the daemon) synced; or -errno. */
static int open_synced(struct recover_work *work, bool journal, uint32_t sequence)
{
	const char *folder = journal ? "jnl" : "seg";
	char name[16];

	snprintf(name, sizeof(name), "%08x", sequence);
	int fd = os_file_open(journal ? work->spool->jnl : work->spool->seg, name, OS_READ, 0);
	int error = fd < 0 ? fd : 0;

	if (fd >= 0 && work->options->sync)
		error = os_file_sync(fd);
	if (error == 0)
		return fd;
	if (fd >= 0)
		os_file_close(fd);
	snprintf(work->out->error, sizeof(work->out->error),
		 "%s/%s can't be %s (error %d): look at the disk and the kernel's log", folder,
		 name, fd < 0 ? "opened" : "synced", -error);
	work->status = RECOVER_UNREADABLE;
	return error;
}

/* ── journals ─────────────────────────────────────────────────────────────────────── */

static void replay_journal(struct recover_work *work, struct recovered_journal *journal)
{
	struct scan *scan = &work->scan;
	struct scan_extent extent;
	enum scan_found found;
	uint32_t durable = end_by_next(work, true, journal->sequence);
	int fd = open_synced(work, true, journal->sequence);

	if (fd < 0)
		return;
	scan_begin(scan, &(struct scan_input){
				 .fd = fd,
				 .sequence = journal->sequence,
				 .bytes = journal->bytes,
				 .durable_pages = durable,
				 .named_pages = is_ahead(work, journal) ? 1 : durable,
				 .closed = is_closed(work, true, journal->sequence),
			 });
	work->replay.skip_names = journal->owner_guessed;
	while ((found = scan_next(scan, &extent)) != SCAN_END) {
		uint32_t bad = replay_extent(&work->replay, journal->sequence, &extent);

		if (found == SCAN_CHUNK && bad == 0)
			continue;
		journal->damaged = true;
		problem_damage(work, true, journal->sequence, &extent);
	}
	journal->end_pages = scan->end_pages;
	if (scan->torn)
		recover_problem(&work->out->problems, RECOVERED_TORN_TAIL,
				"jnl/%08x: torn at byte %llu, cut there", journal->sequence,
				(unsigned long long)scan->end_pages * FORMAT_PAGE_BYTES);
	os_file_close(fd);
}

/* A file that is gone although older ones are there, and had chunks: journals are recycled
 * oldest first, HOT segments not before MARK has passed them. */
static void look_for_gaps(struct recover_work *work, bool journal, uint32_t oldest)
{
	for (size_t i = 0; i < work->spool->file_count; i++) {
		const struct recovered_file *file = &work->spool->files[i];

		if (!is_mine(work, file, journal) || file->header_lost ||
		    file->kind == FORMAT_COLD || file->previous_end <= 1 ||
		    file->previous_sequence <= oldest ||
		    find_file(work, file->previous_sequence, journal))
			continue;
		work->out->damaged = true;
		work->out->journal_damaged |= journal;
		recover_problem(&work->out->problems,
				journal ? RECOVERED_JOURNAL_DAMAGE : RECOVERED_SEGMENT_DAMAGE,
				"%s/%08x is missing: look in quarantine/ and lost+found",
				journal ? "jnl" : "seg", file->previous_sequence);
	}
}

void recover_replay_journals(struct recover_work *work)
{
	struct recovered *out = work->out;
	uint64_t bytes = 0;

	for (size_t i = 0; i < out->journal_count; i++)
		bytes += out->journals[i].bytes;
	if (!replay_init(&work->replay, bytes / sizeof(struct format_job))) {
		work->status = RECOVER_NO_MEMORY;
		return;
	}
	for (size_t i = 0; work->status == RECOVER_OK && i < out->journal_count; i++)
		replay_journal(work, &out->journals[i]);
	if (out->journal_count > 0)
		look_for_gaps(work, true, out->journals[0].sequence);
	out->mark = work->replay.mark;
	out->clock = work->replay.clock;
	out->start_epoch = work->replay.start_epoch;
	out->journal_damaged |= work->spool->streams_damaged;
	out->damaged |= work->spool->streams_damaged;
	if (work->replay.clashes > 0) {
		char id[QUEUE_ID_TEXT_BYTES];

		queue_id_text(work->replay.clash_message, id);
		recover_problem(&out->problems, RECOVERED_VERSION_CLASH,
				"%llu journal records have the version of another and differ, one "
				"of message %s; the later file was believed",
				(unsigned long long)work->replay.clashes, id);
	}
}

/* ── what the journals say of segments and names ──────────────────────────────────── */

struct recovered_segment *recover_find_segment(struct recover_work *work, uint32_t sequence)
{
	struct recovered *out = work->out;
	size_t low = 0, high = out->segment_count;

	if (work->last_segment < high && out->segments[work->last_segment].sequence == sequence)
		return &out->segments[work->last_segment];
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (out->segments[middle].sequence < sequence)
			low = middle + 1;
		else
			high = middle;
	}
	work->last_segment = low;
	return low < out->segment_count && out->segments[low].sequence == sequence
		       ? &out->segments[low]
		       : NULL;
}

/* A record was written only after the chunk that it points into was durable (R2). */
static void raise_end(struct recover_work *work, uint32_t sequence, uint64_t offset)
{
	struct recovered_segment *segment = recover_find_segment(work, sequence);
	uint64_t pages = (offset + FORMAT_PAGE_BYTES - 1) / FORMAT_PAGE_BYTES;

	if (segment && pages > segment->end_pages && pages <= segment->bytes / FORMAT_PAGE_BYTES)
		segment->end_pages = (uint32_t)pages;
}

void recover_raise_next(struct recovered *out, uint8_t type, uint32_t id)
{
	if (id >= out->next_name[type])
		out->next_name[type] = id + 1;
}

void recover_note_references(struct recover_work *work)
{
	struct recovered *out = work->out;
	const struct replay *replay = &work->replay;

	for (size_t i = 0; i < array_count(out->next_name); i++)
		out->next_name[i] = 1;
	for (size_t i = 0; i < replay->job_count; i++) {
		const struct format_job *job = &replay->jobs[i].job;

		raise_end(work, job->segment, (uint64_t)job->place * FORMAT_RECORD_ALIGN + 1);
		recover_raise_next(out, FORMAT_DEST, job->dest);
		recover_raise_next(out, FORMAT_CLASS, job->class_id);
		recover_raise_next(out, FORMAT_TEXT, job->text);
	}
	for (size_t i = 0; i < replay->name_count; i++)
		recover_raise_next(out, replay->names[i].type, replay->names[i].id);
	raise_end(work, out->mark.segment, (uint64_t)out->mark.place * FORMAT_RECORD_ALIGN);
}

/* ── segments ─────────────────────────────────────────────────────────────────────── */

static void scan_extents(struct recover_work *work, struct recovered_segment *segment)
{
	struct scan_message message;
	struct scan_extent extent;
	enum scan_found found;

	while (work->status == RECOVER_OK &&
	       (found = scan_next(&work->scan, &extent)) != SCAN_END) {
		struct scan_cursor cursor = { .extent = extent, .sequence = segment->sequence };

		while (work->status == RECOVER_OK && scan_next_message(&cursor, &message))
			recover_take_message(work, segment->sequence, &message);
		if (found == SCAN_CHUNK && cursor.bad == 0)
			continue;
		segment->damaged = true;
		problem_damage(work, false, segment->sequence, &extent);
	}
}

static void scan_segment(struct recover_work *work, struct recovered_segment *segment)
{
	struct recovered *out = work->out;
	struct scan *scan = &work->scan;
	int fd = open_synced(work, false, segment->sequence);

	if (fd < 0)
		return;
	scan_begin(scan, &(struct scan_input){
				 .fd = fd,
				 .sequence = segment->sequence,
				 .bytes = segment->bytes,
				 .durable_pages = segment->end_pages,
				 .named_pages = end_by_next(work, false, segment->sequence),
				 .closed = is_closed(work, false, segment->sequence),
				 .ended = is_ended(work, segment->sequence),
			 });
	scan_extents(work, segment);
	if (scan->torn)
		recover_problem(&out->problems, RECOVERED_TORN_TAIL,
				"seg/%08x: torn at byte %llu, cut there", segment->sequence,
				(unsigned long long)scan->end_pages * FORMAT_PAGE_BYTES);
	segment->scanned = true;
	if (scan->end_pages > segment->end_pages)
		segment->end_pages = scan->end_pages;
	os_file_close(fd);
	if (segment->kind == FORMAT_HOT)
		out->end = (struct recovered_place){ segment->sequence,
						     segment->end_pages * (FORMAT_PAGE_BYTES /
									   FORMAT_RECORD_ALIGN) };
}

/* COLD segments are reached by location only, except where the locations may be lost. */
static bool wants_scan(const struct recovered *out, const struct recovered_segment *segment)
{
	if (out->journal_damaged)
		return true;
	return segment->kind == FORMAT_HOT && segment->sequence >= out->mark.segment;
}

void recover_scan_segments(struct recover_work *work)
{
	struct recovered *out = work->out;

	out->end = out->mark;
	if (!out->journal_damaged)
		look_for_gaps(work, false, out->mark.segment);
	for (size_t i = 0; work->status == RECOVER_OK && i < out->segment_count; i++) {
		if (wants_scan(out, &out->segments[i])) {
			scan_segment(work, &out->segments[i]);
			continue;
		}
		int fd = work->options->sync ? open_synced(work, false, out->segments[i].sequence)
					     : -1;
		if (fd >= 0)
			os_file_close(fd);
	}
	if (recovered_before(out->end, out->mark))
		out->end = out->mark;
}
