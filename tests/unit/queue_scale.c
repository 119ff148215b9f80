/* What the queue costs: CPU and writes for each message, memory for each waiting job. */
#include <sys/resource.h>
#include <time.h>

#include "tests/unit/queue_world.h"

enum {
	SCALE_MESSAGES = 100000,
	SCALE_AT_ONCE = 256,
	SCALE_ROUNDS = 50,
	SCALE_JOBS = 1000000,
	SCALE_JOBS_PER_MESSAGE = 1000,
};

static double thread_cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double wall_us(void)
{
	return (double)os_mono_now().ns / 1e3;
}

static uint64_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	uint64_t rss = 0;
	char line[256];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "Rss: %lu kB", &rss) == 1)
			break;
	fclose(file);
	return rss * 1024;
}

struct scale_session {
	struct queue_accept accept;
	struct world *world;
	struct span envelope;
	uint64_t left;
};

static char scale_body[4096];
static uint64_t scale_done;

static void scale_send(struct scale_session *session)
{
	struct queue_message *message = queue_message_create(session->world->stream);

	assert_non_null(message);
	message->expiry_s = UINT32_MAX;
	queue_message_append(message, span_of(scale_body, sizeof(scale_body)));
	session->accept.message = message;
	session->accept.envelope = session->envelope;
	queue_accept(session->world->stream, &session->accept);
}

static void scale_on_accepted(struct queue_accept *accept, enum queue_status status)
{
	struct scale_session *session = container_of(accept, struct scale_session, accept);

	assert_int_equal(status, QUEUE_OK);
	scale_done++;
	if (--session->left > 0)
		scale_send(session);
}

/* Sessions that each send the next message when the last is accepted; a delivery of each. */
static void test_cost_of_a_message(void **state)
{
	static struct scale_session sessions[SCALE_AT_ONCE];
	struct world *world = *state;
	struct queue_stats stats;
	struct span envelope;
	double cpu, wall;
	uint32_t dest;

	world->options.segment_bytes = 64 << 20;
	world->options.journal_bytes = 16 << 20;
	world_begin(world);
	memset(scale_body, 'x', sizeof(scale_body));
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	assert_true(envelope_seal(world->builder, &envelope));
	dest = stream_dest(world->stream, span_text("a.example"));
	world_run_ms(world, 300); /* the files ahead are made */
	scale_done = 0;
	cpu = thread_cpu_us();
	wall = wall_us();
	for (uint32_t i = 0; i < SCALE_AT_ONCE; i++) {
		sessions[i] = (struct scale_session){ .accept.done = scale_on_accepted,
						      .world = world,
						      .envelope = envelope,
						      .left = SCALE_MESSAGES / SCALE_AT_ONCE };
		scale_send(&sessions[i]);
	}
	while (scale_done < SCALE_MESSAGES / SCALE_AT_ONCE * SCALE_AT_ONCE) {
		struct queue_job *job;

		world_turn(world, 100);
		while (queue_stream_may_dispatch(world->stream) &&
		       (job = queue_take(world->stream, dest)) != NULL)
			world_deliver(world, job);
	}
	cpu = thread_cpu_us() - cpu;
	wall = wall_us() - wall;
	queue_stream_stats(world->stream, &stats);
	print_message("%lu messages of 4 KiB, %u at a time: %.0f/s, %.2f us of CPU each (with the "
		      "writes and a delivery), %.1f messages a commit, %lu journal writes, "
		      "%.0f bytes written each\n",
		      scale_done, SCALE_AT_ONCE, (double)scale_done * 1e6 / wall,
		      cpu / (double)scale_done, (double)scale_done / (double)stats.commits,
		      stats.syncs, (double)stats.bytes / (double)scale_done);
	assert_true(stats.commits < scale_done / 10);
	world_end(world);
}

/* Only what the queue's own code does for a message: nothing is written meanwhile. */
static void test_cost_without_write(void **state)
{
	static struct world_accept accepts[128];
	struct world *world = *state;
	struct span envelope;
	const size_t count = array_count(accepts);
	double messages = (double)(SCALE_ROUNDS * count);
	double cpu, staged = 0, committed = 0;
	uint32_t dest;

	world->options.segment_bytes = 64 << 20;
	world_begin(world);
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	assert_true(envelope_seal(world->builder, &envelope));
	dest = stream_dest(world->stream, span_text("a.example"));
	for (uint32_t round = 0; round < SCALE_ROUNDS; round++) {
		cpu = thread_cpu_us();
		for (uint32_t i = 0; i < array_count(accepts); i++) {
			struct queue_message *message = queue_message_create(world->stream);

			message->expiry_s = UINT32_MAX;
			queue_message_append(message, span_of(scale_body, sizeof(scale_body)));
			accepts[i] =
				(struct world_accept){ .accept = { .message = message,
								   .envelope = envelope,
								   .done = world_on_accepted } };
			queue_accept(world->stream, &accepts[i].accept);
		}
		staged += thread_cpu_us() - cpu;
		world_until(world, accepts[array_count(accepts) - 1].done);
		cpu = thread_cpu_us();
		for (uint32_t i = 0; i < array_count(accepts); i++)
			world_deliver(world, queue_take(world->stream, dest));
		committed += thread_cpu_us() - cpu;
	}
	print_message("CPU: accept %.2f us, take and settle %.2f us a message\n", staged / messages,
		      committed / messages);
	world_end(world);
}

static void test_memory_of_a_job(void **state)
{
	struct world *world = *state;
	uint64_t before, after;
	double wall;

	world->options.segment_bytes = 64 << 20;
	world->options.journal_bytes = 16 << 20;
	world->options.body_memory_bytes = 1;
	world_begin(world);
	world_accept_one(world, "first.example", 10);
	world_run_ms(world, 200);
	before = resident_bytes();
	world_start_envelope(world);
	for (uint32_t i = 0; i < SCALE_JOBS_PER_MESSAGE; i++) {
		char domain[32];

		snprintf(domain, sizeof(domain), "d%u.example", i);
		world_add_recipients(world, domain, 1);
	}
	for (uint32_t i = 0; i < SCALE_JOBS / SCALE_JOBS_PER_MESSAGE; i++)
		world_accept_built(world, 100);
	world_run_ms(world, 3000); /* all of them get their record */
	assert_int_equal(world_jobs(world), SCALE_JOBS + 1);
	after = resident_bytes();
	print_message("%u waiting jobs: %.1f bytes of memory each\n", SCALE_JOBS,
		      (double)(after - before) / SCALE_JOBS);
	wall = wall_us();
	world_end(world);
	print_message("stopped in %.0f ms\n", (wall_us() - wall) / 1e3);
	wall = wall_us();
	world_begin(world);
	print_message("opened again in %.0f ms\n", (wall_us() - wall) / 1e3);
	assert_int_equal(world_jobs(world), SCALE_JOBS + 1);
	after = resident_bytes();
	print_message("after recovery: %.1f bytes of memory each\n",
		      (double)(after - before) / SCALE_JOBS);
	world_end(world);
}

#define world_test(name, function)                                                                 \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test("the queue's own CPU", test_cost_without_write),
		world_test("100,000 accepts with few writes", test_cost_of_a_message),
		world_test("1,000,000 waiting jobs", test_memory_of_a_job),
	};

	return cmocka_run_group_tests_name("queue_scale", tests, NULL, NULL);
}
