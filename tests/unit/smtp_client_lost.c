/* At which of three transactions a connection was lost, and what becomes of them. With DATA, two
 * are under way at once. Verdicts as in smtp_client.c: D delivered, d deferred, U unknown, N not
 * sent, - never submitted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/smtp/client.h"
#include "os/check.h"

enum { TRANSACTIONS = 3 };

#define GO   "250 m\r\n250 r\r\n354 go\r\n|"
#define WELL "|" GO "250 saved\r\n"

static const struct row {
	const char *name;
	const char *replies; /* '|': all that is to be sent leaves; '!': the connection is lost */
	bool to_blame;	     /* each of them, if it comes to that */
	const char *verdicts;
	int lost_at; /* -1: at none */
} rows[] = {
	{ "before the first began", "!", true, "N--", -1 },
	{ "at the first MAIL", "|!", false, "N--", 0 },
	{ "at a MAIL that is to blame", "|!", true, "d--", 0 },
	{ "nonsense to a MAIL", "|what\r\n", false, "N--", 0 },
	{ "nonsense to a MAIL that is to blame", "|what\r\n", true, "d--", 0 },
	{ "at RCPT", "|250 m\r\n!", false, "d--", 0 },
	{ "after the dot", "|" GO "!", true, "U--", 0 },
	{ "between two", WELL "!", true, "DNN", -1 },
	{ "at the second MAIL", WELL "|!", false, "DNN", 1 },
	{ "at the second MAIL, to blame", WELL "|!", true, "DdN", 1 },
	{ "at a dot, with a MAIL behind it", WELL "|" GO "!", false, "DUN", 1 },
};

struct world {
	struct smtp_client *client;
	struct smtp_transaction transactions[TRANSACTIONS];
	struct smtp_client_recipient recipients[TRANSACTIONS];
	uint32_t submitted;
};

static void submit(void *context)
{
	struct world *world = context;

	while (world->submitted < TRANSACTIONS && smtp_client_room(world->client) > 0)
		smtp_client_submit(world->client, &world->transactions[world->submitted++]);
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	(void)context, (void)transaction, (void)recipient, (void)reply;
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	(void)transaction;
	submit(context);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	(void)context, (void)why, (void)reply;
}

static const struct smtp_client_host host = {
	.ready = submit,
	.recipient = on_recipient,
	.finished = on_finished,
	.ended = on_ended,
};

static void send_all(struct smtp_client *client)
{
	struct iovec iov[8];
	int count;

	while ((count = smtp_client_output(client, iov, 8)) > 0)
		for (int i = 0; i < count; i++)
			smtp_client_sent(client, iov[i].iov_len);
}

static void play(struct smtp_client *client, const char *replies)
{
	for (const char *at = replies; *at; at++) {
		if (*at == '!')
			smtp_client_lost(client, "lost");
		else if (*at == '|')
			send_all(client);
		else
			smtp_client_feed(client, span_of(at, 1));
	}
}

static void run(void **state)
{
	const struct row *row = *state;
	const struct smtp_client_options options = {
		.hello = "a",
		.pipelining = true,
		.depth_max = 3,
	};
	struct world world = { .submitted = 0 };

	for (int i = 0; i < TRANSACTIONS; i++) {
		world.recipients[i].address = span_text("r@x");
		world.transactions[i] = (struct smtp_transaction){
			.sender = span_text("s@x"),
			.body = span_text("hi\r\n"),
			.body_bytes = 4,
			.to_blame = row->to_blame,
			.recipients = &world.recipients[i],
			.recipient_count = 1,
		};
	}
	world.client = smtp_client_create(&options, &host, &world);
	play(world.client, "220 b\r\n|250-b\r\n250 PIPELINING\r\n");
	play(world.client, row->replies);
	assert_int_equal(smtp_client_state(world.client), SMTP_CLIENT_ENDED);
	for (int i = 0; i < TRANSACTIONS; i++) {
		assert_int_equal("-DdFUN"[world.recipients[i].verdict], row -> verdicts[i]);
		assert_int_equal(world.transactions[i].lost_at, i == row->lost_at);
	}
	smtp_client_destroy(world.client);
}

int main(void)
{
	struct CMUnitTest tests[array_count(rows)];

	for (size_t i = 0; i < array_count(rows); i++)
		tests[i] = (struct CMUnitTest){ rows[i].name, run, NULL, NULL, (void *)&rows[i] };
	return cmocka_run_group_tests_name("smtp_client_lost", tests, NULL, NULL);
}
