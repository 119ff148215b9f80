/* Files that nobody needs go back to free/: segments, journals, survivors of both. */
#include <fcntl.h>

#include "tests/unit/queue_world.h"

enum { FLOOD_AT_ONCE = 64 };

static uint32_t count_files(const struct world *world, const char *folder)
{
	char command[128], text[32] = "";
	FILE *pipe;

	snprintf(command, sizeof(command), "ls %s/%s | wc -l", world->path, folder);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_non_null(fgets(text, sizeof(text), pipe));
	pclose(pipe);
	return (uint32_t)atoi(text);
}

/* Accepts `count` messages for `domain`, many at a time; the envelope in the builder. */
static void flood(struct world *world, uint32_t count, uint64_t bytes)
{
	static struct world_accept accepts[FLOOD_AT_ONCE];
	struct span envelope;

	assert_true(envelope_seal(world->builder, &envelope));
	while (count > 0) {
		uint32_t part = count < FLOOD_AT_ONCE ? count : FLOOD_AT_ONCE;

		for (uint32_t i = 0; i < part; i++) {
			world_fill(world, &accepts[i], bytes);
			accepts[i].accept.envelope = envelope;
			queue_accept(world->stream, &accepts[i].accept);
		}
		for (uint32_t i = 0; i < part; i++) {
			world_until(world, accepts[i].done);
			assert_int_equal(accepts[i].status, QUEUE_OK);
		}
		count -= part;
	}
}

static void flood_domain(struct world *world, const char *domain, uint32_t count, uint64_t bytes)
{
	world_start_envelope(world);
	world_add_recipients(world, domain, 1);
	flood(world, count, bytes);
}

static void deliver_all(struct world *world, const char *domain)
{
	struct queue_job *job;

	while ((job = world_take(world, domain)) != NULL)
		world_deliver(world, job);
}

/* From now on `fd` is `path`; returns what puts it back. */
static int replace(int fd, const char *path, int flags)
{
	int saved = dup(fd), other = open(path, flags);

	assert_true(saved >= 0 && other >= 0 && dup2(other, fd) == fd);
	close(other);
	return saved;
}

/* Files and survivors that have arrived. */
static uint64_t moved(const struct world *world)
{
	return world->stream->reclaim.recycled_segments + world->stream->reclaim.recycled_journals +
	       world->stream->evacuated;
}

/* As world_until(), with its limit for each file on its own: a file takes several syncs, and how
 * long those take is for the disk to say. */
#define settle_until(world, condition)                                                             \
	do {                                                                                       \
		while (!(condition)) {                                                             \
			uint64_t before_ = moved(world);                                           \
			world_until(world, (condition) || moved(world) > before_);                 \
		}                                                                                  \
	} while (0)

static void until_ready(struct world *world, const char *domain, uint32_t count)
{
	uint32_t dest = stream_dest(world->stream, span_text(domain));

	world_until(world, queue_dest_ready(world->stream, dest) == count);
}

static void test_no_room_to_recycle(void **state)
{
	struct world *world = *state;
	int fd, saved;

	world_begin(world);
	flood_domain(world, "a.example", 500, 4096); /* 2 MiB, files of 1 MiB */
	fd = world->stream->segments.list[0]->tape->file.fd;
	saved = replace(fd, "/dev/full", O_WRONLY);
	deliver_all(world, "a.example");
	world_until(world, world->stream->reclaim.segment_waits);
	assert_false(world->broken);
	assert_int_equal(dup2(saved, fd), fd);
	close(saved);
	world_until(world, world->stream->reclaim.recycled_segments > 0);
	assert_false(world->broken);
	world_reopen(world);
	assert_int_equal(world->problems, 0);
	world_end(world);
}

static void test_no_room_to_recycle_at_the_end(void **state)
{
	struct world *world = *state;

	world_begin(world);
	flood_domain(world, "a.example", 500, 4096);
	close(replace(world->stream->segments.list[0]->tape->file.fd, "/dev/full", O_WRONLY));
	deliver_all(world, "a.example");
	world_until(world, world->stream->reclaim.segment_waits);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	assert_int_equal(world->problems, 0);
	world_end(world);
}

static void test_segments_are_recycled(void **state)
{
	struct world *world = *state;

	world_begin(world);
	for (uint32_t round = 0; round < 10; round++) {
		flood_domain(world, "a.example", 500, 4096); /* 2 MiB, files of 1 MiB */
		deliver_all(world, "a.example");
	}
	settle_until(world, world->stream->reclaim.recycled_segments >= 15 &&
				    world->stream->segments.count <= 2 &&
				    reclaim_quiet(&world->stream->reclaim));
	assert_true(count_files(world, "seg") <= 4);
	assert_true(count_files(world, "seg") + count_files(world, "free") <= 16);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	assert_int_equal(world->problems, 0);
	world_end(world);
}

/* One message waits while thousands pass: neither a segment nor a journal file is pinned. */
static void test_journal_stays_small(void **state)
{
	struct world *world = *state;
	struct queue_job *job;
	uint64_t id;

	world_begin(world);
	id = world_accept_one(world, "slow.example", 2000);
	world_defer(world, world_take(world, "slow.example"),
		    os_wall_seconds(os_wall_now()) + 100000);
	for (uint32_t round = 0; round < 30; round++) {
		flood_domain(world, "a.example", 4000, 100); /* 250 KiB of outcomes */
		deliver_all(world, "a.example");
	}
	settle_until(world, world->stream->reclaim.recycled_journals >= 4 &&
				    world->stream->journal.file_count <= 5);
	world_reopen(world);
	assert_int_equal(world->problems, 0);
	assert_int_equal(world_jobs(world), 1);
	world->stream->schedule.heap[0].due_s = 0; /* no need to wait for a day */
	until_ready(world, "slow.example", 1);
	job = world_take(world, "slow.example");
	assert_int_equal(job->message_id, id);
	assert_int_equal(job->attempts, 1);
	assert_int_equal(job->message->body.len, 2000);
	assert_string_equal(queue_dest_name(world->stream, job->dest).at, "slow.example");
	queue_return(world->stream, job);
	world_end(world);
}

static void make_survivors(struct world *world)
{
	world_begin(world);
	for (uint32_t i = 0; i < 8; i++) {
		flood_domain(world, "stay.example", 2, 5000);
		flood_domain(world, "a.example", 300, 4096);
	}
	/* A message with two jobs, one of which stays. */
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	world_add_recipients(world, "stay.example", 1);
	flood(world, 1, 3000);
	flood_domain(world, "a.example", 600, 4096);
	deliver_all(world, "a.example");
	for (uint32_t i = 0; i < 17; i++)
		world_defer(world, world_take(world, "stay.example"), 10 + i);
}

static void check_survivors(struct world *world)
{
	until_ready(world, "stay.example", 17);
	for (uint32_t i = 0; i < 17; i++) {
		struct queue_job *job = world_take(world, "stay.example");

		assert_non_null(job);
		assert_non_null(job->message);
		assert_int_equal(world->loaded_status, QUEUE_OK);
		assert_true(job->message->body.len == 5000 || job->message->body.len == 3000);
		world_deliver(world, job);
	}
}

static void test_survivors_move(void **state)
{
	struct world *world = *state;

	world->options.evacuate_after_s = 1;
	make_survivors(world);
	settle_until(world, world->stream->evacuated >= 16 && world->stream->segments.count <= 3);
	world_reopen(world);
	assert_int_equal(world->problems, 0);
	assert_int_equal(world_jobs(world), 17);
	check_survivors(world);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	settle_until(world, world->stream->segments.count == 0);
	world_end(world);
}

/* A read error is no damage: the other segments go on, and this one is tried again. */
static void test_unreadable_survivors_move_later(void **state)
{
	struct world *world = *state;
	struct segment *segment = NULL;
	int fd, saved;

	world->options.evacuate_after_s = 3600;
	make_survivors(world);
	for (uint32_t i = 0; segment == NULL; i++)
		if (world->stream->segments.list[i]->live > 0)
			segment = world->stream->segments.list[i];
	fd = segment->tape->file.fd;
	saved = replace(fd, "/proc/self/mem", O_RDONLY);
	world->stream->options.evacuate_after_s = 1;
	settle_until(world, segment->again.ns != 0 && world->stream->evacuated > 0);
	assert_true(segment->live > 0 && !segment->evacuated);
	assert_int_equal(dup2(saved, fd), fd);
	close(saved);
	segment->again.ns = 0; /* later */
	settle_until(world, world->stream->evacuated >= 16 && world->stream->segments.count <= 3);
	check_survivors(world);
	world_end(world);
}

static void body_survivors(struct world *world)
{
	world->options.evacuate_after_s = 1;
	make_survivors(world);
	/* Dies in the middle of it, at a moment that differs from run to run. */
	world_run_ms(world, 900 + (uint64_t)(os_mono_now().ns / 1000 % 400));
}

static void test_killed_while_they_move(void **state)
{
	struct world *world = *state;

	world->options.evacuate_after_s = 1;
	world_killed(world, "body_survivors");
	world_begin(world);
	assert_int_equal(world->problems, 0);
	assert_int_equal(world_jobs(world), 17);
	check_survivors(world);
	world_end(world);
}

/* Fewer streams than before: the extra ones are drained, then retired. */
static void test_extra_streams_are_drained(void **state)
{
	struct world *world = *state;

	world->options.streams = 3;
	world_begin(world);
	world->stream = queue_stream(world->queue, 2);
	flood_domain(world, "a.example", 3, 100);
	world_end(world);
	world->options.streams = 1;
	world_begin(world);
	assert_int_equal(queue_stream_count(world->queue), 2);
	world->stream = queue_stream(world->queue, 1);
	assert_int_equal(queue_stream_room(world->stream, 0), QUEUE_SPACE);
	assert_int_equal(world_jobs(world), 3);
	until_ready(world, "a.example", 3);
	deliver_all(world, "a.example");
	world_reopen(world);
	assert_int_equal(queue_stream_count(world->queue), 1);
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
	world->options.streams = 3;
	world_begin(world);
	assert_int_equal(queue_stream_count(world->queue), 3);
	world_end(world);
}

#define world_test(name, function)                                                                 \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

static const struct world_body bodies[] = {
	{ "body_survivors", body_survivors },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		world_test("segments are recycled", test_segments_are_recycled),
		world_test("a disk too full for a rename is tried again", test_no_room_to_recycle),
		world_test("a disk too full for a rename, and a stop",
			   test_no_room_to_recycle_at_the_end),
		world_test("the journal stays small", test_journal_stays_small),
		world_test("survivors that can't be read move later",
			   test_unreadable_survivors_move_later),
		world_test("survivors move to a cold segment", test_survivors_move),
		world_test("killed while survivors move", test_killed_while_they_move),
		world_test("extra streams are drained", test_extra_streams_are_drained),
	};

	world_child(argc, argv, bodies, array_count(bodies));
	return cmocka_run_group_tests_name("queue_reclaim", tests, NULL, NULL);
}
