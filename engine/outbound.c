#include "engine/outbound.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/body_reader.h"
#include "engine/feed.h"
#include "engine/site_health.h"
#include "engine/sites.h"

enum { VECTORS = 64 };

struct outbound {
	struct conn conn;
	struct site *site;
	struct list link;
	struct smtp_client *client;
	struct delivery_host host;
	struct list deliveries;
	struct list parked; /* finished, while the kernel still sends from their bodies */
	uint32_t messages;
	bool greeted; /* past EHLO: it may take transactions */
	bool quitting;
	bool delivered;		    /* some recipient */
	bool useful;		    /* some transaction was answered */
	bool spent;		    /* delivered some, and now defers MAIL: it had its fill */
	struct os_mono answered_at; /* its newest transaction */
	bool unsent;		    /* some transaction came back as if never tried */
	struct iovec vectors[VECTORS];
};

static const struct config_delivery *policy(const struct outbound *outbound)
{
	return &outbound->site->route->delivery;
}

struct outbound *outbound_of(struct list *link)
{
	return container_of(link, struct outbound, link);
}

/* ── sending and waiting ──────────────────────────────────────────────────────────── */

static void rest_deadline(struct outbound *outbound)
{
	uint32_t ms = smtp_client_deadline_ms(outbound->client, &policy(outbound)->timeouts);

	conn_deadline(&outbound->conn, ms > 0 ? ms : policy(outbound)->connection_idle_ms);
}

void outbound_flush(struct outbound *outbound)
{
	int count;

	if (outbound->conn.closing || conn_sending(&outbound->conn))
		return;
	count = smtp_client_output(outbound->client, outbound->vectors, VECTORS);
	if (count > 0)
		conn_send(&outbound->conn, outbound->vectors, count);
	else if (smtp_client_state(outbound->client) == SMTP_CLIENT_ENDED)
		conn_close(&outbound->conn);
	rest_deadline(outbound);
}

static void lose(struct outbound *outbound, const char *why)
{
	smtp_client_lost(outbound->client, why);
	conn_close(&outbound->conn);
}

/* ── bodies that are not in memory ────────────────────────────────────────────────── */

static void on_body_ready(void *context, enum queue_status status)
{
	struct delivery *delivery = context;
	struct outbound *outbound = delivery->outbound;

	if (!outbound || outbound->conn.closing)
		return;
	if (status == QUEUE_OK) {
		outbound_flush(outbound);
		return;
	}
	/* Half of a message is on its way: only the end of the connection takes that back. */
	delivery->damaged = true;
	lose(outbound, "the message on our disk is damaged");
}

static struct span on_body_more(void *context, struct smtp_transaction *transaction)
{
	struct outbound *outbound = context;
	struct delivery *delivery = container_of(transaction, struct delivery, transaction);

	if (!delivery->body_reader)
		delivery->body_reader =
			body_reader_create(outbound->conn.worker->loop, delivery->job->message,
					   on_body_ready, delivery);
	/* Without memory for it, the deadline ends the connection. */
	return delivery->body_reader ? body_reader_next(delivery->body_reader) : span_of(NULL, 0);
}

/* ── what the client machine reports ──────────────────────────────────────────────── */

static void on_ready(void *context)
{
	struct outbound *outbound = context;

	outbound->greeted = true;
	site_host_greeted(outbound->site);
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	struct outbound *outbound = context;
	struct delivery *delivery = container_of(transaction, struct delivery, transaction);

	delivery_note(delivery, recipient, reply);
	outbound->delivered |= recipient->verdict == SMTP_DELIVERED;
	if (!reply)
		return;
	switch (smtp_reply_reason(reply)) {
	case SMTP_REASON_SLOW_DOWN:
	case SMTP_REASON_SITE_DOWN:
		if (recipient->verdict == SMTP_DEFERRED)
			site_slow_down(outbound->site);
		break;
	default:
		break;
	}
}

/* Why recipients have no reply: the message can't go to this peer, or the connection ended. */
static void explain(const struct outbound *outbound, struct delivery *delivery)
{
	uint16_t enhanced = delivery->recipients[0].enhanced;
	const char *text = smtp_client_why(outbound->client);

	if (enhanced == SMTP_OWN_TOO_BIG)
		text = "the message is larger than the server takes";
	else if (enhanced == SMTP_OWN_8BIT)
		text = "the message has 8-bit text, and the server does not take it (8BITMIME)";
	else if (enhanced == SMTP_OWN_UTF8)
		text = "the message is internationalised, and the server is not (SMTPUTF8)";
	else
		enhanced = 40402;
	delivery_explain(delivery, enhanced, text);
}

/* MAIL was deferred. Servers that take so many messages in a session say so like this: then a
 * new session is another matter. */
static bool wants_renewal(const struct outbound *outbound, const struct delivery *delivery)
{
	return delivery->transaction.mail_deferred && outbound->delivered &&
	       delivery->renewals < DELIVERY_RENEWALS_MAX && !sites_draining(outbound->site->sites);
}

/* Its body is not being read any more: to a new session, to another host, or back. */
static void go_on(void *context)
{
	struct delivery *delivery = context;
	struct site *site = delivery->lane;

	if (delivery->renew) {
		delivery->renew = false;
		delivery->renewals++;
		site_renew(site, delivery);
	} else if (!delivery->transaction.mail_deferred ||
		   !site_try_elsewhere(site, delivery, &delivery->host.address)) {
		feed_delivered(delivery);
	}
}

static void give_back(struct outbound *outbound, struct delivery *delivery)
{
	struct body_reader *reader = delivery->body_reader;

	delivery->renew = wants_renewal(outbound, delivery);
	outbound->spent |= delivery->renew;
	delivery->outbound = NULL;
	delivery->body_reader = NULL;
	if (reader)
		body_reader_destroy(reader, go_on);
	else
		go_on(delivery);
}

static void give_back_parked(struct outbound *outbound)
{
	for (struct list *node; (node = list_pop_front(&outbound->parked));)
		give_back(outbound, container_of(node, struct delivery, link));
}

static uint32_t answered(const struct delivery *delivery)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		count += delivery->recipients[i].reply != 0;
	return count;
}

/* From when it was this one's turn to when it was answered. */
static uint64_t service_us(struct outbound *outbound, const struct delivery *delivery)
{
	struct os_mono turn = delivery->begun, now = worker_mono(outbound->site->worker);

	if (turn.ns < outbound->answered_at.ns)
		turn = outbound->answered_at;
	outbound->answered_at = now;
	return (now.ns - turn.ns) / 1000;
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	struct outbound *outbound = context;
	struct delivery *delivery = container_of(transaction, struct delivery, transaction);

	uint32_t heard = answered(delivery);

	list_remove(&delivery->link);
	if (heard > 0) {
		outbound->useful = true;
		site_host_answered(outbound->site, &outbound->host.address);
		site_answered(outbound->site, service_us(outbound, delivery));
	} else if (delivery->recipients[0].verdict == SMTP_NOT_SENT) {
		outbound->unsent = true;
	}
	if (heard < transaction->recipient_count)
		explain(outbound, delivery);
	site_touch(outbound->site);
	if (!transaction->sent_whole && conn_sending(&outbound->conn))
		list_push_back(&outbound->parked, &delivery->link);
	else
		give_back(outbound, delivery);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct outbound *outbound = context;
	const struct delivery_host *host = &outbound->host;
	char address[OS_ADDRESS_TEXT_MAX], text[1024];
	bool deserted = reply && reply->code == 421;

	/* A host that takes the session and then nothing is no better than one that refuses it:
	 * without this, what was not sent would be tried again at once, for ever. */
	if (!outbound->greeted || (!outbound->useful && (outbound->unsent || deserted))) {
		snprintf(text, sizeof(text), "connect to %s[%s]:%u: %.500s", host->name,
			 os_address_text(&host->address, address), host->address.port,
			 reply && reply->text_len > 0 ? reply->text : why);
		site_host_failed(outbound->site, &host->address, outbound->greeted,
				 reply ? reply->code : 0, reply ? smtp_reply_status(reply) : 40401,
				 text);
	} else if (deserted) {
		site_slow_down(outbound->site);
	}
	site_touch(outbound->site);
	if (!conn_sending(&outbound->conn))
		conn_close(&outbound->conn);
}

static const struct smtp_client_host client_host = {
	.ready = on_ready,
	.recipient = on_recipient,
	.finished = on_finished,
	.ended = on_ended,
	.body_more = on_body_more,
};

/* ── the connection ───────────────────────────────────────────────────────────────── */

static void on_connected(struct conn *conn, int result)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	if (result < 0) {
		lose(outbound, strerror(-result));
		return;
	}
	os_local_address(conn->fd, &outbound->host.source);
	conn_recv(conn);
	outbound_flush(outbound);
}

static void on_received(struct conn *conn, struct span bytes)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	smtp_client_feed(outbound->client, bytes);
	if (outbound->spent)
		outbound_quit(outbound);
	conn_recv(conn);
	outbound_flush(outbound);
}

static void on_sent(struct conn *conn, size_t count)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	smtp_client_sent(outbound->client, count);
	give_back_parked(outbound);
	outbound_flush(outbound);
	/* Bytes that left may have made room for the next flight. */
	site_touch(outbound->site);
}

static void on_lost(struct conn *conn, int error)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);
	char why[128];

	if (error == 0)
		snprintf(why, sizeof(why), "the server closed the connection");
	else
		snprintf(why, sizeof(why), "lost the connection: %s", strerror(-error));
	lose(outbound, why);
}

static void on_deadline(struct conn *conn)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	if (smtp_client_state(outbound->client) == SMTP_CLIENT_READY &&
	    smtp_client_unfinished(outbound->client) == 0) {
		outbound_quit(outbound);
		return;
	}
	lose(outbound, outbound->greeted ? "timed out waiting for a reply"
					 : "timed out connecting or waiting for the greeting");
}

static void on_closed(struct conn *conn)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);
	struct site *site = outbound->site;
	bool was_connecting = !outbound->greeted;

	assert(list_empty(&outbound->deliveries));
	give_back_parked(outbound);
	list_remove(&outbound->link);
	smtp_client_destroy(outbound->client);
	free(outbound);
	site_connection_gone(site, was_connecting);
}

static const struct conn_host conn_host = {
	.connected = on_connected,
	.received = on_received,
	.sent = on_sent,
	.lost = on_lost,
	.deadline = on_deadline,
	.closed = on_closed,
};

int outbound_open(struct site *site, const struct mx_host *host, const struct os_address *address)
{
	const struct config_delivery *how = &site->route->delivery;
	const struct os_address *source =
		address->family == AF_INET ? &how->source4 : &how->source6;
	struct smtp_client_options options = {
		.hello = site->worker->config->hostname,
		.pipelining = how->pipelining,
		.chunking = how->chunking,
		.depth_max = how->stream_depth,
		.recipients_per_flight_max = FORMAT_JOB_RECIPIENTS_MAX,
	};
	struct outbound *outbound = calloc(1, sizeof(*outbound));
	int result = -ENOMEM;

	if (!outbound)
		return result;
	outbound->site = site;
	list_init(&outbound->link);
	list_init(&outbound->deliveries);
	list_init(&outbound->parked);
	outbound->host.address = *address;
	snprintf(outbound->host.name, sizeof(outbound->host.name), "%s", host->name);
	outbound->client = smtp_client_create(&options, &client_host, outbound);
	if (outbound->client)
		result = conn_connect(&outbound->conn, site->worker, &conn_host, address,
				      source->family == AF_UNSPEC ? NULL : source);
	if (result < 0) {
		smtp_client_destroy(outbound->client);
		free(outbound);
		return result;
	}
	conn_deadline(&outbound->conn, how->connect_ms);
	list_push_back(&site->connections, &outbound->link);
	return 0;
}

const struct os_address *outbound_address(const struct outbound *outbound)
{
	return &outbound->host.address;
}

uint32_t outbound_room(const struct outbound *outbound)
{
	uint32_t max = policy(outbound)->connection_messages_max;
	uint32_t room;

	if (!outbound->greeted || outbound->spent || outbound->quitting || outbound->conn.closing)
		return 0;
	room = smtp_client_room(outbound->client);
	if (max > 0 && room > max - outbound->messages)
		room = max - outbound->messages;
	return room;
}

void outbound_submit(struct outbound *outbound, struct delivery *delivery)
{
	delivery->outbound = outbound;
	delivery->host = outbound->host;
	delivery->begun = worker_mono(outbound->conn.worker);
	delivery->peer_reports = smtp_client_extensions(outbound->client) & SMTP_HAS_DSN;
	outbound->messages++;
	list_push_back(&outbound->deliveries, &delivery->link);
	smtp_client_submit(outbound->client, &delivery->transaction);
	if (outbound->messages == policy(outbound)->connection_messages_max)
		outbound_quit(outbound);
}

void outbound_quit(struct outbound *outbound)
{
	if (outbound->quitting || outbound->conn.closing)
		return;
	if (!outbound->greeted) {
		conn_close(&outbound->conn);
		return;
	}
	outbound->quitting = true;
	smtp_client_quit(outbound->client);
	outbound_flush(outbound);
}

void outbound_cut(struct outbound *outbound)
{
	if (outbound->greeted && !outbound->conn.closing)
		lose(outbound, "we are shutting down");
	conn_close(&outbound->conn);
}
