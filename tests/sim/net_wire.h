/*
 * net_wire - what lies between two sockets: segments under way, windows, breaks and silence.
 * Private to net*.c.
 *
 *   writer ── wire_send(to) ──► to->wire: segments, each with its time ── arrival ──► to->inbox
 *                               └──────────── the window bounds both ────────────┘
 *
 * Ownership: a sock belongs to whoever opened it (a descriptor of the daemon, a fiber of the
 * world, a listener's backlog) until sock_close(). The memory of both ends goes with the second
 * close, so that `other` is valid while one of them is open.
 * Thread: there is one.
 */
#ifndef SIM_NET_WIRE_H
#define SIM_NET_WIRE_H

#include "tests/sim/net.h"

struct connection {
	uint32_t number;       /* for the story */
	struct sock *ends[2];  /* who connected; who was called: NULL before the SYN came */
	bool broken;	       /* by a reset: what is sent now is lost */
	bool silent;	       /* stalled: nothing arrives any more */
	uint64_t stall_bytes;  /* it falls silent after so many, of both directions */
	uint64_t moved_bytes;  /* handed to the wire so far */
	uint32_t window_bytes; /* of each direction */
	struct sim_event syn;
};

struct sock {
	struct os_address local, remote;
	struct connection *connection; /* NULL: not connected, or listening */
	int fd;			       /* the daemon's; -1: the world's, or not yet accepted */
	bool closed;

	/* to this end: on the wire, and arrived */
	struct list wire;
	uint32_t wire_bytes;
	uint64_t wire_due_ns; /* of the last segment: they arrive in order */
	struct sim_event arrival;
	char *inbox;
	uint32_t inbox_begin, inbox_end, inbox_size;
	bool fin;   /* all has arrived that will */
	int broken; /* 0, or the error that the owner is to be told */

	/* from this end */
	uint64_t written_bytes; /* by the owner */
	uint64_t given_bytes;	/* to the owner */
	bool shut;		/* the FIN was sent */
	struct list watches;	/* of what the other end has written */

	/* operations of the daemon; they end by these events */
	struct os_op *recv_op; /* accepts on a listening socket */
	struct os_op *send_op; /* or connects */
	struct sim_event recv_event, send_event;
	struct sim_event hear_event; /* what watches have arrived is believed */
	int connect_result;
	bool connected;

	bool listening;
	struct list backlog;   /* of sock.link */
	struct list link;      /* in a backlog, or among the listeners */
	struct fiber *waiting; /* the world's fiber that is blocked in a call */
};

/* A new end that belongs to nobody yet. */
struct sock *sock_create(void);
/* Sends FIN, or RST if `reset` or if not all that came was read; nothing may be in flight. */
void sock_close(struct sock *sock, bool reset);
/* The far end; NULL before there is one. */
struct sock *sock_other(const struct sock *sock);
/* From this end to the other, at most what the window has room for: how many bytes it took. */
size_t wire_send(struct sock *from, const char *bytes, size_t count);
/* FIN, once: no more will be sent from this end. */
void wire_finish(struct sock *from);
bool wire_has_room(const struct sock *from);

static inline uint32_t inbox_bytes(const struct sock *sock)
{
	return sock->inbox_end - sock->inbox_begin;
}

static inline bool sock_readable(const struct sock *sock)
{
	return inbox_bytes(sock) > 0 || sock->fin || sock->broken;
}

/* The first `count` bytes of the inbox were given to the owner. */
void inbox_take(struct sock *sock, uint32_t count);
/* What `watch` waits for was given to the owner, and `watch` is in no list. */
void watch_arrive(struct sock *sock, struct net_watch *watch);
/* The owner's send has ended well: it takes the replies that arrived meanwhile. */
void watches_hear_soon(struct sock *sock);
/* Nobody will read it: what the other side has written did not arrive. */
void watches_fail(struct sock *sock);
/* Something has changed that an operation or a fiber may be waiting for. */
void sock_stir(struct sock *sock);

/* Connects `sock` to whoever is at sock->remote when the SYN arrives; then connected or
 * connect_result is set, and the sock is stirred. */
void connection_begin(struct sock *sock);
/* In net.c: the world's host at that address takes the far end; false: there is none. */
bool host_take(struct sock *sock);
/* In net_daemon.c: a listener of the daemon's at sock->local queues it; false: there is none. */
bool listener_take(struct sock *sock);
/* In net_daemon.c: the daemon's side of sock_stir(). */
void daemon_stir(struct sock *sock);
void daemon_sock_init(struct sock *sock);

#endif
