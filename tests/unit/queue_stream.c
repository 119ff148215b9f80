/* What the queue promises, with real files: accept, take, settle, stop, kill, open again. */
#include <errno.h>
#include <grp.h>
#include <sys/stat.h>

#include "tests/unit/queue_world.h"

static void message_is_whole(const struct queue_message *message, uint64_t bytes)
{
	assert_int_equal(message->body_bytes, bytes);
	if ((message->flags & FORMAT_BIG) != 0)
		return;
	assert_int_equal(message->body.len, bytes);
	for (uint64_t at = 0; at < bytes; at += 4096)
		assert_int_equal(message->body.at[at], 'a' + (message->id + at / 4096) % 26);
	assert_true(
		span_equal(envelope_sender(message->envelope), span_text("sender@example.org")));
}

/* An accepted message is taken from memory and settled. */
static void test_delivered_from_memory(void **state)
{
	struct world *world = *state;
	struct queue_job *job;
	uint64_t id;

	world_begin(world);
	id = world_accept_one(world, "a.example", 4096);
	assert_int_equal(world->ready_told, 1);
	job = world_take(world, "a.example");
	assert_non_null(job);
	assert_int_equal(job->message_id, id);
	assert_int_equal(job->pending, 1);
	assert_int_equal(job->count, 1);
	assert_int_equal(world->stream->loads, 0);
	message_is_whole(job->message, 4096);
	assert_null(world_take(world, "a.example"));
	world_deliver(world, job);
	assert_int_equal(world_jobs(world), 0);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	assert_int_equal(world->problems, 0);
	world_end(world);
}

static void test_done_after_durable_write(void **state)
{
	struct world *world = *state;
	struct world_accept accept;

	world_begin(world);
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	world_fill(world, &accept, 100);
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	queue_accept(world->stream, &accept.accept);
	assert_int_equal(world->stream->commit.tape.writes, 0);
	queue_stream_turn(world->stream);
	assert_false(accept.done);
	world_until(world, accept.done);
	assert_int_equal(world->stream->commit.tape.writes, 1);
	world_end(world);
}

static void test_stopped_offers_what_is_left(void **state)
{
	struct world *world = *state;
	struct queue_job *job;
	uint64_t kept, deferred;

	world_begin(world);
	world_accept_one(world, "a.example", 1000);
	kept = world_accept_one(world, "b.example", 2000);
	deferred = world_accept_one(world, "c.example", 3000);
	world_deliver(world, world_take(world, "a.example"));
	world_defer(world, world_take(world, "c.example"), os_wall_seconds(os_wall_now()) + 2);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 2);
	world_run_ms(world, 50);
	assert_null(world_take(world, "a.example"));
	job = world_take(world, "b.example");
	assert_non_null(job);
	assert_int_equal(job->message_id, kept);
	assert_int_equal(job->flags, 0);
	message_is_whole(job->message, 2000);
	assert_null(world_take(world, "c.example"));
	world_deliver(world, job);
	world_until(world, queue_dest_ready(world->stream,
					    stream_dest(world->stream, span_text("c.example"))));
	job = world_take(world, "c.example");
	assert_int_equal(job->message_id, deferred);
	assert_int_equal(job->attempts, 1);
	assert_int_equal(job->reply, 451);
	world_deliver(world, job);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
}

static void body_accept_three(struct world *world)
{
	world_begin(world);
	world_accept_one(world, "a.example", 1000);
	world_accept_one(world, "b.example", 5000);
	world_accept_one(world, "c.example", 9000);
	world_deliver(world, world_take(world, "a.example"));
	world_run_ms(world, 60); /* the outcome reaches the disk */
}

static void test_killed_offers_what_is_left(void **state)
{
	struct world *world = *state;
	struct queue_job *job;

	world_killed(world, "body_accept_three");
	world_begin(world);
	assert_int_equal(world->problems, 0);
	assert_int_equal(world_jobs(world), 2);
	world_run_ms(world, 20);
	job = world_take(world, "b.example");
	assert_non_null(job);
	assert_true((job->flags & FORMAT_JOB_MAYBE_DUPLICATE) != 0);
	message_is_whole(job->message, 5000);
	world_deliver(world, job);
	job = world_take(world, "c.example");
	message_is_whole(job->message, 9000);
	world_deliver(world, job);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	assert_int_equal(world->problems, 0);
	world_end(world);
}

static void body_accept_and_leave(struct world *world)
{
	world_begin(world);
	for (uint32_t i = 0; i < 20; i++)
		world_accept_one(world, "a.example", 1000);
}

/* Without a journal record of any of them. */
static void test_killed_at_once(void **state)
{
	struct world *world = *state;

	world_killed(world, "body_accept_and_leave");
	world_killed(world, "body_accept_and_leave");
	world_begin(world);
	assert_int_equal(world_jobs(world), 40);
	world_run_ms(world, 20);
	for (uint32_t i = 0; i < 40; i++)
		world_deliver(world, world_take(world, "a.example"));
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
}

static void test_seventy_recipients_are_two_jobs(void **state)
{
	struct world *world = *state;
	struct queue_job *first, *second;
	struct queue_verdict verdict = { .attempted = true };

	world_begin(world);
	world_start_envelope(world);
	world_add_recipients(world, "many.example", 70);
	world_accept_built(world, 4000);
	assert_int_equal(world_jobs(world), 2);
	first = world_take(world, "many.example");
	second = world_take(world, "many.example");
	assert_int_equal(first->count, 64);
	assert_int_equal(first->pending, UINT64_MAX);
	assert_int_equal(second->first, 64);
	assert_int_equal(second->count, 6);
	verdict.delivered = 0x0f;
	verdict.failed = 0xf0;
	verdict.due_s = os_wall_seconds(os_wall_now());
	queue_settle(world->stream, first, &verdict);
	world_deliver(world, second);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 1);
	world_run_ms(world, 50);
	first = world_take(world, "many.example");
	assert_int_equal(first->pending, ~UINT64_C(0xff));
	assert_int_equal(first->count, 64);
	assert_int_equal(first->attempts, 1);
	world_deliver(world, first);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
}

static void test_returned_job_comes_first(void **state)
{
	struct world *world = *state;
	struct queue_job *job;
	uint64_t first;

	world_begin(world);
	first = world_accept_one(world, "a.example", 10);
	world_accept_one(world, "a.example", 10);
	job = world_take(world, "a.example");
	queue_return(world->stream, job);
	assert_int_equal(queue_dest_ready(world->stream, job->dest), 2);
	job = world_take(world, "a.example");
	assert_int_equal(job->message_id, first);
	assert_non_null(job->message);
	queue_return(world->stream, job);
	world_end(world);
}

/* ── reports ──────────────────────────────────────────────────────────────────────── */

static void report_accept(struct world *world, struct world_accept *accept, struct queue_job *job,
			  const struct queue_verdict *verdict)
{
	struct format_origin origin = { .message = job->message_id,
					.recipients = job->pending,
					.first = job->first,
					.kind = FORMAT_ORIGIN_BOUNCE };

	world_start_envelope(world);
	envelope_set_sender(world->builder, span_text(""));
	world_add_recipients(world, "sender.example", 1);
	envelope_add_origin(world->builder, &origin);
	world_fill(world, accept, 500);
	assert_true(envelope_seal(world->builder, &accept->accept.envelope));
	accept->accept.settles = job;
	accept->accept.verdict = verdict;
	queue_accept(world->stream, &accept->accept);
}

static void test_report_settles_its_cause(void **state)
{
	struct world *world = *state;
	struct world_accept accept;
	struct queue_verdict verdict = { .attempted = true, .failed = 1, .reply = 550 };

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	report_accept(world, &accept, world_take(world, "a.example"), &verdict);
	world_until(world, accept.done);
	assert_int_equal(world_jobs(world), 1);
	assert_null(world_take(world, "a.example"));
	world_deliver(world, world_take(world, "sender.example"));
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
}

static void body_report_without_record(struct world *world)
{
	struct world_accept accept;
	struct queue_verdict verdict = { .attempted = true, .failed = 1, .reply = 550 };

	world->options.outcome_sync_ms = 60000; /* no outcome ever reaches the disk */
	world_begin(world);
	world_accept_one(world, "a.example", 10);
	report_accept(world, &accept, world_take(world, "a.example"), &verdict);
	world_until(world, accept.done);
}

/* R8: killed between the report's commit and the record about its cause. */
static void test_recovery_completes_report(void **state)
{
	struct world *world = *state;

	world_killed(world, "body_report_without_record");
	world_begin(world);
	assert_int_equal(world_jobs(world), 1);
	world_run_ms(world, 20);
	assert_null(world_take(world, "a.example"));
	world_deliver(world, world_take(world, "sender.example"));
	world_reopen(world);
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
}

/* ── bodies ───────────────────────────────────────────────────────────────────────── */

static const uint64_t body_sizes[] = { 0, 1, 4096, 100000, 131072, 131073, 200000 };

static void test_bodies_of_all_sizes(void **state)
{
	struct world *world = *state;

	world->options.segment_bytes = 16 << 20;
	world_begin(world);
	for (uint32_t i = 0; i < array_count(body_sizes); i++)
		world_accept_one(world, "a.example", body_sizes[i]);
	world_accept_one(world, "a.example", 1 << 20);
	for (uint32_t pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < array_count(body_sizes) + 1; i++) {
			struct queue_job *job = world_take(world, "a.example");
			uint64_t bytes = i < array_count(body_sizes) ? body_sizes[i] : 1 << 20;

			assert_non_null(job);
			assert_int_equal(job->message->flags & FORMAT_BIG, 0);
			message_is_whole(job->message, bytes);
			if (pass == 0)
				world_defer(world, job, 1 + i);
			else
				world_deliver(world, job);
		}
		world_run_ms(world, 20);
	}
	assert_true(world->stream->loads >= array_count(body_sizes));
	world_end(world);
}

struct body_reader {
	struct queue_body_read read;
	bool done;
	enum queue_status status;
};

static void on_body_read(struct queue_body_read *read, enum queue_status status)
{
	struct body_reader *reader = container_of(read, struct body_reader, read);

	reader->done = true;
	reader->status = status;
}

static void read_big(struct world *world, struct queue_message *message, uint64_t bytes)
{
	static char buffer[1 << 20];

	assert_true((message->flags & FORMAT_BIG) != 0);
	assert_null(message->body.at);
	for (uint64_t at = 0; at < bytes; at += sizeof(buffer)) {
		struct body_reader reader = {
			.read = { .done = on_body_read, .bytes = buffer, .offset = at }
		};

		queue_body_read(world->loop, message, &reader.read);
		world_until(world, reader.done);
		assert_int_equal(reader.status, QUEUE_OK);
		for (uint32_t i = 0; i < reader.read.count_out; i += 4096)
			assert_int_equal(buffer[i], 'a' + (message->id + (at + i) / 4096) % 26);
	}
}

static uint32_t count_big(const struct world *world)
{
	char command[128], text[32] = "";
	FILE *pipe;

	snprintf(command, sizeof(command), "ls %s/big | wc -l", world->path);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_non_null(fgets(text, sizeof(text), pipe));
	pclose(pipe);
	return (uint32_t)atoi(text);
}

static void test_big_body_has_a_file(void **state)
{
	const uint64_t bytes = (5 << 20) + 12345;
	struct world *world = *state;
	struct queue_job *job;

	world_begin(world);
	world_accept_one(world, "big.example", bytes);
	assert_int_equal(count_big(world), 1);
	job = world_take(world, "big.example");
	read_big(world, job->message, bytes);
	world_defer(world, job, 1);
	world_run_ms(world, 20);
	job = world_take(world, "big.example");
	read_big(world, job->message, bytes);
	world_defer(world, job, 1);
	world_reopen(world);
	assert_int_equal(count_big(world), 1);
	world_run_ms(world, 20);
	job = world_take(world, "big.example");
	read_big(world, job->message, bytes);
	world_deliver(world, job);
	world_run_ms(world, 100);
	assert_int_equal(count_big(world), 0);
	world_end(world);
}

static void test_refused_big_body_leaves_nothing(void **state)
{
	struct world *world = *state;
	struct world_accept accept;

	world_begin(world);
	world_fill(world, &accept, 3 << 20);
	queue_message_unref(accept.accept.message);
	world_run_ms(world, 50);
	assert_int_equal(count_big(world), 0);
	world_end(world);
}

/* Bodies beyond the memory limit are read back when they are taken. */
static void test_little_body_memory(void **state)
{
	struct world *world = *state;

	world->options.body_memory_bytes = 1;
	world_begin(world);
	for (uint32_t i = 0; i < 10; i++)
		world_accept_one(world, "a.example", 3000);
	assert_int_equal(world->stream->body_memory, 0);
	for (uint32_t i = 0; i < 10; i++) {
		struct queue_job *job = world_take(world, "a.example");

		message_is_whole(job->message, 3000);
		world_deliver(world, job);
	}
	assert_int_equal(world->stream->loads, 10);
	world_end(world);
}

/* Readers of the index see names also after a restart. */
static void test_names_are_published_again(void **state)
{
	struct world *world = *state;
	const struct format_define *define;
	struct index_view view;
	uint32_t dests = 0, texts = 0;
	uint64_t at = 0;

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	world_defer(world, world_take(world, "a.example"), UINT32_MAX - 1);
	world_reopen(world);
	assert_int_equal(index_view_open(&view, world->queue->pool.super.now.uuid, 0), 0);
	while ((define = index_view_name(&view, &at)) != NULL) {
		dests += define->type == FORMAT_DEST;
		texts += define->type == FORMAT_TEXT;
	}
	index_view_close(&view);
	assert_int_equal(dests, 1);
	assert_int_equal(texts, 1);
	world_end(world);
}

static void body_two_streams(struct world *world)
{
	world->options.streams = 2;
	world_begin(world);
	world_accept_one(world, "a.example", 10);
}

/* Killed, and opened with a stream less: one index is new, the other is gone. */
static void test_index_of_a_killed_daemon(void **state)
{
	struct world *world = *state;
	/* Root may give it to anybody. */
	struct group *own = getuid() == 0 ? getgrnam("daemon") : getgrgid(getgid());
	struct index_view view;
	struct stat info;
	const uint8_t *uuid;

	assert_non_null(own);
	world_killed(world, "body_two_streams");
	world->options.group = own->gr_name;
	world_begin(world);
	uuid = world->queue->pool.super.now.uuid;
	assert_int_equal(queue_stream_count(world->queue), 1);
	assert_int_equal(index_view_open(&view, uuid, 0), 0);
	assert_int_equal(index_view_header(&view)->process, getpid());
	assert_int_equal(index_view_count(&view), 1);
	assert_int_equal(fstat(view.slots.fd, &info), 0);
	assert_int_equal(info.st_mode & 07777, 0640);
	assert_int_equal(info.st_gid, own->gr_gid);
	index_view_close(&view);
	assert_int_equal(index_view_open(&view, uuid, 1), -ENOENT);
	world_end(world);
}

static void test_unknown_group_is_said(void **state)
{
	struct world *world = *state;
	char error[512] = "";

	world->options = (struct queue_options){ .path = world->path,
						 .streams = 1,
						 .segment_bytes = 1 << 20,
						 .journal_bytes = 1 << 20,
						 .index_slots_max = 1 << 16,
						 .group = "no such group" };
	assert_null(queue_open(&world->options, world_report, world, error));
	assert_non_null(strstr(error, "group"));
}

/* ── time ─────────────────────────────────────────────────────────────────────────── */

static void test_expired_after_an_attempt(void **state)
{
	struct world *world = *state;
	struct world_accept accept;
	struct queue_job *job;

	world_begin(world);
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	world_fill(world, &accept, 10);
	accept.accept.message->expiry_s = os_wall_seconds(os_wall_now()) - 10;
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	queue_accept(world->stream, &accept.accept);
	world_until(world, accept.done);
	assert_null(queue_take_expired(world->stream));
	job = world_take(world, "a.example");
	assert_false(job->expired);
	world_defer(world, job, 1);
	world_run_ms(world, 20);
	world->stream->expired_pause.ns = 0;
	job = queue_take_expired(world->stream);
	assert_non_null(job);
	assert_true(job->expired);
	world_until(world, job->message != NULL);
	world_deliver(world, job);
	world_end(world);
}

/* ── MARK ─────────────────────────────────────────────────────────────────────────── */

/* What MARK may say: it says so. */
static struct journal_place mark_place(struct world *world)
{
	stream_append_mark(world->stream);
	return world->stream->mark.said;
}

static void test_mark_waits_for_records(void **state)
{
	struct world *world = *state;
	struct journal_place before, after;

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	before = mark_place(world);
	assert_int_equal(mark_first(&world->stream->mark)->place.place, before.place);
	world_run_ms(world, 500);
	assert_int_equal(mark_place(world).place, before.place);
	world_run_ms(world, 800);
	after = mark_place(world);
	assert_true(journal_place_before(before, after));
	assert_null(mark_first(&world->stream->mark));
	world_run_ms(world, 1100);
	assert_int_equal(world->stream->mark.durable.place, after.place);
	world_end(world);
}

#define world_test(name, function)                                                                 \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

static const struct world_body bodies[] = {
	{ "body_accept_three", body_accept_three },
	{ "body_two_streams", body_two_streams },
	{ "body_accept_and_leave", body_accept_and_leave },
	{ "body_report_without_record", body_report_without_record },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		world_test("a message is delivered from memory", test_delivered_from_memory),
		world_test("done comes after the durable write", test_done_after_durable_write),
		world_test("a stopped queue offers what is left", test_stopped_offers_what_is_left),
		world_test("a killed queue offers what is left", test_killed_offers_what_is_left),
		world_test("killed before any record, twice", test_killed_at_once),
		world_test("70 recipients of a domain are 2 jobs",
			   test_seventy_recipients_are_two_jobs),
		world_test("a returned job comes first", test_returned_job_comes_first),
		world_test("a report settles its cause", test_report_settles_its_cause),
		world_test("recovery completes a report", test_recovery_completes_report),
		world_test("bodies of all sizes", test_bodies_of_all_sizes),
		world_test("a big body has a file", test_big_body_has_a_file),
		world_test("a refused big body leaves nothing",
			   test_refused_big_body_leaves_nothing),
		world_test("little body memory", test_little_body_memory),
		world_test("names are published again", test_names_are_published_again),
		world_test("the index of a killed daemon", test_index_of_a_killed_daemon),
		world_test("an unknown group is said", test_unknown_group_is_said),
		world_test("expired after an attempt", test_expired_after_an_attempt),
		world_test("MARK waits for records", test_mark_waits_for_records),
	};

	world_child(argc, argv, bodies, array_count(bodies));
	return cmocka_run_group_tests_name("queue_stream", tests, NULL, NULL);
}
