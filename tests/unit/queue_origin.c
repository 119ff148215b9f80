/* Messages taken from files of the drop directory: R8. */
#include "tests/unit/queue_world.h"

enum { FILE_HASH = 0x1234567, FILE_INODE = 99 };

struct told {
	struct world *world;
	uint32_t calls;
	struct format_origin last;
	int result;
};

static struct told told;

static int on_origins(void *context, const struct format_origin *files, size_t count)
{
	struct told *into = context;

	assert_true(count > 0);
	into->calls++;
	into->last = files[count - 1];
	return into->result;
}

static void begin(struct world *world)
{
	told = (struct told){ .world = world };
	world->options.origins = on_origins;
	world->options.origins_context = &told;
	world_begin(world);
}

static void accept_from_file(struct world *world, struct world_accept *accept)
{
	struct format_origin origin = { .message = FILE_HASH,
					.recipients = FILE_INODE,
					.kind = FORMAT_ORIGIN_FILE };

	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	envelope_add_origin(world->builder, &origin);
	world_fill(world, accept, 500);
	assert_true(envelope_seal(world->builder, &accept->accept.envelope));
	accept->accept.from_file = true;
	queue_accept(world->stream, &accept->accept);
	world_until(world, accept->done);
	assert_int_equal(accept->status, QUEUE_OK);
}

/* Long enough for the JOB records, a MARK, and their way to the disk. */
static void let_mark_pass(struct world *world)
{
	world_run_ms(world, 2300);
}

static void body_file_is_there(struct world *world)
{
	struct world_accept accept;

	begin(world);
	accept_from_file(world, &accept);
	world_deliver(world, world_take(world, "a.example"));
	world_accept_one(world, "b.example", 100);
	let_mark_pass(world);
}

static void body_file_is_gone(struct world *world)
{
	struct world_accept accept;

	begin(world);
	accept_from_file(world, &accept);
	queue_origin_gone(world->stream);
	let_mark_pass(world);
}

static const struct world_body bodies[] = {
	{ "body_file_is_there", body_file_is_there },
	{ "body_file_is_gone", body_file_is_gone },
};

static void test_file_is_told(void **state)
{
	struct world *world = *state;

	world_killed(world, "body_file_is_there");
	begin(world);
	assert_int_equal(told.calls, 1);
	assert_int_equal(told.last.message, FILE_HASH);
	assert_int_equal(told.last.recipients, FILE_INODE);
	assert_int_equal(world_jobs(world), 1); /* that of b.example */
	world_end(world);
	/* It is gone since then. */
	begin(world);
	assert_int_equal(told.calls, 0);
	world_end(world);
}

static void test_file_gone_is_forgotten(void **state)
{
	struct world *world = *state;

	world_killed(world, "body_file_is_gone");
	begin(world);
	assert_int_equal(told.calls, 0);
	assert_int_equal(world_jobs(world), 1);
	world_end(world);
}

static void test_stopped_in_order(void **state)
{
	struct world *world = *state;
	struct world_accept accept;

	begin(world);
	accept_from_file(world, &accept);
	world_end(world);
	begin(world);
	assert_int_equal(told.calls, 1);
	world_end(world);
}

static void test_file_that_stays_ends_the_opening(void **state)
{
	struct world *world = *state;
	char error[512] = "";

	world_killed(world, "body_file_is_there");
	told = (struct told){ .result = -EACCES };
	world->options = (struct queue_options){ .path = world->path,
						 .streams = 1,
						 .segment_bytes = 1 << 20,
						 .journal_bytes = 1 << 20,
						 .index_slots_max = 1 << 21,
						 .origins = on_origins,
						 .origins_context = &told };
	assert_null(queue_open(&world->options, NULL, NULL, error));
	assert_non_null(strstr(error, "drop directory"));
	/* Nothing is lost by that. */
	begin(world);
	assert_int_equal(told.calls, 1);
	assert_int_equal(world_jobs(world), 1);
	world_end(world);
}

#define FACT(name, function)                                                                       \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		FACT("MARK does not pass a message whose file may be there, and a start tells it",
		     test_file_is_told),
		FACT("MARK passes it when its file is gone", test_file_gone_is_forgotten),
		FACT("an orderly stop tells of the file as well", test_stopped_in_order),
		FACT("a file that cannot be removed ends the opening, and nothing is lost",
		     test_file_that_stays_ends_the_opening),
	};

	world_child(argc, argv, bodies, array_count(bodies));
	return cmocka_run_group_tests_name("queue_origin", tests, NULL, NULL);
}
