/*
 * queue_cases - commit, outcomes, journal and recovery, on the disk of the current folder.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/cases/cases.h"
#include "os/check.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "queue/stream.h"

enum { GROUP_MAX = 256, BODY_BYTES = 4096, SEGMENT_BYTES = 64 << 20 };

struct queue_world {
	char path[64];
	struct queue_options options;
	struct os_loop *loop;
	struct queue *queue;
	struct queue_stream *stream;
	struct span envelope; /* one recipient; owned by the builder */
	struct envelope_builder *builder;
	struct queue_accept accepts[GROUP_MAX];
	uint64_t group, open; /* accepts a group has, and those not done yet */
	uint64_t jobs;	      /* that wait, for recovery */
	uint32_t dest;
	bool started, stopped;
	char body[BODY_BYTES];
};

/* `done` has no context. */
static struct queue_world *accepting;

void micro_start(void)
{
	char why[256];

	if (os_backend_choose(why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		exit(1);
	}
}

/* ── a spool that lives for one case ──────────────────────────────────────────────── */

static void on_ready(void *context, struct queue_stream *stream, uint32_t dest)
{
	struct queue_world *world = context;

	(void)stream;
	world->dest = dest;
}

static void on_loaded(void *context, struct queue_job *job, enum queue_status status)
{
	(void)context;
	(void)job;
	assert(status == QUEUE_OK);
}

static void on_broken(void *context, struct queue_stream *stream, const char *what)
{
	(void)context;
	(void)stream;
	fprintf(stderr, "the disk failed: %s\n", what);
	exit(1);
}

static void on_space(void *context, struct queue_stream *stream, bool low)
{
	(void)context;
	(void)stream;
	if (low) {
		fprintf(stderr, "the disk is full\n");
		exit(1);
	}
}

static const struct queue_events events = {
	.ready = on_ready,
	.loaded = on_loaded,
	.broken = on_broken,
	.space = on_space,
};

static void on_started(void *context, struct queue_stream *stream)
{
	struct queue_world *world = context;

	(void)stream;
	world->started = true;
}

static void on_stopped(void *context)
{
	struct queue_world *world = context;

	world->stopped = true;
}

static void on_report(void *context, bool problem, const char *line)
{
	(void)context;
	if (problem)
		fprintf(stderr, "%s\n", line);
}

/* Sleeps first: what the stream's turn settles must not be slept over. */
static void turn(struct queue_world *world)
{
	os_loop_turn(world->loop, queue_stream_next(world->stream));
	queue_stream_turn(world->stream);
}

static void world_open(struct queue_world *world)
{
	char error[512];

	world->queue = queue_open(&world->options, on_report, world, error);
	if (world->queue == NULL) {
		fprintf(stderr, "%s\n", error);
		exit(1);
	}
	world->stream = queue_stream(world->queue, 0);
	world->started = world->stopped = false;
	queue_stream_start(world->stream, world->loop, &events, world, on_started);
	queue_stream_turn(world->stream);
	while (!world->started)
		turn(world);
}

static void world_close(struct queue_world *world)
{
	queue_stream_stop(world->stream, on_stopped);
	queue_stream_turn(world->stream);
	while (!world->stopped)
		turn(world);
	queue_close(world->queue);
}

static void *begin_world(uint64_t argument)
{
	static const struct envelope_recipient recipient = {
		.address = { "someone@bench.test", 18 }, .domain = { "bench.test", 10 }
	};
	struct queue_world *world = calloc(1, sizeof(*world));

	assert(world != NULL);
	snprintf(world->path, sizeof(world->path), "micro-spool-XXXXXX");
	if (mkdtemp(world->path) == NULL) {
		perror(world->path);
		exit(1);
	}
	world->options = (struct queue_options){ .path = world->path,
						 .streams = 1,
						 .segment_bytes = SEGMENT_BYTES,
						 .journal_bytes = 16 << 20,
						 .body_memory_bytes = 64 << 20,
						 .outcome_sync_ms = 5,
						 .evacuate_after_s = 900,
						 .index_slots_max = 4 << 20 };
	world->group = argument;
	world->builder = envelope_builder_create();
	assert(world->builder != NULL);
	envelope_set_sender(world->builder, span_text("sender@example.org"));
	envelope_add_recipient(world->builder, &recipient);
	if (!envelope_seal(world->builder, &world->envelope))
		abort();
	memset(world->body, 'x', sizeof(world->body));
	if (os_loop_create(&(struct os_loop_options){ 0 }, &world->loop) != 0)
		abort();
	world_open(world);
	return world;
}

static void end_world(void *context)
{
	struct queue_world *world = context;
	char command[128];

	world_close(world);
	os_loop_destroy(world->loop);
	envelope_builder_destroy(world->builder);
	snprintf(command, sizeof(command), "rm -rf '%s'", world->path);
	if (system(command) != 0)
		fprintf(stderr, "%s is left\n", world->path);
	free(world);
}

/* ── commit ───────────────────────────────────────────────────────────────────────── */

static void on_accepted(struct queue_accept *accept, enum queue_status status)
{
	(void)accept;
	assert(status == QUEUE_OK);
	accepting->open--;
}

static void accept_group(struct queue_world *world, uint64_t count, size_t body_bytes)
{
	accepting = world;
	world->open = count;
	for (uint64_t i = 0; i < count; i++) {
		struct queue_accept *accept = &world->accepts[i];
		struct queue_message *message = queue_message_create(world->stream);

		assert(message != NULL);
		message->expiry_s = os_wall_seconds(os_wall_now()) + 86400;
		queue_message_append(message, span_of(world->body, body_bytes));
		*accept = (struct queue_accept){ .message = message,
						 .envelope = world->envelope,
						 .done = on_accepted };
		queue_accept(world->stream, accept);
	}
	queue_stream_turn(world->stream);
	while (world->open > 0)
		turn(world);
}

/* Everything that is ready is delivered, in a moment. */
static uint64_t settle_all(struct queue_world *world)
{
	struct queue_verdict verdict = { .attempted = true, .reply = 250 };
	struct queue_job *job;
	uint64_t count = 0;

	while ((job = queue_take(world->stream, world->dest)) != NULL) {
		verdict.delivered = job->pending;
		queue_settle(world->stream, job, &verdict);
		count++;
	}
	return count;
}

/* A group of messages until all of it is durable; then settled, so that files are recycled. */
static uint64_t run_commit(void *context)
{
	struct queue_world *world = context;

	accept_group(world, world->group, BODY_BYTES);
	settle_all(world);
	return world->group;
}

/* The first files are written through, and others are ahead. */
static void *begin_warm(uint64_t argument)
{
	struct queue_world *world = begin_world(argument);
	struct os_mono end = os_mono_add_ms(os_mono_now(), 500);

	while (os_mono_now().ns < end.ns) {
		accept_group(world, GROUP_MAX, BODY_BYTES);
		settle_all(world);
	}
	return world;
}

/* ── the journal ──────────────────────────────────────────────────────────────────── */

/* Records of jobs that nobody knows, until they are durable. */
static uint64_t run_journal(void *context)
{
	struct queue_world *world = context;
	struct journal *journal = &world->stream->journal;
	struct format_job job = {
		.type = FORMAT_JOB, .state = FORMAT_DELIVERED, .version = 1, .segment = 1
	};
	uint64_t number = 0;

	for (uint64_t i = 0; i < world->group; i++) {
		job.message = ++world->jobs;
		number = journal_append(journal, &job, 1);
	}
	journal_flush(journal, true);
	queue_stream_turn(world->stream);
	while (journal->durable < number)
		turn(world);
	journal_flush(journal, false);
	return world->group;
}

/* ── recovery ─────────────────────────────────────────────────────────────────────── */

/* A spool with `argument` jobs that wait for an hour. */
static void *begin_recovery(uint64_t argument)
{
	struct queue_world *world = begin_world(GROUP_MAX);
	struct queue_verdict verdict = { .attempted = true,
					 .reply = 451,
					 .due_s = os_wall_seconds(os_wall_now()) + 3600 };

	while (world->jobs < argument) {
		struct queue_job *job;

		accept_group(world, GROUP_MAX, 512);
		while ((job = queue_take(world->stream, world->dest)) != NULL)
			queue_settle(world->stream, job, &verdict);
		world->jobs += GROUP_MAX;
	}
	return world;
}

/* Stopped in order and started again. */
static uint64_t run_recovery(void *context)
{
	struct queue_world *world = context;

	world_close(world);
	world_open(world);
	return world->jobs;
}

const struct micro_case micro_queue_cases[] = {
	{ "queue/commit_4k_by_1", begin_warm, run_commit, end_world, 1, BODY_BYTES },
	{ "queue/commit_4k_by_8", begin_warm, run_commit, end_world, 8, BODY_BYTES },
	{ "queue/commit_4k_by_64", begin_warm, run_commit, end_world, 64, BODY_BYTES },
	{ "queue/commit_4k_by_256", begin_warm, run_commit, end_world, 256, BODY_BYTES },
	{ "queue/journal_append_by_64", begin_warm, run_journal, end_world, 64, 64 },
	{ "queue/journal_append_by_1000", begin_warm, run_journal, end_world, 1000, 64 },
	{ "queue/recovery_100k_jobs", begin_recovery, run_recovery, end_world, 100000, 0 },
	{ 0 },
};
