/*
 * conn - one TCP connection of a worker: its operations, its deadline, its orderly end.
 *
 *   conn_open / conn_connect ──► received, sent ... ──► conn_close() ──► closed
 *
 * Promise: after conn_close() the owner hears nothing but `closed`, once, at the end of a
 * turn, when nothing is in flight and the descriptor is closed; then the memory is its own.
 *
 * Thread: its worker.
 */
#ifndef ENGINE_CONN_H
#define ENGINE_CONN_H

#include "engine/timer.h"
#include "engine/worker.h"
#include "os/os.h"

struct conn;

struct conn_host {
	/* NULL for accepted connections. 0 or -errno. */
	void (*connected)(struct conn *conn, int result);
	/* Lent during the call. Asks for no more by itself: conn_recv(). */
	void (*received)(struct conn *conn, struct span bytes);
	void (*sent)(struct conn *conn, size_t count);
	/* The peer closed (0), or -errno. */
	void (*lost)(struct conn *conn, int error);
	void (*deadline)(struct conn *conn);
	void (*closed)(struct conn *conn);
};

struct conn {
	const struct conn_host *host;
	struct worker *worker;
	int fd;
	bool closing;
	struct os_op recv_op, send_op; /* send_op connects, too */
	struct timer timer;
	struct list closing_link;
};

/* Takes over a connected descriptor. */
void conn_open(struct conn *conn, struct worker *worker, const struct conn_host *host, int fd);
/* 0, or -errno if there is no socket to be had: then nothing is to be closed. */
int conn_connect(struct conn *conn, struct worker *worker, const struct conn_host *host,
		 const struct os_address *to, const struct os_address *source);

void conn_recv(struct conn *conn); /* no-op while one is under way */
static inline bool conn_sending(const struct conn *conn)
{
	return conn->send_op.busy;
}
/* All of it; `vectors` and what they name stay until `sent`. Not while sending. */
void conn_send(struct conn *conn, const struct iovec *vectors, int count);
/* From now on; 0: none. */
void conn_deadline(struct conn *conn, uint32_t ms);
void conn_close(struct conn *conn);

/* At the end of a turn: closes what can be closed. */
void conn_reap(struct list *closing);

#endif
