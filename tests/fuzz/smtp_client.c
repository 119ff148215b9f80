/*
 * A peer that answers in proper SMTP, but as the input chooses: so the deep states are reached.
 * Each recipient gets one verdict, and "delivered" only after its body was sent whole and a 2xx
 * came after that.
 */
#include "engine/smtp/client.h"

#include <stdio.h>

#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TRANSACTIONS = 6, RECIPIENTS = 3 };

struct world {
	struct smtp_client *client;
	struct smtp_transaction transactions[TRANSACTIONS];
	struct smtp_client_recipient recipients[TRANSACTIONS][RECIPIENTS];
	uint32_t verdicts[TRANSACTIONS][RECIPIENTS];
	uint32_t given[TRANSACTIONS]; /* of its body, piece by piece */
	uint32_t submitted, finished, ended;
	uint32_t good_replies, delivered;
	bool lmtp;
	const char *body;
};

static void submit_all(struct world *world)
{
	while (world->submitted < TRANSACTIONS && smtp_client_room(world->client) > 0)
		smtp_client_submit(world->client, &world->transactions[world->submitted++]);
}

static void on_ready(void *context)
{
	submit_all(context);
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
static size_t reply_write(uint8_t choice, char out[static 256])
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
	};

	return (size_t)snprintf(out, 256, "%s", replies[choice % array_count(replies)]);
}

static void take_output(struct world *world, size_t limit)
{
	struct iovec iov[4];
	int count = smtp_client_output(world->client, iov, 4);
	size_t moved = 0;

	for (int i = 0; i < count; i++)
		moved += iov[i].iov_len;
	smtp_client_sent(world->client, moved < limit ? moved : limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct smtp_client_host host = {
		.ready = on_ready,
		.recipient = on_recipient,
		.finished = on_finished,
		.ended = on_ended,
		.body_more = on_body_more,
	};
	struct world world = { .submitted = 0 };

	if (size < 2 || size > 1000)
		return 0;
	struct smtp_client_options options = {
		.hello = "a.example",
		.lmtp = data[0] & 1,
		.pipelining = !(data[0] & 2),
		.chunking = !(data[0] & 4),
		.depth_max = data[0] & 8 ? 1 : 4,
		.recipients_per_flight_max = data[0] & 16 ? 1 : 0,
	};

	world.lmtp = options.lmtp;
	world_fill(&world, data[1]);
	world.client = smtp_client_create(&options, &host, &world);
	for (size_t i = 2; i < size && smtp_client_state(world.client) < SMTP_CLIENT_ENDED; i++) {
		char reply[256];
		size_t len;

		if (data[i] >= 0xf8) {
			smtp_client_quit(world.client);
			continue;
		}
		/* The two upper bits: how much leaves before the reply comes. */
		take_output(&world, data[i] & 0x80 ? 7 : SIZE_MAX);
		if (data[i] & 0x40)
			take_output(&world, SIZE_MAX);
		len = reply_write(data[i] & 0x3f, reply);
		world.good_replies += reply[0] == '2';
		smtp_client_feed(world.client, span_of(reply, len));
	}
	smtp_client_lost(world.client, "lost");
	assert(world.ended == 1 && world.finished == world.submitted);
	smtp_client_destroy(world.client);
	return 0;
}
