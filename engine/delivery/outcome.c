#include "engine/delivery/outcome.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/delivery/retry.h"
#include "engine/report/report.h"
#include "queue/envelope.h"

enum { NO_SPACE_RETRY_S = 60, UNREADABLE_RETRY_S = 300 };

/* An attempt being concluded. */
struct outcome {
	struct worker *worker;
	struct delivery *delivery;
	struct queue_verdict verdict;
	/* While a report is on its way: when it is durable, the queue has settled the job. */
	struct queue_job settled;
	struct queue_message *kept; /* a reference */
	bool returned;		    /* nothing was tried: ready again, in front */
	bool waits;		    /* whoever is pending, sent or not, until verdict.due_s */
	struct outcome *heap;	    /* to be freed; NULL: it is on the stack */
	void (*concluded)(struct feed *feed);
};

/* ── the log ──────────────────────────────────────────────────────────────────────── */

static struct span reply_text(const struct delivery *delivery, uint32_t index)
{
	const struct delivery_reply *reply = &delivery->replies[index];

	if (reply->text)
		return span_of(reply->text, reply->text_len);
	return span_of(delivery->text ? delivery->text : "", delivery->text_len);
}

/* Without a line in the log for it, the mail went in clear. */
static void log_tls(struct log_channel *log, const struct tls_facts *tls)
{
	if (tls->text[0] == '\0')
		return;
	log_text(log, "tls", span_text(tls->text));
	log_text(log, "tls_peer", span_text(tls->verified ? "verified" : "unverified"));
	if (tls->resumed)
		log_number(log, "tls_resumed", 1);
}

static void log_attempt(struct log_channel *log, const struct worker *worker,
			const struct delivery *delivery)
{
	char text[OS_ADDRESS_TEXT_MAX];

	if (delivery->begun.ns == 0)
		return;
	log_text(log, "host", span_text(delivery->host.name));
	log_text(log, "address", span_text(os_address_text(&delivery->host.address, text)));
	log_text(log, "source", span_text(os_address_text(&delivery->host.source, text)));
	log_number(log, "attempt_ms",
		   (int64_t)((worker_mono(worker).ns - delivery->begun.ns) / OS_NS_PER_MS));
	log_tls(log, &delivery->host.tls);
}

static void log_reply(struct log_channel *log, const struct delivery *delivery, uint32_t index)
{
	const struct smtp_client_recipient *recipient = &delivery->recipients[index];
	char enhanced[12];

	if (recipient->reply > 0)
		log_number(log, "code", recipient->reply);
	if (recipient->enhanced > 0)
		log_text(log, "enhanced",
			 span_text(smtp_enhanced_text(recipient->enhanced, enhanced)));
	log_text(log, "reply", reply_text(delivery, index));
	if (delivery->replies[index].codes_differ)
		log_number(log, "codes_differ", 1);
}

static void log_recipient(struct outcome *outcome, const char *event, uint32_t index)
{
	const struct delivery *delivery = outcome->delivery;
	const struct queue_job *job = delivery->job;
	struct worker *worker = outcome->worker;
	struct log_channel *log = worker->log;
	char id[QUEUE_ID_TEXT_BYTES];

	queue_id_text(job->message_id, id);
	log_begin(log, worker_wall(worker), event);
	log_text(log, "id", span_text(id));
	log_text(log, "sender", delivery->transaction.sender);
	log_text(log, "recipient", delivery->recipients[index].address);
	log_text(log, "site", queue_dest_name(job->stream, job->dest));
	log_attempt(log, worker, delivery);
	log_reply(log, delivery, index);
	log_number(log, "attempts", job->attempts + outcome->verdict.attempted);
	if (job->message) {
		log_number(log, "size", (int64_t)job->message->body_bytes);
		log_number(log, "age_ms",
			   (worker_wall(worker).us - job->message->arrival_us) / 1000);
	}
	log_end(log);
}

static void log_recipients(struct outcome *outcome, const char *event, uint64_t mask)
{
	const struct delivery *delivery = outcome->delivery;

	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (mask >> delivery->recipients[i].index & 1)
			log_recipient(outcome, event, i);
}

void outcome_log_received(struct worker *worker, const struct queue_message *message,
			  struct span envelope, const struct outcome_origin *origin)
{
	struct log_channel *log = worker->log;
	char id[QUEUE_ID_TEXT_BYTES], address[OS_ADDRESS_TEXT_MAX];
	struct envelope_cursor cursor = { .rest = envelope };
	struct envelope_recipient recipient;

	queue_id_text(message->id, id);
	log_begin(log, worker_wall(worker), "received");
	log_text(log, "id", span_text(id));
	log_text(log, "sender", envelope_sender(envelope));
	if (envelope_next(&cursor, &recipient))
		log_text(log, "recipient", recipient.address);
	log_number(log, "recipients", envelope_count(envelope));
	if (origin->client) {
		log_text(log, "client", span_text(os_address_text(origin->client, address)));
		log_text(log, "hello", origin->hello);
	}
	if (origin->user.len > 0)
		log_text(log, "user", origin->user);
	if (origin->tls.len > 0)
		log_text(log, "tls", origin->tls);
	if (origin->dkim.len > 0)
		log_text(log, "dkim", origin->dkim);
	log_number(log, "size", (int64_t)message->body_bytes);
	log_end(log);
}

/* All that is known of recipients whose envelope is not: they are held, and end with nobody. */
static void log_unreadable(struct worker *worker, const struct queue_job *job)
{
	struct log_channel *log = worker->log;
	char id[QUEUE_ID_TEXT_BYTES];

	queue_id_text(job->message_id, id);
	log_begin(log, worker_wall(worker), "unreadable");
	log_text(log, "id", span_text(id));
	log_text(log, "site", queue_dest_name(job->stream, job->dest));
	log_number(log, "recipients", __builtin_popcountll(job->pending));
	log_number(log, "first", job->first);
	log_number(log, "attempts", job->attempts);
	log_number(log, "expiry", job->expiry_s);
	log_end(log);
}

/* ── the verdict ──────────────────────────────────────────────────────────────────── */

static uint32_t due_seconds(struct worker *worker, const struct delivery *delivery)
{
	const struct config_delivery *policy = &delivery->route->delivery;
	const struct queue_job *job = delivery->job;
	struct os_wall due = worker_wall(worker);
	uint32_t due_s;

	due.us += (int64_t)retry_delay_ms(policy, job->attempts + 1u, &worker->prng) * 1000;
	if (delivery->retry_at.us > 0)
		due = delivery->retry_at;
	due_s = os_wall_seconds(due) + (due.us % OS_US_PER_S > 0);
	/* Given up at its expiry, not at the next attempt after it. */
	if (due_s > job->expiry_s && job->expiry_s >= os_wall_seconds(worker_wall(worker)))
		due_s = job->expiry_s + 1;
	return due_s;
}

/* Which mask a recipient's bit goes to; NULL: it stays pending. */
static uint64_t *mask_of(struct queue_verdict *verdict, const struct delivery *delivery,
			 enum smtp_verdict of)
{
	if (of == SMTP_DELIVERED)
		return delivery->discard ? &verdict->discarded : &verdict->delivered;
	return of == SMTP_FAILED ? &verdict->failed : NULL;
}

/* Its recipients are known, so it ends at its expiry; the operator hears of it now. */
static void hold_damaged(const struct delivery *delivery)
{
	struct queue_job *job = delivery->job;
	char id[QUEUE_ID_TEXT_BYTES];

	job->flags |= FORMAT_JOB_DAMAGED;
	if (delivery->expire)
		return;
	queue_id_text(job->message_id, id);
	log_notice(LOG_ERROR,
		   "message %s is damaged on disk: it is held until it expires, and fails then; "
		   "look at the disk",
		   id);
}

/* What the transaction left. A recipient that was not sent is due at once; so are those that
 * the server had no room for beside others (RFC 5321, 4.5.3.1.10), and that is no attempt. */
static void judge(struct outcome *outcome)
{
	struct delivery *delivery = outcome->delivery;
	struct queue_verdict *verdict = &outcome->verdict;
	uint32_t deferred = 0, not_sent = 0;

	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++) {
		const struct smtp_client_recipient *recipient = &delivery->recipients[i];
		enum smtp_verdict is = (enum smtp_verdict)recipient->verdict;
		uint64_t *mask = mask_of(verdict, delivery, is);

		assert(is != SMTP_PENDING);
		if (mask)
			*mask |= UINT64_C(1) << recipient->index;
		deferred += is == SMTP_DEFERRED || is == SMTP_UNKNOWN;
		not_sent += is == SMTP_NOT_SENT;
		verdict->in_doubt |= is == SMTP_UNKNOWN;
	}
	outcome->returned =
		deferred == 0 && !verdict->delivered && !verdict->failed && !verdict->discarded;
	verdict->attempted = delivery->begun.ns > 0 && (deferred > 0 || not_sent == 0);
	outcome->waits = deferred > 0 && (not_sent == 0 || !verdict->delivered);
	verdict->due_s = outcome->waits ? due_seconds(outcome->worker, delivery)
					: os_wall_seconds(worker_wall(outcome->worker));
	verdict->reply = delivery->reply;
	verdict->enhanced = delivery->enhanced;
	verdict->host = span_text(delivery->host.name);
	verdict->text = reply_text(delivery, delivery->transaction.recipient_count - 1);
	if (delivery->damaged)
		hold_damaged(delivery);
}

static uint64_t verdict_mask(const struct delivery *delivery, enum smtp_verdict wanted)
{
	uint64_t mask = 0;

	for (uint32_t i = 0; i < delivery->transaction.recipient_count; i++)
		if (delivery->recipients[i].verdict == wanted)
			mask |= UINT64_C(1) << delivery->recipients[i].index;
	return mask;
}

static void log_verdict(struct outcome *outcome)
{
	const struct delivery *delivery = outcome->delivery;
	uint16_t doubt = FORMAT_JOB_IN_DOUBT | FORMAT_JOB_MAYBE_DUPLICATE;

	log_recipients(outcome, "delivered", outcome->verdict.delivered);
	log_recipients(outcome, "discarded", outcome->verdict.discarded);
	if (delivery->job->flags & doubt)
		log_recipients(outcome, "possible-duplicate", outcome->verdict.delivered);
	log_recipients(outcome, delivery->expire ? "expired" : "bounced", outcome->verdict.failed);
	log_recipients(outcome, "deferred",
		       verdict_mask(delivery, SMTP_DEFERRED) |
			       verdict_mask(delivery, SMTP_UNKNOWN));
}

/* ── the end ──────────────────────────────────────────────────────────────────────── */

static void end(struct outcome *outcome)
{
	struct feed *feed = outcome->delivery->feed;
	void (*concluded)(struct feed * feed) = outcome->concluded;

	queue_message_unref(outcome->kept);
	delivery_destroy(outcome->delivery);
	free(outcome->heap);
	concluded(feed);
}

static void settle(struct outcome *outcome)
{
	log_verdict(outcome);
	queue_settle(outcome->delivery->job->stream, outcome->delivery->job, &outcome->verdict);
	end(outcome);
}

/* The report found no room: those who failed stay pending, and are tried again soon. */
static void settle_without(struct outcome *outcome)
{
	struct worker *worker = outcome->worker;

	outcome->verdict.failed = 0;
	outcome->verdict.warned = false;
	outcome->verdict.due_s = os_wall_seconds(worker_wall(worker)) + NO_SPACE_RETRY_S;
	settle(outcome);
}

static void on_report(void *context, enum queue_status status)
{
	struct outcome *outcome = context;

	if (status != QUEUE_OK) {
		settle_without(outcome);
		return;
	}
	outcome->delivery->job = &outcome->settled;
	log_verdict(outcome);
	end(outcome);
}

static bool old_enough_to_warn(const struct outcome *outcome)
{
	const struct delivery *delivery = outcome->delivery;
	const struct queue_job *job = delivery->job;
	uint64_t warn_ms = delivery->route->delivery.warn_ms;
	int64_t age_us;

	if (!job->message)
		return false;
	age_us = worker_wall(outcome->worker).us - job->message->arrival_us;
	return warn_ms > 0 && !(job->flags & FORMAT_JOB_WARNED) &&
	       age_us / 1000 >= (int64_t)warn_ms;
}

/* What there is to tell: one report says all of it. */
static void choose_report(struct outcome *outcome, struct report_about *about)
{
	struct delivery *delivery = outcome->delivery;
	struct queue_verdict *verdict = &outcome->verdict;
	enum bounce_kind success = delivery->route->lmtp ? BOUNCE_DELIVERED : BOUNCE_RELAYED;

	*about = (struct report_about){ .of[BOUNCE_FAILED] = verdict->failed };
	if (!delivery->peer_reports)
		about->of[success] = verdict->delivered;
	/* Once for the job, so it names whoever waits with it. */
	verdict->warned = outcome->waits && old_enough_to_warn(outcome);
	if (verdict->warned)
		about->of[BOUNCE_DELAYED] = verdict_mask(delivery, SMTP_DEFERRED) |
					    verdict_mask(delivery, SMTP_UNKNOWN) |
					    verdict_mask(delivery, SMTP_NOT_SENT);
}

/* Settles, with a report first where one is due: what waits for it is on the heap. */
static void conclude(struct outcome *here)
{
	struct report_about about;
	struct outcome *outcome;

	choose_report(here, &about);
	if (!report_wanted(here->worker, here->delivery, &about)) {
		settle(here);
		return;
	}
	outcome = malloc(sizeof(*outcome));
	if (!outcome) {
		settle_without(here);
		return;
	}
	*outcome = *here;
	outcome->heap = outcome;
	outcome->settled = *outcome->delivery->job;
	outcome->kept = queue_message_ref(outcome->delivery->job->message);
	report_send(outcome->worker, outcome->delivery, &about, &outcome->verdict, on_report,
		    outcome);
}

void outcome_conclude(struct worker *worker, struct delivery *delivery,
		      void (*concluded)(struct feed *feed))
{
	struct outcome here = { .worker = worker, .delivery = delivery, .concluded = concluded };

	judge(&here);
	if (here.returned && !delivery->damaged) {
		queue_return(delivery->job->stream, delivery->job);
		end(&here);
		return;
	}
	conclude(&here);
}

/* With the last error, if there was one: what a server said is quoted as its words. */
void outcome_expire(struct worker *worker, struct delivery *delivery,
		    void (*concluded)(struct feed *feed))
{
	struct queue_job *job = delivery->job;
	uint16_t enhanced = job->enhanced / 10000 == 4 ? job->enhanced : 40407;
	struct outcome here = { .worker = worker, .delivery = delivery, .concluded = concluded };
	struct span host, text;
	char last[1024];

	queue_job_reply(job, &host, &text);
	span_copy(text, last, sizeof(last));
	span_copy(host, delivery->host.name, sizeof(delivery->host.name));
	delivery->expire = true;
	delivery_close(delivery, SMTP_FAILED, job->reply, enhanced,
		       text.len > 0 ? last : "not delivered in the time that the message may wait");
	judge(&here);
	conclude(&here);
}

void outcome_unreadable(struct worker *worker, struct delivery *delivery,
			void (*concluded)(struct feed *feed))
{
	struct feed *feed = delivery->feed;
	struct queue_job *job = delivery->job;
	struct queue_verdict verdict = {
		.due_s = os_wall_seconds(worker_wall(worker)) + UNREADABLE_RETRY_S,
		.enhanced = 40300,
		.text = span_text("the message could not be read from our disk"),
	};

	if (delivery->damaged) {
		job->flags |= FORMAT_JOB_DAMAGED;
		log_unreadable(worker, job);
	}
	queue_settle(job->stream, job, &verdict);
	delivery_destroy(delivery);
	concluded(feed);
}
