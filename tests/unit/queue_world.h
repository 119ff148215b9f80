/*
 * queue_world - a spool in a temporary folder, a real loop, and one stream, for tests.
 *
 * Thread: the test's.
 */
#ifndef TESTS_UNIT_QUEUE_WORLD_H
#define TESTS_UNIT_QUEUE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "queue/stream.h"

struct world {
	char path[64];
	struct queue_options options;
	struct os_loop *loop;
	struct queue *queue;
	struct queue_stream *stream; /* number 0 */
	struct envelope_builder *builder;
	bool started, stopped, broken, space_low;
	uint32_t ready_told;
	struct queue_job *loaded;
	enum queue_status loaded_status;
	uint32_t problems;
	char last_problem[512];
};

struct world_accept {
	struct queue_accept accept;
	bool done;
	enum queue_status status;
};

static void world_on_ready(void *context, struct queue_stream *stream, uint32_t dest)
{
	struct world *world = context;

	(void)stream;
	(void)dest;
	world->ready_told++;
}

static void world_on_loaded(void *context, struct queue_job *job, enum queue_status status)
{
	struct world *world = context;

	world->loaded = job;
	world->loaded_status = status;
}

static void world_on_broken(void *context, struct queue_stream *stream, const char *what)
{
	struct world *world = context;

	(void)stream;
	(void)what;
	world->broken = true;
}

static void world_on_space(void *context, struct queue_stream *stream, bool low)
{
	struct world *world = context;

	(void)stream;
	world->space_low = low;
}

static const struct queue_events world_events = {
	.ready = world_on_ready,
	.loaded = world_on_loaded,
	.broken = world_on_broken,
	.space = world_on_space,
};

static void world_on_started(void *context, struct queue_stream *stream)
{
	struct world *world = context;

	(void)stream;
	world->started = true;
}

static void world_on_stopped(void *context)
{
	struct world *world = context;

	world->stopped = true;
}

static void world_report(void *context, bool problem, const char *line)
{
	struct world *world = context;

	world->problems += problem;
	if (problem)
		snprintf(world->last_problem, sizeof(world->last_problem), "%s", line);
}

/* One turn of loop and streams, sleeping at most `ms`. */
static inline void world_turn(struct world *world, uint64_t ms)
{
	struct os_mono until = os_mono_add_ms(os_mono_now(), ms);

	for (uint32_t i = 0; i < queue_stream_count(world->queue); i++) {
		struct os_mono next;

		queue_stream_turn(queue_stream(world->queue, i));
		next = queue_stream_next(queue_stream(world->queue, i));
		until = next.ns < until.ns ? next : until;
	}
	os_loop_turn(world->loop, until);
}

#define world_until(world, condition)                                                              \
	do {                                                                                       \
		struct os_mono limit_ = os_mono_add_ms(os_mono_now(), 20000);                      \
		while (!(condition)) {                                                             \
			assert_true(os_mono_now().ns < limit_.ns);                                 \
			world_turn(world, 100);                                                    \
		}                                                                                  \
	} while (0)

static inline void world_run_ms(struct world *world, uint64_t ms)
{
	struct os_mono end = os_mono_add_ms(os_mono_now(), ms);

	while (os_mono_now().ns < end.ns)
		world_turn(world, 10);
}

static inline void world_begin(struct world *world)
{
	char error[512] = "";

	world->started = world->stopped = world->broken = false;
	world->ready_told = world->problems = 0;
	world->loaded = NULL;
	world->options.path = world->path;
	if (world->options.streams == 0)
		world->options.streams = 1;
	if (world->options.segment_bytes == 0)
		world->options.segment_bytes = 1 << 20;
	if (world->options.journal_bytes == 0)
		world->options.journal_bytes = 1 << 20;
	if (world->options.index_slots_max == 0)
		world->options.index_slots_max = 1 << 21;
	assert_int_equal(os_loop_create(&(struct os_loop_options){ 0 }, &world->loop), 0);
	world->queue = queue_open(&world->options, world_report, world, error);
	if (world->queue == NULL)
		fail_msg("queue_open: %s", error);
	for (uint32_t i = 0; i < queue_stream_count(world->queue); i++) {
		world->started = false;
		queue_stream_start(queue_stream(world->queue, i), world->loop, &world_events, world,
				   world_on_started);
		world_until(world, world->started);
	}
	world->stream = queue_stream(world->queue, 0);
	world->builder = envelope_builder_create();
}

/* Stops in order. */
static inline void world_end(struct world *world)
{
	for (uint32_t i = 0; i < queue_stream_count(world->queue); i++) {
		world->stopped = false;
		queue_stream_stop(queue_stream(world->queue, i), world_on_stopped);
		world_until(world, world->stopped);
	}
	queue_close(world->queue);
	os_loop_destroy(world->loop);
	envelope_builder_destroy(world->builder);
	world->queue = NULL;
}

static inline void world_reopen(struct world *world)
{
	world_end(world);
	world_begin(world);
}

static inline void world_make_folder(struct world *world)
{
	const char *base = getenv("QUEUE_TEST_FOLDER");

	snprintf(world->path, sizeof(world->path), "%s/queue-test-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(world->path));
}

static inline void world_remove_folder(struct world *world)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", world->path);
	assert_int_equal(system(command), 0);
}

static int world_setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	char why[256];

	assert_non_null(world);
	assert_int_equal(os_backend_choose(why, sizeof(why)), 0);
	world_make_folder(world);
	*state = world;
	return 0;
}

static int world_teardown(void **state)
{
	struct world *world = *state;

	world_remove_folder(world);
	free(world);
	return 0;
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static inline void world_add_recipients(struct world *world, const char *domain, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		char address[128];
		int len = snprintf(address, sizeof(address), "user%03u@%s", i, domain);
		struct envelope_recipient recipient = { .address = span_of(address, (size_t)len),
							.domain = span_text(domain) };

		envelope_add_recipient(world->builder, &recipient);
	}
}

static inline void world_start_envelope(struct world *world)
{
	envelope_builder_reset(world->builder);
	envelope_set_sender(world->builder, span_text("sender@example.org"));
}

static void world_on_accepted(struct queue_accept *accept, enum queue_status status)
{
	struct world_accept *mine = container_of(accept, struct world_accept, accept);

	mine->done = true;
	mine->status = status;
}

/* A message with a body of `bytes` that its id can be told from; in `accept`, not yet accepted. */
static inline void world_fill(struct world *world, struct world_accept *accept, uint64_t bytes)
{
	struct queue_message *message = queue_message_create(world->stream);
	char block[4096];

	assert_non_null(message);
	message->expiry_s = os_wall_seconds(os_wall_now()) + 432000;
	for (uint64_t at = 0; at < bytes; at += sizeof(block)) {
		uint64_t part = bytes - at < sizeof(block) ? bytes - at : sizeof(block);

		memset(block, (int)('a' + (message->id + at / sizeof(block)) % 26), part);
		queue_message_append(message, span_of(block, part));
	}
	*accept = (struct world_accept){ .accept = { .message = message,
						     .done = world_on_accepted } };
}

/* The envelope in the builder with a body; waits until it is durable. Its id. */
static inline uint64_t world_accept_built(struct world *world, uint64_t bytes)
{
	struct world_accept accept;
	uint64_t id;

	world_fill(world, &accept, bytes);
	id = accept.accept.message->id;
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	queue_accept(world->stream, &accept.accept);
	assert_false(accept.done);
	world_until(world, accept.done);
	assert_int_equal(accept.status, QUEUE_OK);
	return id;
}

static inline uint64_t world_accept_one(struct world *world, const char *domain, uint64_t bytes)
{
	world_start_envelope(world);
	world_add_recipients(world, domain, 1);
	return world_accept_built(world, bytes);
}

/* ── jobs ─────────────────────────────────────────────────────────────────────────── */

/* A ready job of `domain`, with its message; NULL: none. */
static inline struct queue_job *world_take(struct world *world, const char *domain)
{
	uint32_t dest = stream_dest(world->stream, span_text(domain));
	struct queue_job *job = queue_take(world->stream, dest);

	if (job == NULL || job->message != NULL)
		return job;
	world->loaded = NULL;
	world_until(world, world->loaded == job);
	return job;
}

static inline uint64_t world_all(const struct queue_job *job)
{
	return job->pending;
}

static inline void world_deliver(struct world *world, struct queue_job *job)
{
	struct queue_verdict verdict = { .delivered = job->pending,
					 .attempted = true,
					 .reply = 250 };

	queue_settle(world->stream, job, &verdict);
}

static inline void world_defer(struct world *world, struct queue_job *job, uint32_t due_s)
{
	struct queue_verdict verdict = { .attempted = true,
					 .reply = 451,
					 .due_s = due_s,
					 .host = span_text("mx.example.net"),
					 .text = span_text("4.7.1 greylisted, come back in 300s") };

	queue_settle(world->stream, job, &verdict);
}

static inline uint64_t world_jobs(const struct world *world)
{
	struct queue_stats stats;

	queue_stream_stats(world->stream, &stats);
	return stats.jobs;
}

/* ── a process that dies ──────────────────────────────────────────────────────────── */

struct world_body {
	const char *name;
	void (*run)(struct world *world);
};

/* Runs the body of that name in a process of its own, which ends without any goodbye. It is a
 * fresh program, not only a fork, since helper threads do not survive one. */
static inline void world_killed(struct world *world, const char *name)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		execl("/proc/self/exe", "child", name, world->path, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* First in main(): does not return in such a process. A failed assertion ends it by abort(). */
static inline void world_child(int argc, char **argv, const struct world_body *bodies, size_t count)
{
	struct world world = { 0 };
	char why[256];

	if (argc != 3)
		return;
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	if (os_backend_choose(why, sizeof(why)) != 0)
		_exit(126);
	snprintf(world.path, sizeof(world.path), "%s", argv[2]);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(bodies[i].name, argv[1]) == 0) {
			bodies[i].run(&world);
			_exit(0);
		}
	}
	_exit(125);
}

#endif
