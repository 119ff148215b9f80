#include "engine/inbound/inbound.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/inbound/intake.h"
#include "engine/inbound/proxy.h"

enum { OUTPUT_START = 512, OUTPUT_MAX = 64 << 10 };

struct inbound {
	struct conn conn;
	struct inbound_shared *shared;
	struct smtp_session *session; /* NULL: its PROXY header is not here */
	struct relay_client client;
	struct os_address peer;		    /* whom the session is for */
	bool counted;			    /* the gate has let it in */
	const struct config *config;	    /* a reference: the session keeps to it */
	const struct config_listener *door; /* in `config` */
	struct tls *tls_next;		    /* owned: 220 to STARTTLS is on its way */
	struct tls_facts tls;		    /* .text "": in clear */
	struct auth_check *check;	    /* AUTH; lent until on_checked() */
	struct auth_user user;		    /* owned; .name NULL: nobody logged in */
	struct list link, dirty_link;
	const struct inbound_gate *gate;

	struct intake *intake; /* the open transaction */
	struct list committed; /* intakes that wait for their verdict */
	struct list refused;   /* intakes to be answered as soon as feed() is back */

	char *stash; /* bytes that the session would not take yet */
	size_t stash_len;

	char *output; /* the send in flight */
	size_t output_size;
	struct iovec vector;
	bool hung_up;	 /* the client sends no more */
	bool speechless; /* what became of a message is not known: no reply from there on */
};

static void inbound_go(struct inbound *in);
static void rest_deadline(struct inbound *in);
static void take_header(struct inbound *in, struct span bytes);

/* ── what the session asks ────────────────────────────────────────────────────────── */

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

/* Nobody is logged in (any more). */
static void forget_user(struct inbound *in)
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
	rest_deadline(in);
	inbound_go(in);
}

static enum smtp_auth_verdict on_auth(void *context, const struct smtp_credentials *credentials)
{
	struct inbound *in = context;

	assert(!in->check && !in->user.name);
	return auth_check(&in->shared->auth, credentials, &in->peer, in->tls.text[0] != '\0',
			  on_checked, in, &in->check);
}

static void complain(struct inbound *in, const char *what)
{
	struct worker *worker = in->shared->worker;
	char text[OS_ADDRESS_TEXT_MAX];

	log_begin(worker->log, worker_wall(worker), "complaint");
	log_text(worker->log, "client", span_text(os_address_text(&in->peer, text)));
	log_text(worker->log, "text", span_text(what));
	log_end(worker->log);
}

/* The session is this client's from now on: its permission, its limits. NULL, or what it hears
 * instead of a greeting. */
static const struct smtp_answer *speak_for(struct inbound *in, const struct os_address *client)
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
	forget_user(in);
	refusal = speak_for(in, &address);
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
	complain(context, what);
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

/* ── verdicts ─────────────────────────────────────────────────────────────────────── */

static void answer_refused(struct inbound *in)
{
	for (struct list *node; (node = list_pop_front(&in->refused));) {
		struct intake *intake = container_of(node, struct intake, link);

		smtp_session_answer(in->session, intake->ticket, &intake->refusal);
		intake_drop(intake);
	}
}

/* ── the connection ───────────────────────────────────────────────────────────────── */

/* Gives the session what it takes; keeps the rest. */
static void take(struct inbound *in, struct span bytes)
{
	size_t taken = 0;

	while (taken < bytes.len) {
		size_t step = smtp_session_feed(in->session, span_skip(bytes, taken));
		bool answered = !list_empty(&in->refused);

		taken += step;
		answer_refused(in);
		if (step == 0 && !answered)
			break;
	}
	/* Nothing of a password stays behind, in the loop's buffer or in the stash. */
	if (smtp_session_heard_secret(in->session))
		explicit_bzero((char *)bytes.at, taken);
	bytes = span_skip(bytes, taken);
	if (bytes.len == 0 || smtp_session_finished(in->session)) {
		in->stash_len = 0;
		return;
	}
	if (smtp_session_expects_tls(in->session)) {
		/* Whoever wrote this wants it taken for something said under TLS. */
		complain(in, "commands behind STARTTLS, before the handshake: disconnected");
		conn_close(&in->conn);
		return;
	}
	if (bytes.at != in->stash) {
		char *stash =
			in->stash_len >= bytes.len ? in->stash : realloc(in->stash, bytes.len);

		if (!stash) {
			conn_close(&in->conn);
			return;
		}
		in->stash = stash;
	}
	memmove(in->stash, bytes.at, bytes.len);
	in->stash_len = bytes.len;
}

static void put_out(struct inbound *in)
{
	struct span output = smtp_session_output(in->session);

	if (output.len == 0 || conn_sending(&in->conn) || in->conn.closing)
		return;
	if (output.len > in->output_size) {
		size_t size = output.len > OUTPUT_START ? output.len : OUTPUT_START;
		char *grown = realloc(in->output, size);

		if (!grown) {
			conn_close(&in->conn);
			return;
		}
		in->output = grown;
		in->output_size = size;
	}
	memcpy(in->output, output.at, output.len);
	in->vector = (struct iovec){ in->output, output.len };
	smtp_session_sent(in->session, output.len);
	conn_send(&in->conn, &in->vector, 1);
}

static void rest_deadline(struct inbound *in)
{
	const struct config *config = in->config;

	if (in->conn.handshaking)
		return; /* it has one for all of it */
	conn_deadline(&in->conn, smtp_session_in_data(in->session) ? config->session_block_ms
								   : config->session_idle_ms);
}

static void start_tls(struct inbound *in, struct tls *tls)
{
	if (conn_start_tls(&in->conn, tls))
		conn_deadline(&in->conn, in->config->tls_handshake_ms);
	else
		conn_close(&in->conn);
}

/* After 220 to STARTTLS: is the session at the point where the handshake begins? */
static bool goes_to_tls(struct inbound *in)
{
	struct tls *tls = in->tls_next;

	if (!smtp_session_expects_tls(in->session))
		return false;
	if (conn_sending(&in->conn) || smtp_session_pending(in->session) > 0)
		return true;
	in->tls_next = NULL;
	if (in->hung_up)
		conn_close(&in->conn);
	else
		start_tls(in, tls);
	return true;
}

/* The replies to what came before still go out; then the client knows that it does not know. */
static void end_speechless(struct inbound *in)
{
	put_out(in);
	if (!in->conn.closing && !conn_sending(&in->conn))
		conn_close(&in->conn);
}

/* Whatever happened: goes on with what can go on. */
static void inbound_go(struct inbound *in)
{
	struct smtp_session *session = in->session;
	bool draining = in->shared->worker->phase >= WORKER_DRAINING;

	if (in->conn.handshaking && draining)
		conn_close(&in->conn);
	if (in->conn.closing || in->conn.handshaking)
		return;
	if (!in->session) {
		if (draining)
			conn_close(&in->conn);
		else
			conn_recv(&in->conn);
		return;
	}
	if (in->speechless) {
		end_speechless(in);
		return;
	}
	if (in->stash_len > 0)
		take(in, span_of(in->stash, in->stash_len));
	if (draining && !in->intake && list_empty(&in->committed) &&
	    !smtp_session_finished(session))
		smtp_session_shutdown(session, "4.3.2", "Service shutting down");
	put_out(in);
	if (in->conn.closing || goes_to_tls(in))
		return;
	if (smtp_session_finished(session) || (in->hung_up && list_empty(&in->committed))) {
		if (!conn_sending(&in->conn))
			conn_close(&in->conn);
		return;
	}
	/* Who doesn't read our answers is not read either. */
	if (in->stash_len == 0 && !in->hung_up && smtp_session_output(session).len < OUTPUT_MAX)
		conn_recv(&in->conn);
}

static void on_received(struct conn *conn, struct span bytes)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (!in->session) {
		take_header(in, bytes);
		return;
	}
	assert(in->stash_len == 0);
	take(in, bytes);
	rest_deadline(in);
	inbound_go(in);
}

static void on_sent(struct conn *conn, size_t count)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (count < in->vector.iov_len)
		conn_close(conn);
	else
		inbound_go(in);
}

static void on_secured(struct conn *conn, const char *failure)
{
	struct inbound *in = container_of(conn, struct inbound, conn);
	char what[256];

	if (failure) {
		snprintf(what, sizeof(what), "the TLS handshake failed: %s", failure);
		complain(in, what);
		conn_close(conn);
		return;
	}
	in->tls = *conn_facts(conn);
	forget_user(in);
	smtp_session_secured(in->session);
	if (in->door->tls == CONFIG_LISTENER_IMPLICIT)
		smtp_session_greet(in->session, NULL);
	rest_deadline(in);
	inbound_go(in);
}

/* A half-closed client still gets the verdicts on what it sent whole. */
static void on_lost(struct conn *conn, int error)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (!in->session && in->stash_len > 0)
		complain(in, "the connection ended within its PROXY header");
	if (error != 0 || !in->session)
		conn_close(conn);
	in->hung_up = true;
	inbound_go(in);
}

static void on_deadline(struct conn *conn)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (!in->session) {
		complain(in, "the PROXY header was not there in time: disconnected");
		conn_close(conn);
		return;
	}
	if (conn->handshaking) {
		complain(in, "the TLS handshake was not finished in time");
		conn_close(conn);
		return;
	}
	/* Late because of us, or because the client doesn't read: only the latter is its fault. */
	if (smtp_session_pending(in->session) > 0 && !conn_sending(conn)) {
		rest_deadline(in);
		return;
	}
	if (conn_sending(conn) || smtp_session_finished(in->session)) {
		conn_close(conn);
		return;
	}
	smtp_session_shutdown(in->session, "4.4.2", "Timeout, closing connection");
	rest_deadline(in);
	inbound_go(in);
}

static void on_closed(struct conn *conn)
{
	struct inbound *in = container_of(conn, struct inbound, conn);
	struct inbound_shared *shared = in->shared;

	if (in->check)
		auth_abandon(in->check);
	forget_user(in);
	if (in->intake)
		intake_drop(in->intake);
	list_each(node, &in->committed) {
		struct intake *intake = container_of(node, struct intake, link);

		list_remove(node);
		intake_abandon(intake);
	}
	list_remove(&in->link);
	list_remove(&in->dirty_link);
	shared->count--;
	if (in->counted)
		in->gate->left(shared, &in->peer);
	in->gate->gone(shared);
	smtp_session_destroy(in->session);
	config_unref(in->config);
	tls_destroy(in->tls_next);
	free(in->stash);
	free(in->output);
	free(in);
}

static const struct conn_host conn_host = {
	.received = on_received,
	.sent = on_sent,
	.secured = on_secured,
	.lost = on_lost,
	.deadline = on_deadline,
	.closed = on_closed,
};

/* ── its beginning ────────────────────────────────────────────────────────────────── */

static bool is_among(const struct config_networks *networks, const struct os_address *address)
{
	/* Its folder's mode decides who uses a UNIX socket. */
	return address->family == AF_UNIX || config_networks_have(networks, address);
}

static struct smtp_session *session_create(struct worker *worker, struct inbound *in)
{
	const struct config *config = in->config;
	bool tls = tls_contexts_serve(worker->engine->tls);
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
			   is_among(&in->door->xclient_networks, &in->peer),
		.starttls = tls && in->door->tls != CONFIG_LISTENER_NONE,
		.tls_required = in->door->tls == CONFIG_LISTENER_REQUIRE,
		.auth = in->door->auth,
		.auth_required = in->door->auth_required,
		.normalise = config->normalise && in->client.trusted,
	};

	return smtp_session_create(&options, &session_host, in);
}

/* Who is refused would have to be told under TLS: the silence is understood, and cheaper. */
static void begin_secured(struct inbound *in, const struct smtp_answer *refusal)
{
	struct tls *tls = refusal ? NULL : tls_accept(in->shared->worker->engine->tls);

	if (tls)
		start_tls(in, tls);
	else
		conn_close(&in->conn);
}

/* It is known who it is. */
static void begin(struct inbound *in, const struct smtp_answer *refusal)
{
	in->session = session_create(in->shared->worker, in);
	if (!in->session) {
		conn_close(&in->conn);
		return;
	}
	if (in->door->tls == CONFIG_LISTENER_IMPLICIT)
		begin_secured(in, refusal);
	else
		smtp_session_greet(in->session, refusal);
	rest_deadline(in);
}

/* ── PROXY headers ────────────────────────────────────────────────────────────────── */

static void begin_proxied(struct inbound *in)
{
	static const struct smtp_answer no_proxy = { 554, "5.7.1", "Not a proxy of this server" };

	if (is_among(&in->door->proxy_networks, &in->peer)) {
		conn_deadline(&in->conn, in->door->proxy_header_ms);
		return;
	}
	complain(in, "not one of proxy_networks, for a listener with proxy_protocol: refused");
	begin(in, &no_proxy);
}

/* What is behind the header is the client's. */
static void take_behind_header(struct inbound *in, struct span bytes)
{
	if (in->conn.closing)
		return;
	if (in->conn.handshaking) {
		in->stash_len = 0;
		if (bytes.len > 0)
			conn_feed_tls(&in->conn, bytes);
		return;
	}
	take(in, bytes);
	inbound_go(in);
}

static bool stash_add(struct inbound *in, struct span bytes)
{
	char *stash = realloc(in->stash, in->stash_len + bytes.len);

	if (!stash)
		return false;
	memcpy(stash + in->stash_len, bytes.at, bytes.len);
	in->stash = stash;
	in->stash_len += bytes.len;
	return true;
}

static void take_header(struct inbound *in, struct span bytes)
{
	struct proxy_header header;
	const char *why;
	char text[160];

	if (!stash_add(in, bytes)) {
		conn_close(&in->conn);
		return;
	}
	bytes = span_of(in->stash, in->stash_len);
	switch (proxy_parse(bytes, &header, &why)) {
	case PROXY_MORE:
		inbound_go(in);
		return;
	case PROXY_MALFORMED:
		snprintf(text, sizeof(text), "not a PROXY header (%s): disconnected", why);
		complain(in, text);
		conn_close(&in->conn);
		return;
	case PROXY_WHOLE:
		break;
	}
	begin(in, speak_for(in, header.local ? &in->peer : &header.client));
	take_behind_header(in, span_skip(bytes, header.bytes));
}

/* ── all of them ──────────────────────────────────────────────────────────────────── */

void inbound_open(struct inbound_shared *shared, int fd, const struct os_address *peer,
		  const struct config *config, const struct config_listener *door,
		  const struct smtp_answer *refusal, const struct inbound_gate *gate)
{
	struct inbound *in = calloc(1, sizeof(*in));

	if (!in) {
		os_close(fd);
		gate->gone(shared);
		return;
	}
	in->peer = *peer;
	in->client.address = &in->peer;
	in->config = config_ref(config);
	in->door = door;
	in->shared = shared;
	in->gate = gate;
	list_init(&in->link);
	list_init(&in->dirty_link);
	list_init(&in->committed);
	list_init(&in->refused);
	list_push_back(&shared->connections, &in->link);
	shared->count++;
	conn_open(&in->conn, shared->worker, &conn_host, fd);
	if (refusal)
		begin(in, refusal);
	else if (door->proxy_protocol)
		begin_proxied(in);
	else
		begin(in, speak_for(in, peer));
	inbound_go(in);
}

void inbound_shared_init(struct inbound_shared *shared, struct worker *worker)
{
	*shared = (struct inbound_shared){ .worker = worker };
	list_init(&shared->connections);
	list_init(&shared->dirty);
	intake_pool_init(&shared->intakes, worker);
	auth_init(&shared->auth, worker);
}

void inbound_shared_deinit(struct inbound_shared *shared)
{
	assert(shared->count == 0);
	intake_pool_deinit(&shared->intakes);
	auth_deinit(&shared->auth);
}

void inbound_drain(struct inbound_shared *shared)
{
	auth_stop(&shared->auth);
	list_each(node, &shared->connections)
		inbound_go(container_of(node, struct inbound, link));
}

void inbound_cut(struct inbound_shared *shared)
{
	list_each(node, &shared->connections)
		conn_close(&container_of(node, struct inbound, link)->conn);
}

void inbound_flush(struct inbound_shared *shared)
{
	for (struct list *node; (node = list_pop_front(&shared->dirty));)
		inbound_go(container_of(node, struct inbound, dirty_link));
}
