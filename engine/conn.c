#include "engine/conn.h"

#include <errno.h>
#include <stdlib.h>

enum {
	TLS_SEND_BYTES = 4 * TLS_RECORD_BYTES, /* encrypted at once */
	TLS_END_MS = 1000,		       /* for the peer to take our last record */
};

/* ── TLS ──────────────────────────────────────────────────────────────────────────── */

/* Sends what TLS has to say, and the next of what the owner has. */
static void push(struct conn *conn)
{
	size_t len;

	if (conn->send_op.busy)
		return;
	if (conn->plain && !conn->closing)
		conn->plain_flying =
			tls_encrypt(conn->tls, conn->plain, conn->plain_count, conn->plain_done,
				    TLS_SEND_BYTES, conn->worker->tls_scratch->gather);
	conn->flying = tls_output_take(conn->tls, &len);
	if (!conn->flying) {
		if (conn->plain && !conn->closing)
			os_loop_post(conn->worker->loop, &conn->send_op, -ENOMEM);
		return;
	}
	conn->flying_vector = (struct iovec){ conn->flying, len };
	os_send(conn->worker->loop, &conn->send_op, conn->fd, &conn->flying_vector, 1);
}

static void fall(struct conn *conn, int error)
{
	if (conn->handshaking)
		conn->host->secured(conn, error < 0 ? strerror(-error)
						    : "the peer closed the connection");
	else
		conn->host->lost(conn, error);
}

/* Whatever broke first is what is told. */
static void break_now(struct conn *conn, int error)
{
	fall(conn, conn->breaking ? conn->break_error : error);
}

static void break_later(struct conn *conn, int error)
{
	if (conn->breaking)
		return;
	conn->breaking = true;
	conn->break_error = error;
}

/* Nothing more of what the owner has will leave. What left before, it hears. */
static void stop_sending(struct conn *conn)
{
	if (!conn->plain)
		return;
	conn->plain = NULL;
	conn->sending = false;
	conn->host->sent(conn, conn->plain_done);
}

/* The peer will say nothing more. */
static void on_heard_out(struct conn *conn, int error)
{
	if (!conn->host->hears_out || conn->handshaking || !conn->sending) {
		break_now(conn, error);
		return;
	}
	break_later(conn, error);
	os_cancel(conn->worker->loop, &conn->send_op);
}

/* Nothing left. What the peer said to what left before is still to be heard, but not where it was
 * memory that failed: the peer knows of nothing, and would be waited for. */
static void on_send_failed(struct conn *conn, int error)
{
	bool heard_out = conn->breaking || error == -ENOMEM;

	if (conn->host->hears_out && !conn->handshaking) {
		break_later(conn, error);
		stop_sending(conn);
	}
	if (conn->closing)
		return;
	if (heard_out || !conn->breaking)
		break_now(conn, error);
	else
		conn_recv(conn);
}

/* Records left. If the connection broke among them, all count as sent: the peer may have them,
 * and to tell an outcome as unknown is safe. */
static void on_flown(struct conn *conn, int32_t result)
{
	bool broke = result < (int32_t)conn->flying_vector.iov_len;

	free(conn->flying);
	conn->flying = NULL;
	if (result >= 0)
		conn->plain_done += conn->plain_flying;
	conn->plain_flying = 0;
	if (conn->closing) {
		if (!broke)
			push(conn);
		return;
	}
	if (result < 0) {
		on_send_failed(conn, result);
		return;
	}
	if (broke || conn->breaking || conn->plain_done == conn->plain_bytes)
		stop_sending(conn);
	if (conn->closing)
		return;
	if (conn->breaking)
		break_now(conn, 0);
	else if (!broke)
		push(conn);
}

/* All that was fed, as plaintext, to the owner. */
static void deliver(struct conn *conn)
{
	struct tls_scratch *scratch = conn->worker->tls_scratch;
	size_t count;
	enum tls_status status =
		tls_decrypt(conn->tls, scratch->plain, sizeof(scratch->plain), &count);

	push(conn); /* an answer to a change of keys */
	if (count > 0)
		conn->host->received(conn, span_of(scratch->plain, count));
	if (conn->closing)
		return;
	if (status != TLS_OK)
		on_heard_out(conn, status == TLS_CLOSED ? 0 : -EBADMSG);
	else if (count == 0)
		conn_recv(conn); /* what came was TLS's own */
}

/* False: it is not over, or failed and was told. */
static bool shake(struct conn *conn)
{
	enum tls_status status = tls_handshake(conn->tls);

	push(conn);
	if (status == TLS_MORE) {
		conn_recv(conn);
		return false;
	}
	if (status == TLS_OK)
		conn->handshaking = false;
	conn->host->secured(conn, status == TLS_OK ? NULL : tls_why(conn->tls));
	return status == TLS_OK && !conn->closing;
}

static void on_records(struct conn *conn, struct span bytes)
{
	tls_feed(conn->tls, bytes);
	if (!conn->handshaking || shake(conn))
		deliver(conn);
}

void conn_feed_tls(struct conn *conn, struct span bytes)
{
	assert(conn->handshaking && !conn->closing);
	on_records(conn, bytes);
}

bool conn_start_tls(struct conn *conn, struct tls *tls)
{
	assert(!conn->tls && !conn->sending && !conn->closing);
	assert(!conn->send_op.busy);
	conn->tls = tls;
	conn->handshaking = true;
	if (tls_handshake(tls) == TLS_FAILED)
		return false;
	push(conn);
	conn_recv(conn);
	return true;
}

/* ── operations ───────────────────────────────────────────────────────────────────── */

static void on_recv(struct os_op *op)
{
	struct conn *conn = container_of(op, struct conn, recv_op);

	assert(conn->worker == worker_self());
	if (conn->closing)
		return; /* the answer to our cancel */
	if (op->result <= 0)
		on_heard_out(conn, op->result);
	else if (conn->tls)
		on_records(conn, span_of(op->data, (size_t)op->result));
	else
		conn->host->received(conn, span_of(op->data, (size_t)op->result));
}

static void on_send(struct os_op *op)
{
	struct conn *conn = container_of(op, struct conn, send_op);

	assert(conn->worker == worker_self());
	if (conn->tls) {
		on_flown(conn, op->result);
		return;
	}
	conn->sending = false;
	if (conn->closing)
		return;
	if (op->result < 0) {
		on_send_failed(conn, op->result);
		return;
	}
	conn->host->sent(conn, (size_t)op->result);
	if (conn->breaking && !conn->closing)
		break_now(conn, 0);
}

static void on_connect(struct os_op *op)
{
	struct conn *conn = container_of(op, struct conn, send_op);

	conn->sending = false;
	if (conn->closing)
		return;
	conn->send_op.done = on_send;
	conn->host->connected(conn, op->result);
}

static void on_timer(struct timer *timer)
{
	struct conn *conn = container_of(timer, struct conn, timer);

	if (!conn->closing)
		conn->host->deadline(conn);
	else if (conn->send_op.busy)
		os_cancel(conn->worker->loop, &conn->send_op);
}

void conn_open(struct conn *conn, struct worker *worker, const struct conn_host *host, int fd)
{
	*conn = (struct conn){
		.host = host,
		.worker = worker,
		.fd = fd,
		.recv_op.done = on_recv,
		.send_op.done = on_send,
	};
	timer_init(&conn->timer, on_timer);
	list_init(&conn->closing_link);
}

int conn_connect(struct conn *conn, struct worker *worker, const struct conn_host *host,
		 const struct os_address *to, const struct os_address *source)
{
	int fd = os_socket(to->family, source);

	if (fd < 0)
		return fd;
	conn_open(conn, worker, host, fd);
	conn->send_op.done = on_connect;
	conn->sending = true;
	os_connect(worker->loop, &conn->send_op, fd, to);
	return 0;
}

void conn_recv(struct conn *conn)
{
	if (!conn->recv_op.busy && !conn->closing)
		os_recv(conn->worker->loop, &conn->recv_op, conn->fd);
}

void conn_send(struct conn *conn, const struct iovec *vectors, int count)
{
	assert(!conn->sending && !conn->closing && !conn->handshaking);
	assert(count > 0 && !conn->breaking);
	conn->sending = true;
	if (!conn->tls) {
		os_send(conn->worker->loop, &conn->send_op, conn->fd, vectors, count);
		return;
	}
	conn->plain = vectors;
	conn->plain_count = count;
	conn->plain_bytes = conn->plain_done = conn->plain_flying = 0;
	for (int i = 0; i < count; i++)
		conn->plain_bytes += vectors[i].iov_len;
	assert(conn->plain_bytes > 0);
	push(conn);
}

void conn_deadline(struct conn *conn, uint32_t ms)
{
	struct worker *worker = conn->worker;

	if (conn->closing)
		return;
	if (ms == 0)
		timer_cancel(&worker->timers, &conn->timer);
	else
		timer_set(&worker->timers, &conn->timer, os_mono_add_ms(worker_mono(worker), ms));
}

/* ── the end ──────────────────────────────────────────────────────────────────────── */

/* What is with the kernel may leave, and an alert behind it. */
static void end_tls(struct conn *conn)
{
	struct worker *worker = conn->worker;

	tls_say_end(conn->tls);
	push(conn);
	if (conn->send_op.busy)
		timer_set(&worker->timers, &conn->timer,
			  os_mono_add_ms(worker_mono(worker), TLS_END_MS));
}

void conn_close(struct conn *conn)
{
	if (conn->closing)
		return;
	conn->closing = true;
	timer_cancel(&conn->worker->timers, &conn->timer);
	if (conn->recv_op.busy)
		os_cancel(conn->worker->loop, &conn->recv_op);
	if (conn->tls)
		end_tls(conn);
	else if (conn->send_op.busy)
		os_cancel(conn->worker->loop, &conn->send_op);
	list_push_back(&conn->worker->closing, &conn->closing_link);
}

void conn_reap(struct list *closing)
{
	list_each(node, closing) {
		struct conn *conn = container_of(node, struct conn, closing_link);

		if (conn->recv_op.busy || conn->send_op.busy)
			continue;
		list_remove(node);
		timer_cancel(&conn->worker->timers, &conn->timer);
		tls_destroy(conn->tls);
		conn->tls = NULL;
		os_close(conn->fd);
		conn->fd = -EBADF;
		conn->host->closed(conn);
	}
}
