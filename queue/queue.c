/* Opening and closing a spool: the order of steps is the crash argument (README.md). */
#include "queue/queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue/stream.h"

enum {
	QUEUE_ERROR_BYTES = 512,
	QUEUE_FILE_BYTES_MIN = 1 << 20,
	QUEUE_FILE_BYTES_MAX = 256 << 20,
	QUEUE_SEGMENT_BYTES = 64 << 20, /* where there is room for it */
	QUEUE_JOURNAL_BYTES = 16 << 20,
	QUEUE_SPACE_PARTS = 16, /* a segment takes no more than this part of the free space */
	QUEUE_OUTCOME_SYNC_MS = 5,
	QUEUE_EVACUATE_AFTER_S = 900,
	QUEUE_BODY_MEMORY_BYTES = 256 << 20,
};

/* What queue_open() works with. */
struct queue_opening {
	struct queue *queue;
	queue_report_line *report;
	void *report_context;
	char *error; /* QUEUE_ERROR_BYTES */
	struct recovered_spool spool;
	bool spool_read;
	struct recovered *streams; /* owned */
	struct queue_task *tasks;  /* owned */
	uint32_t stream_count;
	uint32_t now_s;
};

/* One stream's recovery, perhaps on a thread of its own. */
struct queue_task {
	struct queue_opening *opening;
	struct os_thread *thread;
	uint16_t stream;
	enum recover_status status;
};

static bool queue_fail(struct queue_opening *opening, const char *what, int error)
{
	snprintf(opening->error, QUEUE_ERROR_BYTES, "spool %s: %s%s%s",
		 opening->queue->options.path, what, error ? ": " : "",
		 error ? strerror(-error) : "");
	return false;
}

static void queue_say(void *context, bool problem, const char *line)
{
	const struct queue_opening *opening = context;

	if (opening->report != NULL)
		opening->report(opening->report_context, problem, line);
}

/* ── folders, lock, superblock ────────────────────────────────────────────────────── */

static bool queue_lock(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;
	int error = pool_open_folders(&queue->pool, queue->options.path);

	if (error != 0)
		return queue_fail(opening,
				  error == -EACCES ? "its folders are not this user's, who cannot "
						     "open or make them (chown -R)"
						   : "its folders cannot be opened or made",
				  error);
	if (os_file_on_tmpfs(queue->pool.folders[POOL_ROOT]))
		queue_say(opening, true,
			  "it is in memory (tmpfs): what is accepted outlives a crash, and no "
			  "reboot");
	queue->lock_fd = os_file_open(queue->pool.folders[POOL_ROOT], "lock",
				      OS_READ | OS_WRITE | OS_CREATE, 0640);
	if (queue->lock_fd < 0)
		return queue_fail(opening, "the file lock cannot be opened", queue->lock_fd);
	error = os_file_lock(queue->lock_fd);
	if (error != 0)
		return queue_fail(opening, "another process has locked it; stop that one first",
				  error == -EAGAIN ? 0 : error);
	return true;
}

static int queue_any_entry(void *context, const char *name)
{
	(void)context;
	(void)name;
	return 1;
}

static bool queue_has_files(const struct queue *queue)
{
	return os_folder_list(queue->pool.folders[POOL_SEGMENTS], queue_any_entry, NULL) != 0 ||
	       os_folder_list(queue->pool.folders[POOL_JOURNALS], queue_any_entry, NULL) != 0;
}

static uint32_t queue_power_below(uint64_t bytes, uint32_t most)
{
	uint32_t power = QUEUE_FILE_BYTES_MIN;

	while (power < most && (uint64_t)power * 2 <= bytes)
		power *= 2;
	return power;
}

static bool queue_size_is_good(uint32_t bytes)
{
	return bytes >= QUEUE_FILE_BYTES_MIN && bytes <= QUEUE_FILE_BYTES_MAX &&
	       (bytes & (bytes - 1)) == 0;
}

static bool queue_choose_sizes(struct queue_opening *opening, struct format_super *super)
{
	const struct queue_options *options = &opening->queue->options;
	uint64_t free_bytes, total;
	int error = os_file_space(opening->queue->pool.folders[POOL_ROOT], &free_bytes, &total);

	if (error != 0)
		return queue_fail(opening, "its free space cannot be told", error);
	super->segment_bytes =
		options->segment_bytes != 0
			? options->segment_bytes
			: queue_power_below(free_bytes / QUEUE_SPACE_PARTS, QUEUE_SEGMENT_BYTES);
	super->journal_bytes =
		options->journal_bytes != 0
			? options->journal_bytes
			: queue_power_below(super->segment_bytes / 4, QUEUE_JOURNAL_BYTES);
	if (queue_size_is_good(super->segment_bytes) && queue_size_is_good(super->journal_bytes))
		return true;
	return queue_fail(opening, "file sizes are powers of two from 1 to 256 MiB", -EINVAL);
}

static int64_t super_believed_us(const struct format_super *super)
{
	return super->believed_us ? super->believed_us : super->wall_us;
}

static bool queue_create_super(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;
	struct super *super = &queue->pool.super;
	int error;

	if (queue_has_files(queue))
		return queue_fail(opening,
				  "it has data, but no valid superblock; restore the file super",
				  -EUCLEAN);
	super->now = (struct format_super){ .node = queue->options.node,
					    .stream_limit = queue->options.streams,
					    .sequence_limit = 1,
					    .block_limit = 1, /* no message has the id 0 */
					    .clean = 1,
					    .wall_us = os_wall_now().us };
	super->now.believed_us = super->now.wall_us;
	os_random(super->now.uuid, sizeof(super->now.uuid));
	if (!queue_choose_sizes(opening, &super->now))
		return false;
	super->fd = os_file_open(queue->pool.folders[POOL_ROOT], "super",
				 OS_READ | OS_WRITE | OS_CREATE, 0640);
	if (super->fd < 0)
		return queue_fail(opening, "the file super cannot be made", super->fd);
	error = super_create(super);
	if (error == 0)
		error = os_file_sync(queue->pool.folders[POOL_ROOT]);
	os_file_close(super->fd);
	super->fd = -1;
	/* R9: after a failed sync it may be in the cache alone, and no later sync would say so. */
	if (error != 0)
		os_unlink(queue->pool.folders[POOL_ROOT], "super");
	return error == 0 || queue_fail(opening, "the superblock cannot be written", error);
}

/* Reads it, or makes it for an empty folder. */
static bool queue_read_spool(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;
	struct format_super super;
	enum recover_status status =
		recover_super(queue->pool.folders[POOL_ROOT], RECOVER_FROM_DISK, &super, NULL);

	if ((status == RECOVER_ABSENT || status == RECOVER_DAMAGED) && !queue_create_super(opening))
		return false;
	if (recover_spool(OS_CURRENT_FOLDER, queue->options.path, RECOVER_FROM_DISK,
			  &opening->spool, opening->error) != RECOVER_OK)
		return false;
	opening->spool_read = true;
	return true;
}

/* The epoch goes up before anything else is written. */
static bool queue_begin_epoch(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;
	struct super *super = &queue->pool.super;
	int error, direct;

	super->now = opening->spool.super;
	super->fd = os_file_open(queue->pool.folders[POOL_ROOT], "super", OS_READ | OS_WRITE, 0);
	if (super->fd < 0)
		return queue_fail(opening, "the file super cannot be opened", super->fd);
	super->now.epoch++;
	super->now.clean = 0;
	super->now.features_incompatible |= FORMAT_FEATURES_INCOMPATIBLE;
	super->now.node = queue->options.node;
	super->now.believed_us = super_believed_us(&super->now);
	super->now.wall_us = os_wall_now().us;
	if (super->now.stream_limit < opening->stream_count)
		super->now.stream_limit = (uint16_t)opening->stream_count;
	if (super->now.sequence_limit < opening->spool.sequence_limit)
		super->now.sequence_limit = opening->spool.sequence_limit;
	super->next_sequence = (uint32_t)super->now.sequence_limit;
	error = super_store(super);
	if (error != 0)
		return queue_fail(opening, "the superblock cannot be written", error);
	pool_set_constants(&queue->pool);
	direct = os_file_open(queue->pool.folders[POOL_ROOT], "super", OS_READ | OS_DIRECT, 0);
	queue->pool.direct = direct >= 0;
	if (direct >= 0)
		os_file_close(direct);
	queue->pool.confirms = os_file_on_btrfs(super->fd);
	return true;
}

/* ── recovery ─────────────────────────────────────────────────────────────────────── */

static void queue_run_task(void *context)
{
	struct queue_task *task = context;
	struct queue_opening *opening = task->opening;
	struct recover_options options = { .sync = true, .now_s = opening->now_s };

	task->status = recover_stream(&opening->spool, task->stream, &options,
				      &opening->streams[task->stream]);
}

static void queue_report_problems(struct queue_opening *opening,
				  const struct recovered_problems *problems)
{
	char line[80];

	for (size_t i = 0; i < problems->count; i++)
		queue_say(opening, recovered_problem_serious(&problems->list[i]),
			  problems->list[i].text);
	if (problems->left_out == 0)
		return;
	snprintf(line, sizeof(line), "... and %zu further lines of this kind", problems->left_out);
	queue_say(opening, true, line);
}

/* As many streams at once as there are processors. */
static bool queue_recover(struct queue_opening *opening)
{
	uint32_t at_once = os_cpu_count();

	for (uint32_t first = 0; first < opening->stream_count; first += at_once) {
		uint32_t end = first + at_once < opening->stream_count ? first + at_once
								       : opening->stream_count;

		for (uint32_t i = first; i < end; i++) {
			struct queue_task *task = &opening->tasks[i];

			*task = (struct queue_task){ .opening = opening, .stream = (uint16_t)i };
			if (i + 1 == end ||
			    os_thread_start(&task->thread, "recovery", queue_run_task, task) != 0)
				queue_run_task(task);
		}
		for (uint32_t i = first; i < end; i++)
			if (opening->tasks[i].thread != NULL)
				os_thread_join(opening->tasks[i].thread);
	}
	queue_report_problems(opening, &opening->spool.problems);
	for (uint32_t i = 0; i < opening->stream_count; i++) {
		queue_report_problems(opening, &opening->streams[i].problems);
		if (opening->tasks[i].status == RECOVER_OK)
			continue;
		snprintf(opening->error, QUEUE_ERROR_BYTES, "spool %s: stream %u: %.400s",
			 opening->queue->options.path, i, opening->streams[i].error);
		return false;
	}
	return true;
}

/* R8: before any record of the messages that were taken from files can be dropped. */
static bool queue_settle_origins(struct queue_opening *opening)
{
	const struct queue_options *options = &opening->queue->options;
	int error = 0;

	for (uint32_t i = 0; i < opening->stream_count && error == 0; i++) {
		const struct recovered *recovered = &opening->streams[i];

		if (options->origins != NULL && recovered->origin_count > 0)
			error = options->origins(options->origins_context, recovered->origins,
						 recovered->origin_count);
	}
	return error == 0 ||
	       queue_fail(opening,
			  "messages taken from the drop directory, whose files cannot be removed "
			  "there (mend that first, or they would be sent twice)",
			  error);
}

static int queue_recycle_file(struct queue *queue, bool journal, const char *name,
			      uint32_t sequence, uint64_t bytes)
{
	enum format_kind kind = journal ? FORMAT_JOURNAL : FORMAT_HOT;
	struct pool_file file = { .sequence = sequence, .bytes = bytes };

	if (bytes != pool_kind_bytes(&queue->pool, kind))
		return os_unlink(queue->pool.folders[pool_kind_folder(kind)], name);
	file.fd = os_file_open(queue->pool.folders[pool_kind_folder(kind)], name,
			       OS_READ | OS_WRITE | (queue->pool.direct ? OS_DIRECT : 0), 0);
	if (file.fd < 0)
		return file.fd;
	int error = pool_recycle_now(&queue->pool, kind, &file);

	if (file.fd >= 0)
		os_file_close(file.fd);
	return error;
}

/* What recovery found to be nobody's. */
static bool queue_settle_files(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;

	for (size_t i = 0; i < opening->spool.file_count; i++) {
		const struct recovered_file *file = &opening->spool.files[i];
		int error = 0;

		if (file->fate == RECOVERED_RECYCLE)
			error = queue_recycle_file(queue, file->journal, file->name, file->sequence,
						   file->bytes);
		else if (file->fate == RECOVERED_QUARANTINE)
			error = pool_quarantine_now(&queue->pool,
						    file->journal ? POOL_JOURNALS : POOL_SEGMENTS,
						    file->name);
		if (error != 0)
			return queue_fail(opening, file->name, error);
	}
	return true;
}

/* An extra stream without anything live: its segments go first, since without its journals
 * they would be taken for new mail; then the journals, oldest first. */
static bool queue_retire(struct queue_opening *opening, uint16_t stream,
			 const struct recovered *recovered)
{
	struct queue *queue = opening->queue;
	char name[POOL_NAME_BYTES];
	int error = 0;

	index_remove(queue->pool.uuid, stream);
	for (size_t i = 0; i < recovered->segment_count && error == 0; i++) {
		const struct recovered_segment *segment = &recovered->segments[i];

		pool_file_name(segment->sequence, name);
		error = segment->damaged ? pool_quarantine_now(&queue->pool, POOL_SEGMENTS, name)
					 : queue_recycle_file(queue, false, name, segment->sequence,
							      segment->bytes);
	}
	for (size_t i = 0; i < recovered->journal_count && error == 0; i++) {
		const struct recovered_journal *journal = &recovered->journals[i];

		pool_file_name(journal->sequence, name);
		error = journal->damaged ? pool_quarantine_now(&queue->pool, POOL_JOURNALS, name)
					 : queue_recycle_file(queue, true, name, journal->sequence,
							      journal->bytes);
	}
	return error == 0 || queue_fail(opening, name, error);
}

static bool queue_give_index(struct queue_opening *opening, struct queue_stream *stream)
{
	int error = index_set_group(&stream->index, opening->queue->options.group);

	return error == 0 ||
	       queue_fail(opening,
			  "its index cannot be given to the group that the "
			  "configuration names (is there one, and is this user in it?)",
			  error);
}

/* What the superblock says of the time that was seen is of the moment of the one that was believed
 * only after a stop in order. */
static struct expiry_last queue_clock(const struct queue_opening *opening)
{
	const struct format_super *super = &opening->spool.super;
	int64_t believed_us = super_believed_us(super);
	struct expiry_last last = { 0 };

	expiry_last_take(&last, super->clean ? super->wall_us : believed_us, believed_us);
	for (uint32_t i = 0; i < opening->stream_count; i++)
		if (opening->streams[i].clock.believed_us > last.believed_us)
			last = opening->streams[i].clock;
	return last;
}

static bool queue_make_streams(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;

	queue->clock = queue_clock(opening);
	queue->streams = calloc(opening->stream_count, sizeof(struct queue_stream *));
	if (queue->streams == NULL)
		return queue_fail(opening, "streams", -ENOMEM);
	for (uint32_t i = 0; i < opening->stream_count; i++) {
		struct recovered *recovered = &opening->streams[i];
		bool accepts = i < queue->options.streams;
		int error;

		if (!accepts && recovered->job_count == 0) {
			if (!queue_retire(opening, (uint16_t)i, recovered))
				return false;
			continue;
		}
		queue->streams[queue->stream_count] =
			stream_create(queue, (uint16_t)i, accepts, &error);
		if (error == 0)
			error = stream_restore(queue->streams[queue->stream_count++], recovered,
					       opening->now_s);
		if (error != 0)
			return queue_fail(opening, "a stream cannot be set up", error);
		if (queue->options.group != NULL &&
		    !queue_give_index(opening, queue->streams[queue->stream_count - 1]))
			return false;
		recovered_release(recovered);
	}
	return true;
}

/* Files in big/ that no job names: left by a crash before the record, or after the last outcome. */
static bool queue_sweep_big(struct queue_opening *opening)
{
	struct pool *pool = &opening->queue->pool;
	uint64_t *ids;
	size_t count;

	if (recover_unnamed_big(&opening->spool, opening->streams, opening->stream_count, &ids,
				&count) != RECOVER_OK)
		return queue_fail(opening, "the folder big/ cannot be read", -EIO);
	for (size_t i = 0; i < count; i++) {
		char name[QUEUE_ID_TEXT_BYTES];

		queue_id_text(ids[i], name);
		os_unlink(pool->folders[POOL_BIG], name);
	}
	free(ids);
	return true;
}

/* ── open and close ───────────────────────────────────────────────────────────────── */

static bool queue_allocate(struct queue_opening *opening)
{
	uint32_t count = opening->spool.stream_count;

	if (count < opening->queue->options.streams)
		count = opening->queue->options.streams;
	opening->stream_count = count;
	opening->streams = calloc(count, sizeof(*opening->streams));
	opening->tasks = calloc(count, sizeof(*opening->tasks));
	return (opening->streams != NULL && opening->tasks != NULL) ||
	       queue_fail(opening, "recovery", -ENOMEM);
}

/* The superblock is known. */
static void queue_set_defaults(const struct queue *queue, struct queue_options *options)
{
	const struct format_super *super = &queue->pool.super.now;

	if (options->space_low_bytes == 0)
		options->space_low_bytes =
			2 * (uint64_t)super->segment_bytes + 2 * (uint64_t)super->journal_bytes;
	if (options->outcome_sync_ms == 0)
		options->outcome_sync_ms = QUEUE_OUTCOME_SYNC_MS;
	if (options->evacuate_after_s == 0)
		options->evacuate_after_s = QUEUE_EVACUATE_AFTER_S;
	if (options->body_memory_bytes == 0)
		options->body_memory_bytes = QUEUE_BODY_MEMORY_BYTES;
}

void queue_stream_configure(struct queue_stream *stream, const struct queue_options *options)
{
	struct queue_options whole = *options;

	queue_set_defaults(stream->queue, &whole);
	stream->options = stream->queue->options;
	stream->options.space_low_bytes = whole.space_low_bytes;
	stream->options.body_memory_bytes = whole.body_memory_bytes;
	stream->options.evacuate_after_s = whole.evacuate_after_s;
	stream->journal.sync_ms = whole.outcome_sync_ms;
}

static bool queue_open_steps(struct queue_opening *opening)
{
	struct queue *queue = opening->queue;
	int error;

	if (!queue_lock(opening) || !queue_read_spool(opening) || !queue_allocate(opening) ||
	    !queue_recover(opening) || !queue_settle_origins(opening) ||
	    !queue_begin_epoch(opening))
		return false;
	queue_set_defaults(queue, &queue->options);
	error = pool_scan_free(&queue->pool, queue_say, opening);
	if (error != 0)
		return queue_fail(opening, "the folder free/ cannot be read", error);
	return queue_settle_files(opening) && queue_sweep_big(opening) &&
	       queue_make_streams(opening);
}

static void queue_opening_deinit(struct queue_opening *opening)
{
	for (uint32_t i = 0; i < opening->stream_count && opening->streams != NULL; i++)
		recovered_release(&opening->streams[i]);
	free(opening->streams);
	free(opening->tasks);
	if (opening->spool_read)
		recovered_spool_release(&opening->spool);
}

static void queue_destroy(struct queue *queue)
{
	for (uint32_t i = 0; i < queue->stream_count; i++)
		stream_destroy(queue->streams[i]);
	free(queue->streams);
	if (queue->pool.super.fd >= 0)
		os_file_close(queue->pool.super.fd);
	if (queue->lock_fd >= 0)
		os_file_close(queue->lock_fd);
	pool_deinit(&queue->pool);
	free(queue);
}

struct queue *queue_open(const struct queue_options *options, queue_report_line *report,
			 void *report_context, char *error)
{
	struct queue *queue = calloc(1, sizeof(*queue));
	struct queue_opening opening = { .queue = queue,
					 .report = report,
					 .report_context = report_context,
					 .error = error,
					 .now_s = os_wall_seconds(os_wall_now()) };
	bool good;

	assert(queue != NULL && options->streams > 0);
	index_sweep();
	queue->options = *options;
	queue->lock_fd = queue->pool.super.fd = -1;
	good = queue_open_steps(&opening);
	queue_opening_deinit(&opening);
	if (good)
		return queue;
	queue_destroy(queue);
	return NULL;
}

void queue_close(struct queue *queue)
{
	bool clean = true;

	for (uint32_t i = 0; i < queue->stream_count; i++)
		clean &= queue->streams[i]->state == STREAM_STOPPED && !queue->streams[i]->broken;
	if (clean) {
		queue->pool.super.now.clean = 1;
		queue->pool.super.now.wall_us = os_wall_now().us;
		queue->pool.super.now.believed_us =
			expiry_believed_us(&queue->streams[0]->expiry, os_mono_now());
		/* If this fails the next start is a recovery after a crash: harmless. */
		(void)super_store(&queue->pool.super);
	}
	queue_destroy(queue);
}

uint32_t queue_stream_count(const struct queue *queue)
{
	return queue->stream_count;
}

struct queue_stream *queue_stream(struct queue *queue, uint32_t index)
{
	assert(index < queue->stream_count);
	return queue->streams[index];
}
