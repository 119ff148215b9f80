#include "engine/auth/dovecot.h"

#include <stdlib.h>

#include "engine/conn.h"

enum { ANSWER_MS = 30000, TELL_MS = 60000 };

/* What is to be sent; holds passwords. */
struct draft {
	char *bytes;
	size_t count, size;
};

struct line {
	struct conn conn;
	struct dovecot_auth *dovecot; /* NULL: given up, about to close */
	bool connected;
	struct draft waiting, flying;
	struct iovec vector;
	char collected[DOVECOT_LINE_MAX];
	size_t collected_len;
};

struct dovecot_auth {
	struct worker *worker;
	struct os_address address;
	struct line *line; /* NULL: not connected */
	struct list requests;
	uint32_t id; /* the last one given */
	struct os_mono told;
};

/* ── drafts ───────────────────────────────────────────────────────────────────────── */

static void draft_wipe(struct draft *draft)
{
	if (draft->bytes)
		explicit_bzero(draft->bytes, draft->size);
	free(draft->bytes);
	*draft = (struct draft){ 0 };
}

/* False: no memory; the draft is as it was. */
static bool draft_add(struct draft *draft, struct span text)
{
	size_t size = draft->count + text.len;
	char *grown = malloc(size);

	if (!grown)
		return false;
	if (draft->count > 0)
		memcpy(grown, draft->bytes, draft->count);
	memcpy(grown + draft->count, text.at, text.len);
	draft_wipe(draft);
	*draft = (struct draft){ grown, size, size };
	return true;
}

/* ── the line ─────────────────────────────────────────────────────────────────────── */

static void tell(struct dovecot_auth *dovecot, const char *why)
{
	struct os_mono now = worker_mono(dovecot->worker);

	if (dovecot->told.ns != 0 && now.ns < os_mono_add_ms(dovecot->told, TELL_MS).ns)
		return;
	dovecot->told = now;
	log_notice(LOG_WARNING, "nobody can log in: %s: %s", dovecot->address.path, why);
}

/* Those that are asked for by who is answered here go to a connection of their own. */
static void answer_all(struct dovecot_auth *dovecot)
{
	struct list open;

	list_init(&open);
	list_splice_back(&open, &dovecot->requests);
	for (struct list *node; (node = list_pop_front(&open));) {
		struct dovecot_request *request = container_of(node, struct dovecot_request, link);

		request->answered(request, SMTP_AUTH_UNAVAILABLE, "");
	}
}

static void give_up(struct line *line, const char *why)
{
	struct dovecot_auth *dovecot = line->dovecot;

	if (!dovecot)
		return;
	line->dovecot = NULL;
	dovecot->line = NULL;
	conn_close(&line->conn);
	if (!list_empty(&dovecot->requests))
		tell(dovecot, why);
	answer_all(dovecot);
}

static void push(struct line *line)
{
	if (!line->connected || conn_sending(&line->conn) || line->waiting.count == 0)
		return;
	line->flying = line->waiting;
	line->waiting = (struct draft){ 0 };
	line->vector = (struct iovec){ line->flying.bytes, line->flying.count };
	conn_send(&line->conn, &line->vector, 1);
}

static struct dovecot_request *request_find(struct dovecot_auth *dovecot, uint32_t id)
{
	list_each(node, &dovecot->requests) {
		struct dovecot_request *request = container_of(node, struct dovecot_request, link);

		if (request->id == id)
			return request;
	}
	return NULL;
}

static void on_verdict(struct dovecot_auth *dovecot, const struct dovecot_reply *reply)
{
	static const enum smtp_auth_verdict verdicts[] = {
		[DOVECOT_OK] = SMTP_AUTH_OK,
		[DOVECOT_FAIL] = SMTP_AUTH_WRONG,
		[DOVECOT_FAIL_TEMPORARY] = SMTP_AUTH_UNAVAILABLE,
	};
	struct dovecot_request *request = request_find(dovecot, reply->id);

	if (!request)
		return; /* taken back */
	list_remove(&request->link);
	conn_deadline(&dovecot->line->conn, list_empty(&dovecot->requests) ? 0 : ANSWER_MS);
	request->answered(request, verdicts[reply->line], reply->user);
}

/* False: the line is given up. */
static bool take_line(struct line *line, struct span text)
{
	struct dovecot_reply reply;

	dovecot_reply_parse(text, &reply);
	switch (reply.line) {
	case DOVECOT_NOTHING:
	case DOVECOT_DONE:
		break;
	case DOVECOT_FOREIGN:
		give_up(line, "does not speak the auth protocol, version 1; it has to be "
			      "Dovecot's auth-client socket");
		break;
	case DOVECOT_OK:
	case DOVECOT_FAIL:
	case DOVECOT_FAIL_TEMPORARY:
		on_verdict(line->dovecot, &reply);
		break;
	}
	return line->dovecot != NULL;
}

static void on_received(struct conn *conn, struct span bytes)
{
	struct line *line = container_of(conn, struct line, conn);

	while (bytes.len > 0) {
		const char *end = memchr(bytes.at, '\n', bytes.len);
		size_t len = end ? (size_t)(end - bytes.at) : bytes.len;
		size_t collected = line->collected_len;

		if (collected + len > sizeof(line->collected)) {
			give_up(line, "says lines without end");
			return;
		}
		memcpy(line->collected + collected, bytes.at, len);
		line->collected_len = end ? 0 : collected + len;
		bytes = span_skip(bytes, len + (end ? 1 : 0));
		if (end && !take_line(line, span_of(line->collected, collected + len)))
			return;
	}
	conn_recv(conn);
}

static void on_sent(struct conn *conn, size_t count)
{
	struct line *line = container_of(conn, struct line, conn);

	draft_wipe(&line->flying);
	if (count < line->vector.iov_len)
		give_up(line, "the connection broke");
	else
		push(line);
}

static void on_connected(struct conn *conn, int result)
{
	struct line *line = container_of(conn, struct line, conn);

	if (result < 0) {
		give_up(line, strerror(-result));
		return;
	}
	line->connected = true;
	conn_recv(conn);
	push(line);
}

static void on_lost(struct conn *conn, int error)
{
	give_up(container_of(conn, struct line, conn),
		error < 0 ? strerror(-error) : "the connection was closed");
}

static void on_deadline(struct conn *conn)
{
	give_up(container_of(conn, struct line, conn), "no answer in time");
}

static void on_closed(struct conn *conn)
{
	struct line *line = container_of(conn, struct line, conn);

	draft_wipe(&line->waiting);
	draft_wipe(&line->flying);
	free(line);
}

static const struct conn_host conn_host = {
	.connected = on_connected,
	.received = on_received,
	.sent = on_sent,
	.lost = on_lost,
	.deadline = on_deadline,
	.closed = on_closed,
};

/* ── requests ─────────────────────────────────────────────────────────────────────── */

static bool connect_line(struct dovecot_auth *dovecot, const struct os_address *address)
{
	struct line *line = calloc(1, sizeof(*line));
	char hello[64];
	uint32_t id;
	int result;

	if (!line)
		return false;
	dovecot->address = *address;
	result = conn_connect(&line->conn, dovecot->worker, &conn_host, &dovecot->address, NULL);
	if (result < 0) {
		free(line);
		tell(dovecot, strerror(-result));
		return false;
	}
	line->dovecot = dovecot;
	dovecot->line = line;
	/* Dovecot wants a process id of its own from each connection: ours is above all of them. */
	os_random(&id, sizeof(id));
	if (!draft_add(&line->waiting,
		       span_of(hello, dovecot_hello_write(id >> 2 | 1u << 30, hello))))
		give_up(line, "out of memory");
	return dovecot->line;
}

bool dovecot_auth_ask(struct dovecot_auth *dovecot, struct dovecot_request *request,
		      const struct smtp_credentials *credentials, const struct os_address *client,
		      bool secured)
{
	char text[DOVECOT_LINE_MAX];
	struct os_address address;
	size_t len;

	if (!os_address_parse(dovecot->worker->config->auth.dovecot, 0, &address))
		return false;
	if (!os_address_equal(&address, &dovecot->address))
		dovecot_auth_rest(dovecot);
	request->id = ++dovecot->id;
	len = dovecot_ask_write(request->id, credentials, client, secured, text);
	if (len > 0 && (dovecot->line || connect_line(dovecot, &address)) &&
	    draft_add(&dovecot->line->waiting, span_of(text, len))) {
		if (list_empty(&dovecot->requests))
			conn_deadline(&dovecot->line->conn, ANSWER_MS);
		list_push_back(&dovecot->requests, &request->link);
		push(dovecot->line);
	}
	explicit_bzero(text, len);
	return list_linked(&request->link);
}

void dovecot_auth_take_back(struct dovecot_auth *dovecot, struct dovecot_request *request)
{
	list_remove(&request->link);
	if (dovecot->line && list_empty(&dovecot->requests))
		conn_deadline(&dovecot->line->conn, 0);
}

void dovecot_auth_rest(struct dovecot_auth *dovecot)
{
	if (dovecot->line && list_empty(&dovecot->requests))
		give_up(dovecot->line, "");
}

bool dovecot_auth_idle(const struct dovecot_auth *dovecot)
{
	return !dovecot->line && list_empty(&dovecot->requests);
}

struct dovecot_auth *dovecot_auth_create(struct worker *worker)
{
	struct dovecot_auth *dovecot = calloc(1, sizeof(*dovecot));

	if (!dovecot)
		return NULL;
	dovecot->worker = worker;
	list_init(&dovecot->requests);
	return dovecot;
}

void dovecot_auth_destroy(struct dovecot_auth *dovecot)
{
	assert(!dovecot || dovecot_auth_idle(dovecot));
	free(dovecot);
}
