/*
 * The sending side: a walk over every step x every kind of reply in four modes, and scenarios.
 *
 * The peer here reads commands and answers each as a server would; one of its replies is
 * replaced. Verdicts are written as letters: D delivered, d deferred, F failed, U unknown,
 * N not sent, - never submitted; '!' the session ended.
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
	struct smtp_transaction transactions[4];
	struct smtp_client_recipient recipients[4][3];
	uint32_t count, submitted; /* of the transactions */
	bool manual;		   /* nothing is submitted by itself */
	char verdicts[40], ended[80];
	uint32_t finished;
	char wire[4096]; /* all that the client sent */
	size_t wire_len;
	/* the peer */
	const char *ehlo;
	size_t read; /* of the wire */
	int step;    /* replies given */
	bool in_body, mail;
	uint32_t accepted;
	bool lmtp;
};

static void submit_all(struct world *world)
{
	while (!world->manual && world->submitted < world->count &&
	       smtp_client_room(world->client) > 0)
		smtp_client_submit(world->client, &world->transactions[world->submitted++]);
}

static void on_ready(void *context)
{
	submit_all(context);
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	(void)context;
	(void)transaction;
	assert_int_not_equal(recipient->verdict, SMTP_PENDING);
	assert_int_equal(recipient->reply, reply ? reply->code : recipient->reply);
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	struct world *world = context;

	for (uint32_t i = 0; i < transaction->recipient_count; i++)
		assert_int_not_equal(transaction->recipients[i].verdict, SMTP_PENDING);
	world->finished++;
	submit_all(world);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct world *world = context;

	(void)reply;
	assert_int_equal(smtp_client_unfinished(world->client), 0);
	assert_string_equal(world->ended, "");
	snprintf(world->ended, sizeof(world->ended), "%s", why);
}

static const struct smtp_client_host host = {
	.ready = on_ready,
	.recipient = on_recipient,
	.finished = on_finished,
	.ended = on_ended,
};

#define ALL  "250-b\r\n250-PIPELINING\r\n250-SIZE 100\r\n250-8BITMIME\r\n250-DSN\r\n250 CHUNKING\r\n"
#define PIPE "250-b\r\n250 PIPELINING\r\n"

static struct world *world_create(const char *ehlo, bool lmtp, uint32_t count)
{
	static const char *const names[] = { "r@x", "q@x", "p@x" };
	struct smtp_client_options options = {
		.hello = "a",
		.lmtp = lmtp,
		.pipelining = true,
		.chunking = true,
		.depth_max = 3,
	};
	struct world *world = calloc(1, sizeof(*world));

	world->ehlo = ehlo;
	world->lmtp = lmtp;
	world->count = count;
	for (uint32_t i = 0; i < 4; i++) {
		for (uint32_t k = 0; k < 3; k++)
			world->recipients[i][k].address = span_text(names[k]);
		world->transactions[i] = (struct smtp_transaction){
			.sender = span_text("s@x"),
			.body = span_text("hi\r\n"),
			.body_bytes = 4,
			.recipients = world->recipients[i],
			.recipient_count = 2,
		};
	}
	world->client = smtp_client_create(&options, &host, world);
	return world;
}

static void world_destroy(struct world *world)
{
	smtp_client_lost(world->client, "test over");
	smtp_client_destroy(world->client);
	free(world);
}

/* Takes at most `max` octets from the client. */
static size_t pull(struct world *world, size_t max)
{
	struct iovec iov[3];
	int count = smtp_client_output(world->client, iov, 3);
	size_t moved = 0;

	for (int i = 0; i < count; i++) {
		size_t len = iov[i].iov_len < max - moved ? iov[i].iov_len : max - moved;

		assert_true(world->wire_len + len < sizeof(world->wire));
		memcpy(world->wire + world->wire_len, iov[i].iov_base, len);
		world->wire_len += len;
		moved += len;
	}
	world->wire[world->wire_len] = 0;
	if (moved > 0)
		smtp_client_sent(world->client, moved);
	return moved;
}

static void pull_all(struct world *world)
{
	while (pull(world, SIZE_MAX) > 0)
		continue;
}

static void feed(struct world *world, const char *bytes)
{
	smtp_client_feed(world->client, span_text(bytes));
}

static const char *verdicts(struct world *world, uint32_t index)
{
	size_t n = 0;

	for (uint32_t i = 0; i < world->transactions[index].recipient_count; i++)
		world->verdicts[n++] = index < world->submitted
					       ? "?DdFUN"[world->recipients[index][i].verdict]
					       : '-';
	if (*world->ended)
		world->verdicts[n++] = '!';
	world->verdicts[n] = 0;
	return world->verdicts;
}

/* ---- the walk ---- */

enum kind { K2XX, K3XX, K4XX, K5XX, K421, KMALFORMED, KLOST, KINDS };

static const char *const kind_replies[KINDS] = {
	[K2XX] = "250 2.0.0 Ok\r\n", [K3XX] = "354 go\r\n",	   [K4XX] = "451 4.3.0 hm\r\n",
	[K5XX] = "550 5.3.0 no\r\n", [K421] = "421 4.3.2 bye\r\n", [KMALFORMED] = "hello\r\n",
};

/* Gives the reply that is due, or the one that takes its place. */
static void say(struct world *world, const char *usual, int step, enum kind kind)
{
	const char *reply = world->step++ == step ? kind_replies[kind] : usual;

	if (*world->ended)
		return;
	if (!reply)
		smtp_client_lost(world->client, "lost");
	else
		feed(world, reply);
}

static void peer_body_end(struct world *world, int step, enum kind kind)
{
	uint32_t replies = world->lmtp ? world->accepted : 1;

	for (uint32_t i = 0; i < replies; i++)
		say(world, "250 2.0.0 Queued\r\n", step, kind);
	world->accepted = 0;
	world->mail = false;
}

/* Answers one command or body; false: none is there. */
static bool peer_answer(struct world *world, int step, enum kind kind)
{
	const char *line = world->wire + world->read;
	const char *end = strstr(line, world->in_body ? "\r\n.\r\n" : "\r\n");

	if (!end)
		return false;
	world->read = (size_t)(end - world->wire) + (world->in_body ? 5 : 2);
	if (world->in_body) {
		world->in_body = false;
		peer_body_end(world, step, kind);
	} else if (strncmp(line, "MAIL", 4) == 0) {
		world->mail = world->step != step || kind == K2XX;
		say(world, "250 2.1.0 Ok\r\n", step, kind);
	} else if (strncmp(line, "RCPT", 4) == 0) {
		world->accepted += world->mail && (world->step != step || kind == K2XX);
		say(world, world->mail ? "250 2.1.5 Ok\r\n" : "503 5.5.1 no\r\n", step, kind);
	} else if (strncmp(line, "DATA", 4) == 0) {
		world->in_body = world->accepted > 0 && (world->step != step || kind == K3XX);
		say(world, world->accepted > 0 ? "354 go\r\n" : "503 5.5.1 no\r\n", step, kind);
	} else if (strncmp(line, "BDAT 4 LAST", 11) == 0) {
		world->read += 4;
		if (world->accepted > 0)
			peer_body_end(world, step, kind);
		else
			say(world, "503 5.5.1 no\r\n", step, kind);
	} else if (strncmp(line, "EHLO", 4) == 0 || strncmp(line, "LHLO", 4) == 0) {
		/* 2xx in EHLO's place is its usual reply, with the extensions. */
		say(world, world->ehlo, kind == K2XX ? -1 : step, kind);
	} else {
		say(world, "250 Ok\r\n", step, kind); /* HELO, RSET, QUIT */
	}
	return true;
}

#define DATA_MAIL  "DD dd! dd FF dd! NN! NN!"
#define DATA_RCPT1 "DD dd! dD FD dd! dd! dd!"
#define DATA_RCPT2 "DD dd! Dd DF dd! dd! dd!"
#define DATA_DATA  "dd! DD dd FF dd! dd! dd!"

/* Verdicts for 2xx 3xx 4xx 5xx 421 malformed lost, in place of the reply to this step. */
static const struct walk_case {
	const char *name, *ehlo;
	bool lmtp;
	int step;
	const char *expected;
} walks[] = {
	{ "sequential: greeting", "250 b\r\n", false, 0, "DD --! --! --! --! --! --!" },
	{ "sequential: EHLO", "250 b\r\n", false, 1, "DD --! --! DD --! --! --!" },
	{ "sequential: MAIL", "250 b\r\n", false, 2, DATA_MAIL },
	{ "sequential: first RCPT", "250 b\r\n", false, 3, DATA_RCPT1 },
	{ "sequential: last RCPT", "250 b\r\n", false, 4, DATA_RCPT2 },
	{ "sequential: DATA", "250 b\r\n", false, 5, DATA_DATA },
	{ "sequential: dot", "250 b\r\n", false, 6, "DD UU! dd FF dd! UU! UU!" },
	{ "pipelined: MAIL", PIPE, false, 2, DATA_MAIL },
	{ "pipelined: first RCPT", PIPE, false, 3, DATA_RCPT1 },
	{ "pipelined: last RCPT", PIPE, false, 4, DATA_RCPT2 },
	{ "pipelined: DATA", PIPE, false, 5, DATA_DATA },
	{ "pipelined: dot", PIPE, false, 6, "DD UU! dd FF dd! UU! UU!" },
	{ "one flight: MAIL", ALL, false, 2, "DD UU! dd FF dd! UU! UU!" },
	{ "one flight: first RCPT", ALL, false, 3, "DD UU! dD FD dU! UU! UU!" },
	{ "one flight: last RCPT", ALL, false, 4, "DD UU! Dd DF Ud! UU! UU!" },
	{ "one flight: BDAT", ALL, false, 5, "DD UU! dd FF dd! UU! UU!" },
	{ "LMTP: LHLO", PIPE, true, 1, "DD --! --! --! --! --! --!" },
	{ "LMTP: MAIL", PIPE, true, 2, DATA_MAIL },
	{ "LMTP: first RCPT", PIPE, true, 3, DATA_RCPT1 },
	{ "LMTP: last RCPT", PIPE, true, 4, DATA_RCPT2 },
	{ "LMTP: DATA", PIPE, true, 5, DATA_DATA },
	{ "LMTP: dot, first recipient", PIPE, true, 6, "DD UU! dD FD dU! UU! UU!" },
	{ "LMTP: dot, last recipient", PIPE, true, 7, "DD DU! Dd DF Dd! DU! DU!" },
	{ "LMTP with BDAT: first recipient", ALL, true, 5, "DD UU! dD FD dU! UU! UU!" },
	{ "LMTP with BDAT: last recipient", ALL, true, 6, "DD DU! Dd DF Dd! DU! DU!" },
};

static void walk_run(void **state)
{
	const struct walk_case *row = *state;
	char result[100] = "";

	for (enum kind kind = 0; kind < KINDS; kind++) {
		struct world *world = world_create(row->ehlo, row->lmtp, 1);

		say(world, "220 b\r\n", row->step, kind);
		do
			pull_all(world);
		while (!*world->ended && peer_answer(world, row->step, kind));
		assert_int_equal(world->finished, world->submitted);
		snprintf(result + strlen(result), sizeof(result) - strlen(result), "%s%s",
			 kind ? " " : "", verdicts(world, 0));
		world_destroy(world);
	}
	assert_string_equal(result, row->expected);
}

/* ---- scenarios ---- */

static struct world *world_ready(const char *ehlo, uint32_t count)
{
	struct world *world = world_create(ehlo, false, count);

	feed(world, "220 b\r\n");
	pull_all(world);
	assert_string_equal(world->wire, "EHLO a\r\n");
	world->wire_len = 0;
	feed(world, ehlo);
	return world;
}

#define FLIGHT "MAIL FROM:<s@x> SIZE=4\r\nRCPT TO:<r@x>\r\nRCPT TO:<q@x>\r\nBDAT 4 LAST\r\nhi\r\n"

static void nothing_was_sent(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "NN!");
	world_destroy(world);
}

static void not_whole_and_nothing_heard(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull(world, strlen(FLIGHT) - 1);
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "NN!");
	world_destroy(world);
}

static void not_whole_and_something_heard(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull(world, strlen(FLIGHT) - 1);
	feed(world, "250 ok\r\n550 5.1.1 no\r\n");
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "Fd!");
	world_destroy(world);
}

static void whole_by_one_octet(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull(world, strlen(FLIGHT));
	assert_string_equal(world->wire, FLIGHT);
	feed(world, "250 ok\r\n550 5.1.1 no\r\n");
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "FU!");
	world_destroy(world);
}

static void too_many_recipients(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull_all(world);
	feed(world, "250 ok\r\n250 ok\r\n452 4.5.3 no more\r\n250 ok\r\n");
	assert_string_equal(verdicts(world, 0), "DN");
	world_destroy(world);
}

static void too_many_at_the_first_is_a_deferral(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull_all(world);
	feed(world, "250 ok\r\n452 4.5.3 no more\r\n250 ok\r\n250 ok\r\n");
	assert_string_equal(verdicts(world, 0), "dD");
	world_destroy(world);
}

#define ONE    "250-b\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 LIMITS FOO=1 rcptmax=1 MAILMAX=7\r\n"
#define FIRST1 "MAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\nBDAT 4 LAST\r\nhi\r\n"

static void more_recipients_than_the_peer_says_it_takes(void **state)
{
	struct world *world = world_ready(ONE, 2);

	(void)state;
	assert_int_equal(smtp_client_messages_max(world->client), 7);
	pull_all(world);
	assert_string_equal(world->wire, FIRST1);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n");
	assert_string_equal(verdicts(world, 0), "DN");
	world->wire_len = 0;
	pull_all(world);
	assert_string_equal(world->wire, FIRST1);
	feed(world, "250 ok\r\n550 5.1.1 no\r\n503 no\r\n");
	assert_string_equal(verdicts(world, 1), "FN");
	world_destroy(world);
}

static void held_back_and_refused_as_a_whole(void **state)
{
	struct world *world = world_ready(ONE, 1);

	(void)state;
	pull_all(world);
	feed(world, "550 5.7.1 no\r\n503 no\r\n503 no\r\n");
	assert_string_equal(verdicts(world, 0), "FN");
	world_destroy(world);
}

static void limits_without_a_use(void **state)
{
	struct world *world = world_ready("250-b\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 LIMITS "
					  "RCPTMAX=0 RCPTMAX=1000000 RCPTMAX RCPTMAX=x "
					  "RCPTDOMAINMAX=1 MAILMAX=\r\n",
					  1);

	(void)state;
	assert_int_equal(smtp_client_messages_max(world->client), 0);
	pull_all(world);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
	assert_string_equal(verdicts(world, 0), "DD");
	world_destroy(world);
}

static void nobody_accepted_and_354(void **state)
{
	struct world *world = world_ready(PIPE, 2);

	(void)state;
	pull_all(world);
	feed(world, "250 ok\r\n550 no\r\n451 no\r\n354 go\r\n");
	world->wire_len = 0;
	pull_all(world);
	assert_string_equal(world->wire, ".\r\n");
	feed(world, "250 ok\r\n");
	assert_string_equal(verdicts(world, 0), "Fd");
	world_destroy(world);
}

static void after_a_failure_rset_comes_first(void **state)
{
	struct world *world = world_ready(ALL, 2);

	(void)state;
	pull_all(world);
	feed(world, "250 ok\r\n550 no\r\n550 no\r\n503 no\r\n");
	world->wire_len = 0;
	pull_all(world);
	assert_string_equal(world->wire, "RSET\r\n" FLIGHT);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
	assert_string_equal(verdicts(world, 1), "DD");
	world_destroy(world);
}

static void streaming_begins_after_the_first_success(void **state)
{
	struct world *world = world_ready(ALL, 4);

	(void)state;
	pull_all(world);
	assert_string_equal(world->wire, FLIGHT);
	world->wire_len = 0;
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
	submit_all(world);
	assert_int_equal(smtp_client_room(world->client), 0);
	pull_all(world);
	assert_string_equal(world->wire, FLIGHT "RSET\r\n" FLIGHT "RSET\r\n" FLIGHT);
	feed(world, "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 1), "DF!");
	assert_string_equal(verdicts(world, 2), "UU!");
	assert_string_equal(verdicts(world, 3), "UU!");
	world_destroy(world);
}

static void with_data_one_flight_goes_ahead(void **state)
{
	struct world *world = world_ready(PIPE, 4);
	const char *flight = "MAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\nRCPT TO:<q@x>\r\nDATA\r\n";

	(void)state;
	pull_all(world);
	assert_string_equal(world->wire, flight);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
	pull_all(world);
	feed(world, "250 ok\r\n");
	pull_all(world);
	submit_all(world);
	assert_int_equal(smtp_client_room(world->client), 0);
	world->wire_len = 0;
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
	pull_all(world);
	char expected[200];

	snprintf(expected, sizeof(expected), "hi\r\n.\r\nRSET\r\n%s", flight);
	assert_string_equal(world->wire, expected);
	world_destroy(world);
}

/* ---- LMTP: three recipients, and a reply for each that was accepted ---- */

#define TAKEN "250 m\r\n250 r\r\n250 r\r\n250 r\r\n"
#define SAVED "250 2.0.0 saved\r\n"
#define FULL  "552 5.2.2 full\r\n"
#define BUSY  "451 4.3.0 busy\r\n"

/* At each '|' all that is to be sent leaves; '!' is the end of the connection. */
static const struct lmtp_case {
	const char *name, *replies;
	const char *verdicts[3]; /* of each transaction; NULL: there is none */
} lmtp_cases[] = {
	{ "LMTP: three replies, three verdicts", TAKEN "|" SAVED BUSY FULL, { "DdF" } },
	{ "LMTP: a refused recipient has no second reply",
	  "250 m\r\n250 r\r\n550 5.1.1 no\r\n250 r\r\n|" SAVED FULL,
	  { "DFF" } },
	{ "LMTP: one that was too many has no second reply",
	  "250 m\r\n250 r\r\n452 4.5.3 no more\r\n452 4.5.3 no more\r\n|" SAVED,
	  { "DNN" } },
	{ "LMTP: nobody accepted, one reply; the next goes well",
	  "250 m\r\n550 no\r\n550 no\r\n550 no\r\n503 5.5.1 no\r\n|250 rset\r\n" TAKEN
	  "|" SAVED SAVED SAVED,
	  { "FFF", "DDD" } },
	{ "LMTP: 421 to the second", TAKEN "|" SAVED "421 4.3.2 bye\r\n", { "DdU!" } },
	{ "LMTP: lost among the replies", TAKEN "|" SAVED "!", { "DUU!" } },
	{ "LMTP: lost within a reply", TAKEN "|" FULL "250 2.0.0 sav!", { "FUU!" } },
	{ "LMTP: lost before the first", TAKEN "|!", { "UUU!" } },
	{ "LMTP: a reply too many ends the session",
	  TAKEN "|" SAVED SAVED SAVED SAVED,
	  { "DDD!" } },
	{ "LMTP: the next flight's replies come behind the last one's",
	  TAKEN "|" SAVED SAVED SAVED "|" TAKEN SAVED BUSY FULL
		"250 rset\r\n250 m\r\n250 r\r\n550 no\r\n250 r\r\n" FULL SAVED,
	  { "DDD", "DdF", "FFD" } },
	{ "LMTP: lost among the replies of the second flight",
	  TAKEN "|" SAVED SAVED SAVED "|" TAKEN SAVED "!",
	  { "DDD", "DUU!", "UUU!" } },
};

static void lmtp_run(void **state)
{
	const struct lmtp_case *row = *state;
	uint32_t count = 0;
	struct world *world;

	while (count < array_count(row->verdicts) && row->verdicts[count])
		count++;
	world = world_create(ALL, true, count);
	for (uint32_t i = 0; i < count; i++)
		world->transactions[i].recipient_count = 3;
	feed(world, "220 b\r\n");
	pull_all(world);
	assert_string_equal(world->wire, "LHLO a\r\n");
	feed(world, ALL);
	pull_all(world);
	for (const char *at = row->replies; *at && !*world->ended; at++) {
		if (*at == '!')
			smtp_client_lost(world->client, "lost");
		else if (*at == '|')
			pull_all(world);
		else
			smtp_client_feed(world->client, span_of(at, 1));
	}
	for (uint32_t i = 0; i < count; i++) {
		char expected[8];

		/* The end is everyone's. */
		snprintf(expected, sizeof(expected), "%.3s%s", row->verdicts[i],
			 *world->ended ? "!" : "");
		assert_string_equal(verdicts(world, i), expected);
		assert_true(!strchr(row->verdicts[i], '!') || *world->ended);
	}
	world_destroy(world);
}

static void bigger_than_the_peer_takes(void **state)
{
	struct world *world = world_create(ALL, false, 1);

	(void)state;
	world->transactions[0].body_bytes = 101;
	world->transactions[0].body = span_of(NULL, 0);
	feed(world, "220 b\r\n");
	pull_all(world);
	feed(world, ALL);
	assert_string_equal(verdicts(world, 0), "FF");
	assert_int_equal(world->recipients[0][0].reply, 0); /* no server said it */
	assert_int_equal(world->recipients[0][0].enhanced, SMTP_OWN_TOO_BIG);
	assert_int_equal(world->finished, 1);
	world_destroy(world);
}

/* What is needed, what the peer has, what MAIL says then, and what becomes of r and q. */
static const struct octets_row {
	const char *name, *ehlo, *sender, *recipient;
	bool utf8, eightbit, binary;
	const char *mail, *verdicts;
	uint16_t enhanced; /* of the first */
} octets_rows[] = {
#define WITH(extensions) "250-p\r\n250-PIPELINING\r\n" extensions "250 HELP\r\n"
#define HAS_8BIT	 "250-8BITMIME\r\n"
#define HAS_UTF8	 "250-SMTPUTF8\r\n"
#define HAS_BDAT	 "250-CHUNKING\r\n"
#define HAS_BINARY	 "250-BINARYMIME\r\n"
	{ "SMTPUTF8 only if it is needed", WITH(HAS_8BIT HAS_UTF8), "s@x", "r@x", false, false,
	  false, "MAIL FROM:<s@x>\r\n", "??", 0 },
	{ "a header needs SMTPUTF8", WITH(HAS_8BIT HAS_UTF8), "s@x", "r@x", true, true, false,
	  "MAIL FROM:<s@x> BODY=8BITMIME SMTPUTF8\r\n", "??", 0 },
	{ "a recipient needs SMTPUTF8", WITH(HAS_8BIT HAS_UTF8), "s@x", "\xc3\xbc@x", false, false,
	  false, "MAIL FROM:<s@x> SMTPUTF8\r\n", "??", 0 },
	{ "a sender needs SMTPUTF8", WITH(HAS_8BIT HAS_UTF8), "\xc3\xbc@x", "r@x", false, false,
	  false, "MAIL FROM:<\xc3\xbc@x> SMTPUTF8\r\n", "??", 0 },
	{ "a header beyond ASCII to a peer without SMTPUTF8", WITH(HAS_8BIT), "s@x", "r@x", true,
	  true, false, "", "FF", 50609 },
	{ "a header beyond ASCII to a peer without anything", WITH(""), "s@x", "r@x", true, true,
	  false, "", "FF", 50609 },
	{ "a sender beyond ASCII to a peer without SMTPUTF8", WITH(HAS_8BIT), "\xc3\xbc@x", "r@x",
	  false, false, false, "", "FF", 50607 },
	{ "a recipient beyond ASCII fails alone", WITH(HAS_8BIT), "s@x", "\xc3\xbc@x", false, false,
	  false, "MAIL FROM:<s@x>\r\nRCPT TO:<q@x>\r\nDATA\r\n", "F?", 50607 },
	{ "binary to a peer that has it", WITH(HAS_8BIT HAS_BDAT HAS_BINARY), "s@x", "r@x", false,
	  true, true, "MAIL FROM:<s@x> BODY=BINARYMIME\r\n", "??", 0 },
	{ "binary to a peer without BDAT", WITH(HAS_8BIT HAS_BINARY), "s@x", "r@x", false, true,
	  true, "", "FF", 50603 },
	{ "binary to a peer with 8BITMIME", WITH(HAS_8BIT HAS_BDAT), "s@x", "r@x", false, true,
	  true, "", "FF", 50603 },
};

static void octets_row(void **state)
{
	const struct octets_row *row = *state;
	struct world *world = world_create(row->ehlo, false, 1);
	struct smtp_transaction *transaction = &world->transactions[0];

	transaction->sender = span_text(row->sender);
	transaction->recipients[0].address = span_text(row->recipient);
	transaction->utf8 = row->utf8;
	transaction->eightbit = row->eightbit;
	transaction->binary = row->binary;
	feed(world, "220 b\r\n");
	pull_all(world);
	world->wire_len = 0;
	world->wire[0] = '\0';
	feed(world, row->ehlo);
	pull_all(world);
	assert_true(strncmp(world->wire, row->mail, strlen(row->mail)) == 0);
	assert_true(row->mail[0] != '\0' || world->wire[0] == '\0');
	assert_string_equal(verdicts(world, 0), row->verdicts);
	assert_int_equal(transaction->recipients[0].enhanced, row->enhanced);
	if (world->finished == 0)
		smtp_client_lost(world->client, "over");
	world_destroy(world);
}

static void an_orcpt_is_ascii_without_smtputf8(void **state)
{
	static const char ehlo[] = WITH("250-DSN\r\n");
	struct world *world = world_create(ehlo, false, 1);

	(void)state;
	world->transactions[0].recipients[0].orcpt = span_text("utf-8;b\xc3\xbc@\xe2\x82\xac");
	feed(world, "220 b\r\n");
	pull_all(world);
	feed(world, ehlo);
	pull_all(world);
	assert_non_null(strstr(world->wire, " ORCPT=utf-8;b\\x{FC}@\\x{20AC}\r\n"));
	smtp_client_lost(world->client, "over");
	world_destroy(world);
}

static void a_prefix_goes_before_the_body_and_counts(void **state)
{
	static const char *const expected[] = {
		"MAIL FROM:<s@x> SIZE=10\r\nRCPT TO:<r@x>\r\nRCPT TO:<q@x>\r\n"
		"BDAT 10 LAST\r\nX: y\r\nhi\r\n",
		"X: y\r\nhi\r\n.\r\n",
	};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct world *world = world_create(i ? PIPE : ALL, false, 1);

		world->transactions[0].prefix = span_text("X: y\r\n");
		feed(world, "220 b\r\n");
		pull_all(world);
		world->wire_len = 0;
		feed(world, i ? PIPE : ALL);
		pull_all(world);
		if (i == 1) {
			feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n");
			world->wire_len = 0;
			feed(world, "354 go\r\n");
			pull_all(world);
		}
		assert_string_equal(world->wire, expected[i]);
		feed(world, i ? "250 ok\r\n" : "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
		assert_string_equal(verdicts(world, 0), "DD");
		world_destroy(world);
	}
}

static void a_prefix_may_make_it_too_big(void **state)
{
	struct world *world = world_create(ALL, false, 1);
	char prefix[98];

	(void)state;
	memset(prefix, 'x', sizeof(prefix));
	world->transactions[0].prefix = span_of(prefix, sizeof(prefix)); /* SIZE is 100 */
	feed(world, "220 b\r\n");
	pull_all(world);
	feed(world, ALL);
	assert_int_equal(world->recipients[0][0].enhanced, SMTP_OWN_TOO_BIG);
	world_destroy(world);
}

static void utf8_to_a_peer_without(void **state)
{
	struct world *world = world_create(ALL, false, 1);

	(void)state;
	world->transactions[0].utf8 = true;
	feed(world, "220 b\r\n");
	pull_all(world);
	feed(world, ALL);
	assert_string_equal(verdicts(world, 0), "FF");
	assert_int_equal(world->recipients[0][0].enhanced, SMTP_OWN_UTF8_HEADER);
	world_destroy(world);
}

static void eightbit_to_a_peer_without(void **state)
{
	struct world *world = world_create(PIPE, false, 1);

	(void)state;
	world->transactions[0].eightbit = true;
	feed(world, "220 b\r\n");
	pull_all(world);
	feed(world, PIPE);
	assert_string_equal(verdicts(world, 0), "FF");
	assert_int_equal(world->recipients[0][0].enhanced, SMTP_OWN_8BIT);
	world_destroy(world);
}

static void parameters_go_to_who_offers_them(void **state)
{
	static const char *const expected[] = {
		"MAIL FROM:<s@x> SIZE=4 BODY=8BITMIME RET=HDRS ENVID=e\r\n"
		"RCPT TO:<r@x> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o\r\nBDAT 4 LAST\r\nhi\r\n",
		"MAIL FROM:<s@x>\r\nRCPT TO:<r@x>\r\nDATA\r\n",
	};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct world *world = world_create(i ? PIPE : ALL, false, 1);
		struct smtp_transaction *transaction = &world->transactions[0];

		transaction->recipient_count = 1;
		transaction->eightbit = i == 0;
		transaction->ret = 'H';
		transaction->envid = span_text("e");
		transaction->recipients[0].notify = 2 | 8;
		transaction->recipients[0].orcpt = span_text("rfc822;o");
		feed(world, "220 b\r\n");
		pull_all(world);
		feed(world, i ? PIPE : ALL);
		world->wire_len = 0;
		pull_all(world);
		assert_string_equal(world->wire, expected[i]);
		world_destroy(world);
	}
}

static void refusal_in_mid_body_waits(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull(world, strlen(FLIGHT) - 1);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n552 5.3.4 big\r\n421 bye\r\n");
	assert_string_equal(verdicts(world, 0), "??");
	pull_all(world);
	assert_string_equal(verdicts(world, 0), "FF!");
	world_destroy(world);
}

static void refusal_in_mid_body_and_lost(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull(world, strlen(FLIGHT) - 1);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n552 5.3.4 big\r\n");
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "FF!");
	world_destroy(world);
}

static void given_whole_and_lost_before_it_was_seen_to_be_sent(void **state)
{
	struct world *world = world_ready(ALL, 1);
	struct iovec vectors[64];

	(void)state;
	assert_true(smtp_client_output(world->client, vectors, 64) > 0);
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "UU!");
	world_destroy(world);
}

static void acceptance_in_mid_body_is_not_believed(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	pull(world, strlen(FLIGHT) - 1);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
	smtp_client_lost(world->client, "lost");
	assert_string_equal(verdicts(world, 0), "dd!");
	world_destroy(world);
}

static void closing_while_idle(void **state)
{
	struct world *world = world_ready(ALL, 0);

	(void)state;
	feed(world, "421 4.4.2 idle\r\n");
	assert_string_equal(world->ended, "the peer is closing");
	assert_int_equal(smtp_client_state(world->client), SMTP_CLIENT_ENDED);
	assert_int_equal(smtp_client_room(world->client), 0);
	world_destroy(world);
}

static void a_reply_to_nothing(void **state)
{
	struct world *world = world_ready(ALL, 0);

	(void)state;
	feed(world, "250 ok\r\n");
	assert_string_equal(world->ended, "a reply to nothing");
	world_destroy(world);
}

static void quit_goes_behind_what_is_under_way(void **state)
{
	struct world *world = world_ready(ALL, 1);

	(void)state;
	smtp_client_quit(world->client);
	pull_all(world);
	assert_string_equal(world->wire, FLIGHT);
	world->wire_len = 0;
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
	pull_all(world);
	assert_string_equal(world->wire, "QUIT\r\n");
	assert_int_equal(smtp_client_state(world->client), SMTP_CLIENT_QUITTING);
	feed(world, "221 bye\r\n");
	assert_string_equal(world->ended, "quit");
	world_destroy(world);
}

static void deadlines_follow_the_steps(void **state)
{
	static const struct smtp_client_timeouts t = { 1, 2, 3, 4, 5, 6, 7, 8 };
	struct world *world = world_create(PIPE, false, 1);

	(void)state;
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 1);
	feed(world, "220 b\r\n");
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 2);
	pull_all(world);
	feed(world, PIPE);
	pull_all(world);
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 3);
	feed(world, "250 ok\r\n");
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 4);
	feed(world, "250 ok\r\n250 ok\r\n");
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 5);
	feed(world, "354 go\r\n");
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 6);
	pull_all(world);
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 7);
	feed(world, "250 ok\r\n");
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 0);
	smtp_client_quit(world->client);
	pull_all(world);
	assert_int_equal(smtp_client_deadline_ms(world->client, &t), 8);
	world_destroy(world);
}

static void greetings_that_forbid_helo(void **state)
{
	static const char *const replies[] = { "521 no\r\n", "554 no\r\n", "451 no\r\n" };

	(void)state;
	for (size_t i = 0; i < array_count(replies); i++) {
		struct world *world = world_create(ALL, false, 0);

		feed(world, "220 b\r\n");
		pull_all(world);
		feed(world, replies[i]);
		assert_string_equal(world->ended, "hello refused");
		world_destroy(world);
	}
}

static void vectors_stay_while_more_is_queued(void **state)
{
	struct world *world = world_ready(ALL, 4);
	struct iovec iov[16];

	(void)state;
	pull_all(world);
	feed(world, "250 ok\r\n250 ok\r\n250 ok\r\n");
	world->manual = true;
	feed(world, "250 ok\r\n");
	world->manual = false;
	smtp_client_submit(world->client, &world->transactions[world->submitted++]);
	int count = smtp_client_output(world->client, iov, 16);
	char copy[500];
	size_t len = 0;

	for (int i = 0; i < count; i++) {
		memcpy(copy + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	submit_all(world);
	size_t again = 0;

	for (int i = 0; i < count; i++) {
		assert_memory_equal(copy + again, iov[i].iov_base, iov[i].iov_len);
		again += iov[i].iov_len;
	}
	smtp_client_sent(world->client, again);
	world->wire_len = 0;
	pull_all(world);
	assert_string_equal(world->wire, "RSET\r\n" FLIGHT "RSET\r\n" FLIGHT);
	world_destroy(world);
}

int main(void)
{
	static const struct CMUnitTest scenarios[] = {
		cmocka_unit_test(a_prefix_goes_before_the_body_and_counts),
		cmocka_unit_test(a_prefix_may_make_it_too_big),
		cmocka_unit_test(nothing_was_sent),
		cmocka_unit_test(not_whole_and_nothing_heard),
		cmocka_unit_test(not_whole_and_something_heard),
		cmocka_unit_test(whole_by_one_octet),
		cmocka_unit_test(too_many_recipients),
		cmocka_unit_test(too_many_at_the_first_is_a_deferral),
		cmocka_unit_test(more_recipients_than_the_peer_says_it_takes),
		cmocka_unit_test(held_back_and_refused_as_a_whole),
		cmocka_unit_test(limits_without_a_use),
		cmocka_unit_test(nobody_accepted_and_354),
		cmocka_unit_test(after_a_failure_rset_comes_first),
		cmocka_unit_test(streaming_begins_after_the_first_success),
		cmocka_unit_test(with_data_one_flight_goes_ahead),
		cmocka_unit_test(bigger_than_the_peer_takes),
		cmocka_unit_test(utf8_to_a_peer_without),
		cmocka_unit_test(eightbit_to_a_peer_without),
		cmocka_unit_test(an_orcpt_is_ascii_without_smtputf8),
		cmocka_unit_test(parameters_go_to_who_offers_them),
		cmocka_unit_test(refusal_in_mid_body_waits),
		cmocka_unit_test(refusal_in_mid_body_and_lost),
		cmocka_unit_test(given_whole_and_lost_before_it_was_seen_to_be_sent),
		cmocka_unit_test(acceptance_in_mid_body_is_not_believed),
		cmocka_unit_test(closing_while_idle),
		cmocka_unit_test(a_reply_to_nothing),
		cmocka_unit_test(quit_goes_behind_what_is_under_way),
		cmocka_unit_test(deadlines_follow_the_steps),
		cmocka_unit_test(greetings_that_forbid_helo),
		cmocka_unit_test(vectors_stay_while_more_is_queued),
	};
	struct CMUnitTest tests[array_count(walks) + array_count(lmtp_cases) +
				array_count(octets_rows) + array_count(scenarios)];
	size_t n = 0;

	for (size_t i = 0; i < array_count(walks); i++)
		tests[n++] = (struct CMUnitTest){ walks[i].name, walk_run, NULL, NULL,
						  (void *)&walks[i] };
	for (size_t i = 0; i < array_count(lmtp_cases); i++)
		tests[n++] = (struct CMUnitTest){ lmtp_cases[i].name, lmtp_run, NULL, NULL,
						  (void *)&lmtp_cases[i] };
	for (size_t i = 0; i < array_count(octets_rows); i++)
		tests[n++] = (struct CMUnitTest){ octets_rows[i].name, octets_row, NULL, NULL,
						  (void *)&octets_rows[i] };
	for (size_t i = 0; i < array_count(scenarios); i++)
		tests[n++] = scenarios[i];
	return cmocka_run_group_tests_name("smtp_client", tests, NULL, NULL);
}
