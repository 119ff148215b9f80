/*
 * inbound_session - what a client's SMTP session asks of us: may it send, to whom, who is it;
 * and where its messages go.
 */
#include "engine/inbound/inbound_private.h"

#include <stdlib.h>

static const struct smtp_answer ok = { 250, "2.1.0", "Ok" };

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	struct inbound *in = context;
	struct worker *worker = in->shared->worker;
	struct queue_stats stats;

	struct smtp_answer answer = relay_sender(in->config, &in->client, &mail->sender);

	assert(!in->intake);
	if (answer.code != 250)
		return answer;
	queue_stream_stats(worker->streams[0], &stats);
	if (stats.body_memory + in->shared->intakes.bytes >
	    worker->config->memory_bytes / worker->engine->worker_count)
		return (struct smtp_answer){ 452, "4.3.1",
					     "Out of memory for messages, try again later" };
	if (queue_stream_room(worker->streams[0], mail->size) != QUEUE_OK)
		return (struct smtp_answer){ 452, "4.3.1",
					     "Insufficient storage, try again later" };
	in->intake = intake_begin(&in->shared->intakes, mail);
	if (!in->intake)
		return (struct smtp_answer){ 452, "4.3.1", "Out of memory, try again later" };
	return ok;
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	struct inbound *in = context;
	struct smtp_answer answer = relay_decide(in->config, &in->client, &rcpt->recipient);

	if (answer.code / 100 == 2)
		intake_recipient(in->intake, rcpt);
	else if (!in->client.trusted && !in->client.user) /* guesses, or looks for an open relay */
		smtp_session_suspect(in->session);
	return answer;
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	struct inbound *in = context;
	struct session_facts facts = {
		.client = &in->peer,
		.tls = span_text(in->tls.text),
		.user = span_text(in->user.name ? in->user.name : ""),
		.submission = in->door->submission && (in->client.trusted || in->user.name),
	};

	if (intake_open(in->intake, greeting, &facts))
		return ok;
	intake_drop(in->intake);
	in->intake = NULL;
	return (struct smtp_answer){ 452, "4.3.1", "Out of memory, try again later" };
}

static void on_resume(void *context)
{
	struct inbound *in = context;

	smtp_session_resume(in->session);
	inbound_go(in);
}

static void on_body(void *context, struct span bytes)
{
	struct inbound *in = context;

	intake_body(in->intake, bytes);
	if (!queue_message_may_append(in->intake->message, on_resume, in))
		smtp_session_pause(in->session);
}

/* From the queue's turn: many at once, so the output goes out in inbound_flush(). */
static void on_verdict(void *context, struct intake *intake, const struct smtp_answer *answer)
{
	struct inbound *in = context;

	list_remove(&intake->link);
	if (answer)
		smtp_session_answer(in->session, intake->ticket, answer);
	else
		in->speechless = true;
	if (!list_linked(&in->dirty_link))
		list_push_back(&in->shared->dirty, &in->dirty_link);
}

static void on_end(void *context, uint32_t ticket)
{
	struct inbound *in = context;
	struct intake *intake = in->intake;

	in->intake = NULL;
	smtp_session_resume(in->session); /* its last piece may have found the disk behind */
	intake->ticket = ticket;
	if (intake_commit(intake, on_verdict, in))
		list_push_back(&in->committed, &intake->link);
	else
		list_push_back(&in->refused, &intake->link);
}

static void on_abort(void *context, const char *why)
{
	struct inbound *in = context;

	(void)why;
	if (in->intake)
		intake_drop(in->intake);
	in->intake = NULL;
}

static struct smtp_answer on_starttls(void *context)
{
	struct inbound *in = context;

	in->tls_next = tls_accept(in->shared->worker->engine->tls);
	if (!in->tls_next)
		return (struct smtp_answer){ 454, "4.7.0", "TLS is not available now" };
	return (struct smtp_answer){ 220, "2.0.0", "Ready for TLS" };
}

void inbound_forget_user(struct inbound *in)
{
	free(in->user.name);
	free(in->user.senders);
	in->user = (struct auth_user){ 0 };
	in->client.user = in->client.senders = NULL;
}

static void on_checked(void *context, enum smtp_auth_verdict verdict, struct auth_user *user)
{
	struct inbound *in = context;

	in->check = NULL;
	if (verdict == SMTP_AUTH_OK) {
		in->user = *user;
		in->client.user = in->user.name;
		in->client.senders = in->user.senders;
	}
	smtp_session_authenticated(in->session, verdict);
	inbound_rest_deadline(in);
	inbound_go(in);
}

static enum smtp_auth_verdict on_auth(void *context, const struct smtp_credentials *credentials)
{
	struct inbound *in = context;

	assert(!in->check && !in->user.name);
	return auth_check(&in->shared->auth, credentials, &in->peer, in->tls.text[0] != '\0',
			  on_checked, in, &in->check);
}

void inbound_complain(struct inbound *in, const char *what)
{
	struct worker *worker = in->shared->worker;
	char text[OS_ADDRESS_TEXT_MAX];

	log_begin(worker->log, worker_wall(worker), "complaint");
	log_text(worker->log, "client", span_text(os_address_text(&in->peer, text)));
	log_text(worker->log, "text", span_text(what));
	log_end(worker->log);
}

const struct smtp_answer *inbound_speak_for(struct inbound *in, const struct os_address *client)
{
	static const struct smtp_answer blocked = { 421, "4.7.0",
						    "Too many failures, try again later" };
	const struct smtp_answer *refusal;

	if (in->counted)
		in->gate->left(in->shared, &in->peer);
	in->counted = true;
	in->peer = *client;
	in->client.trusted = config_trusts(in->config, client);
	refusal = in->gate->came(in->shared, client);
	if (!refusal && in->door->auth != SMTP_AUTH_OFF && !in->client.trusted &&
	    auth_blocked(&in->shared->auth, client))
		refusal = &blocked;
	return refusal;
}

static struct smtp_answer on_xclient(void *context, const struct xclient *client)
{
	struct inbound *in = context;
	struct os_address address = in->peer;
	const struct smtp_answer *refusal;

	if (client->given & XCLIENT_ADDR)
		address = client->address;
	else if (client->given & XCLIENT_PORT)
		address.port = client->address.port;
	inbound_forget_user(in);
	refusal = inbound_speak_for(in, &address);
	if (refusal)
		return *refusal;
	if (client->login[0] != '\0' && !(in->user.name = strdup(client->login)))
		return (struct smtp_answer){ 421, "4.3.0", "Out of memory, try again later" };
	in->client.user = in->user.name;
	smtp_session_normalise(in->session, in->config->normalise && in->client.trusted);
	return (struct smtp_answer){ 220, NULL, NULL };
}

static void on_complaint(void *context, const char *what)
{
	inbound_complain(context, what);
}

static const struct smtp_session_host session_host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
	.starttls = on_starttls,
	.auth = on_auth,
	.xclient = on_xclient,
	.complaint = on_complaint,
};

struct smtp_session *inbound_session_create(struct inbound *in)
{
	const struct config *config = in->config;
	bool tls = tls_contexts_serve(in->shared->worker->engine->tls);
	struct smtp_session_options options = {
		.name = config->hostname,
		.size_max = config->message_bytes_max,
		.recipients_max = config->recipients_max,
		.messages_max = config->session_messages_max,
		.errors_max = config->session_errors_max,
		.pending_max = config->session_messages_ahead,
		.pipelining = true,
		.chunking = true,
		.smtputf8 = true,
		.eightbit = true,
		.binarymime = true,
		.dsn = true,
		.limits = true,
		.xclient = in->door->xclient_networks.count > 0 &&
			   config_networks_have(&in->door->xclient_networks, &in->peer),
		.starttls = tls && in->door->tls != CONFIG_LISTENER_NONE,
		.tls_required = in->door->tls == CONFIG_LISTENER_REQUIRE,
		.auth = in->door->auth,
		.auth_required = in->door->auth_required,
		.normalise = config->normalise && in->client.trusted,
	};

	return smtp_session_create(&options, &session_host, in);
}
