/*
 * Logging in to a smarthost: what is said for each offer and each answer, and that a refusal is
 * no message's fault. Each row is fed whole and octet by octet.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/client.h"
#include "os/check.h"

struct world {
	struct smtp_client *client;
	char wire[4096], ended[128];
	bool ready;
	int verdict, code;
};

static void on_ready(void *context)
{
	((struct world *)context)->ready = true;
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	struct world *world = context;

	(void)transaction, (void)reply;
	world->verdict = recipient->verdict;
	world->code = recipient->reply;
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	(void)context, (void)transaction;
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct world *world = context;

	snprintf(world->ended, sizeof(world->ended), "%s%s", why, reply ? " (reply)" : "");
}

static const struct smtp_client_host host = {
	.ready = on_ready,
	.recipient = on_recipient,
	.finished = on_finished,
	.ended = on_ended,
};

static void pull(struct world *world)
{
	struct iovec iov[4];
	int count;

	while ((count = smtp_client_output(world->client, iov, 4)) > 0) {
		size_t sum = 0;

		for (int i = 0; i < count; i++) {
			strncat(world->wire, iov[i].iov_base, iov[i].iov_len);
			sum += iov[i].iov_len;
		}
		smtp_client_sent(world->client, sum);
	}
}

static void hear(struct world *world, const char *text, bool bytewise)
{
	size_t step = bytewise ? 1 : strlen(text);

	for (; *text != '\0'; text += step) {
		smtp_client_feed(world->client, span_of(text, step));
		pull(world);
	}
}

static struct world *begin(const struct smtp_client_options *options)
{
	struct world *world = calloc(1, sizeof(*world));

	world->verdict = -1;
	world->client = smtp_client_create(options, &host, world);
	return world;
}

static void end(struct world *world)
{
	smtp_client_lost(world->client, "test over");
	smtp_client_destroy(world->client);
	free(world);
}

#define BOTH	   "220 b\r\n", "250-b\r\n250 AUTH GSSAPI login PLAIN\r\n"
#define LOGIN	   "220 b\r\n", "250-b\r\n250 AUTH LOGIN CRAM-MD5\r\n"
#define SAID_PLAIN "EHLO a\r\nAUTH PLAIN AHVzAHB3\r\n"
#define SAID_LOGIN "EHLO a\r\nAUTH LOGIN\r\n"
#define REFUSED	   "the server does not let us log in (reply)"

static const struct login_case {
	const char *name;
	const char *replies[6];
	const char *wire, *ended;
	bool trouble, in_clear, not_secured;
} login_cases[] = {
	{ "PLAIN at once", { BOTH, "235 in\r\n" }, SAID_PLAIN, "" },
	{ "LOGIN where there is no PLAIN",
	  { LOGIN, "334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", "235 in\r\n" },
	  SAID_LOGIN "dXM=\r\ncHc=\r\n",
	  "" },
	{ "a prompt of any kind will do",
	  { LOGIN, "334 \r\n", "334\r\n", "200 fine\r\n" },
	  SAID_LOGIN "dXM=\r\ncHc=\r\n",
	  "" },
	{ "who tells limits is asked for them again",
	  { "220 b\r\n", "250-b\r\n250-AUTH PLAIN\r\n250 LIMITS MAILMAX=1\r\n", "235 in\r\n",
	    "250-b\r\n250-AUTH PLAIN\r\n250 LIMITS MAILMAX=9\r\n" },
	  SAID_PLAIN "EHLO a\r\n",
	  "" },
	{ "and need not tell",
	  { "220 b\r\n", "250-b\r\n250-AUTH PLAIN\r\n250 LIMITS MAILMAX=1\r\n", "235 in\r\n",
	    "503 once is enough\r\n" },
	  SAID_PLAIN "EHLO a\r\n",
	  "" },
	{ "the form of old servers is not read",
	  { "220 b\r\n", "250-b\r\n250 AUTH=PLAIN\r\n" },
	  "EHLO a\r\n",
	  "the server offers neither AUTH PLAIN nor LOGIN",
	  .trouble = true },
	{ "535", { BOTH, "535 5.7.8 no\r\n" }, SAID_PLAIN, REFUSED, .trouble = true },
	{ "534", { BOTH, "534 5.7.9 weak\r\n" }, SAID_PLAIN, REFUSED, .trouble = true },
	{ "538", { BOTH, "538 5.7.11 TLS\r\n" }, SAID_PLAIN, REFUSED, .trouble = true },
	{ "454 is for now only",
	  { BOTH, "454 4.7.0 later\r\n" },
	  SAID_PLAIN,
	  "logging in is not possible now (reply)" },
	{ "421", { BOTH, "421 bye\r\n" }, SAID_PLAIN, "the peer is closing (reply)" },
	{ "535 to the name",
	  { LOGIN, "334 x\r\n", "535 no\r\n" },
	  SAID_LOGIN "dXM=\r\n",
	  REFUSED,
	  .trouble = true },
	{ "535 to the password",
	  { LOGIN, "334 x\r\n", "334 x\r\n", "535 no\r\n" },
	  SAID_LOGIN "dXM=\r\ncHc=\r\n",
	  REFUSED,
	  .trouble = true },
	{ "504 to LOGIN", { LOGIN, "504 no\r\n" }, SAID_LOGIN, REFUSED, .trouble = true },
	{ "more than a password is asked for",
	  { BOTH, "334 x\r\n" },
	  SAID_PLAIN,
	  "AUTH asks for more than a password (reply)" },
	{ "no AUTH offered",
	  { "220 b\r\n", "250-b\r\n250 SIZE\r\n" },
	  "EHLO a\r\n",
	  "the server offers neither AUTH PLAIN nor LOGIN",
	  .trouble = true },
	{ "only others offered",
	  { "220 b\r\n", "250-b\r\n250 AUTH CRAM-MD5 XPLAIN\r\n" },
	  "EHLO a\r\n",
	  "the server offers neither AUTH PLAIN nor LOGIN",
	  .trouble = true },
	{ "never in clear",
	  { BOTH },
	  "EHLO a\r\n",
	  "we log in only under TLS, and the server does not offer it",
	  .trouble = true,
	  .not_secured = true },
	{ "in clear where it may be",
	  { BOTH, "235 in\r\n" },
	  SAID_PLAIN,
	  "",
	  .in_clear = true,
	  .not_secured = true },
	{ "EHLO is needed",
	  { "220 b\r\n", "502 what\r\n" },
	  "EHLO a\r\n",
	  "hello refused (reply)" },
};

static void login_run(void **state)
{
	const struct login_case *row = *state;
	struct smtp_client_options options = {
		.hello = "a",
		.depth_max = 1,
		.secured = !row->not_secured,
		.auth_user = "us",
		.auth_password = "pw",
		.auth_in_clear = row->in_clear,
	};

	for (int bytewise = 0; bytewise < 2; bytewise++) {
		struct world *world = begin(&options);

		for (int i = 0; i < 6 && row->replies[i]; i++)
			hear(world, row->replies[i], bytewise);
		assert_string_equal(world->wire, row->wire);
		assert_string_equal(world->ended, row->ended);
		assert_int_equal(world->ready, row->ended[0] == '\0');
		assert_int_equal(smtp_client_auth_trouble(world->client), row->trouble);
		end(world);
	}
}

static void a_long_password_waits_for_334(void **state)
{
	char password[256], line[800];
	struct smtp_client_options options = {
		.hello = "a",
		.depth_max = 1,
		.secured = true,
		.auth_user = password,
		.auth_password = password,
	};
	struct world *world;

	(void)state;
	memset(password, 'p', 255);
	password[255] = '\0';
	world = begin(&options);
	hear(world, "220 b\r\n", false);
	hear(world, "250-b\r\n250 AUTH PLAIN\r\n", false);
	assert_string_equal(world->wire, "EHLO a\r\nAUTH PLAIN\r\n");
	world->wire[0] = '\0';
	hear(world, "334 \r\n", false);
	assert_int_equal(strlen(world->wire), 684 + 2); /* 512 octets in base64 */
	snprintf(line, sizeof(line), "%.12s", world->wire);
	assert_string_equal(line, "AHBwcHBwcHBw");
	hear(world, "235 in\r\n", false);
	assert_true(world->ready);
	end(world);
}

/* What a smarthost and another server mean by a refusal of MAIL or RCPT. */
static const struct refusal_case {
	const char *name, *to_mail, *to_rcpt;
	bool smarthost;
	enum smtp_verdict verdict;
	int code;
} refusal_cases[] = {
	{ "530 to MAIL from a smarthost", "530 5.7.0 log in\r\n", "503 no\r\n", true, SMTP_DEFERRED,
	  530 },
	{ "535 to RCPT from a smarthost", "250 ok\r\n", "535 5.7.8 no\r\n", true, SMTP_DEFERRED,
	  535 },
	{ "538 to RCPT from a smarthost", "250 ok\r\n", "538 5.7.11 no\r\n", true, SMTP_DEFERRED,
	  538 },
	{ "550 from a smarthost", "250 ok\r\n", "550 5.1.1 no\r\n", true, SMTP_FAILED, 550 },
	{ "530 from a domain's own server", "530 5.7.0 log in\r\n", "503 no\r\n", false,
	  SMTP_FAILED, 530 },
};

static void refusal_run(void **state)
{
	const struct refusal_case *row = *state;
	struct smtp_client_options options = {
		.hello = "a",
		.depth_max = 1,
		.smarthost = row->smarthost,
	};
	struct smtp_client_recipient recipient = { .address = span_text("r@x") };
	struct smtp_transaction transaction = {
		.sender = span_text("s@x"),
		.body = span_text("hi\r\n"),
		.body_bytes = 4,
		.recipients = &recipient,
		.recipient_count = 1,
	};
	struct world *world = begin(&options);

	hear(world, "220 b\r\n", false);
	hear(world, "250 b\r\n", false);
	smtp_client_submit(world->client, &transaction);
	pull(world);
	hear(world, row->to_mail, false);
	if (world->verdict < 0)
		hear(world, row->to_rcpt, false);
	assert_int_equal(world->verdict, row->verdict);
	assert_int_equal(world->code, row->code);
	end(world);
}

int main(void)
{
	struct CMUnitTest tests[1 + array_count(login_cases) + array_count(refusal_cases)] = {
		cmocka_unit_test(a_long_password_waits_for_334),
	};
	struct CMUnitTest *next = tests + 1;

	for (size_t i = 0; i < array_count(login_cases); i++)
		*next++ = (struct CMUnitTest){ .name = login_cases[i].name,
					       .test_func = login_run,
					       .initial_state = (void *)&login_cases[i] };
	for (size_t i = 0; i < array_count(refusal_cases); i++)
		*next++ = (struct CMUnitTest){ .name = refusal_cases[i].name,
					       .test_func = refusal_run,
					       .initial_state = (void *)&refusal_cases[i] };
	return cmocka_run_group_tests_name("smtp_client_auth", tests, NULL, NULL);
}
