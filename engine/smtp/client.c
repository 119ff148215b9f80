/*
 * client - see client.h: life, verdicts and the end.
 */
#include "engine/smtp/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/smtp/client_private.h"
#include "engine/smtp/utf8.h"
#include "os/check.h"

enum { EARLY_MAX = 65536 };

/* Verdicts of our own, as reply.h has enhanced codes. */
enum { ENHANCED_LOST = 40402 };

struct smtp_client *smtp_client_create(const struct smtp_client_options *options,
				       const struct smtp_client_host *host, void *context)
{
	struct smtp_client *client = malloc(sizeof(*client));

	if (!client)
		return NULL;
	/* Not its reply: that has buffers. */
	memset(client, 0, offsetof(struct smtp_client, reply));
	smtp_reply_reset(&client->reply);
	client->host = host;
	client->context = context;
	client->options = *options;
	client->steps = client->steps_own;
	client->step_size = STEPS_MIN;
	list_init(&client->waiting);
	list_init(&client->active);
	list_init(&client->output);
	list_init(&client->spare);
	output_step(client, STEP_GREETING, NULL, 0);
	return client;
}

void smtp_client_destroy(struct smtp_client *client)
{
	if (!client)
		return;
	assert(client->active_count + client->waiting_count == 0);
	output_free(client);
	free(client->early);
	free(client);
}

const char *smtp_client_why(const struct smtp_client *client)
{
	return client->why;
}

uint16_t smtp_client_tls_trouble(const struct smtp_client *client)
{
	return client->tls_trouble;
}

enum smtp_client_state smtp_client_state(const struct smtp_client *client)
{
	return client->state;
}

uint32_t smtp_client_extensions(const struct smtp_client *client)
{
	return client->extensions;
}

uint32_t smtp_client_unfinished(const struct smtp_client *client)
{
	return client->active_count + client->waiting_count;
}

uint32_t smtp_client_room(const struct smtp_client *client)
{
	uint32_t depth = client_depth(client), unfinished = smtp_client_unfinished(client);

	if (client->state != SMTP_CLIENT_READY || client->quitting || unfinished >= depth)
		return 0;
	return depth - unfinished;
}

uint32_t smtp_client_messages_max(const struct smtp_client *client)
{
	return client->limits.mail_max;
}

/* Sets the verdict and tells the host. */
static void verdict_set(struct smtp_client *client, struct smtp_transaction *transaction,
			struct smtp_client_recipient *recipient, enum smtp_verdict verdict,
			const struct smtp_reply *reply)
{
	assert(recipient->verdict == SMTP_PENDING && transaction->open > 0);
	recipient->verdict = (uint8_t)verdict;
	transaction->open--;
	client->host->recipient(client->context, transaction, recipient, reply);
}

void client_verdict(struct smtp_client *client, struct smtp_transaction *transaction,
		    struct smtp_client_recipient *recipient, enum smtp_verdict verdict,
		    const struct smtp_reply *reply)
{
	recipient->reply = reply->code;
	recipient->enhanced = smtp_reply_status(reply);
	verdict_set(client, transaction, recipient, verdict, reply);
}

void client_verdict_all(struct smtp_client *client, struct smtp_transaction *transaction,
			const struct smtp_reply *reply)
{
	enum smtp_verdict verdict =
		reply->class == SMTP_REPLY_PERMANENT ? SMTP_FAILED : SMTP_DEFERRED;

	for (uint32_t i = 0; i < transaction->recipient_count; i++) {
		if (transaction->recipients[i].verdict == SMTP_PENDING)
			client_verdict(client, transaction, &transaction->recipients[i], verdict,
				       reply);
	}
}

/* A verdict without a reply, for all that have none. */
static void verdict_own(struct smtp_client *client, struct smtp_transaction *transaction,
			enum smtp_verdict verdict, uint16_t enhanced)
{
	for (uint32_t i = 0; i < transaction->recipient_count; i++) {
		struct smtp_client_recipient *recipient = &transaction->recipients[i];

		if (recipient->verdict != SMTP_PENDING)
			continue;
		recipient->reply = 0;
		recipient->enhanced = enhanced;
		verdict_set(client, transaction, recipient, verdict, NULL);
	}
}

/* The connection ended: what became of a transaction whose recipients are open? */
static enum smtp_verdict verdict_of_lost(const struct smtp_transaction *transaction)
{
	if (transaction->sent_whole || transaction->given_whole)
		return SMTP_UNKNOWN;
	if (!transaction->begun)
		return SMTP_NOT_SENT;
	return transaction->heard || transaction->to_blame ? SMTP_DEFERRED : SMTP_NOT_SENT;
}

/* The peer takes them in turn: where it broke off is at the oldest. */
static void note_lost_at(struct smtp_client *client)
{
	struct smtp_transaction *oldest;

	if (list_empty(&client->active))
		return;
	oldest = list_first(&client->active, struct smtp_transaction, link);
	oldest->lost_at = oldest->begun;
}

static void transactions_end(struct smtp_client *client, struct list *transactions, uint32_t *count)
{
	struct list *link;

	while ((link = list_pop_front(transactions))) {
		struct smtp_transaction *transaction =
			container_of(link, struct smtp_transaction, link);

		--*count;
		verdict_own(client, transaction, verdict_of_lost(transaction), ENHANCED_LOST);
		client->host->finished(client->context, transaction);
	}
}

void client_end(struct smtp_client *client, const char *why, const struct smtp_reply *reply)
{
	if (client->state == SMTP_CLIENT_ENDED)
		return;
	if (client->state == SMTP_CLIENT_STARTTLS && client->tls_trouble == 0 && !client->starved)
		client->tls_trouble = CLIENT_TLS_BROKEN;
	client->state = SMTP_CLIENT_ENDED;
	snprintf(client->why, sizeof(client->why), "%s", why ? why : "");
	client->issuing = NULL;
	client->step_count = 0;
	output_orphan(client);
	note_lost_at(client);
	transactions_end(client, &client->active, &client->active_count);
	transactions_end(client, &client->waiting, &client->waiting_count);
	client->host->ended(client->context, why, reply);
}

bool smtp_client_auth_trouble(const struct smtp_client *client)
{
	return client->auth_trouble;
}

void client_end_auth(struct smtp_client *client, const char *why)
{
	bool refused = client->reply.class == SMTP_REPLY_PERMANENT;

	client->auth_trouble = true;
	client_end(client, why, refused ? &client->reply : NULL);
}

void client_end_tls(struct smtp_client *client, uint16_t trouble, const char *why,
		    const struct smtp_reply *reply)
{
	client->tls_trouble = trouble;
	client_end(client, why, reply);
}

void client_finish(struct smtp_client *client, struct smtp_transaction *transaction)
{
	if (transaction->stage != ISSUE_DONE || transaction->steps > 0 ||
	    client->issuing == transaction || client->starved)
		return;
	assert(transaction->open == 0);
	list_remove(&transaction->link);
	client->active_count--;
	client->host->finished(client->context, transaction);
}

static bool beyond_ascii(struct span address)
{
	return smtp_utf8_ascii(address) < address.len;
}

static bool needs_utf8(const struct smtp_transaction *transaction)
{
	bool needs = transaction->utf8 || beyond_ascii(transaction->sender);

	for (uint32_t i = 0; i < transaction->recipient_count && !needs; i++)
		needs = beyond_ascii(transaction->recipients[i].address);
	return needs;
}

/* No SMTPUTF8: who can't be told apart from the others fails with them. */
static void fail_utf8(struct smtp_client *client, struct smtp_transaction *transaction)
{
	bool sender = beyond_ascii(transaction->sender);

	for (uint32_t i = 0; i < transaction->recipient_count; i++) {
		struct smtp_client_recipient *recipient = &transaction->recipients[i];
		bool address = sender || beyond_ascii(recipient->address);

		if (!address && !transaction->utf8)
			continue;
		recipient->enhanced = address ? SMTP_OWN_UTF8 : SMTP_OWN_UTF8_HEADER;
		verdict_set(client, transaction, recipient, SMTP_FAILED, NULL);
	}
}

static bool takes_octets(const struct smtp_client *client,
			 const struct smtp_transaction *transaction)
{
	if (transaction->binary)
		return client_takes_binary(client);
	return !transaction->eightbit || (client->extensions & SMTP_HAS_8BITMIME);
}

static void transaction_init(struct smtp_transaction *transaction)
{
	transaction->issued = transaction->answered = transaction->accepted = 0;
	transaction->open = transaction->recipient_count;
	transaction->steps = 0;
	transaction->utf8_said = false;
	transaction->begun = transaction->heard = false;
	transaction->given_whole = transaction->sent_whole = false;
	transaction->mail_deferred = transaction->lost_at = false;
	transaction->body_sent = 0;
	list_init(&transaction->link);
	for (uint32_t i = 0; i < transaction->recipient_count; i++) {
		struct smtp_client_recipient *recipient = &transaction->recipients[i];

		recipient->verdict = SMTP_PENDING;
		recipient->reply = recipient->enhanced = 0;
	}
}

/* RFC 9422: whom the peer would not take in one transaction waits for another. */
static void hold_back(struct smtp_client *client, struct smtp_transaction *transaction)
{
	uint32_t max = client->limits.rcpt_max;

	for (uint32_t i = max; max > 0 && i < transaction->recipient_count; i++)
		if (transaction->recipients[i].verdict == SMTP_PENDING)
			verdict_set(client, transaction, &transaction->recipients[i], SMTP_NOT_SENT,
				    NULL);
}

bool smtp_client_too_big(const struct smtp_client *client,
			 const struct smtp_transaction *transaction)
{
	return client->size_max > 0 && smtp_transaction_bytes(transaction) > client->size_max;
}

void smtp_client_submit(struct smtp_client *client, struct smtp_transaction *transaction)
{
	assert(smtp_client_room(client) > 0 && transaction->recipient_count > 0);
	assert(!transaction->body.at || transaction->body.len == transaction->body_bytes);
	transaction_init(transaction);

	if (smtp_client_too_big(client, transaction))
		verdict_own(client, transaction, SMTP_FAILED, SMTP_OWN_TOO_BIG);
	else if (client->extensions & SMTP_HAS_SMTPUTF8)
		transaction->utf8_said = needs_utf8(transaction);
	else
		fail_utf8(client, transaction);
	if (!takes_octets(client, transaction))
		verdict_own(client, transaction, SMTP_FAILED, SMTP_OWN_8BIT);
	hold_back(client, transaction);
	if (transaction->open == 0) {
		client->host->finished(client->context, transaction);
		return;
	}
	list_push_back(&client->waiting, &transaction->link);
	client->waiting_count++;
	client_issue(client);
}

void smtp_client_quit(struct smtp_client *client)
{
	if (client->state == SMTP_CLIENT_ENDED || client->quitting)
		return;
	client->quitting = true;
	transactions_end(client, &client->waiting, &client->waiting_count);
	client_issue(client);
}

/* What follows a reply that came too early waits with it. */
static void early_keep(struct smtp_client *client, struct span bytes)
{
	if (client->early_len + bytes.len > EARLY_MAX) {
		client_end(client, "replies to nothing", NULL);
		return;
	}
	char *early = realloc(client->early, client->early_len + bytes.len);

	if (!early) {
		client->starved = true;
		smtp_client_lost(client, CLIENT_STARVED);
		return;
	}
	client->early = early;
	memcpy(early + client->early_len, bytes.at, bytes.len);
	client->early_len += bytes.len;
}

/* May the complete reply be taken, or was its command not sent yet? */
static bool reply_is_due(const struct smtp_client *client)
{
	const struct step *step = output_step_first(client);

	return client->reply.class == SMTP_REPLY_MALFORMED || client->reply.code == 421 || !step ||
	       output_step_sent(client, step);
}

/* 220 to STARTTLS: what stands behind it was not said by whom the handshake will prove. */
static void tls_begin(struct smtp_client *client, bool more)
{
	if (more)
		client_end(client, "bytes between STARTTLS and the handshake", NULL);
	else
		client->host->starttls(client->context);
}

/* Takes the complete reply; `more` of the peer's bytes are here. False: they are not for us. */
static bool reply_take(struct smtp_client *client, bool more)
{
	client_reply(client);
	if (client->shaking && client->state == SMTP_CLIENT_STARTTLS)
		tls_begin(client, more);
	return !client->shaking;
}

void smtp_client_secured(struct smtp_client *client)
{
	assert(client->shaking && client->state == SMTP_CLIENT_STARTTLS);
	client->shaking = false;
	client->options.secured = true;
	client->extensions = 0;
	client_hello(client);
}

void client_sent_reply(struct smtp_client *client)
{
	char *early = client->early;
	size_t len = client->early_len;

	client->early = NULL;
	client->early_len = 0;
	client->reply_waiting = false;
	if (reply_take(client, len > 0) && len > 0)
		smtp_client_feed(client, span_of(early, len));
	free(early);
}

void smtp_client_feed(struct smtp_client *client, struct span bytes)
{
	assert(!client->shaking || client->state == SMTP_CLIENT_ENDED);
	while (bytes.len > 0 && client->state != SMTP_CLIENT_ENDED) {
		if (client->reply_waiting) {
			early_keep(client, bytes);
			return;
		}
		bytes = span_skip(bytes, smtp_reply_feed(&client->reply, bytes));
		if (client->reply.class == SMTP_REPLY_MORE)
			return;
		if (!reply_is_due(client))
			client->reply_waiting = true;
		else if (!reply_take(client, bytes.len > 0))
			return;
	}
}

void smtp_client_lost(struct smtp_client *client, const char *why)
{
	const struct step *step = output_step_first(client);
	bool refused = client->reply.class == SMTP_REPLY_TRANSIENT ||
		       client->reply.class == SMTP_REPLY_PERMANENT;

	/* The peer refused in mid-body and hung up: that is its answer. */
	if (client->reply_waiting && refused && step && step->kind == STEP_FINAL &&
	    client->state != SMTP_CLIENT_ENDED && !client->options.lmtp)
		client_verdict_all(client, step->transaction, &client->reply);
	client_end(client, why, NULL);
}

uint32_t smtp_client_deadline_ms(const struct smtp_client *client,
				 const struct smtp_client_timeouts *timeouts)
{
	const struct step *step = output_step_first(client);

	if (!step || client->state == SMTP_CLIENT_ENDED)
		return 0;
	switch ((enum step_kind)step->kind) {
	case STEP_GREETING:
		return timeouts->greeting_ms;
	case STEP_EHLO:
	case STEP_HELO:
	case STEP_STARTTLS:
	case STEP_AUTH_PLAIN:
	case STEP_AUTH_LOGIN:
	case STEP_AUTH_USER:
	case STEP_AUTH_FINAL:
		return timeouts->hello_ms;
	case STEP_RSET:
	case STEP_MAIL:
		return timeouts->mail_ms;
	case STEP_RCPT:
		return timeouts->rcpt_ms;
	case STEP_DATA:
		return timeouts->data_ms;
	case STEP_FINAL:
		return step->transaction->sent_whole ? timeouts->final_ms : timeouts->block_ms;
	default:
		return timeouts->quit_ms;
	}
}
