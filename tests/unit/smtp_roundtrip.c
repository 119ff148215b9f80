/*
 * The client and the session, back to back in memory, in every mode, with the octets split at
 * random: each message must arrive once, under its own sender, octet for octet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/client.h"
#include "engine/smtp/session.h"
#include "os/prng.h"

enum { MESSAGES = 40 };

struct message {
	struct smtp_transaction transaction;
	struct smtp_client_recipient recipients[3];
	char sender[32], addresses[3][32];
	char *body;
	size_t body_len;
	bool pulled;
	size_t pulled_bytes;
	/* as it arrived: */
	char *got;
	size_t got_len;
	uint32_t got_count, got_recipients;
	bool finished;
};

struct world {
	struct prng prng;
	struct smtp_client *client;
	struct smtp_session *session;
	struct message messages[MESSAGES];
	uint32_t submitted, finished;
	int current; /* at the session */
	char *body;
	size_t body_len, body_size;
	uint32_t rcpts;
	uint32_t tickets[MESSAGES];
	uint32_t ticket_count;
	bool ready, ended;
	bool refuse; /* now and then the session refuses a recipient, or all */
};

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	struct world *world = context;

	world->current = -1;
	sscanf(mail->sender.text, "s%d@", &world->current);
	assert_in_range(world->current, 0, MESSAGES - 1);
	world->body_len = world->rcpts = 0;
	assert_int_equal(mail->size, world->messages[world->current].body_len);
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	struct world *world = context;
	int message = -1;

	sscanf(rcpt->recipient.text, "r%d@", &message);
	assert_int_equal(message, world->current);
	if (world->refuse && world->current % 5 == 3)
		return (struct smtp_answer){ 550, "5.1.1", "No such user" };
	world->rcpts++;
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	(void)context;
	assert_true(greeting->extended);
	return (struct smtp_answer){ 354, NULL, "" };
}

static void on_body(void *context, struct span bytes)
{
	struct world *world = context;

	if (world->body_len + bytes.len > world->body_size) {
		world->body_size = 2 * (world->body_len + bytes.len);
		world->body = realloc(world->body, world->body_size);
	}
	memcpy(world->body + world->body_len, bytes.at, bytes.len);
	world->body_len += bytes.len;
}

static void on_end(void *context, uint32_t ticket)
{
	struct world *world = context;
	struct message *message = &world->messages[world->current];

	message->got = malloc(world->body_len + 1);
	if (world->body_len)
		memcpy(message->got, world->body, world->body_len);
	message->got_len = world->body_len;
	message->got_count++;
	message->got_recipients = world->rcpts;
	world->tickets[world->ticket_count++] = ticket;
}

static void on_abort(void *context, const char *why)
{
	(void)context;
	(void)why;
}

static const struct smtp_session_host session_host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
};

static void client_ready(void *context)
{
	((struct world *)context)->ready = true;
}

static void client_recipient(void *context, struct smtp_transaction *transaction,
			     struct smtp_client_recipient *recipient,
			     const struct smtp_reply *reply)
{
	(void)context;
	(void)transaction;
	assert_non_null(reply);
	assert_int_not_equal(recipient->verdict, SMTP_PENDING);
}

static void client_finished(void *context, struct smtp_transaction *transaction)
{
	struct world *world = context;
	struct message *message = transaction->context;

	assert_false(message->finished);
	message->finished = true;
	world->finished++;
}

static void client_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	(void)reply;
	assert_string_equal(why, "quit");
	((struct world *)context)->ended = true;
}

static struct span client_more(void *context, struct smtp_transaction *transaction)
{
	struct world *world = context;
	struct message *message = transaction->context;
	size_t left = message->body_len - message->pulled_bytes;
	size_t len = left > 100 ? prng_below(&world->prng, left) : left;
	struct span piece = span_of(message->body + message->pulled_bytes, len);

	message->pulled_bytes += len;
	return piece;
}

static const struct smtp_client_host client_host = {
	.ready = client_ready,
	.recipient = client_recipient,
	.finished = client_finished,
	.ended = client_ended,
	.body_more = client_more,
};

/* Lines of random length, many of which begin with dots. */
static void body_make(struct prng *prng, struct message *message, size_t len)
{
	message->body = malloc(len + 1);
	message->body_len = len;
	for (size_t i = 0; i < len; i++) {
		static const char letters[] = ".abc. de\xc3\xa4";

		message->body[i] = letters[prng_below(prng, sizeof(letters) - 1)];
	}
	for (size_t i = prng_below(prng, 5); i + 1 < len; i += 2 + prng_below(prng, 90)) {
		message->body[i] = '\r';
		message->body[i + 1] = '\n';
	}
}

static void message_make(struct world *world, int index, bool big)
{
	struct message *message = &world->messages[index];
	size_t len = index == 0 ? 0 : prng_below(&world->prng, 3000);

	if (big && index == 1)
		len = 1 << 20;
	body_make(&world->prng, message, len);
	message->pulled = len > 0 && index % 3 == 0;
	snprintf(message->sender, sizeof(message->sender), "s%d@a.example", index);
	for (uint32_t i = 0; i < 3; i++) {
		snprintf(message->addresses[i], 32, "r%d@b%u.example", index, i);
		message->recipients[i].address = span_text(message->addresses[i]);
	}
	message->transaction = (struct smtp_transaction){
		.sender = span_text(message->sender),
		.eightbit = true,
		.body_bytes = len,
		.body = message->pulled ? span_of(NULL, 0) : span_of(message->body, len),
		.dot_lines = true,
		.no_final_crlf = len < 2 || memcmp(message->body + len - 2, "\r\n", 2) != 0,
		.recipients = message->recipients,
		.recipient_count = 1 + (uint32_t)index % 3,
		.context = message,
	};
}

/* Moves octets in pieces; true if anything moved. */
static bool client_to_session(struct world *world)
{
	struct iovec iov[7];
	int count = smtp_client_output(world->client, iov, 1 + (int)prng_below(&world->prng, 7));
	size_t moved = 0;
	bool stop = false;

	for (int i = 0; i < count && !stop; i++) {
		size_t len = prng_below(&world->prng, 4) ? iov[i].iov_len
							 : prng_below(&world->prng, iov[i].iov_len);
		size_t taken = smtp_session_feed(world->session, span_of(iov[i].iov_base, len));

		moved += taken;
		stop = taken < iov[i].iov_len;
	}
	if (moved > 0)
		smtp_client_sent(world->client, moved);
	return count > 0;
}

static bool session_to_client(struct world *world)
{
	struct span out = smtp_session_output(world->session);

	if (out.len == 0)
		return false;
	out.len = 1 + prng_below(&world->prng, out.len);
	char *copy = malloc(out.len);

	memcpy(copy, out.at, out.len);
	smtp_session_sent(world->session, out.len);
	smtp_client_feed(world->client, span_of(copy, out.len));
	free(copy);
	return true;
}

/* The verdicts, sometimes late and out of order. */
static bool answer(struct world *world, bool all)
{
	static const struct smtp_answer ok = { 250, "2.0.0", "Queued" };

	if (world->ticket_count == 0 || (!all && prng_below(&world->prng, 3)))
		return false;
	uint32_t i = (uint32_t)prng_below(&world->prng, world->ticket_count);

	smtp_session_answer(world->session, world->tickets[i], &ok);
	world->tickets[i] = world->tickets[--world->ticket_count];
	return true;
}

static void submit(struct world *world)
{
	while (world->submitted < MESSAGES && smtp_client_room(world->client) > 0)
		smtp_client_submit(world->client, &world->messages[world->submitted++].transaction);
}

static void messages_check(struct world *world, bool chunking)
{
	for (int i = 0; i < MESSAGES; i++) {
		struct message *message = &world->messages[i];
		bool refused = world->refuse && i % 5 == 3;

		assert_true(message->finished);
		assert_int_equal(message->got_count, refused ? 0 : 1);
		for (uint32_t k = 0; k < message->transaction.recipient_count; k++)
			assert_int_equal(message->recipients[k].verdict,
					 refused ? SMTP_FAILED : SMTP_DELIVERED);
		if (!refused) {
			size_t len = message->body_len;
			bool added = !chunking && message->transaction.no_final_crlf && len > 0;

			assert_int_equal(message->got_recipients,
					 message->transaction.recipient_count);
			assert_int_equal(message->got_len, len + (added ? 2 : 0));
			assert_memory_equal(message->got, message->body, len);
			if (added)
				assert_memory_equal(message->got + len, "\r\n", 2);
		}
		free(message->body);
		free(message->got);
	}
}

struct mode {
	const char *name;
	bool pipelining, chunking, refuse, big;
	uint32_t depth, flight_max, pending_max;
};

static void run(const struct mode *mode, uint64_t seed)
{
	struct world *world = calloc(1, sizeof(*world));
	struct smtp_session_options session_options = {
		.name = "b.example",
		.size_max = 2 << 20,
		.recipients_max = 100,
		.errors_max = 10,
		.pending_max = mode->pending_max,
		.pipelining = mode->pipelining,
		.chunking = mode->chunking,
		.eightbit = true,
		.dsn = true,
		.binarymime = true,
	};
	struct smtp_client_options client_options = {
		.hello = "a.example",
		.pipelining = true,
		.chunking = true,
		.depth_max = mode->depth,
		.recipients_per_flight_max = mode->flight_max,
	};

	world->prng.state = seed;
	world->refuse = mode->refuse;
	for (int i = 0; i < MESSAGES; i++)
		message_make(world, i, mode->big && seed <= 2);
	/* Bodies hold bare CR and LF here and there: BDAT's BINARYMIME apart, they are refused. */
	for (int i = 0; i < MESSAGES; i++) {
		struct message *message = &world->messages[i];

		for (size_t k = 0; k < message->body_len; k++) {
			char *c = &message->body[k];

			if (*c == '\r' && (k + 1 == message->body_len || c[1] != '\n'))
				*c = 'x';
			if (*c == '\n' && (k == 0 || c[-1] != '\r'))
				*c = 'x';
		}
		message->transaction.no_final_crlf =
			message->body_len < 2 ||
			memcmp(message->body + message->body_len - 2, "\r\n", 2) != 0;
	}
	world->session = smtp_session_create(&session_options, &session_host, world);
	world->client = smtp_client_create(&client_options, &client_host, world);
	smtp_session_greet(world->session, NULL);

	uint32_t idle = 0;

	while (!world->ended) {
		bool moved = client_to_session(world);

		moved |= session_to_client(world);
		moved |= answer(world, idle > 0);
		if (world->ready)
			submit(world);
		if (world->finished == MESSAGES)
			smtp_client_quit(world->client);
		idle = moved ? 0 : idle + 1;
		assert_true(idle < 10);
	}
	assert_true(smtp_session_finished(world->session));
	messages_check(world, mode->chunking);
	smtp_client_destroy(world->client);
	smtp_session_destroy(world->session);
	free(world->body);
	free(world);
}

static const struct mode modes[] = {
	{ "one command at a time", false, false, false, true, 8, 0, 4 },
	{ "one command at a time, some refused", false, false, true, false, 8, 0, 4 },
	{ "BDAT without pipelining", false, true, true, false, 8, 0, 4 },
	{ "DATA pipelined", true, false, false, true, 8, 0, 4 },
	{ "DATA pipelined, some refused", true, false, true, false, 8, 0, 4 },
	{ "one flight", true, true, false, true, 1, 0, 1 },
	{ "streamed", true, true, false, true, 8, 0, 4 },
	{ "streamed, some refused", true, true, true, false, 8, 0, 100 },
	{ "streamed, two RCPTs ahead", true, true, true, false, 8, 2, 2 },
};

static void mode_run(void **state)
{
	const struct mode *mode = *state;

	for (uint64_t seed = 1; seed <= 40; seed++)
		run(mode, seed);
}

int main(void)
{
	struct CMUnitTest tests[array_count(modes)];

	for (size_t i = 0; i < array_count(modes); i++)
		tests[i] = (struct CMUnitTest){ modes[i].name, mode_run, NULL, NULL,
						(void *)&modes[i] };
	return cmocka_run_group_tests_name("smtp_roundtrip", tests, NULL, NULL);
}
