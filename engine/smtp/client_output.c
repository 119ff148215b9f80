/*
 * client_output - the queue of octets to be sent, and of the replies due to them.
 *
 *   output   text: MAIL RCPT BDAT | body of t1 | text: RSET MAIL RCPT BDAT | body of t2
 *   steps    MAIL RCPT FINAL                     RSET MAIL RCPT FINAL
 *
 * Text lies in nodes that never move, so vectors given out stay valid while more is queued.
 * Bodies are not copied: with stuffing, each dot that begins a line ends one vector and begins
 * the next.
 */
#include <stdlib.h>

#include "engine/smtp/client_private.h"
#include "os/check.h"

enum {
	/* At once, and the message that goes beyond it: a reply is believed when the send that
	 * its command was in is over, and a slow peer must not hold back those of many messages. */
	OUTPUT_BYTES = 128 << 10,
};

static struct out_node *node_of(struct list *link)
{
	return container_of(link, struct out_node, link);
}

static struct out_node *node_tail(struct smtp_client *client)
{
	return list_empty(&client->output) ? NULL : node_of(client->output.previous);
}

/* NULL: no memory. */
static struct out_node *node_push(struct smtp_client *client)
{
	struct list *link = list_pop_front(&client->spare);
	struct out_node *node = link ? node_of(link) : malloc(sizeof(*node));

	if (!node) {
		client->starved = true;
		return NULL;
	}
	if (link)
		client->spare_count--;
	list_init(&node->link);
	node->serial = ++client->node_serial;
	node->begins = node->ends = node->body = NULL;
	node->len = node->sent = 0;
	node->secret = false;
	list_push_back(&client->output, &node->link);
	return node;
}

static void node_wipe(struct out_node *node)
{
	if (node->secret)
		explicit_bzero(node->text, sizeof(node->text));
	node->secret = false;
}

static void node_drop(struct smtp_client *client, struct out_node *node)
{
	list_remove(&node->link);
	node_wipe(node);
	if (client->spare_count == NODE_SPARE_MAX) {
		free(node);
		return;
	}
	list_push_front(&client->spare, &node->link);
	client->spare_count++;
}

static void put(struct smtp_client *client, struct span text, bool secret)
{
	while (text.len > 0) {
		struct out_node *node = node_tail(client);

		if (!node || node->body || node->ends || node->len == NODE_TEXT_MAX)
			node = node_push(client);
		if (!node)
			return;
		size_t take = NODE_TEXT_MAX - node->len;

		if (take > text.len)
			take = text.len;
		memcpy(node->text + node->len, text.at, take);
		node->len += (uint32_t)take;
		node->secret |= secret;
		text = span_skip(text, take);
	}
}

void output_text(struct smtp_client *client, struct span text)
{
	put(client, text, false);
}

void output_secret(struct smtp_client *client, struct span text)
{
	put(client, text, true);
}

void output_begin(struct smtp_client *client, struct smtp_transaction *transaction)
{
	struct out_node *node = node_push(client);

	if (node)
		node->begins = transaction;
}

void output_body(struct smtp_client *client, struct smtp_transaction *transaction, bool stuffing)
{
	if (transaction->body_bytes == 0)
		return;
	struct out_node *node = node_push(client);

	if (!node)
		return;
	node->body = transaction;
	node->stuffing = stuffing;
	node->rest = transaction->body.at ? transaction->body : span_of("", 0);
	smtp_dot_encoder_init(&node->encoder);
}

void output_ends(struct smtp_client *client, struct smtp_transaction *transaction)
{
	/* Else what stands last may be another's. */
	if (!client->starved)
		node_tail(client)->ends = transaction;
}

static void steps_free(struct smtp_client *client)
{
	if (client->steps != client->steps_own)
		free(client->steps);
}

static bool steps_grow(struct smtp_client *client)
{
	uint32_t size = client->step_size * 2;
	struct step *ring = malloc(size * sizeof(*ring));

	if (!ring)
		return false;
	for (uint32_t i = 0; i < client->step_count; i++)
		ring[(client->step_first + i) & (size - 1)] =
			client->steps[(client->step_first + i) & (client->step_size - 1)];
	steps_free(client);
	client->steps = ring;
	client->step_size = size;
	return true;
}

void output_step(struct smtp_client *client, enum step_kind kind,
		 struct smtp_transaction *transaction, uint32_t recipient)
{
	const struct out_node *tail = node_tail(client);

	if (client->step_count == client->step_size && !steps_grow(client)) {
		client->starved = true;
		return;
	}
	client->steps[(client->step_first + client->step_count++) & (client->step_size - 1)] =
		(struct step){
			.kind = kind,
			.transaction = transaction,
			.recipient = recipient,
			.node = tail ? tail->serial : client->node_serial,
			.node_end = tail && !tail->body ? tail->len : UINT32_MAX,
		};
	if (transaction)
		transaction->steps++;
}

struct step *output_step_first(const struct smtp_client *client)
{
	return client->step_count == 0
		       ? NULL
		       : &client->steps[client->step_first & (client->step_size - 1)];
}

bool output_step_sent(const struct smtp_client *client, const struct step *step)
{
	if (list_empty(&client->output))
		return true;
	const struct out_node *first = node_of(client->output.next);
	int32_t behind = (int32_t)(first->serial - step->node);

	return behind > 0 || (behind == 0 && !first->body && first->sent >= step->node_end);
}

/* Is all that is left of the body in `rest`? */
static bool body_is_here(const struct out_node *node)
{
	return node->body->body_sent + node->rest.len == node->body->body_bytes;
}

static size_t piece_len(const struct out_node *node, const struct smtp_dot_encoder *encoder,
			struct span rest)
{
	return node->stuffing ? smtp_dot_piece(encoder, rest) : rest.len;
}

/* Vectors of a body; returns how many. */
static int body_vectors(struct smtp_client *client, struct out_node *node, struct iovec *iov,
			int max)
{
	int count = 0;

	if (node->rest.len == 0)
		node->rest = client->host->body_more(client->context, node->body);
	assert(node->rest.len <= node->body->body_bytes - node->body->body_sent);

	struct smtp_dot_encoder encoder = node->encoder;
	struct span rest = node->rest;

	while (rest.len > 0 && count < max) {
		size_t len = piece_len(node, &encoder, rest);

		iov[count++] = (struct iovec){ (char *)rest.at, len };
		rest = span_skip(rest,
				 node->stuffing ? smtp_dot_advance(&encoder, rest, len) : len);
	}
	return count;
}

static size_t bytes_of(const struct iovec *iov, int count)
{
	size_t bytes = 0;

	for (int i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

int smtp_client_output(struct smtp_client *client, struct iovec *iov, int max)
{
	size_t bytes = 0;
	int count = 0;

	if (client->starved)
		client_end(client, CLIENT_STARVED, NULL);
	if (client->state == SMTP_CLIENT_ENDED)
		return 0;
	list_each(link, &client->output) {
		struct out_node *node = node_of(link);
		int before = count;

		if (count == max || bytes >= OUTPUT_BYTES)
			break;
		if (!node->body) {
			if (node->len > node->sent)
				iov[count++] = (struct iovec){ node->text + node->sent,
							       node->len - node->sent };
		} else {
			count += body_vectors(client, node, iov + count, max - count);
			if (!body_is_here(node))
				break;
		}
		bytes += bytes_of(iov + before, count - before);
		if (node->ends)
			node->ends->given_whole = true;
	}
	return count;
}

/* Each returns how many of `count` octets were this node's. */
static size_t text_sent(struct out_node *node, size_t count)
{
	if (count > node->len - node->sent)
		count = node->len - node->sent;
	node->sent += (uint32_t)count;
	return count;
}

static size_t body_sent(struct out_node *node, size_t count)
{
	size_t taken = 0;

	while (taken < count && node->rest.len > 0) {
		size_t len = piece_len(node, &node->encoder, node->rest), moved;

		if (len > count - taken)
			len = count - taken;
		moved = node->stuffing ? smtp_dot_advance(&node->encoder, node->rest, len) : len;
		node->rest = span_skip(node->rest, moved);
		node->body->body_sent += moved;
		taken += len;
	}
	return taken;
}

/* Takes `count` octets off the queue. */
static void output_sent(struct smtp_client *client, size_t count)
{
	while (count > 0) {
		assert(!list_empty(&client->output));
		struct out_node *node = node_of(client->output.next);
		size_t taken = node->body ? body_sent(node, count) : text_sent(node, count);

		count -= taken;
		if (node->begins && taken > 0)
			node->begins->begun = true;
		if (node->body ? node->body->body_sent < node->body->body_bytes
			       : node->sent < node->len) {
			assert(count == 0);
			return;
		}
		if (node->ends)
			node->ends->sent_whole = true;
		node_drop(client, node);
	}
}

void smtp_client_sent(struct smtp_client *client, size_t count)
{
	if (client->state == SMTP_CLIENT_ENDED)
		return;
	output_sent(client, count);
	/* What is left was not sent, and is not with the kernel either. */
	list_each(link, &client->output)
		if (node_of(link)->ends)
			node_of(link)->ends->given_whole = false;
	if (!client->reply_waiting || !output_step_sent(client, output_step_first(client)))
		return;
	client_sent_reply(client);
}

void output_orphan(struct smtp_client *client)
{
	list_each(link, &client->output)
		node_of(link)->begins = node_of(link)->ends = node_of(link)->body = NULL;
}

void output_free(struct smtp_client *client)
{
	list_splice_back(&client->spare, &client->output);
	list_each(link, &client->spare) {
		node_wipe(node_of(link));
		free(node_of(link));
	}
	steps_free(client);
}
