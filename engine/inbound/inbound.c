#include "engine/inbound/inbound_private.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/inbound/proxy.h"

enum {
	OUTPUT_START = 512,
	OUTPUT_KEEP = 4096, /* more than this is given back: most sessions are idle */
	OUTPUT_MAX = 64 << 10,
};

static void take_header(struct inbound *in, struct span bytes);

/* ── the connection ───────────────────────────────────────────────────────────────── */

static void answer_refused(struct inbound *in)
{
	for (struct list *node; (node = list_pop_front(&in->refused));) {
		struct intake *intake = container_of(node, struct intake, link);

		smtp_session_answer(in->session, intake->ticket, &intake->refusal);
		intake_drop(intake);
	}
}

static void stash_free(struct inbound *in)
{
	if (in->stash)
		explicit_bzero(in->stash, in->stash_len);
	free(in->stash);
	in->stash = NULL;
	in->stash_len = 0;
}

/* For later. A password may be in it: nothing of it stays where it was. */
static bool stash_keep(struct inbound *in, struct span rest)
{
	if (in->stash_len > 0) {
		memmove(in->stash, rest.at, rest.len);
		explicit_bzero(in->stash + rest.len, in->stash_len - rest.len);
	} else {
		char *stash = realloc(in->stash, rest.len);

		if (!stash)
			return false;
		in->stash = memcpy(stash, rest.at, rest.len);
		explicit_bzero((char *)rest.at, rest.len);
	}
	in->stash_len = rest.len;
	return true;
}

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
		stash_free(in);
		return;
	}
	if (smtp_session_expects_tls(in->session)) {
		/* Whoever wrote this wants it taken for something said under TLS. */
		inbound_complain(in,
				 "commands behind STARTTLS, before the handshake: disconnected");
		conn_close(&in->conn);
		return;
	}
	if (!stash_keep(in, bytes))
		conn_close(&in->conn);
}

static void output_free(struct inbound *in)
{
	free(in->output);
	in->output = NULL;
	in->output_size = 0;
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

void inbound_rest_deadline(struct inbound *in)
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

/* What is taken from the stash was heard just now, for the deadline. */
static void take_stash(struct inbound *in)
{
	size_t before = in->stash_len;

	take(in, span_of(in->stash, before));
	if (in->stash_len < before)
		inbound_rest_deadline(in);
}

/* The replies to what came before still go out; then the client knows that it does not know. */
static void end_speechless(struct inbound *in)
{
	put_out(in);
	if (!in->conn.closing && !conn_sending(&in->conn))
		conn_close(&in->conn);
}

void inbound_go(struct inbound *in)
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
		take_stash(in);
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
	inbound_rest_deadline(in);
	inbound_go(in);
}

static void on_sent(struct conn *conn, size_t count)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (in->output_size > OUTPUT_KEEP)
		output_free(in);
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
		inbound_complain(in, what);
		conn_close(conn);
		return;
	}
	in->tls = *conn_facts(conn);
	inbound_forget_user(in);
	smtp_session_secured(in->session);
	if (in->door->tls == CONFIG_LISTENER_IMPLICIT)
		smtp_session_greet(in->session, NULL);
	inbound_rest_deadline(in);
	inbound_go(in);
}

/* A half-closed client still gets the verdicts on what it sent whole. */
static void on_lost(struct conn *conn, int error)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (!in->session && in->stash_len > 0)
		inbound_complain(in, "the connection ended within its PROXY header");
	if (error != 0 || !in->session)
		conn_close(conn);
	in->hung_up = true;
	inbound_go(in);
}

static void on_deadline(struct conn *conn)
{
	struct inbound *in = container_of(conn, struct inbound, conn);

	if (!in->session) {
		inbound_complain(in, "the PROXY header was not there in time: disconnected");
		conn_close(conn);
		return;
	}
	if (conn->handshaking) {
		inbound_complain(in, "the TLS handshake was not finished in time");
		conn_close(conn);
		return;
	}
	/* Late because of us, or because the client doesn't read: only the latter is its fault. */
	if (smtp_session_pending(in->session) > 0 && !conn_sending(conn)) {
		inbound_rest_deadline(in);
		return;
	}
	if (conn_sending(conn) || smtp_session_finished(in->session)) {
		conn_close(conn);
		return;
	}
	smtp_session_shutdown(in->session, "4.4.2", "Timeout, closing connection");
	inbound_rest_deadline(in);
	inbound_go(in);
}

static void on_closed(struct conn *conn)
{
	struct inbound *in = container_of(conn, struct inbound, conn);
	struct inbound_shared *shared = in->shared;

	if (in->check)
		auth_abandon(in->check);
	inbound_forget_user(in);
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
	stash_free(in);
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
	in->session = inbound_session_create(in);
	if (!in->session) {
		conn_close(&in->conn);
		return;
	}
	if (in->door->tls == CONFIG_LISTENER_IMPLICIT)
		begin_secured(in, refusal);
	else
		smtp_session_greet(in->session, refusal);
	inbound_rest_deadline(in);
}

/* ── PROXY headers ────────────────────────────────────────────────────────────────── */

static void begin_proxied(struct inbound *in)
{
	static const struct smtp_answer no_proxy = { 554, "5.7.1", "Not a proxy of this server" };

	if (config_networks_have(&in->door->proxy_networks, &in->peer)) {
		conn_deadline(&in->conn, in->door->proxy_header_ms);
		return;
	}
	inbound_complain(in,
			 "not one of proxy_networks, for a listener with proxy_protocol: refused");
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
		inbound_complain(in, text);
		conn_close(&in->conn);
		return;
	case PROXY_WHOLE:
		break;
	}
	begin(in, inbound_speak_for(in, header.local ? &in->peer : &header.client));
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
		begin(in, inbound_speak_for(in, peer));
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
