#include "bench/wire.h"

static void on_recv(struct os_op *op);
static void on_send(struct os_op *op);

void wire_start(struct wire *wire, struct os_loop *loop, int fd)
{
	assert(wire->on_bytes != NULL && wire->on_end != NULL);
	wire->loop = loop;
	wire->fd = fd;
	wire->recv_op.done = on_recv;
	wire->send_op.done = on_send;
	os_recv(loop, &wire->recv_op, fd);
}

/* Ends the wire if it is to end and nothing is in flight. */
static void wire_end_if_idle(struct wire *wire)
{
	if (!wire->closing || wire->recv_op.busy || wire->send_op.busy)
		return;
	os_close(wire->fd);
	buffer_free(&wire->out[0]);
	buffer_free(&wire->out[1]);
	wire->on_end(wire);
}

void wire_flush(struct wire *wire)
{
	struct buffer *out = wire_out(wire);

	if (wire->send_op.busy || out->length == 0 || wire->closing)
		return;
	wire->iov = (struct iovec){ out->at, out->length };
	wire->gathering ^= 1;
	assert(wire_out(wire)->length == 0);
	os_send(wire->loop, &wire->send_op, wire->fd, &wire->iov, 1);
}

static void on_send(struct os_op *op)
{
	struct wire *wire = container_of(op, struct wire, send_op);
	struct buffer *sent = &wire->out[wire->gathering ^ 1];

	if (op->result < (int32_t)sent->length && !wire->closing) {
		wire_close(wire);
		return;
	}
	sent->length = 0;
	wire_flush(wire);
	if (wire->finishing && !wire->send_op.busy && !wire->closing)
		wire_close(wire);
	else
		wire_end_if_idle(wire);
}

static void on_recv(struct os_op *op)
{
	struct wire *wire = container_of(op, struct wire, recv_op);
	struct span bytes = span_of(op->data, op->result > 0 ? (size_t)op->result : 0);

	if (op->result <= 0 || wire->closing) {
		wire_close(wire);
		return;
	}
	/* The next receive is under way before the bytes are looked at, so that the wire
	 * cannot end, and go, inside on_bytes. */
	if (!wire->paused)
		os_recv(wire->loop, op, wire->fd);
	wire->on_bytes(wire, bytes);
}

void wire_close(struct wire *wire)
{
	wire->closing = true;
	if (wire->recv_op.busy)
		os_cancel(wire->loop, &wire->recv_op);
	if (wire->send_op.busy)
		os_cancel(wire->loop, &wire->send_op);
	wire_end_if_idle(wire);
}

void wire_finish(struct wire *wire)
{
	wire->finishing = true;
	wire_flush(wire);
	if (!wire->send_op.busy)
		wire_close(wire);
}

void wire_pause(struct wire *wire)
{
	wire->paused = true;
}

void wire_resume(struct wire *wire)
{
	wire->paused = false;
	if (!wire->recv_op.busy && !wire->closing)
		os_recv(wire->loop, &wire->recv_op, wire->fd);
}
