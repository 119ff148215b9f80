/*
 * conn - one TCP connection of a worker: its operations, its deadline, its orderly end, and
 * the TLS that it may have.
 *
 *   conn_open / conn_connect ──► received, sent ... ──► conn_close() ──► closed
 *                    conn_start_tls() ──► secured ──► received, sent ...
 *
 * Promise: after conn_close() the owner hears nothing but `closed`, once, at the end of a
 * turn, when nothing is in flight and the descriptor is closed; then the memory is its own.
 * With TLS the owner sends and receives plaintext by the same functions; all that has been
 * decrypted is handed over at once, so nothing waits inside while the socket is silent. The
 * end of TLS is said to the peer, for which a second is given.
 *
 * Thread: its worker.
 */
#ifndef ENGINE_CONN_H
#define ENGINE_CONN_H

#include "engine/timer.h"
#include "engine/tls/tls.h"
#include "engine/worker.h"
#include "os/os.h"

struct conn;

/* A worker's, for whichever of its connections is at it. */
struct tls_scratch {
	char plain[84 << 10]; /* a receive buffer's worth, and a record that had begun before */
	char gather[TLS_RECORD_BYTES];
};

struct conn_host {
	/* A broken send is no `lost` yet: what the peer had said before is received first, and
	 * nothing is to be sent meanwhile (conn_breaking()). And `lost` comes only when what is
	 * being sent was stopped and told by `sent`. */
	bool hears_out;
	/* NULL for accepted connections. 0 or -errno. */
	void (*connected)(struct conn *conn, int result);
	/* Lent during the call. Asks for no more by itself: conn_recv(). */
	void (*received)(struct conn *conn, struct span bytes);
	void (*sent)(struct conn *conn, size_t count);
	/* The handshake is over; `failure` NULL: TLS is on, conn_facts() says which. */
	void (*secured)(struct conn *conn, const char *failure);
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
	bool sending;  /* for the owner: until `sent` */
	bool breaking; /* `lost` will come, with this error */
	int break_error;
	struct os_op recv_op, send_op; /* send_op connects, too */
	struct timer timer;
	struct list closing_link;

	/* TLS */
	struct tls *tls; /* owned; NULL: in clear */
	bool handshaking;
	char *flying; /* owned: records with the kernel */
	struct iovec flying_vector;
	const struct iovec *plain; /* the owner's, while `sending` */
	int plain_count;
	size_t plain_bytes, plain_done, plain_flying;
};

/* Takes over a connected descriptor. */
void conn_open(struct conn *conn, struct worker *worker, const struct conn_host *host, int fd);
/* 0, or -errno if there is no socket to be had: then nothing is to be closed. */
int conn_connect(struct conn *conn, struct worker *worker, const struct conn_host *host,
		 const struct os_address *to, const struct os_address *source);

/* Takes `tls` and begins with it; nothing may be on its way out. False: it failed at once (nothing
 * is said to the host), and the connection is of no use. */
bool conn_start_tls(struct conn *conn, struct tls *tls);
/* Right after conn_start_tls(): bytes that came before it, and are TLS's. */
void conn_feed_tls(struct conn *conn, struct span bytes);
/* After `secured`, as long as the connection is there; NULL: in clear. */
static inline const struct tls_facts *conn_facts(const struct conn *conn)
{
	return conn->tls && !conn->handshaking ? tls_facts(conn->tls) : NULL;
}

void conn_recv(struct conn *conn); /* no-op while one is under way */
static inline bool conn_sending(const struct conn *conn)
{
	return conn->sending;
}
static inline bool conn_breaking(const struct conn *conn)
{
	return conn->breaking;
}
/* All of it; `vectors` and what they name stay until `sent`. Not while sending. */
void conn_send(struct conn *conn, const struct iovec *vectors, int count);
/* From now on; 0: none. */
void conn_deadline(struct conn *conn, uint32_t ms);
void conn_close(struct conn *conn);

/* At the end of a turn: closes what can be closed. */
void conn_reap(struct list *closing);

#endif
