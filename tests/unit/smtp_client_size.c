/* What a peer says of SIZE in its reply to EHLO (RFC 1870), and whether a message of four octets is
 * too big for it then. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/smtp/client.h"
#include "os/check.h"

static const struct row {
	const char *name, *line;
	bool too_big;
} rows[] = {
	{ "SIZE of the message is enough", "SIZE 4", false },
	{ "SIZE below the message is too small", "SIZE 3", true },
	{ "SIZE without a number is no limit", "SIZE", false },
	{ "SIZE and a blank is no limit", "SIZE ", false },
	{ "SIZE 0 is no limit", "SIZE 0", false },
	{ "SIZE that is no number is no limit", "SIZE few", false },
	{ "SIZE beyond 64 bits is no limit", "SIZE 18446744073709551616", false },
};

static uint32_t finished_count;

static void on_ready(void *context)
{
	(void)context;
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	(void)context, (void)transaction, (void)recipient, (void)reply;
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	(void)context, (void)transaction;
	finished_count++;
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	(void)context, (void)why, (void)reply;
}

static const struct smtp_client_host host = {
	.ready = on_ready,
	.recipient = on_recipient,
	.finished = on_finished,
	.ended = on_ended,
};

static void hear(struct smtp_client *client, const char *reply)
{
	struct iovec iov[8];
	int count;

	while ((count = smtp_client_output(client, iov, 8)) > 0)
		for (int i = 0; i < count; i++)
			smtp_client_sent(client, iov[i].iov_len);
	smtp_client_feed(client, span_text(reply));
}

static void run(void **state)
{
	const struct row *row = *state;
	const struct smtp_client_options options = { .hello = "a", .depth_max = 1 };
	struct smtp_client_recipient recipient = { .address = span_text("r@x") };
	struct smtp_transaction transaction = {
		.sender = span_text("s@x"),
		.body = span_text("hi\r\n"),
		.body_bytes = 4,
		.recipients = &recipient,
		.recipient_count = 1,
	};
	struct smtp_client *client = smtp_client_create(&options, &host, NULL);
	char ehlo[128];

	snprintf(ehlo, sizeof(ehlo), "250-b\r\n250 %s\r\n", row->line);
	finished_count = 0;
	hear(client, "220 b\r\n");
	hear(client, ehlo);
	assert_int_equal(smtp_client_state(client), SMTP_CLIENT_READY);
	assert_int_equal(smtp_client_too_big(client, &transaction), row->too_big);
	smtp_client_submit(client, &transaction);
	assert_int_equal(finished_count, row->too_big);
	assert_int_equal(recipient.verdict, row->too_big ? SMTP_FAILED : SMTP_PENDING);
	assert_int_equal(recipient.enhanced, row->too_big ? SMTP_OWN_TOO_BIG : 0);
	smtp_client_lost(client, "test over");
	smtp_client_destroy(client);
}

int main(void)
{
	struct CMUnitTest tests[array_count(rows)];

	for (size_t i = 0; i < array_count(rows); i++)
		tests[i] = (struct CMUnitTest){ rows[i].name, run, NULL, NULL, (void *)&rows[i] };
	return cmocka_run_group_tests_name("smtp_client_size", tests, NULL, NULL);
}
