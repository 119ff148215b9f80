#include "engine/inbound.h"

#include <stdlib.h>

#include "engine/intake.h"

enum { OUTPUT_START = 512, OUTPUT_MAX = 64 << 10 };

struct inbound {
	struct conn conn;
	struct inbound_shared *shared;
	struct smtp_session *session;
	struct relay_client client;
	struct os_address peer;
	struct list link, dirty_link;
	void (*left)(struct inbound_shared *shared, const struct os_address *peer);

	struct intake *intake; /* the open transaction */
	struct list committed; /* intakes that wait for their verdict */
	struct list refused;   /* intakes to be answered as soon as feed() is back */

	char *stash; /* bytes that the session would not take yet */
	size_t stash_len;

	char *output; /* the send in flight */
	size_t output_size;
	struct iovec vector;
	bool hung_up; /* the client sends no more */
};

static void inbound_go(struct inbound *in);

/* ── what the session asks ────────────────────────────────────────────────────────── */

static const struct smtp_answer ok = { 250, "2.1.0", "Ok" };

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	struct inbound *in = context;
	struct worker *worker = in->shared->worker;
	struct queue_stats stats;

	assert(!in->intake);
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
	const struct config *config = in->shared->worker->config;
	struct smtp_answer answer = relay_decide(config, &in->client, &rcpt->recipient);

	if (answer.code / 100 == 2)
		intake_recipient(in->intake, rcpt);
	return answer;
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	struct inbound *in = context;

	if (intake_open(in->intake, greeting, &in->peer))
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
	smtp_session_answer(in->session, intake->ticket, answer);
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

static void on_complaint(void *context, const char *what)
{
	struct inbound *in = context;
	struct worker *worker = in->shared->worker;
	char text[OS_ADDRESS_TEXT_MAX];

	log_begin(worker->log, worker_wall(worker), "complaint");
	log_text(worker->log, "client", span_text(os_address_text(&in->peer, text)));
	log_text(worker->log, "text", span_text(what));
	log_end(worker->log);
}

static const struct smtp_session_host session_host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
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
	bytes = span_skip(bytes, taken);
	if (bytes.len == 0 || smtp_session_finished(in->session)) {
		in->stash_len = 0;
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
	const struct config *config = in->shared->worker->config;

	conn_deadline(&in->conn, smtp_session_in_data(in->session) ? config->session_block_ms
								   : config->session_idle_ms);
}

/* Whatever happened: goes on with what can go on. */
static void inbound_go(struct inbound *in)
{
	struct smtp_session *session = in->session;
	bool draining = in->shared->worker->phase >= WORKER_DRAINING;

	if (in->conn.closing)
		return;
	if (in->stash_len > 0)
		take(in, span_of(in->stash, in->stash_len));
	if (draining && !in->intake && list_empty(&in->committed) &&
	    !smtp_session_finished(session))
		smtp_session_shutdown(session, "4.3.2", "Service shutting down");
	put_out(in);
	if (in->conn.closing)
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

/* A half-closed client still gets the verdicts on what it sent whole. */
static void on_lost(struct conn *conn, int error)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (error != 0)
		conn_close(conn);
	in->hung_up = true;
	inbound_go(in);
}

static void on_deadline(struct conn *conn)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

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
	in->left(shared, &in->peer);
	smtp_session_destroy(in->session);
	free(in->stash);
	free(in->output);
	free(in);
}

static const struct conn_host conn_host = {
	.received = on_received,
	.sent = on_sent,
	.lost = on_lost,
	.deadline = on_deadline,
	.closed = on_closed,
};

/* ── all of them ──────────────────────────────────────────────────────────────────── */

static struct smtp_session *session_create(const struct config *config, struct inbound *in)
{
	struct smtp_session_options options = {
		.name = config->hostname,
		.size_max = config->message_bytes_max,
		.recipients_max = config->recipients_max,
		.errors_max = config->session_errors_max,
		.pending_max = config->session_messages_ahead,
		.pipelining = true,
		.chunking = true,
		.smtputf8 = true,
		.eightbit = true,
		.dsn = true,
		.normalise = config->normalise && in->client.trusted,
	};

	return smtp_session_create(&options, &session_host, in);
}

void inbound_open(struct inbound_shared *shared, int fd, const struct os_address *peer,
		  const struct smtp_answer *refusal,
		  void (*left)(struct inbound_shared *shared, const struct os_address *peer))
{
	const struct config *config = shared->worker->config;
	struct inbound *in = calloc(1, sizeof(*in));

	if (in) {
		in->peer = *peer;
		in->client.address = &in->peer;
		in->client.trusted = config_trusts(config, peer);
		in->session = session_create(config, in);
	}
	if (!in || !in->session) {
		free(in);
		os_close(fd);
		left(shared, peer);
		return;
	}
	in->shared = shared;
	in->left = left;
	list_init(&in->link);
	list_init(&in->dirty_link);
	list_init(&in->committed);
	list_init(&in->refused);
	list_push_back(&shared->connections, &in->link);
	shared->count++;
	conn_open(&in->conn, shared->worker, &conn_host, fd);
	smtp_session_greet(in->session, refusal);
	rest_deadline(in);
	inbound_go(in);
}

void inbound_shared_init(struct inbound_shared *shared, struct worker *worker)
{
	*shared = (struct inbound_shared){ .worker = worker };
	list_init(&shared->connections);
	list_init(&shared->dirty);
	intake_pool_init(&shared->intakes, worker);
}

void inbound_shared_deinit(struct inbound_shared *shared)
{
	assert(shared->count == 0);
	intake_pool_deinit(&shared->intakes);
}

void inbound_drain(struct inbound_shared *shared)
{
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
