#include "bench/wire.h"

static void on_recv(struct os_op *op);
static void on_send(struct os_op *op);

static void flush_records(struct wire *wire);

void wire_start(struct wire *wire, struct os_loop *loop, int fd)
{
	assert(wire->on_bytes != NULL && wire->on_end != NULL);
	wire->loop = loop;
	wire->fd = fd;
	wire->recv_op.done = on_recv;
	wire->send_op.done = on_send;
	if (wire->tls && tls_handshake(wire->tls) == TLS_MORE)
		flush_records(wire); /* a client begins */
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
	tls_destroy(wire->tls);
	free(wire->records);
	wire->on_end(wire);
}

/* What has gathered, in records, and what TLS has to say itself. */
static void flush_records(struct wire *wire)
{
	static _Thread_local char gather[TLS_RECORD_BYTES];
	struct buffer *out = wire_out(wire);
	struct iovec plain = { out->at, out->length };
	size_t len;

	if (wire->send_op.busy || wire->closing)
		return;
	if (wire->shaken && out->length > 0) {
		tls_encrypt(wire->tls, &plain, 1, 0, SIZE_MAX, gather);
		out->length = 0;
	}
	wire->records = tls_output_take(wire->tls, &len);
	if (!wire->records)
		return;
	wire->iov = (struct iovec){ wire->records, len };
	os_send(wire->loop, &wire->send_op, wire->fd, &wire->iov, 1);
}

void wire_flush(struct wire *wire)
{
	struct buffer *out = wire_out(wire);

	if (wire->tls) {
		flush_records(wire);
		return;
	}
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

	free(wire->records);
	wire->records = NULL;
	if (op->result < (int32_t)wire->iov.iov_len && !wire->closing) {
		wire_close(wire);
		return;
	}
	if (!wire->tls)
		wire->out[wire->gathering ^ 1].length = 0;
	wire_flush(wire);
	if (wire->finishing && !wire->send_op.busy && !wire->closing)
		wire_close(wire);
	else
		wire_end_if_idle(wire);
}

/* The plaintext in these records; empty: none, or the wire is to be closed. */
static struct span plain_of(struct wire *wire, struct span records)
{
	static _Thread_local char plain[(64 << 10) + 2 * TLS_RECORD_BYTES];
	size_t count = 0;

	tls_feed(wire->tls, records);
	if (!wire->shaken) {
		enum tls_status status = tls_handshake(wire->tls);

		wire->shaken = status == TLS_OK;
		flush_records(wire);
		if (status == TLS_FAILED)
			wire->closing = true;
		if (!wire->shaken)
			return span_of("", 0);
	}
	if (tls_decrypt(wire->tls, plain, sizeof(plain), &count) != TLS_OK && count == 0)
		wire->closing = true;
	return span_of(plain, count);
}

static void on_recv(struct os_op *op)
{
	struct wire *wire = container_of(op, struct wire, recv_op);
	struct span bytes = span_of(op->data, op->result > 0 ? (size_t)op->result : 0);

	if (op->result <= 0 || wire->closing) {
		wire_close(wire);
		return;
	}
	if (wire->tls) {
		bytes = plain_of(wire, bytes);
		if (bytes.len == 0) {
			if (wire->closing)
				wire_close(wire);
			else
				os_recv(wire->loop, op, wire->fd);
			return;
		}
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
