#include "engine/report.h"

#include <stdlib.h>

#include "engine/outcome.h"
#include "engine/smtp/address.h"
#include "queue/envelope.h"

enum { BIG_BODY_PIECE = 1 << 20 };

/* A report on its way: composed when the original's beginning is at hand, then accepted. */
struct report {
	struct worker *worker;
	struct delivery *delivery;
	enum bounce_kind kind;
	uint64_t about;
	struct queue_verdict verdict;
	struct queue_message *message;
	struct envelope_builder *envelope;
	struct queue_accept accept;
	struct queue_body_read read; /* of a big original: its headers */
	struct bounce_recipient *recipients;
	uint32_t recipient_count;
	void (*done)(void *context, enum queue_status status);
	void *context;
};

/* To whom: the sender; of the null sender's mail, the postmaster, if there is one. */
static struct span addressee(const struct worker *worker, const struct delivery *delivery)
{
	struct span sender = delivery->transaction.sender;
	const char *postmaster = worker->config->postmaster;

	if (sender.len > 0 || !postmaster)
		return sender;
	/* A report to the postmaster that fails ends here. */
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (span_equal_nocase(delivery->recipients[i].address, span_text(postmaster)))
			return sender;
	return span_text(postmaster);
}

static bool about_wanted(const struct worker *worker, const struct delivery *delivery,
			 enum bounce_kind kind, uint32_t index)
{
	struct span sender = delivery->transaction.sender;

	if (sender.len > 0)
		return bounce_wanted(kind, sender, delivery->recipients[index].notify);
	return kind == BOUNCE_FAILED && addressee(worker, delivery).len > 0;
}

bool report_wanted(const struct worker *worker, const struct delivery *delivery,
		   enum bounce_kind kind, uint64_t about)
{
	if (!delivery->job->message)
		return false;
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if ((about >> delivery->recipients[i].index & 1) &&
		    about_wanted(worker, delivery, kind, i))
			return true;
	return false;
}

static void report_end(struct report *report, enum queue_status status)
{
	void (*done)(void *context, enum queue_status status) = report->done;
	void *context = report->context;

	if (status != QUEUE_OK)
		queue_message_unref(report->message);
	envelope_builder_destroy(report->envelope);
	free(report->read.bytes);
	free(report->recipients);
	free(report);
	done(context, status);
}

/* ── composing ────────────────────────────────────────────────────────────────────── */

static void add_recipient(struct report *report, uint32_t index)
{
	const struct delivery *delivery = report->delivery;
	const struct smtp_client_recipient *recipient = &delivery->recipients[index];
	const struct delivery_reply *reply = &delivery->replies[index];
	struct os_wall never = { 0 }, now = worker_wall(report->worker);

	report->recipients[report->recipient_count++] = (struct bounce_recipient){
		.address = recipient->address,
		.orcpt = recipient->orcpt,
		.enhanced = recipient->enhanced,
		.reply = recipient->reply,
		.host = span_text(delivery->host.name),
		.text = reply->text
				? span_of(reply->text, reply->text_len)
				: span_of(delivery->text ? delivery->text : "", delivery->text_len),
		.expired = delivery->expire,
		.tried = delivery->begun.ns > 0 ? now : never,
		.until = { (int64_t)delivery->job->expiry_s * OS_US_PER_S },
	};
}

static void append(void *context, struct span bytes)
{
	queue_message_append(context, bytes);
}

static uint16_t flags_of(const struct bounce_result *result)
{
	return (uint16_t)(FORMAT_REPORT | (result->eightbit ? FORMAT_8BIT : 0) |
			  (result->utf8 ? FORMAT_UTF8 : 0) |
			  (result->dot_lines ? FORMAT_DOT_LINES : 0));
}

static void compose(struct report *report, struct span body)
{
	const struct delivery *delivery = report->delivery;
	const struct queue_message *original = delivery->job->message;
	char id[QUEUE_ID_TEXT_BYTES], original_id[QUEUE_ID_TEXT_BYTES];
	struct bounce bounce = {
		.kind = report->kind,
		.hostname = report->worker->config->hostname,
		.id = id,
		.now = worker_wall(report->worker),
		.original_id = original_id,
		.sender = addressee(report->worker, delivery),
		.envid = delivery->transaction.envid,
		.ret = delivery->transaction.ret,
		.arrival = { original->arrival_us },
		.utf8 = original->flags & FORMAT_UTF8,
		.body = body,
		.body_bytes = original->body_bytes,
		.recipients = report->recipients,
		.recipient_count = report->recipient_count,
	};
	struct bounce_result result;

	queue_id_text(report->message->id, id);
	queue_id_text(original->id, original_id);
	bounce_compose(&bounce, append, report->message, &result);
	report->message->flags = flags_of(&result);
}

/* ── queueing ─────────────────────────────────────────────────────────────────────── */

static bool seal_envelope(struct report *report, struct span *out)
{
	static const uint8_t origins[] = {
		[BOUNCE_FAILED] = FORMAT_ORIGIN_BOUNCE,
		[BOUNCE_DELAYED] = FORMAT_ORIGIN_DELAY,
		[BOUNCE_RELAYED] = FORMAT_ORIGIN_SUCCESS,
	};
	const struct queue_job *job = report->delivery->job;
	struct span to = addressee(report->worker, report->delivery);
	const char *at = memrchr(to.at, '@', to.len);
	struct envelope_recipient recipient = { .address = to, .notify = ENVELOPE_NOTIFY_NEVER };
	struct format_origin origin = {
		.message = job->message_id,
		.recipients = report->about,
		.first = job->first,
		.kind = origins[report->kind],
	};

	if (at)
		recipient.domain = span_skip(to, (size_t)(at - to.at) + 1);
	report->envelope = envelope_builder_create();
	if (!report->envelope)
		return false;
	envelope_set_sender(report->envelope, span_of("", 0));
	envelope_add_recipient(report->envelope, &recipient);
	envelope_add_origin(report->envelope, &origin);
	return envelope_seal(report->envelope, out);
}

static void on_accepted(struct queue_accept *accept, enum queue_status status)
{
	struct report *report = container_of(accept, struct report, accept);

	if (status == QUEUE_OK)
		outcome_log_received(report->worker, accept->message, accept->envelope, NULL,
				     span_of("", 0));
	report_end(report, status);
}

static void queue_up(struct report *report)
{
	struct worker *worker = report->worker;
	struct queue_message *message = report->message;
	const struct config_delivery *policy = &report->delivery->route->delivery;

	message->arrival_us = worker_wall(worker).us;
	message->expiry_s =
		(uint32_t)((message->arrival_us / 1000 + (int64_t)policy->report_expire_ms) / 1000);
	report->accept = (struct queue_accept){
		.message = message,
		.done = on_accepted,
		.settles = report->delivery->job,
		.verdict = &report->verdict,
	};
	list_init(&report->accept.link);
	if (!seal_envelope(report, &report->accept.envelope))
		report_end(report, QUEUE_SPACE);
	else
		queue_accept(report->delivery->job->stream, &report->accept);
}

/* A big original that cannot be read is reported without its text. */
static void on_read(struct queue_body_read *read, enum queue_status status)
{
	struct report *report = container_of(read, struct report, read);

	compose(report,
		status == QUEUE_OK ? span_of(read->bytes, read->count_out) : span_of(NULL, 0));
	queue_up(report);
}

static bool needs_reading(const struct delivery *delivery)
{
	return (delivery->job->message->flags & FORMAT_BIG) && !delivery->damaged;
}

static bool prepare(struct report *report)
{
	const struct delivery *delivery = report->delivery;

	report->recipients =
		calloc(delivery->transaction.recipient_count, sizeof(report->recipients[0]));
	report->message = queue_message_create(delivery->job->stream);
	if (!report->recipients || !report->message)
		return false;
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if ((report->about >> delivery->recipients[i].index & 1) &&
		    about_wanted(report->worker, delivery, report->kind, i))
			add_recipient(report, i);
	if (!needs_reading(delivery))
		return true;
	report->read.bytes = malloc(BIG_BODY_PIECE);
	return report->read.bytes;
}

void report_send(struct worker *worker, struct delivery *delivery, enum bounce_kind kind,
		 uint64_t about, const struct queue_verdict *verdict,
		 void (*done)(void *context, enum queue_status status), void *context)
{
	struct queue_message *original = delivery->job->message;
	struct report *report = calloc(1, sizeof(*report));

	if (!report) {
		done(context, QUEUE_SPACE);
		return;
	}
	report->worker = worker;
	report->delivery = delivery;
	report->kind = kind;
	report->about = about;
	report->verdict = *verdict;
	report->done = done;
	report->context = context;
	if (!prepare(report)) {
		report_end(report, QUEUE_SPACE);
		return;
	}
	if (needs_reading(delivery)) {
		report->read.done = on_read;
		queue_body_read(worker->loop, original, &report->read);
		return;
	}
	compose(report, delivery->damaged ? span_of(NULL, 0) : original->body);
	queue_up(report);
}
