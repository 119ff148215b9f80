#include "engine/inbound/intake.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/delivery/outcome.h"
#include "engine/idn.h"
#include "engine/smtp/utf8.h"

enum {
	IDLE_KEPT = 256,
	BODY_IN_MEMORY_MAX = 256 << 10, /* beyond it, bodies are on their way to a file */
};

static void on_accepted(struct queue_accept *accept, enum queue_status status);

void intake_pool_init(struct intake_pool *pool, struct worker *worker)
{
	*pool = (struct intake_pool){ .worker = worker };
	list_init(&pool->idle);
}

static void intake_destroy(struct intake *intake)
{
	envelope_builder_destroy(intake->envelope);
	dkim_destroy(intake->dkim);
	free(intake);
}

void intake_pool_deinit(struct intake_pool *pool)
{
	assert(pool->committing == 0);
	for (struct list *node; (node = list_pop_front(&pool->idle));)
		intake_destroy(container_of(node, struct intake, link));
}

static struct intake *intake_create(struct intake_pool *pool)
{
	struct intake *intake = malloc(sizeof(*intake));

	if (!intake)
		return NULL;
	list_init(&intake->link);
	intake->pool = pool;
	intake->message = NULL;
	intake->counted_bytes = 0;
	intake->dkim = NULL;
	intake->sign = (struct os_op){ 0 };
	intake->envelope = envelope_builder_create();
	if (intake->envelope)
		return intake;
	free(intake);
	return NULL;
}

static void intake_recycle(struct intake *intake)
{
	struct intake_pool *pool = intake->pool;

	queue_message_unref(intake->message);
	intake->message = NULL;
	if (intake->dkim)
		dkim_let_go(intake->dkim);
	pool->bytes -= intake->counted_bytes;
	intake->counted_bytes = 0;
	if (pool->idle_count == IDLE_KEPT) {
		intake_destroy(intake);
		return;
	}
	envelope_builder_reset(intake->envelope);
	list_push_back(&pool->idle, &intake->link);
	pool->idle_count++;
}

/* ── the envelope ─────────────────────────────────────────────────────────────────── */

/* Domains are queued as A-labels: what sorts, routes and delivers compares octets. One that has no
 * such form (of a sender; relay_decide() refused the others) stays as it is. */
static void copy_address(struct smtp_address *to, const struct smtp_address *from)
{
	if (from->utf8 && idn_address(from, to))
		return;
	memcpy(to->text, from->text, from->len);
	to->len = from->len;
	to->domain_at = from->domain_at;
}

struct intake *intake_begin(struct intake_pool *pool, const struct smtp_mail *mail)
{
	struct list *node = list_pop_front(&pool->idle);
	struct smtp_address sender;
	struct intake *intake;

	if (node) {
		pool->idle_count--;
		intake = container_of(node, struct intake, link);
	} else {
		intake = intake_create(pool);
		if (!intake)
			return NULL;
	}
	intake->utf8 = mail->utf8;
	intake->binary = mail->body == SMTP_BODY_BINARYMIME;
	intake->expire_ms = 0;
	intake->from_file = false;
	copy_address(&sender, &mail->sender);
	envelope_set_sender(intake->envelope, smtp_address_span(&sender));
	if (mail->envid.len > 0)
		envelope_set(intake->envelope, FORMAT_ENVID, mail->envid);
	if (mail->ret)
		envelope_set(intake->envelope, FORMAT_RET, span_of(&mail->ret, 1));
	return intake;
}

/* <postmaster> without a domain is the postmaster of this host: RFC 5321, 4.5.1. */
static void copy_postmaster(struct smtp_address *to, const char *hostname)
{
	int len = snprintf(to->text, sizeof(to->text), "postmaster@%s", hostname);

	to->len = (uint16_t)len;
	to->domain_at = sizeof("postmaster@") - 1;
}

void intake_recipient(struct intake *intake, const struct smtp_rcpt *rcpt)
{
	const struct config *config = intake->pool->worker->config;
	const struct config_route *route;
	struct envelope_recipient recipient = { .orcpt = rcpt->orcpt, .notify = rcpt->notify };

	if (smtp_address_domain(&rcpt->recipient).len > 0)
		copy_address(&intake->recipient, &rcpt->recipient);
	else
		copy_postmaster(&intake->recipient, config->hostname);
	recipient.address = smtp_address_span(&intake->recipient);
	recipient.domain = smtp_address_domain(&intake->recipient);
	route = config_route(config, recipient.domain);
	if (route->delivery.expire_ms > intake->expire_ms)
		intake->expire_ms = route->delivery.expire_ms;
	envelope_add_recipient(intake->envelope, &recipient);
}

/* ── DKIM ─────────────────────────────────────────────────────────────────────────── */

/* Who answers for a message signs it: what strangers bring is theirs. */
static void signing_begin(struct intake *intake)
{
	struct worker *worker = intake->pool->worker;
	struct dkim_set *set = dkim_keys_take(worker->engine->dkim);

	intake->not_signed = "";
	if (!set)
		return;
	if (!dkim_keys_sign_relayed(set) && intake->user[0] == '\0' &&
	    !config_trusts(worker->config, &intake->client))
		intake->not_signed = "none: not from a trusted client";
	else if (!intake->dkim && !(intake->dkim = dkim_create()))
		intake->not_signed = "none: no memory";
	else
		intake->not_signed = NULL;
	if (intake->not_signed)
		dkim_keys_release(set);
	else
		dkim_begin(intake->dkim, set);
}

static void run_sign(struct os_op *op)
{
	dkim_sign(container_of(op, struct intake, sign)->dkim);
}

/* ── the body ─────────────────────────────────────────────────────────────────────── */

static void append(struct intake *intake, struct span bytes)
{
	uint32_t counted;

	smtp_scan_feed(&intake->scan, bytes);
	if (!intake->not_signed)
		dkim_feed(intake->dkim, bytes);
	queue_message_append(intake->message, bytes);
	counted = intake->message->body_bytes < BODY_IN_MEMORY_MAX
			  ? (uint32_t)intake->message->body_bytes
			  : BODY_IN_MEMORY_MAX;
	intake->pool->bytes += counted - intake->counted_bytes;
	intake->counted_bytes = counted;
}

static void on_submitted(void *context, struct span bytes)
{
	append(context, bytes);
}

static void submission_open(struct intake *intake, const char *id)
{
	struct worker *worker = intake->pool->worker;
	char message_id[QUEUE_ID_TEXT_BYTES + 256];

	snprintf(message_id, sizeof(message_id), "%s@%.255s", id, worker->config->hostname);
	submission_begin(&intake->submission,
			 received_date_cached(&intake->pool->clock, worker_wall(worker)),
			 message_id, on_submitted, intake);
}

bool intake_open(struct intake *intake, const struct smtp_greeting *greeting,
		 const struct session_facts *facts)
{
	struct worker *worker = intake->pool->worker;
	bool alone = envelope_recipient_count(intake->envelope) == 1;
	char id[QUEUE_ID_TEXT_BYTES], line[RECEIVED_BYTES_MAX];
	size_t len;

	intake->message = queue_message_create(worker->streams[0]);
	if (!intake->message)
		return false;
	intake->client = *facts->client;
	span_copy(facts->user, intake->user, sizeof(intake->user));
	signing_begin(intake);
	span_copy(facts->tls, intake->tls, sizeof(intake->tls));
	intake->hello_len = greeting->name.len < sizeof(intake->hello) ? greeting->name.len
								       : sizeof(intake->hello);
	memcpy(intake->hello, greeting->name.at, intake->hello_len);
	smtp_scan_init(&intake->scan);
	queue_id_text(intake->message->id, id);
	struct received received = {
		.greeting = greeting->name,
		.client = facts->client,
		.hostname = worker->config->hostname,
		.local = intake->from_file,
		.extended = greeting->extended,
		.utf8 = intake->utf8,
		.tls = span_text(intake->tls),
		.authenticated = intake->user[0] != '\0',
		.user = span_text(worker->config->auth.in_received ? intake->user : ""),
		.id = id,
		.recipient = alone ? smtp_address_span(&intake->recipient) : span_of("", 0),
		.when = worker_wall(worker),
	};

	len = received_line(&received, &intake->pool->clock, line);
	intake->trace_utf8 = smtp_utf8_ascii(span_of(line, len)) < len;
	queue_message_append(intake->message, span_of(line, len));
	intake->submitted = facts->submission;
	if (intake->submitted)
		submission_open(intake, id);
	return true;
}

void intake_body(struct intake *intake, struct span bytes)
{
	if (intake->submitted)
		submission_feed(&intake->submission, bytes);
	else
		append(intake, bytes);
}

/* ── the verdict ──────────────────────────────────────────────────────────────────── */

static const struct smtp_answer disk_full = { 452, "4.3.1",
					      "Insufficient storage, try again later" };
static const struct smtp_answer disk_failed = { 451, "4.3.0", "Local error, try again later" };

static const struct smtp_answer *failure_answer(enum queue_status status)
{
	return status == QUEUE_SPACE ? &disk_full : &disk_failed;
}

static uint16_t message_flags(const struct intake *intake)
{
	const struct smtp_scan *scan = &intake->scan;

	bool header_utf8 = intake->trace_utf8 || (intake->utf8 && scan->header_eightbit);

	return (uint16_t)((scan->eightbit || intake->trace_utf8 ? FORMAT_8BIT : 0) |
			  (header_utf8 ? FORMAT_UTF8 : 0) |
			  (scan->long_line ? FORMAT_LONG_LINES : 0) |
			  (scan->dot_line ? FORMAT_DOT_LINES : 0) |
			  (smtp_scan_ends_in_crlf(scan) ? 0 : FORMAT_NO_FINAL_CRLF) |
			  (intake->binary ? FORMAT_BINARY : 0));
}

static void settle(struct intake *intake, const struct smtp_answer *answer)
{
	if (intake->verdict)
		intake->verdict(intake->context, intake, answer);
	intake_recycle(intake);
}

/* A start may find the message, and deliver it: the client, who hears nothing, sends it again. */
static void tell_unknown(const struct queue_message *message)
{
	char id[QUEUE_ID_TEXT_BYTES];

	queue_id_text(message->id, id);
	log_notice(LOG_ERROR,
		   "message %s: the disk failed while it was written. Its client gets no reply; if "
		   "a start finds it, it is delivered, beside what the client sends again",
		   id);
}

static void on_accepted(struct queue_accept *accept, enum queue_status status)
{
	struct intake *intake = container_of(accept, struct intake, accept);
	struct smtp_answer answer = { 250, "2.0.0", NULL };
	char text[] = "Ok: queued as 0123456789abc";
	char *id = text + sizeof("Ok: queued as ") - 1;

	static_assert(sizeof(text) == sizeof("Ok: queued as ") - 1 + QUEUE_ID_TEXT_BYTES,
		      "its room");

	intake->pool->committing--;
	if (status == QUEUE_UNKNOWN) {
		tell_unknown(accept->message);
		settle(intake, NULL);
		return;
	}
	if (status != QUEUE_OK) {
		settle(intake, failure_answer(status));
		return;
	}
	queue_id_text(accept->message->id, id);
	answer.text = text;
	struct outcome_origin origin = {
		.client = &intake->client,
		.hello = span_of(intake->hello, intake->hello_len),
		.user = span_text(intake->user),
		.tls = span_text(intake->tls),
		.dkim = span_text(intake->not_signed ? intake->not_signed
						     : dkim_outcome(intake->dkim)),
	};

	outcome_log_received(intake->pool->worker, accept->message, accept->envelope, &origin);
	intake->message = NULL; /* the queue's since QUEUE_OK */
	settle(intake, &answer);
}

/* The envelope's last entry, and to the queue. False: refused, and nothing was queued. */
static bool enqueue(struct intake *intake)
{
	struct queue_accept *accept = &intake->accept;
	struct span prefix = intake->not_signed ? span_of("", 0) : dkim_prefix(intake->dkim);

	if (prefix.len > 0)
		envelope_set(intake->envelope, FORMAT_PREFIX, prefix);
	*accept = (struct queue_accept){ .message = intake->message,
					 .done = on_accepted,
					 .from_file = intake->from_file };
	list_init(&accept->link);
	if (!envelope_seal(intake->envelope, &accept->envelope)) {
		intake->refusal = (struct smtp_answer){ 452, "4.5.3", "Too many recipients" };
		return false;
	}
	queue_accept(intake->pool->worker->streams[0], accept);
	return true;
}

static void on_signed(struct os_op *op)
{
	struct intake *intake = container_of(op, struct intake, sign);

	if (enqueue(intake))
		return;
	intake->pool->committing--;
	settle(intake, &intake->refusal);
}

/* True: it is being signed on another thread, and on_signed() goes on. */
static bool sign(struct intake *intake)
{
	const struct queue_message *message = intake->message;

	if (intake->not_signed)
		return false;
	switch (dkim_end(intake->dkim, message->arrival_us / OS_US_PER_S, message->expiry_s)) {
	case DKIM_NOTHING:
		return false;
	case DKIM_BRIEF:
		dkim_sign(intake->dkim);
		return false;
	case DKIM_LONG:
		break;
	}
	intake->sign.done = on_signed;
	os_compute(intake->pool->worker->loop, &intake->sign, run_sign);
	return true;
}

static bool refuse(struct intake *intake, struct smtp_answer refusal)
{
	intake->refusal = refusal;
	return false;
}

bool intake_commit(struct intake *intake, intake_verdict *verdict, void *context)
{
	struct worker *worker = intake->pool->worker;
	struct queue_message *message = intake->message;

	if (intake->submitted)
		submission_end(&intake->submission);
	smtp_scan_finish(&intake->scan);
	if (intake->scan.received_count > worker->config->received_max)
		return refuse(intake, (struct smtp_answer){ 554, "5.4.6",
							    "Too many hops: mail is looping" });
	if (queue_message_status(message) != QUEUE_OK)
		return refuse(intake, *failure_answer(queue_message_status(message)));
	message->flags = message_flags(intake);
	message->arrival_us = worker_wall(worker).us;
	message->expiry_s =
		(uint32_t)((message->arrival_us / 1000 + (int64_t)intake->expire_ms) / 1000);
	intake->verdict = verdict;
	intake->context = context;
	if (!sign(intake) && !enqueue(intake))
		return false;
	intake->pool->committing++;
	return true;
}

void intake_drop(struct intake *intake)
{
	intake_recycle(intake);
}

void intake_abandon(struct intake *intake)
{
	intake->verdict = NULL;
}
