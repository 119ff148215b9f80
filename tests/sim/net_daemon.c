/*
 * net_daemon - the daemon's side of the net: descriptors, and operations that end by events.
 *
 * An operation does its work when its event runs and not when it is asked for, as a kernel behind
 * a ring may: a buffer that its owner has changed in between is sent as it is then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/net_wire.h"
#include "tests/sim/weather.h"

enum {
	FD_FIRST = 10000, /* below are the files */
	FD_MAX = 4096,
	RECV_BYTES = 65536,
	KERNEL_US = 20, /* what an operation takes, at most, once it can be done */
	LENT_MAGIC = 0x6c656e74,
};

/* A receive buffer, lent to the daemon while its callback runs. */
struct lent {
	uint64_t magic;
	size_t bytes;
	char data[];
};

static struct sock *descriptors[FD_MAX];
static uint32_t open_count;
static struct list listeners = { &listeners, &listeners };

/* ── descriptors ──────────────────────────────────────────────────────────────────── */

static struct sock *sock_of(int fd)
{
	if (fd < FD_FIRST || fd >= FD_FIRST + FD_MAX || !descriptors[fd - FD_FIRST])
		sim_finding("the daemon uses descriptor %d, which is no open socket", fd);
	return descriptors[fd - FD_FIRST];
}

/* The lowest that is free, as a kernel does. */
static int fd_give(struct sock *sock)
{
	for (int i = 0; i < FD_MAX; i++) {
		if (descriptors[i])
			continue;
		descriptors[i] = sock;
		sock->fd = FD_FIRST + i;
		open_count++;
		return sock->fd;
	}
	return -EMFILE;
}

uint32_t net_open_count(void)
{
	return open_count;
}

void net_end(void)
{
	for (int i = 0; i < FD_MAX; i++)
		if (descriptors[i])
			watches_fail(descriptors[i]);
}

/* ── calls of os.h ────────────────────────────────────────────────────────────────── */

static bool listens_at(const struct sock *listener, const struct os_address *address)
{
	struct os_address wide = *address;

	if (os_address_is_any(&listener->local))
		memset(wide.ip, 0, sizeof(wide.ip));
	return os_address_equal(&listener->local, &wide);
}

/* One daemon lives in a world. */
int os_listen_try(const struct os_address *address)
{
	(void)address;
	return 0;
}

int os_listen(const struct os_address *address, int backlog)
{
	struct sock *sock;
	int fd;

	(void)backlog;
	list_each(node, &listeners)
		if (address->family == AF_UNIX &&
		    listens_at(container_of(node, struct sock, link), address))
			return -EADDRINUSE;
	sock = sock_create();
	sock->local = *address;
	sock->listening = true;
	fd = fd_give(sock);
	assert(fd >= 0);
	list_push_back(&listeners, &sock->link);
	return fd;
}

int os_socket(sa_family_t family, const struct os_address *source)
{
	struct sock *sock;
	int fd;

	if (sim_chance(weather()->connect_fails / 8))
		return -EMFILE;
	sock = sock_create();
	sock->local.family = family;
	if (source)
		sock->local = *source;
	else if (family == AF_INET)
		os_address_parse("127.0.0.1", 0, &sock->local);
	else if (family == AF_INET6)
		os_address_parse("::1", 0, &sock->local);
	fd = fd_give(sock);
	if (fd < 0)
		sock_close(sock, false);
	return fd;
}

int os_local_address(int fd, struct os_address *out)
{
	*out = sock_of(fd)->local;
	return 0;
}

int os_peer_address(int fd, struct os_address *out)
{
	const struct sock *sock = sock_of(fd);

	if (!sock->connected || sock->broken)
		return -ENOTCONN;
	*out = sock->remote;
	if (out->family == AF_UNIX)
		*out = (struct os_address){ .family = AF_UNIX };
	return 0;
}

void os_close(int fd)
{
	struct sock *sock;

	if (fd < FD_FIRST) { /* the call for any descriptor that must not block */
		os_file_close(fd);
		return;
	}
	sock = sock_of(fd);
	if (sock->recv_op || sock->send_op)
		sim_finding("the daemon closes descriptor %d with an operation in flight", fd);
	descriptors[fd - FD_FIRST] = NULL;
	open_count--;
	if (sock->listening)
		list_remove(&sock->link);
	for (struct list *node; (node = list_pop_front(&sock->backlog));)
		sock_close(container_of(node, struct sock, link), true);
	sock_close(sock, false);
}

void os_connect(struct os_loop *loop, struct os_op *op, int fd, const struct os_address *address)
{
	struct sock *sock = sock_of(fd);

	if (sock->connection || sock->listening)
		sim_finding("the daemon connects descriptor %d twice", fd);
	sock->remote = *address;
	loop_start(loop, op, OP_CONNECT, fd);
}

/* ── the ends of operations ───────────────────────────────────────────────────────── */

static void soon(struct sim_event *event)
{
	if (!event->armed)
		sim_after(event, sim_below(KERNEL_US * SIM_US));
}

/* `slot`: where the socket keeps it. */
static void complete(struct os_op **slot, int32_t result)
{
	struct os_op *op = *slot;

	*slot = NULL;
	loop_complete(op->loop, op, result);
	sim_loop_kick(op->loop);
}

/* A connection that waits, or the answer to a cancel; by lot if both could be. */
static void accept_try(struct sock *listener)
{
	struct os_op *op = listener->recv_op;
	bool there = !list_empty(&listener->backlog);

	if (op->cancelled && (!there || sim_below(2) == 0)) {
		complete(&listener->recv_op, -ECANCELED);
	} else if (there) {
		struct list *node = list_pop_front(&listener->backlog);
		struct sock *sock = container_of(node, struct sock, link);
		int fd = sock->broken && sim_below(2) == 0 ? -ECONNABORTED : fd_give(sock);

		if (fd < 0)
			sock_close(sock, true);
		complete(&listener->recv_op, fd);
	}
}

static void recv_bytes(struct sock *sock)
{
	uint32_t count = inbox_bytes(sock);
	struct lent *lent;

	if (count > RECV_BYTES)
		count = RECV_BYTES;
	if (sim_below(1000) < weather()->split_permille)
		count = 1 + (uint32_t)sim_below(count);
	lent = malloc(sizeof(*lent) + count);
	assert(lent);
	lent->magic = LENT_MAGIC;
	lent->bytes = count;
	memcpy(lent->data, sock->inbox + sock->inbox_begin, count);
	sock->recv_op->data = lent->data;
	complete(&sock->recv_op, (int32_t)count);
	inbox_take(sock, count);
}

static void recv_try(struct sock *sock)
{
	struct os_op *op = sock->recv_op;

	op->data = NULL;
	if (op->cancelled && (!sock_readable(sock) || sim_below(2) == 0))
		complete(&sock->recv_op, -ECANCELED);
	else if (inbox_bytes(sock) > 0)
		recv_bytes(sock);
	else if (sock_readable(sock))
		complete(&sock->recv_op, sock->broken);
}

static void on_recv_event(struct sim_event *event)
{
	struct sock *sock = container_of(event, struct sock, recv_event);

	if (sock->recv_op && sock->listening)
		accept_try(sock);
	else if (sock->recv_op)
		recv_try(sock);
}

/* Moves what the window takes; true when nothing is left. op->result counts. */
static bool send_some(struct sock *sock, struct os_op *op)
{
	struct iovec *partial = &op->u.send.partial;

	for (;;) {
		size_t sent;

		if (partial->iov_len == 0) {
			if (op->u.send.next_count == 0)
				return true;
			*partial = *op->u.send.next++;
			op->u.send.next_count--;
			continue;
		}
		sent = wire_send(sock, partial->iov_base, partial->iov_len);
		if (sent == 0)
			return false;
		partial->iov_base = (char *)partial->iov_base + sent;
		partial->iov_len -= sent;
		op->result += (int32_t)sent;
	}
}

/* All has left. Who gives up does not listen any more. */
static void send_end(struct sock *sock)
{
	bool listens = !sock->send_op->cancelled;

	complete(&sock->send_op, sock->send_op->result);
	if (listens)
		watches_hear_soon(sock);
}

static void send_try(struct sock *sock)
{
	struct os_op *op = sock->send_op;
	bool failed = sock->broken || sock->shut;

	if (op->cancelled && (op->result > 0 || sim_below(2) == 0))
		complete(&sock->send_op, op->result > 0 ? op->result : -ECANCELED);
	else if (failed)
		complete(&sock->send_op, op->result > 0	     ? op->result
					 : sock->shut	     ? -EPIPE
					 : sim_below(2) == 0 ? -EPIPE
							     : sock->broken);
	else if (send_some(sock, op))
		send_end(sock);
	else if (op->cancelled)
		complete(&sock->send_op, op->result > 0 ? op->result : -ECANCELED);
}

/* Also the world's connects end here. */
static void connect_try(struct sock *sock)
{
	struct os_op *op = sock->send_op;

	if (op && op->cancelled) {
		complete(&sock->send_op, -ECANCELED);
		return;
	}
	sock->connected = sock->connect_result == 0;
	if (op)
		complete(&sock->send_op, sock->connect_result);
	else
		sock_stir(sock);
}

static void on_send_event(struct sim_event *event)
{
	struct sock *sock = container_of(event, struct sock, send_event);

	if (!sock->connected)
		connect_try(sock);
	else if (sock->send_op)
		send_try(sock);
}

void daemon_sock_init(struct sock *sock)
{
	sock->recv_event.run = on_recv_event;
	sock->send_event.run = on_send_event;
}

void daemon_stir(struct sock *sock)
{
	if (sock->recv_op && (sock->listening ? !list_empty(&sock->backlog) : sock_readable(sock)))
		soon(&sock->recv_event);
	if (sock->send_op && sock->connected && (sock->broken || wire_has_room(sock)))
		soon(&sock->send_event);
}

bool listener_take(struct sock *sock)
{
	struct sock *chosen = NULL;
	uint64_t count = 0;

	list_each(node, &listeners) {
		struct sock *listener = container_of(node, struct sock, link);

		if (listens_at(listener, &sock->local) && sim_below(++count) == 0)
			chosen = listener;
	}
	if (!chosen)
		return false;
	list_push_back(&chosen->backlog, &sock->link);
	sock_stir(chosen);
	return true;
}

/* ── for the loop ─────────────────────────────────────────────────────────────────── */

static void slot_take(struct os_op **slot, struct os_op *op)
{
	if (*slot)
		sim_finding("the daemon has two operations of a kind on descriptor %d", op->fd);
	*slot = op;
}

void net_start(struct os_loop *loop, struct os_op *op)
{
	struct sock *sock = sock_of(op->fd);
	bool accepts = op->kind == OP_ACCEPT, connects = op->kind == OP_CONNECT;

	assert(op->loop == loop);
	if (accepts != sock->listening || (!accepts && !connects && !sock->connected))
		sim_finding("an operation of kind %d on descriptor %d, which is not connected",
			    op->kind, op->fd);
	if (accepts || op->kind == OP_RECV)
		slot_take(&sock->recv_op, op);
	else
		slot_take(&sock->send_op, op);
	if (connects)
		connection_begin(sock);
	else if (op->kind == OP_SEND)
		soon(&sock->send_event);
	else
		daemon_stir(sock);
}

void net_cancel(struct os_loop *loop, struct os_op *op)
{
	struct sock *sock = sock_of(op->fd);

	assert(op->loop == loop && (op == sock->recv_op || op == sock->send_op));
	if (op == sock->recv_op) {
		soon(&sock->recv_event);
		return;
	}
	if (op->kind == OP_CONNECT)
		sim_cancel_event(&sock->send_event); /* the answer, which may be far away */
	soon(&sock->send_event);
}

void net_take_back(const char *data)
{
	struct lent *lent = (struct lent *)(data - offsetof(struct lent, data));

	assert(lent->magic == LENT_MAGIC);
	memset(lent, 0xdd, sizeof(*lent) + lent->bytes);
	free(lent);
}
