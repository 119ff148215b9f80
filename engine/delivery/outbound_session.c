/*
 * outbound_session - what the SMTP client machine reports of a connection to a host: verdicts,
 * and whose fault it is that there are none.
 */
#include "engine/delivery/outbound_private.h"

#include <stdio.h>

#include "engine/delivery/body_reader.h"
#include "engine/delivery/conversion.h"
#include "engine/delivery/feed.h"
#include "engine/delivery/site_health.h"
#include "engine/delivery/sites.h"
#include "engine/tls/peers.h"

enum {
	TLS_TROUBLE = 40705,  /* RFC 3463: cryptographic failure */
	LOGIN_TROUBLE = 40708 /* RFC 4954, 6: credentials invalid */
};

/* ── its beginning ────────────────────────────────────────────────────────────────── */

static void on_starttls(void *context)
{
	outbound_start_tls(context);
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

static void on_ready(void *context)
{
	struct outbound *outbound = context;

	outbound->greeted = true;
	if (outbound_policy(outbound)->auth_user[0] != '\0')
		outbound->site->login_told = false;
	if (outbound->conn.tls)
		keep_session(outbound);
	site_host_greeted(outbound->site);
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
	outbound_lose(outbound, status == QUEUE_DAMAGED
					? "the message on our disk is damaged"
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

/* ── verdicts ─────────────────────────────────────────────────────────────────────── */

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
		   delivery->deferrals++ == DELIVERY_DEFERRALS_MAX ||
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

void outbound_give_back_parked(struct outbound *outbound)
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
	delivery->job->suspect |= transaction->lost_at; /* see wants_unused() in site.c */
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

/* ── its end ──────────────────────────────────────────────────────────────────────── */

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
	 * without this, what was not sent would be tried again at once, for ever. A message that
	 * was to blame is deferred, and says nothing about the host. */
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

struct smtp_client *outbound_client_create(struct outbound *outbound,
					   const struct smtp_client_options *options)
{
	return smtp_client_create(options, &client_host, outbound);
}
