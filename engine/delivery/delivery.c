#include "engine/delivery/delivery.h"

#include <stdlib.h>

#include "engine/delivery/conversion.h"
#include "queue/envelope.h"

struct delivery *delivery_create(struct feed *feed, struct queue_job *job,
				 const struct config *config, const struct config_route *route)
{
	uint32_t count = (uint32_t)__builtin_popcountll(job->pending);
	struct delivery *delivery;

	assert(count > 0);
	delivery = calloc(1, sizeof(*delivery) + count * (sizeof(delivery->recipients[0]) +
							  sizeof(delivery->replies[0])));
	if (!delivery)
		return NULL;
	list_init(&delivery->link);
	delivery->feed = feed;
	delivery->job = job;
	delivery->config = config_ref(config);
	delivery->route = route;
	delivery->replies = (struct delivery_reply *)&delivery->recipients[count];
	delivery->transaction.recipients = delivery->recipients;
	delivery->transaction.recipient_count = count;
	list_init(&delivery->transaction.link);
	job->context = delivery;
	return delivery;
}

static void fill_recipients(struct delivery *delivery)
{
	const struct queue_job *job = delivery->job;
	struct envelope_cursor cursor = { .rest = job->message->envelope };
	struct envelope_recipient recipient;
	uint32_t filled = 0;

	for (uint32_t i = 0; envelope_next(&cursor, &recipient); i++) {
		if (i < job->first)
			continue;
		if (i >= (uint32_t)job->first + job->count)
			break;
		if (!(job->pending >> (i - job->first) & 1))
			continue;
		/* What the job is listed under is only a name: the envelope decides. */
		assert(span_equal(recipient.domain, queue_dest_name(job->stream, job->dest)));
		/* Another one comes first each time: a peer with a limit of recipients would else
		 * hear of those behind only when those before are through. */
		uint32_t at = (filled++ + job->attempts) % delivery->transaction.recipient_count;

		delivery->recipients[at] = (struct smtp_client_recipient){
			.address = recipient.address,
			.orcpt = recipient.orcpt,
			.notify = recipient.notify,
			.index = (uint8_t)(i - job->first),
		};
	}
	assert(filled == delivery->transaction.recipient_count);
}

void delivery_use_stored(struct delivery *delivery)
{
	const struct queue_message *message = delivery->job->message;
	struct smtp_transaction *transaction = &delivery->transaction;

	transaction->binary = message->flags & FORMAT_BINARY;
	transaction->eightbit = message->flags & (FORMAT_8BIT | FORMAT_BINARY);
	transaction->dot_lines = message->flags & FORMAT_DOT_LINES;
	transaction->no_final_crlf = message->flags & FORMAT_NO_FINAL_CRLF;
	transaction->body_bytes = message->body_bytes;
	transaction->body = message->flags & FORMAT_BIG ? span_of(NULL, 0) : message->body;
}

void delivery_address(struct delivery *delivery)
{
	const struct queue_message *message = delivery->job->message;
	struct smtp_transaction *transaction = &delivery->transaction;
	struct span ret = envelope_get(message->envelope, FORMAT_RET);

	transaction->sender = envelope_sender(message->envelope);
	transaction->envid = envelope_get(message->envelope, FORMAT_ENVID);
	transaction->ret = ret.len == 1 ? ret.at[0] : 0;
	transaction->utf8 = message->flags & FORMAT_UTF8;
	transaction->prefix = envelope_get(message->envelope, FORMAT_PREFIX);
	delivery_use_stored(delivery);
	fill_recipients(delivery);
}

void delivery_destroy(struct delivery *delivery)
{
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (delivery->replies[i].own)
			free(delivery->replies[i].text);
	conversion_destroy(delivery->conversion);
	free(delivery->text);
	config_unref(delivery->config);
	free(delivery);
}

bool delivery_refused_by(const struct delivery *delivery, const struct os_address *address)
{
	uint64_t hash = os_address_hash(address);

	for (uint32_t i = 0; i < delivery->refusals; i++)
		if (delivery->refused_by[i] == hash)
			return true;
	return false;
}

bool delivery_refuse(struct delivery *delivery, const struct os_address *address)
{
	if (delivery_refused_by(delivery, address))
		return true;
	if (delivery->refusals == DELIVERY_REFUSALS_MAX)
		return false;
	delivery->refused_by[delivery->refusals++] = os_address_hash(address);
	return true;
}

bool delivery_is_judged(const struct delivery *delivery)
{
	return delivery->recipients[0].verdict != SMTP_PENDING;
}

static void set_text(struct delivery *delivery, const char *text, size_t len)
{
	char *copy = malloc(len + 1);

	free(delivery->text);
	delivery->text = copy;
	delivery->text_len = 0;
	if (!copy)
		return; /* codes are enough */
	memcpy(copy, text, len);
	copy[len] = '\0';
	delivery->text_len = (uint16_t)len;
}

static void set_own(struct delivery_reply *reply, const char *text, uint16_t len)
{
	if (reply->own)
		free(reply->text);
	reply->own = false;
	reply->text = malloc(len + 1u);
	if (!reply->text)
		return;
	memcpy(reply->text, text, len);
	reply->text[len] = '\0';
	reply->text_len = len;
	reply->own = true;
}

/* A delivered recipient's reply is the last one of the transaction, and may be shared; a
 * refusal is its own. */
void delivery_note(struct delivery *delivery, struct smtp_client_recipient *recipient,
		   const struct smtp_reply *reply)
{
	struct delivery_reply *own = &delivery->replies[recipient - delivery->recipients];

	if (!reply)
		return;
	recipient->reply = reply->code;
	recipient->enhanced = smtp_reply_status(reply);
	own->codes_differ = reply->codes_disagree;
	delivery->reply = recipient->reply;
	delivery->enhanced = recipient->enhanced;
	if (delivery->transaction.recipient_count == 1) {
		set_text(delivery, reply->text, reply->text_len);
		return;
	}
	set_own(own, reply->text, reply->text_len);
}

void delivery_note_own(struct delivery *delivery, const struct smtp_client_recipient *recipient,
		       const char *text)
{
	set_own(&delivery->replies[recipient - delivery->recipients], text, (uint16_t)strlen(text));
}

void delivery_explain(struct delivery *delivery, uint16_t enhanced, const char *text)
{
	delivery->reply = 0;
	delivery->enhanced = enhanced;
	set_text(delivery, text, strlen(text));
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (delivery->recipients[i].reply == 0 && !delivery->replies[i].own)
			delivery->recipients[i].enhanced = enhanced;
}

void delivery_close(struct delivery *delivery, enum smtp_verdict verdict, uint16_t code,
		    uint16_t enhanced, const char *text)
{
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++) {
		struct smtp_client_recipient *recipient = &delivery->recipients[i];

		if (recipient->verdict != SMTP_PENDING)
			continue;
		recipient->verdict = (uint8_t)verdict;
		recipient->reply = code;
		recipient->enhanced = enhanced;
	}
	delivery_explain(delivery, enhanced, text);
	delivery->reply = code;
}
