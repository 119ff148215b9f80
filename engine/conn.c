#include "engine/conn.h"

#include <errno.h>

static void on_recv(struct os_op *op)
{
	struct conn *conn = container_of(op, struct conn, recv_op);

	assert(conn->worker == worker_self());
	if (conn->closing)
		return; /* the answer to our cancel */
	if (op->result > 0)
		conn->host->received(conn, span_of(op->data, (size_t)op->result));
	else
		conn->host->lost(conn, op->result);
}

static void on_send(struct os_op *op)
{
	struct conn *conn = container_of(op, struct conn, send_op);

	assert(conn->worker == worker_self());
	if (conn->closing)
		return;
	if (op->result >= 0)
		conn->host->sent(conn, (size_t)op->result);
	else
		conn->host->lost(conn, op->result);
}

static void on_connect(struct os_op *op)
{
	struct conn *conn = container_of(op, struct conn, send_op);

	if (conn->closing)
		return;
	conn->send_op.done = on_send;
	conn->host->connected(conn, op->result);
}

static void on_timer(struct timer *timer)
{
	struct conn *conn = container_of(timer, struct conn, timer);

	conn->host->deadline(conn);
}

void conn_open(struct conn *conn, struct worker *worker, const struct conn_host *host, int fd)
{
	conn->host = host;
	conn->worker = worker;
	conn->fd = fd;
	conn->closing = false;
	conn->recv_op = (struct os_op){ .done = on_recv };
	conn->send_op = (struct os_op){ .done = on_send };
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
	assert(!conn->send_op.busy && !conn->closing);
	assert(count > 0);
	os_send(conn->worker->loop, &conn->send_op, conn->fd, vectors, count);
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

void conn_close(struct conn *conn)
{
	if (conn->closing)
		return;
	conn->closing = true;
	timer_cancel(&conn->worker->timers, &conn->timer);
	if (conn->recv_op.busy)
		os_cancel(conn->worker->loop, &conn->recv_op);
	if (conn->send_op.busy)
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
		os_close(conn->fd);
		conn->fd = -EBADF;
		conn->host->closed(conn);
	}
}
