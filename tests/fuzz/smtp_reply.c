/*
 * Replies: the same whole and octet by octet; and a client that a peer says anything to, with
 * all its transactions finished exactly once.
 */
#include "engine/smtp/reply.h"

#include "engine/smtp/client.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TRANSACTIONS = 8 };

struct world {
	struct smtp_client *client;
	struct smtp_transaction transactions[TRANSACTIONS];
	struct smtp_client_recipient recipients[TRANSACTIONS][3];
	uint32_t submitted, finished, ended;
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
	(void)context;
	(void)reply;
	assert(recipient->verdict != SMTP_PENDING);
	/* Nothing is delivered that was not sent. */
	assert(recipient->verdict != SMTP_DELIVERED || transaction->sent_whole);
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	struct world *world = context;

	world->finished++;
	for (uint32_t i = 0; i < transaction->recipient_count; i++)
		assert(transaction->recipients[i].verdict != SMTP_PENDING);
	submit_all(world);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct world *world = context;

	(void)why;
	(void)reply;
	assert(world->ended++ == 0 && world->finished == world->submitted);
}

static void client_fuzz(const uint8_t *data, size_t size)
{
	static const struct smtp_client_host host = {
		.ready = on_ready,
		.recipient = on_recipient,
		.finished = on_finished,
		.ended = on_ended,
	};
	struct smtp_client_options options = {
		.hello = "a",
		.lmtp = data[0] & 1,
		.pipelining = true,
		.chunking = data[0] & 2,
		.depth_max = 4,
		.recipients_per_flight_max = data[0] & 4 ? 2 : 0,
	};
	size_t step = 1 + data[0] / 8, sent = 1 + data[1];
	struct world world = { .submitted = 0 };

	for (uint32_t i = 0; i < TRANSACTIONS; i++) {
		for (uint32_t k = 0; k < 3; k++)
			world.recipients[i][k].address = span_text("r@x");
		world.transactions[i] = (struct smtp_transaction){
			.sender = span_text("s@x"),
			.body = span_text("..\r\n.x"),
			.body_bytes = 6,
			.dot_lines = true,
			.no_final_crlf = true,
			.recipients = world.recipients[i],
			.recipient_count = 1 + i % 3,
		};
	}
	world.client = smtp_client_create(&options, &host, &world);
	for (size_t at = 2; at < size; at += step) {
		struct iovec iov[4];
		int count = smtp_client_output(world.client, iov, 4);
		size_t left = sent, moved = 0;

		for (int i = 0; i < count; i++) {
			size_t len = iov[i].iov_len < left ? iov[i].iov_len : left;

			left -= len;
			moved += len;
		}
		smtp_client_sent(world.client, moved);
		smtp_client_feed(world.client,
				 span_of(data + at, size - at < step ? size - at : step));
	}
	smtp_client_lost(world.client, "lost");
	assert(world.ended == 1);
	smtp_client_destroy(world.client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct smtp_reply whole, bytewise;
	size_t taken = 0;

	if (size < 2)
		return 0;
	smtp_reply_reset(&whole);
	smtp_reply_reset(&bytewise);
	size_t end = smtp_reply_feed(&whole, span_of(data, size));

	while (taken < size && bytewise.class == SMTP_REPLY_MORE)
		taken += smtp_reply_feed(&bytewise, span_of(data + taken, 1));
	assert(whole.class == bytewise.class && whole.text_len <= SMTP_REPLY_TEXT_MAX);
	if (whole.class != SMTP_REPLY_MALFORMED) {
		assert(end == taken && whole.code == bytewise.code);
		assert(span_equal(smtp_reply_text(&whole), smtp_reply_text(&bytewise)));
		assert(smtp_reply_reason(&whole) == smtp_reply_reason(&bytewise));
	}
	client_fuzz(data, size);
	return 0;
}
