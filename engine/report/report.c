#include "engine/report/report.h"

#include <stdlib.h>

#include "engine/delivery/outcome.h"
#include "engine/dkim/dkim.h"
#include "engine/smtp/address.h"
#include "queue/envelope.h"

enum { BIG_BODY_PIECE = 1 << 20 };

/* A report on its way: composed when the original's beginning is at hand, then accepted. */
struct report {
	struct worker *worker;
	struct delivery *delivery;
	struct report_about about;
	struct queue_verdict verdict;
	struct queue_message *message;
	char *to; /* owned: a reload may take the postmaster away meanwhile */
	struct envelope_builder *envelope;
	struct dkim *dkim; /* NULL: it is not signed */
	struct os_op sign;
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

/* What the sender is to hear of a recipient; BOUNCE_KINDS: nothing. */
static enum bounce_kind kind_wanted(const struct worker *worker, const struct delivery *delivery,
				    const struct report_about *about, uint32_t index)
{
	const struct smtp_client_recipient *recipient = &delivery->recipients[index];
	struct span sender = delivery->transaction.sender;
	enum bounce_kind kind = 0;
	bool wanted;

	while (kind < BOUNCE_KINDS && !(about->of[kind] >> recipient->index & 1))
		kind++;
	if (kind == BOUNCE_KINDS)
		return kind;
	wanted = sender.len > 0 ? bounce_wanted(kind, sender, recipient->notify)
				: kind == BOUNCE_FAILED && addressee(worker, delivery).len > 0;
	return wanted ? kind : BOUNCE_KINDS;
}

bool report_wanted(const struct worker *worker, const struct delivery *delivery,
		   const struct report_about *about)
{
	if (!delivery->job->message)
		return false;
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (kind_wanted(worker, delivery, about, i) < BOUNCE_KINDS)
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
	dkim_destroy(report->dkim);
	free(report->read.bytes);
	free(report->recipients);
	free(report->to);
	free(report);
	done(context, status);
}

/* ── composing ────────────────────────────────────────────────────────────────────── */

/* The path of a socket means nothing to who reads the report. */
static struct span host_shown(const struct delivery *delivery)
{
	const char *name = delivery->host.name;

	return name[0] == '/' ? span_of("", 0) : span_text(name);
}

static void add_recipient(struct report *report, enum bounce_kind kind, uint32_t index)
{
	const struct delivery *delivery = report->delivery;
	const struct smtp_client_recipient *recipient = &delivery->recipients[index];
	const struct delivery_reply *reply = &delivery->replies[index];
	struct os_wall never = { 0 }, now = worker_wall(report->worker);

	report->recipients[report->recipient_count++] = (struct bounce_recipient){
		.kind = kind,
		.address = recipient->address,
		.orcpt = recipient->orcpt,
		.enhanced = recipient->enhanced,
		.reply = recipient->reply,
		.host = host_shown(delivery),
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
	struct report *report = context;

	queue_message_append(report->message, bytes);
	if (report->dkim)
		dkim_feed(report->dkim, bytes);
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
		.hostname = report->worker->config->hostname,
		.id = id,
		.now = worker_wall(report->worker),
		.original_id = original_id,
		.sender = span_text(report->to),
		.envid = delivery->transaction.envid,
		.ret = delivery->transaction.ret,
		.arrival = { original->arrival_us },
		.utf8 = original->flags & FORMAT_UTF8,
		.body = body,
		.body_bytes = original->body_bytes,
		.recipients = report->recipients,
		.recipient_count = report->recipient_count,
	};
	struct dkim_set *keys = dkim_keys_take(report->worker->engine->dkim);
	struct bounce_result result;

	if (keys && (report->dkim = dkim_create()))
		dkim_begin(report->dkim, keys);
	else
		dkim_keys_release(keys);
	queue_id_text(report->message->id, id);
	queue_id_text(original->id, original_id);
	bounce_compose(&bounce, append, report, &result);
	report->message->flags = flags_of(&result);
}

/* ── queueing ─────────────────────────────────────────────────────────────────────── */

/* What recovery finds to be settled by this report: all that the attempt settled. */
static void add_origins(struct report *report)
{
	const struct queue_job *job = report->delivery->job;
	struct format_origin origins[] = {
		{ .kind = FORMAT_ORIGIN_SUCCESS, .recipients = report->verdict.delivered },
		{ .kind = FORMAT_ORIGIN_DELAY, .recipients = report->about.of[BOUNCE_DELAYED] },
		{ .kind = FORMAT_ORIGIN_BOUNCE, .recipients = report->verdict.failed },
	};

	for (size_t i = 0; i < array_count(origins); i++) {
		origins[i].message = job->message_id;
		origins[i].first = job->first;
		if (origins[i].recipients != 0)
			envelope_add_origin(report->envelope, &origins[i]);
	}
}

static bool seal_envelope(struct report *report, struct span *out)
{
	struct span to = span_text(report->to);
	const char *at = memrchr(to.at, '@', to.len);
	struct envelope_recipient recipient = { .address = to, .notify = ENVELOPE_NOTIFY_NEVER };

	if (at)
		recipient.domain = span_skip(to, (size_t)(at - to.at) + 1);
	report->envelope = envelope_builder_create();
	if (!report->envelope)
		return false;
	envelope_set_sender(report->envelope, span_of("", 0));
	envelope_add_recipient(report->envelope, &recipient);
	add_origins(report);
	if (report->dkim && dkim_prefix(report->dkim).len > 0)
		envelope_set(report->envelope, FORMAT_PREFIX, dkim_prefix(report->dkim));
	return envelope_seal(report->envelope, out);
}

static void on_accepted(struct queue_accept *accept, enum queue_status status)
{
	struct report *report = container_of(accept, struct report, accept);

	struct outcome_origin ours = {
		.dkim = span_text(report->dkim ? dkim_outcome(report->dkim) : ""),
	};

	if (status == QUEUE_OK)
		outcome_log_received(report->worker, accept->message, accept->envelope, &ours);
	report_end(report, status);
}

static void accept_report(struct report *report)
{
	report->accept = (struct queue_accept){
		.message = report->message,
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

static void run_sign(struct os_op *op)
{
	dkim_sign(container_of(op, struct report, sign)->dkim);
}

static void on_signed(struct os_op *op)
{
	accept_report(container_of(op, struct report, sign));
}

static void queue_up(struct report *report)
{
	struct worker *worker = report->worker;
	struct queue_message *message = report->message;
	const struct config_delivery *policy = &report->delivery->route->delivery;
	enum dkim_work work = DKIM_NOTHING;

	message->arrival_us = worker_wall(worker).us;
	message->expiry_s =
		(uint32_t)((message->arrival_us / 1000 + (int64_t)policy->report_expire_ms) / 1000);
	if (report->dkim)
		work = dkim_end(report->dkim, message->arrival_us / OS_US_PER_S, message->expiry_s);
	if (work == DKIM_LONG) {
		report->sign.done = on_signed;
		os_compute(worker->loop, &report->sign, run_sign);
		return;
	}
	if (work == DKIM_BRIEF)
		dkim_sign(report->dkim);
	accept_report(report);
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
	struct span to = addressee(report->worker, delivery);

	report->to = strndup(to.at, to.len);
	report->recipients =
		calloc(delivery->transaction.recipient_count, sizeof(report->recipients[0]));
	report->message = queue_message_create(delivery->job->stream);
	if (!report->to || !report->recipients || !report->message)
		return false;
	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++) {
		enum bounce_kind kind = kind_wanted(report->worker, delivery, &report->about, i);

		if (kind < BOUNCE_KINDS)
			add_recipient(report, kind, i);
	}
	if (!needs_reading(delivery))
		return true;
	report->read.bytes = malloc(BIG_BODY_PIECE);
	return report->read.bytes;
}

void report_send(struct worker *worker, struct delivery *delivery, const struct report_about *about,
		 const struct queue_verdict *verdict,
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
	report->about = *about;
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
