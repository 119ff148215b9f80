#include "engine/delivery/outbound.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/auth/credentials.h"
#include "engine/delivery/body_reader.h"
#include "engine/delivery/conversion.h"
#include "engine/delivery/feed.h"
#include "engine/delivery/site_health.h"
#include "engine/delivery/sites.h"
#include "engine/tls/peers.h"

enum {
	VECTORS = 64,
	NO_ROOM_MS = 10000,   /* for a message that wants converting */
	TLS_TROUBLE = 40705,  /* RFC 3463: cryptographic failure */
	LOGIN_TROUBLE = 40708 /* RFC 4954, 6: credentials invalid */
};

struct outbound {
	struct conn conn;
	struct site *site;
	struct list link;
	struct smtp_client *client;
	struct delivery_host host;
	const struct config *config; /* a reference: names in it are in use */
	struct tls_policy tls;	     /* its name is the host's or the configuration's */
	struct list deliveries;
	struct list parked; /* finished, while the kernel still sends from their bodies */
	uint32_t messages;
	bool greeted; /* past EHLO: it may take transactions */
	bool quitting;
	bool delivered;		    /* some recipient */
	bool useful;		    /* some transaction was answered */
	bool spent;		    /* delivered some, and now defers MAIL: it had its fill */
	struct os_mono answered_at; /* its newest transaction */
	bool tls_broke;		    /* in the handshake, or before it began */
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
	if (outbound->conn.handshaking)
		return; /* it has one for all of it */

	uint32_t ms = smtp_client_deadline_ms(outbound->client, &policy(outbound)->timeouts);

	conn_deadline(&outbound->conn, ms > 0 ? ms : policy(outbound)->connection_idle_ms);
}

void outbound_flush(struct outbound *outbound)
{
	int count;

	if (outbound->conn.closing || conn_sending(&outbound->conn) ||
	    conn_breaking(&outbound->conn))
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
	outbound->tls_broke |= outbound->conn.handshaking;
	smtp_client_lost(outbound->client, why);
	conn_close(&outbound->conn);
}

/* ── TLS ──────────────────────────────────────────────────────────────────────────── */

static void start_tls(struct outbound *outbound)
{
	struct worker *worker = outbound->conn.worker;
	const struct tls_session *resume = tls_peers_session(
		worker->tls_peers, &outbound->host.address, &outbound->tls, worker_mono(worker));
	struct tls *tls =
		tls_connect(worker->engine->tls, &outbound->tls, resume, worker_wall(worker));

	if (!tls || !conn_start_tls(&outbound->conn, tls)) {
		outbound->tls_broke = true;
		lose(outbound, tls ? tls_why(tls) : "no memory for TLS");
		return;
	}
	conn_deadline(&outbound->conn, worker->config->tls_handshake_ms);
}

static void on_starttls(void *context)
{
	start_tls(context);
}

static void on_secured(struct conn *conn, const char *failure)
{
	struct outbound *outbound = container_of(conn, struct outbound, conn);

	if (failure) {
		outbound->tls_broke = true;
		lose(outbound, failure);
		return;
	}
	outbound->host.tls = *conn_facts(conn);
	if (!outbound->tls.implicit)
		smtp_client_secured(outbound->client);
	conn_recv(conn);
	outbound_flush(outbound);
}

/* What the server gave by now; it says so before its first reply. */
static void keep_session(struct outbound *outbound)
{
	struct worker *worker = outbound->conn.worker;
	struct tls_session *session = tls_session_take(outbound->conn.tls);

	if (session)
		tls_peers_keep(worker->tls_peers, &outbound->host.address, &outbound->tls, session,
			       worker_mono(worker));
}

/* An enhanced code: the connection ended for want of TLS; 0: for another reason. */
static uint16_t tls_trouble(const struct outbound *outbound)
{
	return outbound->tls_broke ? TLS_TROUBLE : smtp_client_tls_trouble(outbound->client);
}

/* TLS broke where clear text will do: the next connection to this address goes without. */
static bool goes_on_in_clear(struct outbound *outbound, const char *why)
{
	struct worker *worker = outbound->conn.worker;
	const struct delivery_host *host = &outbound->host;
	char address[OS_ADDRESS_TEXT_MAX];

	if (outbound->tls.level != TLS_MAY || tls_trouble(outbound) == 0 ||
	    !tls_peers_failed(worker->tls_peers, &host->address, worker_mono(worker),
			      worker->config->tls_failed_ms))
		return false;
	log_notice(LOG_WARNING,
		   "TLS with %s[%s]:%u failed (%s): its mail goes unencrypted for the next %u s",
		   host->name, os_address_text(&host->address, address), host->address.port, why,
		   worker->config->tls_failed_ms / 1000);
	return true;
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
	delivery->damaged = status == QUEUE_DAMAGED;
	lose(outbound, status == QUEUE_DAMAGED ? "the message on our disk is damaged"
					       : "the message could not be read from our disk");
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

/* A smarthost that does not let us in: mail waits, and somebody has to do something. */
static void tell_login(struct outbound *outbound, const struct smtp_reply *reply)
{
	const struct delivery_host *host = &outbound->host;

	if (outbound->site->login_told)
		return;
	outbound->site->login_told = true;
	log_notice(
		LOG_WARNING,
		"%s does not take our mail for want of a login (%s): it waits; look at auth_user "
		"and credentials",
		host->name,
		reply && reply->text_len > 0 ? reply->text : smtp_client_why(outbound->client));
}

/* ── what the client machine reports ──────────────────────────────────────────────── */

static void on_ready(void *context)
{
	struct outbound *outbound = context;

	outbound->greeted = true;
	if (policy(outbound)->auth_user[0] != '\0')
		outbound->site->login_told = false;
	if (outbound->conn.tls)
		keep_session(outbound);
	site_host_greeted(outbound->site);
}

/* Why the message can't go to this server; NULL: that is not the reason. */
static const char *own_text(uint16_t enhanced)
{
	switch (enhanced) {
	case SMTP_OWN_TOO_BIG:
		return "the message is larger than the server takes";
	case SMTP_OWN_8BIT:
		return "the message has 8-bit text, the server takes none (8BITMIME), and it "
		       "cannot be converted";
	case SMTP_OWN_UTF8:
		return "the address is internationalised, and the server is not (SMTPUTF8)";
	case SMTP_OWN_UTF8_HEADER:
		return "the header is internationalised, and the server is not (SMTPUTF8)";
	default:
		return NULL;
	}
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	struct outbound *outbound = context;
	struct delivery *delivery = container_of(transaction, struct delivery, transaction);

	if (!reply &&
	    (recipient->enhanced == SMTP_OWN_UTF8 || recipient->enhanced == SMTP_OWN_UTF8_HEADER))
		delivery_note_own(delivery, recipient, own_text(recipient->enhanced));
	else
		delivery_note(delivery, recipient, reply);
	outbound->delivered |= recipient->verdict == SMTP_DELIVERED;
	if (!reply)
		return;
	if (recipient->verdict == SMTP_DEFERRED && smtp_reply_is_auth(reply->code))
		tell_login(outbound, reply);
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
	const char *text = smtp_client_why(outbound->client);
	uint16_t enhanced = 0;
	char why[256];

	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (delivery->recipients[i].reply == 0)
			enhanced = delivery->recipients[i].enhanced;

	if (enhanced == SMTP_OWN_8BIT) {
		snprintf(why, sizeof(why), "%s: %s", own_text(enhanced),
			 conversion_why(delivery->conversion));
		text = why;
	} else if (own_text(enhanced)) {
		text = own_text(enhanced);
	} else {
		enhanced = 40402;
	}
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

/* Somebody's outcome has no reply. Whom the peer's RCPTMAX held back has none yet. */
static bool is_unexplained(const struct delivery *delivery)
{
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (delivery->recipients[i].reply == 0 &&
		    delivery->recipients[i].verdict != SMTP_NOT_SENT)
			return true;
	return false;
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
	if (heard == 0 || is_unexplained(delivery))
		explain(outbound, delivery);
	site_touch(outbound->site);
	if (!transaction->sent_whole && conn_sending(&outbound->conn))
		list_push_back(&outbound->parked, &delivery->link);
	else
		give_back(outbound, delivery);
}

/* Of a host that could not be used, for people. */
static void blame(struct outbound *outbound, const char *why, const struct smtp_reply *reply)
{
	const struct delivery_host *host = &outbound->host;
	char address[OS_ADDRESS_TEXT_MAX], where[OS_ADDRESS_TEXT_MAX + 16] = "", text[1024];
	uint16_t trouble = tls_trouble(outbound), enhanced = 40401;

	if (smtp_client_auth_trouble(outbound->client)) {
		tell_login(outbound, reply);
		enhanced = LOGIN_TROUBLE;
	} else if (trouble)
		enhanced = trouble;
	else if (reply)
		enhanced = smtp_reply_status(reply);
	os_address_text(&host->address, address);
	if (host->address.family != AF_UNIX)
		snprintf(where, sizeof(where), "[%s]:%u", address, host->address.port);
	snprintf(text, sizeof(text), "connect to %s%s: %s%.500s", host->name, where,
		 trouble == TLS_TROUBLE ? "TLS is required, and the handshake failed: " : "",
		 reply && reply->text_len > 0 ? reply->text : why);
	site_host_failed(outbound->site, &host->address, outbound->greeted, reply ? reply->code : 0,
			 enhanced, text);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct outbound *outbound = context;
	bool deserted = reply && reply->code == 421;

	/* A host that takes the session and then nothing is no better than one that refuses it:
	 * without this, what was not sent would be tried again at once, for ever. */
	if (goes_on_in_clear(outbound, why))
		; /* the site is as well as before */
	else if (!outbound->greeted || (!outbound->useful && (outbound->unsent || deserted)))
		blame(outbound, why, reply);
	else if (deserted)
		site_slow_down(outbound->site);
	site_touch(outbound->site);
	if (!conn_sending(&outbound->conn))
		conn_close(&outbound->conn);
}

static const struct smtp_client_host client_host = {
	.ready = on_ready,
	.starttls = on_starttls,
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
	if (outbound->tls.implicit) {
		start_tls(outbound);
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
	lose(outbound, conn->handshaking   ? "timed out in the TLS handshake"
		       : outbound->greeted ? "timed out waiting for a reply"
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
	const struct config_delivery *how = policy(outbound);
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
	outbound->client = smtp_client_create(&options, &client_host, outbound);
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

/* Ours or the peer's limit; 0: there is none. */
static uint32_t messages_max(const struct outbound *outbound)
{
	uint32_t own = policy(outbound)->connection_messages_max;
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
		return policy(outbound)->chunking && (has & binary) == binary;
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

void outbound_submit(struct outbound *outbound, struct delivery *delivery)
{
	if (!fit(outbound, delivery))
		return;
	delivery->outbound = outbound;
	delivery->host = outbound->host;
	delivery->begun = worker_mono(outbound->conn.worker);
	delivery->peer_reports = smtp_client_extensions(outbound->client) & SMTP_HAS_DSN;
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
		lose(outbound, "we are shutting down");
	conn_close(&outbound->conn);
}
