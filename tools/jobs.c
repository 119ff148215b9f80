#include "tools/jobs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "os/os.h"
#include "queue/index.h"

enum { HEARTBEAT_OLD_MS = 10000 };

/* Texts of one type by number. */
struct name_table {
	struct span *texts; /* owned; the bytes are the index's or the recovery's */
	size_t count;
};

struct jobs_stream {
	bool live;
	struct index_view view;	 /* if live */
	uint64_t names_read;	 /* of view */
	struct recovered stream; /* else */
	struct name_table dests, texts;
};

struct jobs {
	struct recovered_spool spool;
	struct jobs_stream *streams; /* owned */
	uint16_t stream_count;
	bool live;
	struct reader *reader;
};

/* ── names ────────────────────────────────────────────────────────────────────────── */

enum { NAME_ID_MAX = 1 << 26 }; /* beyond it a number is damage, not a table to allocate */

static void name_set(struct name_table *table, uint32_t id, struct span text)
{
	if (id >= NAME_ID_MAX)
		return;
	if (id >= table->count) {
		size_t count = (size_t)id * 2 + 64;
		struct span *larger = realloc(table->texts, count * sizeof(*larger));

		if (!larger)
			return;
		memset(larger + table->count, 0, (count - table->count) * sizeof(*larger));
		table->texts = larger;
		table->count = count;
	}
	table->texts[id] = text;
}

static struct name_table *table_of(struct jobs_stream *stream, uint8_t type)
{
	return type == FORMAT_DEST ? &stream->dests : type == FORMAT_TEXT ? &stream->texts : NULL;
}

/* Takes in the names that the index got since the last call. */
static void names_refresh(struct jobs_stream *stream)
{
	const struct format_define *define;
	uint64_t before = stream->names_read;

	while ((define = index_view_name(&stream->view, &stream->names_read)) != NULL) {
		/* Read once: whoever writes the index may change it between check and use. */
		struct format_define head = *(const volatile struct format_define *)define;
		struct name_table *table = table_of(stream, head.type);
		size_t room = (stream->names_read - before) * sizeof(head) -
			      offsetof(struct format_define, text);

		if (table && head.bytes <= room)
			name_set(table, head.id, span_of(define->text, head.bytes));
		before = stream->names_read;
	}
}

static void names_recovered(struct jobs_stream *stream)
{
	for (size_t i = 0; i < stream->stream.name_count; i++) {
		const struct recovered_name *name = &stream->stream.names[i];
		struct name_table *table = table_of(stream, name->type);

		if (table)
			name_set(table, name->id, name->text);
	}
}

static struct span name_get(struct jobs_stream *stream, uint8_t type, uint32_t id)
{
	struct name_table *table = table_of(stream, type);

	if (id == 0)
		return (struct span){ "", 0 };
	if (stream->live && (id >= table->count || !table->texts[id].at))
		names_refresh(stream);
	if (id >= table->count || !table->texts[id].at)
		return (struct span){ "", 0 };
	return table->texts[id];
}

struct span jobs_domain(struct jobs *jobs, uint16_t stream, const struct format_job *job)
{
	return name_get(&jobs->streams[stream], FORMAT_DEST, job->dest);
}

struct jobs_reply jobs_reply(struct jobs *jobs, uint16_t stream, const struct format_job *job)
{
	struct span both = name_get(&jobs->streams[stream], FORMAT_TEXT, job->text);
	const char *end = both.len ? memchr(both.at, 0, both.len) : NULL;
	size_t host = end ? (size_t)(end - both.at) : 0;

	return (struct jobs_reply){ .host = span_of(both.at, host),
				    .text = span_skip(both, end ? host + 1 : 0) };
}

/* ── opening ──────────────────────────────────────────────────────────────────────── */

static bool beats(const struct index_view *view)
{
	const struct index_header *header = index_view_header(view);
	uint64_t beat = atomic_load_explicit(
		&((struct index_header *)(uintptr_t)header)->heartbeat_ms, memory_order_relaxed);
	uint64_t now = os_mono_now().ns / OS_NS_PER_MS;

	return beat + HEARTBEAT_OLD_MS >= now &&
	       (kill((pid_t)header->process, 0) == 0 || errno != ESRCH);
}

/* Maps the index of each stream that has one with a beating heart. */
static bool open_live(struct jobs *jobs, const struct format_super *super)
{
	jobs->stream_count = super->stream_limit;
	jobs->streams = calloc(jobs->stream_count + 1u, sizeof(*jobs->streams));
	for (uint16_t i = 0; jobs->streams && i < jobs->stream_count; i++) {
		struct jobs_stream *stream = &jobs->streams[i];

		if (index_view_open(&stream->view, super->uuid, i) != 0)
			continue;
		stream->live = beats(&stream->view);
		if (!stream->live) {
			index_view_close(&stream->view);
			continue;
		}
		jobs->live = true;
		names_refresh(stream);
	}
	return jobs->live;
}

static int open_recovered(struct jobs *jobs, const char *path, char *error)
{
	struct recover_options options = { .running = true,
					   .now_s = os_wall_seconds(os_wall_now()) };
	enum recover_status status;

	recovered_spool_release(&jobs->spool);
	status = recover_spool(OS_CURRENT_FOLDER, path, RECOVER_FROM_CACHE, &jobs->spool, error);
	if (status != RECOVER_OK)
		return EX_DATAERR;
	free(jobs->streams);
	jobs->stream_count = (uint16_t)jobs->spool.stream_count;
	jobs->streams = calloc(jobs->stream_count + 1u, sizeof(*jobs->streams));
	for (uint16_t i = 0; jobs->streams && i < jobs->stream_count; i++) {
		struct recovered *stream = &jobs->streams[i].stream;

		if (recover_stream(&jobs->spool, i, &options, stream) != RECOVER_OK) {
			snprintf(error, JOBS_ERROR_BYTES, "%s: stream %u: %s", path, i,
				 stream->error);
			return EX_IOERR;
		}
		names_recovered(&jobs->streams[i]);
	}
	return 0;
}

/* Opens the folders that a reader needs; 0 or an exit code. */
static int open_folders(struct jobs *jobs, const char *path, struct format_super *super,
			char *error)
{
	int root = os_file_open(OS_CURRENT_FOLDER, path, OS_READ | OS_FOLDER, 0);
	enum recover_status status =
		root < 0 ? RECOVER_ABSENT : recover_super(root, RECOVER_FROM_CACHE, super, NULL);

	jobs->spool.root = root;
	if (root == -EACCES || status == RECOVER_UNREADABLE) {
		snprintf(error, JOBS_ERROR_BYTES,
			 "%s: no permission; run this as root, as the daemon's user, or in its "
			 "group",
			 path);
		return EX_NOPERM;
	}
	if (status == RECOVER_ABSENT) {
		snprintf(error, JOBS_ERROR_BYTES,
			 "there is no spool at %s; name it with -S, or the configuration with -c",
			 path);
		return EX_NOINPUT;
	}
	if (status != RECOVER_OK) {
		snprintf(error, JOBS_ERROR_BYTES, "%s/super is %s", path,
			 status == RECOVER_DAMAGED ? "damaged: both copies"
						   : "of a newer version: use that one's tools");
		return EX_DATAERR;
	}
	jobs->spool.seg = os_file_open(root, "seg", OS_READ | OS_FOLDER, 0);
	jobs->spool.big = os_file_open(root, "big", OS_READ | OS_FOLDER, 0);
	return 0;
}

struct jobs *jobs_open(const char *path, char error[static JOBS_ERROR_BYTES], int *code_out)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	struct format_super super;

	snprintf(error, JOBS_ERROR_BYTES, "no memory");
	*code_out = EX_OSERR;
	if (!jobs)
		return NULL;
	jobs->spool = (struct recovered_spool){ .root = -1, .seg = -1, .jnl = -1, .big = -1 };
	*code_out = open_folders(jobs, path, &super, error);
	if (*code_out == 0 && !open_live(jobs, &super))
		*code_out = open_recovered(jobs, path, error);
	if (*code_out == 0) {
		jobs->reader = reader_create(jobs->spool.seg, jobs->spool.big);
		if (jobs->reader && jobs->streams)
			return jobs;
		*code_out = EX_OSERR;
	}
	jobs_close(jobs);
	return NULL;
}

void jobs_close(struct jobs *jobs)
{
	if (!jobs)
		return;
	for (uint16_t i = 0; jobs->streams && i < jobs->stream_count; i++) {
		if (jobs->streams[i].live)
			index_view_close(&jobs->streams[i].view);
		recovered_release(&jobs->streams[i].stream);
		free(jobs->streams[i].dests.texts);
		free(jobs->streams[i].texts.texts);
	}
	reader_destroy(jobs->reader);
	recovered_spool_release(&jobs->spool);
	free(jobs->streams);
	free(jobs);
}

/* ── reading ──────────────────────────────────────────────────────────────────────── */

bool jobs_live(const struct jobs *jobs)
{
	return jobs->live;
}

struct reader *jobs_reader(struct jobs *jobs)
{
	return jobs->reader;
}

static void complain(const struct recovered_problems *problems)
{
	for (size_t i = 0; i < problems->count; i++)
		if (recovered_problem_serious(&problems->list[i]))
			fprintf(stderr, "stafette: %s\n", problems->list[i].text);
	if (problems->left_out > 0)
		fprintf(stderr, "stafette: and %zu more\n", problems->left_out);
}

void jobs_complain(const struct jobs *jobs)
{
	complain(&jobs->spool.problems);
	for (uint16_t i = 0; i < jobs->stream_count; i++)
		complain(&jobs->streams[i].stream.problems);
}

uint16_t jobs_streams(const struct jobs *jobs)
{
	return jobs->stream_count;
}

uint64_t jobs_slots(const struct jobs *jobs, uint16_t stream)
{
	const struct jobs_stream *of = &jobs->streams[stream];

	return of->live ? index_view_count(&of->view) : of->stream.job_count;
}

bool jobs_read(const struct jobs *jobs, uint16_t stream, uint64_t slot, struct format_job *out)
{
	const struct jobs_stream *of = &jobs->streams[stream];

	if (of->live) {
		if (!index_read(&of->view, slot, out))
			return false;
	} else {
		*out = of->stream.jobs[slot].job;
	}
	return out->state == FORMAT_WAITING;
}
