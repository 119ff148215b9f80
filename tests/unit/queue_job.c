/* Jobs deferred in bulk, what is kept of a reply, reports in a drained stream, bodies that wait. */
#include "tests/unit/queue_world.h"

enum { EXPIRY_S = 100000 }; /* from now; world_fill() gives 432,000 */

static uint32_t now_s(void)
{
	return os_wall_seconds(os_wall_now());
}

static void accept_expiring(struct world *world, const char *domain, uint32_t expiry_s)
{
	struct world_accept accept;

	world_start_envelope(world);
	world_add_recipients(world, domain, 1);
	world_fill(world, &accept, 10);
	accept.accept.message->expiry_s = expiry_s;
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	queue_accept(world->stream, &accept.accept);
	world_until(world, accept.done);
	assert_int_equal(accept.status, QUEUE_OK);
}

static struct queue_verdict site_is_down(uint32_t due_s)
{
	return (struct queue_verdict){ .due_s = due_s, .text = span_text("connection refused") };
}

/* ── queue_defer() ────────────────────────────────────────────────────────────────── */

static void test_defer_is_bounded(void **state)
{
	struct world *world = *state;
	struct queue_verdict verdict;
	uint32_t dest;
	bool more;

	world_begin(world);
	for (uint32_t i = 0; i < 10; i++)
		world_accept_one(world, "a.example", 10);
	dest = stream_dest(world->stream, span_text("a.example"));
	verdict = site_is_down(now_s() + 1000);
	assert_int_equal(queue_defer(world->stream, dest, 4, 0, &verdict, &more), 4);
	assert_true(more);
	assert_int_equal(queue_dest_ready(world->stream, dest), 6);
	assert_int_equal(queue_defer(world->stream, dest, 6, 0, &verdict, &more), 6);
	assert_false(more);
	assert_int_equal(queue_defer(world->stream, dest, 6, 0, &verdict, &more), 0);
	assert_false(more);
	assert_null(queue_take(world->stream, dest));
	assert_int_equal(world_jobs(world), 10);
	world_end(world);
}

static void test_deferred_comes_back(void **state)
{
	struct world *world = *state;
	struct queue_verdict verdict;
	struct span host, text;
	struct queue_job *job;
	uint32_t dest;
	bool more;

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	dest = stream_dest(world->stream, span_text("a.example"));
	verdict = site_is_down(now_s());
	assert_int_equal(queue_defer(world->stream, dest, 9, 0, &verdict, &more), 1);
	world_until(world, queue_dest_ready(world->stream, dest) == 1);
	job = world_take(world, "a.example");
	assert_int_equal(job->attempts, 0);
	assert_int_equal(job->message->body_bytes, 10);
	queue_job_reply(job, &host, &text);
	assert_int_equal(host.len, 0);
	assert_true(span_equal(text, span_text("connection refused")));
	world_defer(world, job, now_s() + 1000);
	world_reopen(world); /* its record is sound */
	assert_int_equal(world_jobs(world), 1);
	assert_int_equal(world->problems, 0);
	world_end(world);
}

static void test_ready_is_said_after_defer(void **state)
{
	struct world *world = *state;
	struct queue_verdict verdict = site_is_down(now_s() + 1000);
	uint32_t dest;
	bool more;

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	world_accept_one(world, "a.example", 10);
	assert_int_equal(world->ready_told, 1);
	dest = stream_dest(world->stream, span_text("a.example"));
	queue_defer(world->stream, dest, 1, 0, &verdict, &more);
	world_accept_one(world, "a.example", 10);
	assert_int_equal(world->ready_told, 1); /* some were left */
	queue_defer(world->stream, dest, 100, 0, &verdict, &more);
	assert_int_equal(world->ready_told, 1);
	world_accept_one(world, "a.example", 10);
	assert_int_equal(world->ready_told, 2);
	/* One that stays: said again only after queue_take() returned NULL. */
	assert_int_equal(queue_defer(world->stream, dest, 9, UINT32_MAX, &verdict, &more), 0);
	assert_false(more);
	world_accept_one(world, "a.example", 10);
	assert_int_equal(world->ready_told, 2);
	world_deliver(world, world_take(world, "a.example"));
	world_deliver(world, world_take(world, "a.example"));
	assert_null(world_take(world, "a.example"));
	world_accept_one(world, "a.example", 10);
	assert_int_equal(world->ready_told, 3);
	world_end(world);
}

/* Jobs that stay, one that may wait, and one that was warned of: which of them are deferred. */
static void test_who_must_be_told_stays(void **state)
{
	struct world *world = *state;
	struct queue_verdict warned = { .warned = true, .due_s = now_s() };
	struct queue_verdict verdict = site_is_down(now_s() + 1000);
	struct queue_job *job;
	uint32_t dest;
	bool more;

	world_begin(world);
	accept_expiring(world, "a.example", now_s() + 50);
	dest = stream_dest(world->stream, span_text("a.example"));
	queue_settle(world->stream, world_take(world, "a.example"), &warned);
	world_until(world, queue_dest_ready(world->stream, dest) == 1);
	accept_expiring(world, "a.example", now_s() - 10);
	accept_expiring(world, "a.example", now_s() + 50);
	accept_expiring(world, "a.example", now_s() + EXPIRY_S);
	assert_int_equal(queue_defer(world->stream, dest, 9, now_s() + 100, &verdict, &more), 2);
	assert_false(more);
	job = world_take(world, "a.example");
	assert_true(job->expired);
	world_deliver(world, job);
	job = world_take(world, "a.example");
	assert_false(job->expired);
	assert_int_equal(job->flags & FORMAT_JOB_WARNED, 0);
	world_deliver(world, job);
	assert_null(world_take(world, "a.example"));
	assert_int_equal(world_jobs(world), 2);
	world_end(world);
}

static void test_what_stays_is_not_seen_twice(void **state)
{
	struct world *world = *state;
	struct queue_verdict verdict = site_is_down(now_s() + 1000);
	struct queue_job *first, *job;
	uint32_t dest;
	bool more;

	world_begin(world);
	for (uint32_t i = 0; i < 6; i++)
		accept_expiring(world, "a.example", now_s() + 50);
	world_accept_one(world, "a.example", 10);
	dest = stream_dest(world->stream, span_text("a.example"));
	assert_int_equal(queue_defer(world->stream, dest, 3, now_s() + 100, &verdict, &more), 0);
	assert_true(more);
	assert_int_equal(queue_defer(world->stream, dest, 3, now_s() + 100, &verdict, &more), 0);
	assert_true(more);
	/* A seventh look reaches the one behind them, also when seen ones were taken. */
	first = world_take(world, "a.example");
	assert_int_equal(queue_defer(world->stream, dest, 1, now_s() + 100, &verdict, &more), 1);
	assert_false(more);
	/* What comes later or comes back is seen. */
	queue_return(world->stream, first);
	world_accept_one(world, "a.example", 10);
	assert_int_equal(queue_defer(world->stream, dest, 1, 0, &verdict, &more), 1);
	assert_true(more);
	assert_int_equal(queue_defer(world->stream, dest, 1, 0, &verdict, &more), 1);
	assert_false(more);
	for (uint32_t i = 0; i < 5; i++) {
		job = world_take(world, "a.example");
		assert_non_null(job);
		world_deliver(world, job);
	}
	assert_null(world_take(world, "a.example"));
	accept_expiring(world, "a.example", now_s() + 50);
	assert_int_equal(queue_defer(world->stream, dest, 1, 0, &verdict, &more), 1);
	world_end(world);
}

/* ── from loan to loan ────────────────────────────────────────────────────────────── */

static void test_suspect_is_kept(void **state)
{
	struct world *world = *state;
	struct queue_verdict deferred = { .attempted = true, .due_s = now_s() };
	struct queue_job *job;
	uint32_t dest;

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	dest = stream_dest(world->stream, span_text("a.example"));
	job = world_take(world, "a.example");
	assert_false(job->suspect);
	job->suspect = true;
	queue_return(world->stream, job);
	job = world_take(world, "a.example");
	assert_true(job->suspect);
	job->suspect = false;
	queue_return(world->stream, job);
	job = world_take(world, "a.example");
	assert_false(job->suspect);
	job->suspect = true;
	queue_settle(world->stream, job, &deferred);
	world_until(world, queue_dest_ready(world->stream, dest) == 1);
	job = world_take(world, "a.example");
	assert_true(job->suspect);
	world_deliver(world, job);
	world_accept_one(world, "a.example", 10); /* in the slot of the first */
	job = world_take(world, "a.example");
	assert_false(job->suspect);
	world_deliver(world, job);
	world_end(world);
}

/* ── queue_job_reply() ────────────────────────────────────────────────────────────── */

static void test_reply_is_kept(void **state)
{
	struct world *world = *state;
	struct queue_verdict bare = { .attempted = true, .reply = 421, .due_s = now_s() };
	struct span host, text;
	struct queue_job *job;

	world_begin(world);
	world_accept_one(world, "a.example", 10);
	job = world_take(world, "a.example");
	queue_job_reply(job, &host, &text);
	assert_int_equal(host.len + text.len, 0);
	world_defer(world, job, now_s());
	world_reopen(world);
	world_until(world, (job = world_take(world, "a.example")) != NULL);
	queue_job_reply(job, &host, &text);
	assert_true(span_equal(host, span_text("mx.example.net")));
	assert_true(span_equal(text, span_text("4.7.1 greylisted, come back in #")));
	/* A reply without a text does not keep that of another. */
	queue_settle(world->stream, job, &bare);
	world_until(world, (job = world_take(world, "a.example")) != NULL);
	queue_job_reply(job, &host, &text);
	assert_int_equal(host.len + text.len, 0);
	world_deliver(world, job);
	world_end(world);
}

/* ── a drained stream ─────────────────────────────────────────────────────────────── */

static void accept_report(struct world *world, struct queue_job *job)
{
	struct queue_verdict verdict = { .attempted = true, .failed = job->pending, .reply = 550 };
	struct format_origin origin = { .message = job->message_id,
					.recipients = job->pending,
					.first = job->first,
					.kind = FORMAT_ORIGIN_BOUNCE };
	struct world_accept accept;

	world_start_envelope(world);
	envelope_set_sender(world->builder, span_text(""));
	world_add_recipients(world, "sender.example", 1);
	envelope_add_origin(world->builder, &origin);
	world_fill(world, &accept, 500);
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	accept.accept.settles = job;
	accept.accept.verdict = &verdict;
	queue_accept(world->stream, &accept.accept);
	world_until(world, accept.done);
	assert_int_equal(accept.status, QUEUE_OK);
}

static void test_drained_stream_takes_reports(void **state)
{
	struct world *world = *state;
	struct queue_job *job;

	world->options.streams = 2;
	world_begin(world);
	world->stream = queue_stream(world->queue, 1);
	world_accept_one(world, "a.example", 10);
	world_accept_one(world, "b.example", 10);
	world_end(world);
	world->options.streams = 1;
	world_begin(world);
	assert_int_equal(queue_stream_count(world->queue), 2);
	world->stream = queue_stream(world->queue, 1);
	world_run_ms(world, 1100); /* over a tick: no file is taken ahead */
	assert_null(world->stream->commit.tape.next);
	accept_report(world, world_take(world, "a.example"));
	world_deliver(world, world_take(world, "b.example"));
	world_reopen(world);
	assert_int_equal(world->problems, 0);
	assert_int_equal(queue_stream_count(world->queue), 2);
	world->stream = queue_stream(world->queue, 1);
	assert_int_equal(world_jobs(world), 1);
	assert_null(world_take(world, "a.example"));
	world_until(world, (job = world_take(world, "sender.example")) != NULL);
	assert_int_equal(job->message->body_bytes, 500);
	world_deliver(world, job);
	world_reopen(world);
	assert_int_equal(queue_stream_count(world->queue), 1);
	world_end(world);
}

static void body_report_in_drained(struct world *world)
{
	struct queue_job *job;

	world->options.streams = 1;
	world->options.outcome_sync_ms = 60000; /* no outcome ever reaches the disk */
	world_begin(world);
	world->stream = queue_stream(world->queue, 1);
	world_until(world, (job = world_take(world, "a.example")) != NULL);
	accept_report(world, job);
}

static void test_killed_after_report_of_drained(void **state)
{
	struct world *world = *state;

	world->options.streams = 2;
	world_begin(world);
	world->stream = queue_stream(world->queue, 1);
	world_accept_one(world, "a.example", 10);
	world_end(world);
	world_killed(world, "body_report_in_drained");
	world->options.streams = 1;
	world_begin(world);
	world->stream = queue_stream(world->queue, 1);
	assert_int_equal(world->problems, 0);
	assert_int_equal(world_jobs(world), 1);
	assert_null(world_take(world, "a.example"));
	world_run_ms(world, 20);
	world_deliver(world, world_take(world, "sender.example"));
	world_end(world);
}

/* ── bodies: nothing at all, and more than the disk takes at once
 * ────────────────────────────────────────────────── */

static void test_nothing_appended_is_nothing(void **state)
{
	struct world *world = *state;
	struct queue_message *message;

	world_begin(world);
	message = queue_message_create(world->stream);
	queue_message_append(message, span_of("", 0));
	assert_int_equal(message->body_bytes, 0);
	queue_message_append(message, span_text("a"));
	queue_message_append(message, (struct span){ 0 });
	assert_int_equal(message->body_bytes, 1);
	queue_message_unref(message);
	world_end(world);
}

static void on_resume(void *context)
{
	++*(uint32_t *)context;
}

/* A body that is ahead of the disk, with `resumed` waiting for it. */
static void fill_ahead(struct world *world, struct world_accept *accept, uint32_t *resumed)
{
	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	world_fill(world, accept, 4 << 20);
	assert_true(envelope_seal(world->builder, &accept->accept.envelope));
	*resumed = 0;
	assert_false(queue_message_may_append(accept->accept.message, on_resume, resumed));
}

static void test_resumed_when_disk_has_caught_up(void **state)
{
	struct world *world = *state;
	struct world_accept accept;
	uint32_t resumed;

	world_begin(world);
	fill_ahead(world, &accept, &resumed);
	world_until(world, resumed > 0);
	world_run_ms(world, 50);
	assert_int_equal(resumed, 1);
	assert_true(queue_message_may_append(accept.accept.message, on_resume, &resumed));
	queue_message_unref(accept.accept.message);
	world_run_ms(world, 50);
	world_end(world);
}

static void test_not_resumed_after_accept(void **state)
{
	struct world *world = *state;
	struct world_accept accept;
	uint32_t resumed;

	world_begin(world);
	fill_ahead(world, &accept, &resumed);
	queue_accept(world->stream, &accept.accept);
	world_until(world, accept.done);
	assert_int_equal(accept.status, QUEUE_OK);
	assert_int_equal(resumed, 0);
	/* Nor when it is refused, and the message still the caller's. */
	fill_ahead(world, &accept, &resumed);
	world->stream->broken = true;
	queue_accept(world->stream, &accept.accept);
	world_until(world, accept.done);
	assert_int_equal(accept.status, QUEUE_BROKEN);
	world->stream->broken = false;
	world_run_ms(world, 100);
	assert_int_equal(resumed, 0);
	queue_message_unref(accept.accept.message);
	world_run_ms(world, 50);
	world_end(world);
}

static void test_not_resumed_after_unref(void **state)
{
	struct world *world = *state;
	struct world_accept accept;
	uint32_t resumed;

	world_begin(world);
	fill_ahead(world, &accept, &resumed);
	assert_ptr_equal(queue_message_ref(accept.accept.message), accept.accept.message);
	queue_message_unref(accept.accept.message);
	queue_message_unref(accept.accept.message);
	world_run_ms(world, 100);
	assert_int_equal(resumed, 0);
	world_end(world);
}

#define world_test(name, function)                                                                 \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

static const struct world_body bodies[] = {
	{ "body_report_in_drained", body_report_in_drained },
};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		world_test("deferring looks at so many jobs", test_defer_is_bounded),
		world_test("a deferred job comes back", test_deferred_comes_back),
		world_test("ready is said after deferring", test_ready_is_said_after_defer),
		world_test("who must be told stays ready", test_who_must_be_told_stays),
		world_test("what stays is not seen twice", test_what_stays_is_not_seen_twice),
		world_test("a suspect stays one", test_suspect_is_kept),
		world_test("the last reply is kept", test_reply_is_kept),
		world_test("a drained stream takes reports", test_drained_stream_takes_reports),
		world_test("killed after a report of a drained stream",
			   test_killed_after_report_of_drained),
		world_test("nothing appended is nothing", test_nothing_appended_is_nothing),
		world_test("resumed when the disk has caught up",
			   test_resumed_when_disk_has_caught_up),
		world_test("not resumed after accept", test_not_resumed_after_accept),
		world_test("not resumed after unref", test_not_resumed_after_unref),
	};

	world_child(argc, argv, bodies, array_count(bodies));
	return cmocka_run_group_tests_name("queue_job", tests, NULL, NULL);
}
