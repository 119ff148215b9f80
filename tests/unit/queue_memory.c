/*
 * Without memory: each allocation for an envelope, and for a message on its way into the queue, is
 * refused in its turn, alone or with all that follow. What was said to be good is whole.
 */
#include "os/check.h"
#include "tests/unit/memory_refuse.h"
#include "tests/unit/queue_world.h"

enum { RECIPIENTS = 20, ORIGINS = 20 }; /* more than the lists begin with */

/* ── envelopes ────────────────────────────────────────────────────────────────────── */

/* A sender long enough to want memory of its own. */
static struct span sender(void)
{
	static char text[1000];

	memset(text, 's', sizeof(text));
	return span_of(text, sizeof(text));
}

static void build(struct envelope_builder *builder)
{
	struct envelope_recipient recipient = { .address = span_text("one@a.example"),
						.orcpt = span_text("rfc822;one@b.example") };
	struct format_origin origin = { .message = 7, .recipients = 1, .kind = 1 };

	envelope_set_sender(builder, sender());
	for (int i = 0; i < RECIPIENTS; i++)
		envelope_add_recipient(builder, &recipient);
	for (int i = 0; i < ORIGINS; i++)
		envelope_add_origin(builder, &origin);
}

static void check_whole(struct span envelope)
{
	struct envelope_cursor cursor = { .rest = envelope };
	struct format_origin origin;
	uint32_t origins = 0;

	assert_true(envelope_check(envelope));
	assert_true(span_equal(envelope_sender(envelope), sender()));
	assert_int_equal(envelope_count(envelope), RECIPIENTS);
	while (envelope_next_origin(&cursor, &origin))
		origins++;
	assert_int_equal(origins, ORIGINS);
}

/* True: something was refused. */
static bool build_without(uint32_t after, bool lasting)
{
	struct envelope_builder *builder = envelope_builder_create();
	struct span envelope;
	bool good, refused;

	assert_non_null(builder);
	memory_refuse(after, lasting);
	build(builder);
	good = envelope_seal(builder, &envelope);
	refused = memory_refuse_end();
	assert_int_equal(good, !refused);
	if (good)
		check_whole(envelope);
	/* What has failed is as good as new after a reset. */
	envelope_builder_reset(builder);
	build(builder);
	assert_true(envelope_seal(builder, &envelope));
	check_whole(envelope);
	envelope_builder_destroy(builder);
	return refused;
}

static void an_envelope_is_whole_or_not_sealed(void **state)
{
	bool refused = true;
	uint32_t after;

	(void)state;
	for (after = 0; refused; after++) {
		refused = build_without(after, false);
		refused |= build_without(after, true);
	}
	assert_true(after > 5);
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static const char *domain_of(uint32_t number)
{
	static char domain[32];

	snprintf(domain, sizeof(domain), "d%u.example", number);
	return domain;
}

/* Pieces as a client sends them, each of its own letter. */
static void append_body(struct queue_message *message, uint64_t bytes)
{
	char piece[1000];

	for (uint64_t at = 0; at < bytes; at += sizeof(piece)) {
		memset(piece, 'a' + (int)(at / sizeof(piece) % 26), sizeof(piece));
		queue_message_append(message, span_of(piece, sizeof(piece)));
	}
}

static void check_body(struct world *world, uint32_t number, uint64_t bytes)
{
	struct queue_job *job = world_take(world, domain_of(number));

	assert_non_null(job);
	assert_int_equal(world->loaded ? world->loaded_status : QUEUE_OK, QUEUE_OK);
	assert_int_equal(job->message->body_bytes, bytes);
	if ((job->message->flags & FORMAT_BIG) == 0) {
		assert_int_equal(job->message->body.len, bytes);
		for (uint64_t at = 0; at < bytes; at++)
			assert_int_equal(job->message->body.at[at], 'a' + at / 1000 % 26);
	}
	world_deliver(world, job);
}

/* To a domain that is new. True: something was refused. */
static bool accept_without(struct world *world, uint64_t bytes, uint32_t after, bool lasting)
{
	static uint32_t number;
	struct world_accept accept = { .accept.done = world_on_accepted };
	bool refused;

	world_start_envelope(world);
	world_add_recipients(world, domain_of(++number), 1);
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	accept.accept.message = queue_message_create(world->stream);
	assert_non_null(accept.accept.message);
	accept.accept.message->expiry_s = os_wall_seconds(os_wall_now()) + 432000;

	memory_refuse(after, lasting);
	append_body(accept.accept.message, bytes);
	queue_accept(world->stream, &accept.accept);
	refused = memory_refuse_end();

	world_until(world, accept.done);
	if (accept.status == QUEUE_OK) {
		check_body(world, number, bytes);
		return refused;
	}
	assert_int_equal(accept.status, QUEUE_SPACE);
	assert_true(refused);
	assert_int_equal(world_jobs(world), 0);
	queue_message_unref(accept.accept.message);
	return true;
}

/* In memory at once, grown twice, by way of a file into a segment, and in a file of its own. */
static void a_message_is_whole_or_refused(void **state)
{
	static const uint64_t sizes[] = { 1000, 20000, 180000, 600000 };
	struct world *world = *state;

	world_begin(world);
	for (size_t i = 0; i < array_count(sizes); i++) {
		bool refused = true;
		uint32_t after;

		for (after = 0; refused; after++) {
			refused = accept_without(world, sizes[i], after, false);
			refused |= accept_without(world, sizes[i], after, true);
		}
		assert_true(after > 1);
	}
	assert_false(world->broken);
	world_end(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_envelope_is_whole_or_not_sealed),
		cmocka_unit_test_setup_teardown(a_message_is_whole_or_refused, world_setup,
						world_teardown),
	};

	return cmocka_run_group_tests_name("queue_memory", tests, NULL, NULL);
}
