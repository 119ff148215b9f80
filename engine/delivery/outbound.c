#include "engine/delivery/outbound_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/auth/credentials.h"
#include "engine/delivery/conversion.h"
#include "engine/delivery/feed.h"
#include "engine/delivery/site_health.h"
#include "engine/tls/peers.h"

enum { NO_ROOM_MS = 10000 }; /* for a message that wants converting */

struct outbound *outbound_of(struct list *link)
{
	return container_of(link, struct outbound, link);
}

/* ── sending and waiting ──────────────────────────────────────────────────────────── */

static void rest_deadline(struct outbound *outbound)
{
	if (outbound->conn.handshaking)
		return; /* it has one for all of it */

	const struct config_delivery *policy = outbound_policy(outbound);
	uint32_t ms = smtp_client_deadline_ms(outbound->client, &policy->timeouts);
	uint32_t idle_ms = policy->connection_idle_ms > 0 ? policy->connection_idle_ms : 1;

	conn_deadline(&outbound->conn, ms > 0 ? ms : idle_ms); /* 0 would be none */
}

void outbound_flush(struct outbound *outbound)
{
	int count;

	if (outbound->conn.closing || conn_sending(&outbound->conn) ||
	    conn_breaking(&outbound->conn))
		return;
	count = smtp_client_output(outbound->client, outbound->vectors, OUTBOUND_VECTORS);
	if (count > 0)
		conn_send(&outbound->conn, outbound->vectors, count);
	else if (smtp_client_state(outbound->client) == SMTP_CLIENT_ENDED)
		conn_close(&outbound->conn);
	rest_deadline(outbound);
}

void outbound_lose(struct outbound *outbound, const char *why)
{
	outbound->tls_broke |= outbound->conn.handshaking;
	smtp_client_lost(outbound->client, why);
	conn_close(&outbound->conn);
}

/* ── TLS ──────────────────────────────────────────────────────────────────────────── */

void outbound_start_tls(struct outbound *outbound)
{
	struct worker *worker = outbound->conn.worker;
	const struct tls_session *resume = tls_peers_session(
		worker->tls_peers, &outbound->host.address, &outbound->tls, worker_mono(worker));
	struct tls *tls =
		tls_connect(worker->engine->tls, &outbound->tls, resume, worker_wall(worker));

	if (!tls) { /* which says nothing about the host */
		outbound_lose(outbound, "no memory for TLS");
		return;
	}
	if (!conn_start_tls(&outbound->conn, tls)) {
		outbound->tls_broke = true;
		outbound_lose(outbound, tls_why(tls));
		return;
	}
	conn_deadline(&outbound->conn, worker->config->tls_handshake_ms);
}

static void on_secured(struct conn *conn, const char *failure)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	if (failure) {
		outbound->tls_broke = true;
		outbound_lose(outbound, failure);
		return;
	}
	outbound->host.tls = *conn_facts(conn);
	if (!outbound->tls.implicit)
		smtp_client_secured(outbound->client);
	conn_recv(conn);
	outbound_flush(outbound);
}

/* ── the connection ───────────────────────────────────────────────────────────────── */

static void on_connected(struct conn *conn, int result)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	if (result < 0) {
		outbound_lose(outbound, strerror(-result));
		return;
	}
	os_local_address(conn->fd, &outbound->host.source);
	if (outbound->tls.implicit) {
		outbound_start_tls(outbound);
		return;
	}
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
	/* A peer that answers is alive, however long it takes to read what we are sending. */
	rest_deadline(outbound);
	outbound_flush(outbound);
}

static void on_sent(struct conn *conn, size_t count)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	smtp_client_sent(outbound->client, count);
	outbound_give_back_parked(outbound);
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
	outbound_lose(outbound, why);
}

static void on_deadline(struct conn *conn)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	if (smtp_client_state(outbound->client) == SMTP_CLIENT_READY &&
	    smtp_client_unfinished(outbound->client) == 0) {
		outbound_quit(outbound);
		return;
	}
	outbound_lose(outbound, conn->handshaking ? "timed out in the TLS handshake"
				: outbound->greeted
					? "timed out waiting for a reply"
					: "timed out connecting or waiting for the greeting");
}

static void on_closed(struct conn *conn)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);
	struct site *site = outbound->site;
	bool was_connecting = !outbound->greeted;

	assert(list_empty(&outbound->deliveries));
	outbound_give_back_parked(outbound);
	list_remove(&outbound->link);
	smtp_client_destroy(outbound->client);
	config_unref(outbound->config);
	free(outbound);
	site_connection_gone(site, was_connecting);
}

static const struct conn_host conn_host = {
	.hears_out = true, /* a reply that is here is an outcome, however the connection ends */
	.connected = on_connected,
	.received = on_received,
	.sent = on_sent,
	.secured = on_secured,
	.lost = on_lost,
	.deadline = on_deadline,
	.closed = on_closed,
};

/* How it logs in: what it does not say in clear asks for TLS. */
static void login_prepare(const struct outbound *outbound, struct smtp_client_options *options,
			  struct tls_policy *tls)
{
	const struct config_delivery *how = outbound_policy(outbound);
	bool local = outbound->host.address.family == AF_UNIX;

	options->auth_user = how->auth_user;
	options->auth_password = credentials_find(outbound->config->credentials,
						  outbound->host.name, how->auth_user);
	options->auth_in_clear = how->auth_in_clear || local;
	if (!options->auth_in_clear && tls->level < TLS_ENCRYPT)
		tls->level = TLS_ENCRYPT;
	assert(options->auth_password); /* credentials_read() has seen to it */
}

int outbound_open(struct site *site, const struct mx_host *host, const struct os_address *address)
{
	const struct config_delivery *how = &site->route->delivery;
	const struct os_address *source =
		address->family == AF_INET ? &how->source4 : &how->source6;
	struct tls_policy tls;
	struct smtp_client_options options = {
		.hello = site->config->hostname,
		.lmtp = site->route->lmtp,
		.pipelining = how->pipelining,
		.chunking = how->chunking,
		.depth_max = how->stream_depth,
		.recipients_per_flight_max = FORMAT_JOB_RECIPIENTS_MAX,
		.smarthost = site->route->action == CONFIG_ROUTE_HOSTS,
	};
	struct outbound *outbound = calloc(1, sizeof(*outbound));
	int result = -ENOMEM;

	if (!outbound)
		return result;
	outbound->site = site;
	outbound->config = config_ref(site->config);
	list_init(&outbound->link);
	list_init(&outbound->deliveries);
	list_init(&outbound->parked);
	outbound->host.address = *address;
	snprintf(outbound->host.name, sizeof(outbound->host.name), "%s", host->name);
	tls = tls_policy_decide(
		how, outbound->host.name, address->port,
		tls_peers_has_failed(site->worker->tls_peers, address, worker_mono(site->worker)));
	if (address->family == AF_UNIX)
		tls.level = TLS_NONE, tls.implicit = false; /* nobody stands in between */
	/* Never to whom the DNS names. */
	if (how->auth_user[0] != '\0' && options.smarthost)
		login_prepare(outbound, &options, &tls);
	outbound->tls = tls;
	options.tls = tls.level > TLS_NONE;
	options.tls_required = tls.level > TLS_MAY;
	options.secured = tls.implicit;
	outbound->client = outbound_client_create(outbound, &options);
	if (outbound->client)
		result = conn_connect(&outbound->conn, site->worker, &conn_host, address,
				      source->family == address->family ? source : NULL);
	if (result < 0) {
		smtp_client_destroy(outbound->client);
		config_unref(outbound->config);
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

bool outbound_is_greeted(const struct outbound *outbound)
{
	return outbound->greeted;
}

bool outbound_is_unused(const struct outbound *outbound)
{
	return outbound->messages == 0;
}

/* Ours or the peer's limit; 0: there is none. */
static uint32_t messages_max(const struct outbound *outbound)
{
	uint32_t own = outbound_policy(outbound)->connection_messages_max;
	uint32_t theirs = smtp_client_messages_max(outbound->client);

	return own == 0 || (theirs > 0 && theirs < own) ? theirs : own;
}

uint32_t outbound_room(const struct outbound *outbound)
{
	uint32_t max = messages_max(outbound);
	uint32_t room;

	if (!outbound->greeted || outbound->spent || outbound->quitting || outbound->conn.closing ||
	    conn_breaking(&outbound->conn))
		return 0;
	room = smtp_client_room(outbound->client);
	if (max > 0 && room > max - outbound->messages)
		room = max - outbound->messages;
	return room;
}

/* ── what the server takes of a message ───────────────────────────────────────────── */

static bool takes_octets(const struct outbound *outbound, const struct delivery *delivery)
{
	uint32_t has = smtp_client_extensions(outbound->client);
	uint32_t binary = SMTP_HAS_BINARYMIME | SMTP_HAS_CHUNKING;

	if (delivery->transaction.utf8 && !(has & SMTP_HAS_SMTPUTF8))
		return true; /* fails for that, before anything else */
	if (delivery->transaction.binary)
		return outbound_policy(outbound)->chunking && (has & binary) == binary;
	return !delivery->transaction.eightbit || (has & SMTP_HAS_8BITMIME);
}

/* Its message is converted, or can't be read: to whichever connection is next, or back. */
static void on_converted(struct delivery *delivery)
{
	if (!delivery->damaged) {
		site_renew(delivery->lane, delivery);
		return;
	}
	delivery_close(delivery, SMTP_DEFERRED, 0, 40300, "the message on our disk is damaged");
	feed_delivered(delivery);
}

/* False: it is on its way somewhere else. */
static bool fit(struct outbound *outbound, struct delivery *delivery)
{
	struct worker *worker = outbound->conn.worker;

	delivery_use_stored(delivery);
	if (takes_octets(outbound, delivery))
		return true;
	switch (conversion_begin(worker, delivery, on_converted)) {
	case CONVERSION_READY:
		/* What can't be converted is for the client to refuse. */
		if (!conversion_why(delivery->conversion))
			conversion_use(delivery->conversion, &delivery->transaction);
		return true;
	case CONVERSION_NO_ROOM:
		delivery->retry_at.us = worker_wall(worker).us + NO_ROOM_MS * 1000;
		delivery_close(delivery, SMTP_DEFERRED, 0, 40301,
			       "no memory now to convert it for a server without 8BITMIME");
		feed_delivered(delivery);
		return false;
	case CONVERSION_BUSY:
		break;
	}
	return false;
}

/* RFC 1870: what is too big for this server may not be for another, and fails only when all say
 * so. False: it is on its way there, or back. */
static bool is_small_enough(struct outbound *outbound, struct delivery *delivery)
{
	struct site *site = outbound->site;

	if (!smtp_client_too_big(outbound->client, &delivery->transaction))
		return true;
	if (!delivery_is_judged(delivery)) {
		delivery->host = outbound->host;
		delivery->begun = worker_mono(outbound->conn.worker);
	}
	if (site_try_elsewhere(site, delivery, &outbound->host.address))
		return false;
	if (!delivery_is_judged(delivery) && site_all_refuse(site, delivery))
		return true; /* for the client to refuse */
	site_end_refused(site, delivery);
	return false;
}

void outbound_submit(struct outbound *outbound, struct delivery *delivery)
{
	if (!fit(outbound, delivery) || !is_small_enough(outbound, delivery))
		return;
	delivery->outbound = outbound;
	delivery->host = outbound->host;
	delivery->begun = worker_mono(outbound->conn.worker);
	delivery->peer_reports = smtp_client_extensions(outbound->client) & SMTP_HAS_DSN;
	delivery->transaction.to_blame = delivery->job->suspect && outbound_is_unused(outbound);
	outbound->messages++;
	list_push_back(&outbound->deliveries, &delivery->link);
	smtp_client_submit(outbound->client, &delivery->transaction);
	if (outbound->messages == messages_max(outbound))
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
		outbound_lose(outbound, "we are shutting down");
	conn_close(&outbound->conn);
}
