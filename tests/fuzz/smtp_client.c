/*
 * A peer that answers in proper SMTP, but as the input chooses: so the deep states are reached.
 * Each recipient gets one verdict, and "delivered" only after its body was sent whole and a 2xx
 * came after that. No mail goes out before the TLS and the login that it needs, and no password
 * in clear where that is not allowed.
 */
#include "engine/smtp/client.h"

#include <stdio.h>

#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TRANSACTIONS = 6, RECIPIENTS = 3, SAID_MAX = 1 << 16, WORD_MAX = 255 };

/* The two octets of options. */
enum {
	LMTP = 1,
	NO_PIPELINING = 2,
	NO_CHUNKING = 4,
	NO_DEPTH = 8,
	FLIGHTS_OF_ONE = 16,
	WITH_LOGIN = 32,
	WITH_TLS = 64,
	TLS_REQUIRED = 128,
};
enum { PULLED = 15, LOGIN_IN_CLEAR = 16, TLS_FIRST = 32, SMARTHOST = 64, LONG_WORDS = 128 };

/* NUL, name and NUL are a multiple of three: the password's base64 is the same in PLAIN and LOGIN.
 */
#define PASSWORD "sesame!!!"
#define SECRET	 "c2VzYW1lISEh"

struct world {
	struct smtp_client *client;
	struct smtp_transaction transactions[TRANSACTIONS];
	struct smtp_client_recipient recipients[TRANSACTIONS][RECIPIENTS];
	uint32_t verdicts[TRANSACTIONS][RECIPIENTS];
	uint32_t given[TRANSACTIONS]; /* of its body, piece by piece */
	uint32_t submitted, finished, ended;
	uint32_t good_replies, delivered;
	bool lmtp;
	bool needs_tls, in_clear;
	bool secured, shaking;
	uint32_t good_needed; /* before it may be ready */
	const char *body;
	char said[SAID_MAX];
	size_t said_len;
};

static void submit_all(struct world *world)
{
	while (world->submitted < TRANSACTIONS && smtp_client_room(world->client) > 0)
		smtp_client_submit(world->client, &world->transactions[world->submitted++]);
}

static void on_ready(void *context)
{
	struct world *world = context;

	assert(world->secured || !world->needs_tls);
	assert(world->good_replies >= world->good_needed);
	submit_all(world);
}

static void on_starttls(void *context)
{
	struct world *world = context;

	assert(!world->secured && !world->shaking && world->submitted == 0);
	world->shaking = true;
	world->good_needed += 2; /* to STARTTLS, and to EHLO again */
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	struct world *world = context;
	size_t number = (size_t)(transaction - world->transactions);

	assert(++world->verdicts[number][recipient->index] == 1);
	assert(recipient->verdict != SMTP_PENDING);
	world->delivered += recipient->verdict == SMTP_DELIVERED;
	if (world->lmtp) /* each delivery is a reply of its own */
		assert(world->delivered <= world->good_replies);
	if (recipient->verdict == SMTP_DELIVERED)
		assert(transaction->sent_whole && reply && reply->code / 100 == 2);
	if (recipient->verdict == SMTP_UNKNOWN || recipient->verdict == SMTP_NOT_SENT)
		assert(!reply || reply->code / 100 != 2);
	if (recipient->verdict == SMTP_FAILED && reply)
		assert(reply->code / 100 == 5);
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	struct world *world = context;
	size_t number = (size_t)(transaction - world->transactions);

	world->finished++;
	for (uint32_t i = 0; i < transaction->recipient_count; i++)
		assert(world->verdicts[number][i] == 1);
	submit_all(world);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct world *world = context;

	(void)reply;
	assert(why && world->ended++ == 0 && world->finished == world->submitted);
}

static struct span on_body_more(void *context, struct smtp_transaction *transaction)
{
	struct world *world = context;
	size_t number = (size_t)(transaction - world->transactions);
	uint32_t left = (uint32_t)transaction->body_bytes - world->given[number];
	uint32_t part = left > 5 ? 5 : left;
	struct span piece = span_of(world->body + world->given[number], part);

	world->given[number] += part;
	return piece;
}

static void world_fill(struct world *world, uint8_t how)
{
	static const char body[] = "..a\r\n.\r\n.x\r\nend";

	world->body = body;
	for (uint32_t i = 0; i < TRANSACTIONS; i++) {
		bool pulled = (how >> (i % 4)) & 1;

		for (uint32_t k = 0; k < RECIPIENTS; k++)
			world->recipients[i][k] =
				(struct smtp_client_recipient){ .address = span_text("r@x.example"),
								.index = (uint8_t)k };
		world->transactions[i] = (struct smtp_transaction){
			.sender = span_text("s@x.example"),
			.body = pulled ? (struct span){ NULL, 0 } : span_text(body),
			.body_bytes = sizeof(body) - 1,
			.dot_lines = true,
			.no_final_crlf = true,
			.eightbit = i == 3,
			.utf8 = i == 4,
			.recipients = world->recipients[i],
			.recipient_count = 1 + i % RECIPIENTS,
		};
	}
}

/* A reply that the byte chooses; sometimes the greatest nonsense. */
static const char *reply_chosen(uint8_t choice)
{
	static const char *const replies[] = {
		"250 2.0.0 Ok\r\n",
		"250 Ok\r\n",
		"354 Go\r\n",
		"451 4.7.1 Greylisted\r\n",
		"550 5.1.1 No such user\r\n",
		("250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n"
		 "250-SMTPUTF8\r\n250 DSN\r\n"),
		"250-x\r\n250 PIPELINING\r\n",
		"421 4.3.2 Bye\r\n",
		"220 x ESMTP\r\n",
		"552 5.3.4 Too big\r\n",
		"452 4.5.3 Too many\r\n",
		"503 5.5.1 Bad sequence\r\n",
		"221 Bye\r\n",
		"250-half\r\n",
		"\r\n",
		"999 what\r\n",
		"250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
		"250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 AUTH PLAIN\r\n",
		"250-x\r\n250-PIPELINING\r\n250 AUTH=LOGIN\r\n250 AUTH LOGIN\r\n",
		"250-x\r\n250-AUTH LOGIN\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=2 RCPTMAX=1\r\n",
		"235 2.7.0 In\r\n",
		"334 VXNlcm5hbWU6\r\n",
		"334 \r\n",
		"535 5.7.8 Wrong\r\n",
		"454 4.7.0 Not now\r\n",
		"220 2.0.0 Go\r\n",
		"220 Go\r\n250 slipped in\r\n",
		"530 5.7.0 Log in first\r\n",
		"250-x\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=2 MAILMAX=1\r\n",
		"252 2.5.0 Who knows\r\n",
		"500 5.5.1 What\r\n",
		"554 5.7.1 No\r\n",
	};

	return replies[choice % array_count(replies)];
}

/* What can be read on the wire holds no password. */
static void check_clear(struct world *world, struct span bytes)
{
	assert(world->said_len + bytes.len <= SAID_MAX);
	memcpy(world->said + world->said_len, bytes.at, bytes.len);
	world->said_len += bytes.len;
	assert(world->in_clear || !memmem(world->said, world->said_len, SECRET, strlen(SECRET)));
	assert(!world->needs_tls || !memmem(world->said, world->said_len, "MAIL FROM", 9));
}

static void take_output(struct world *world, size_t limit)
{
	struct iovec iov[4];
	int count = smtp_client_output(world->client, iov, 4);
	size_t moved = 0;

	for (int i = 0; i < count && moved < limit; i++) {
		size_t part = iov[i].iov_len < limit - moved ? iov[i].iov_len : limit - moved;

		if (!world->secured)
			check_clear(world, span_of(iov[i].iov_base, part));
		moved += part;
	}
	smtp_client_sent(world->client, moved < limit ? moved : limit);
}

static uint32_t good_count(const char *replies)
{
	uint32_t count = 0;

	for (const char *at = replies; *at; at = strchr(at, '\n') + 1)
		count += at[0] == '2' && at[3] == ' ';
	return count;
}

/* What the peer of that octet does; the two upper bits: how much leaves before its reply comes. */
static void peer_step(struct world *world, uint8_t octet)
{
	const char *reply = reply_chosen(octet & 0x3f);

	if (octet >= 0xf8) {
		smtp_client_quit(world->client);
		return;
	}
	take_output(world, octet & 0x80 ? 7 : SIZE_MAX);
	if (octet & 0x40)
		take_output(world, SIZE_MAX);
	if (world->shaking) {
		world->shaking = false;
		world->secured = true;
		smtp_client_secured(world->client);
		return;
	}
	world->good_replies += good_count(reply);
	smtp_client_feed(world->client, span_text(reply));
}

static void word_make(char out[static WORD_MAX + 1], const char *text, bool is_long)
{
	size_t len = strlen(text), count = is_long ? WORD_MAX / len : 1;

	for (size_t i = 0; i < count; i++)
		memcpy(out + i * len, text, len);
	out[count * len] = '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct smtp_client_host host = {
		.ready = on_ready,
		.starttls = on_starttls,
		.recipient = on_recipient,
		.finished = on_finished,
		.ended = on_ended,
		.body_more = on_body_more,
	};
	static struct world world;
	char user[WORD_MAX + 1], password[WORD_MAX + 1];

	if (size < 2 || size > 1000)
		return 0;
	struct smtp_client_options options = {
		.hello = "a.example",
		.lmtp = data[0] & LMTP,
		.pipelining = !(data[0] & NO_PIPELINING),
		.chunking = !(data[0] & NO_CHUNKING),
		.depth_max = data[0] & NO_DEPTH ? 1 : 4,
		.recipients_per_flight_max = data[0] & FLIGHTS_OF_ONE ? 1 : 0,
		.tls = data[0] & (WITH_TLS | TLS_REQUIRED),
		.tls_required = data[0] & TLS_REQUIRED,
		.secured = data[1] & TLS_FIRST,
		.auth_user = data[0] & WITH_LOGIN ? user : NULL,
		.auth_password = data[0] & WITH_LOGIN ? password : NULL,
		.auth_in_clear = data[1] & LOGIN_IN_CLEAR,
		.smarthost = data[1] & SMARTHOST,
	};

	word_make(user, data[1] & LONG_WORDS ? "postmasters" : "user", data[1] & LONG_WORDS);
	word_make(password, PASSWORD, data[1] & LONG_WORDS);
	memset(&world, 0, offsetof(struct world, said));
	world.said_len = 0;
	world.lmtp = options.lmtp;
	world.needs_tls = options.tls_required;
	world.secured = options.secured;
	world.in_clear = options.auth_in_clear;
	world.good_needed = options.auth_user ? 3 : 2;
	world_fill(&world, data[1] & PULLED);
	world.client = smtp_client_create(&options, &host, &world);
	for (size_t i = 2; i < size && smtp_client_state(world.client) < SMTP_CLIENT_ENDED; i++)
		peer_step(&world, data[i]);
	smtp_client_lost(world.client, "lost");
	assert(world.ended == 1 && world.finished == world.submitted);
	smtp_client_destroy(world.client);
	return 0;
}
