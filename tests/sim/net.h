/*
 * net - a simulated TCP: the daemon's sockets on one side, the world's fibers on the other.
 *
 * Implements os_listen, os_socket, os_local_address, os_peer_address and os_close
 * under the names of os.h; os_connect, os_accept, os_recv and os_send come in through the
 * loop. Bytes travel in segments that take time, arrive in order, in pieces; a connection may
 * break or fall silent at any byte (weather.h). Several listeners on one port (SO_REUSEPORT)
 * get connections by lot. Windows are bounded (64 KiB), so a sender whose peer doesn't read waits.
 *
 * World sockets block the fiber that calls. Nothing here survives a life of the daemon: when it
 * ends, its fibers end with it; what they want to remember is in the arena.
 */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "os/backend.h"
#include "tests/sim/fiber.h"

/* ── for the loop ── */
/* Completes `op` (ACCEPT, CONNECT, RECV, SEND) by loop_complete() on its loop, later, followed by
 * sim_loop_kick(op->loop). */
void net_start(struct os_loop *loop, struct os_op *op);
/* Completes it with -ECANCELED, later. */
void net_cancel(struct os_loop *loop, struct os_op *op);
/* From the loop's take_back. */
void net_take_back(const char *data);
/* Implemented by loop.c of the simulator: `loop` has a completion and must turn. */
void sim_loop_kick(struct os_loop *loop);

/* ── for the world ── */
struct sock; /* opaque: one end of a connection */

/* A model host: from now on connections to it start a fiber that runs `serve`; the socket is
 * the fiber's to close. */
void net_host(const struct os_address *address, void (*serve)(struct sock *sock, void *context),
	      void *context);
/* A client: NULL if nobody listens there or the weather says no. `from` may be NULL (127.0.0.1). */
struct sock *net_connect(const struct os_address *from, const struct os_address *to);

/* At least one byte, at most `bytes`: 0: closed by the daemon; -ETIMEDOUT; -ECONNRESET. */
int net_read(struct sock *sock, void *bytes, size_t count, uint64_t timeout_ns);
/* A line without its CRLF, NUL-terminated: its length, or as net_read() when there is none whole;
 * -EMSGSIZE. */
int net_read_line(struct sock *sock, char *line, size_t line_bytes, uint64_t timeout_ns);
/* 0, or -ECONNRESET, -ETIMEDOUT (10 min). Returns when the bytes are on their way. */
int net_write(struct sock *sock, const void *bytes, size_t count);
int net_printf(struct sock *sock, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Bytes that net_read() would give without waiting. */
size_t net_waiting(const struct sock *sock);
/* True when the daemon has been given every byte written so far (it may not have read its
 * meaning): what the ledger must know about a 250. */
bool net_arrived(const struct sock *sock);
/* FIN after what was written: no more will be; what the daemon says is still read. */
void net_finish(struct sock *sock);
/* FIN after what was written; RST at once with `reset`. Frees it. */
void net_close(struct sock *sock, bool reset);

/* Hears once whether what was written up to now was given to the daemon, also when the writer has
 * closed long before. Embedded in its owner. */
struct net_watch {
	void (*settled)(struct net_watch *watch, bool arrived);
	/* If not NULL, after it has arrived: the daemon believes it. A reply to bytes that may not
	 * have left yet means nothing to it before they have, so this waits for the end of a send
	 * that is under way, and for a turn in which the daemon hears of both; false: the
	 * connection ended before. */
	void (*heard)(struct net_watch *watch, bool heard);
	uint64_t at_bytes; /* private from here */
	bool arrived, due;
	struct list link;
};
/* May be settled, and heard, before this returns. */
void net_watch(struct sock *sock, struct net_watch *watch);
/* Settled, as not arrived, when the daemon has closed the connection. */
void net_watch_close(struct sock *sock, struct net_watch *watch);

/* ── the end of a life ── */
/* Settles all that is still being watched: it did not arrive. Before the ledger hears of the end,
 * also of a crash. */
void net_end(void);
/* Descriptors that the daemon has not closed: none, if it has ended in order. */
uint32_t net_open_count(void);

#endif
