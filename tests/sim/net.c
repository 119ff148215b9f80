/*
 * net - the world's side: hosts, clients, and calls that block a fiber.
 */
#include "tests/sim/net.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/net_wire.h"

enum { WRITE_TIMEOUT_S = 600 };

struct host {
	struct list link;
	struct os_address address;
	void (*serve)(struct sock *sock, void *context);
	void *context;
};

/* A connection on its way to its fiber. */
struct visit {
	const struct host *host;
	struct sock *sock;
};

static struct list hosts = { &hosts, &hosts };

/* ── hosts ────────────────────────────────────────────────────────────────────────── */

void net_host(const struct os_address *address, void (*serve)(struct sock *sock, void *context),
	      void *context)
{
	struct host *host = malloc(sizeof(*host));

	assert(host);
	*host = (struct host){ .address = *address, .serve = serve, .context = context };
	list_init(&host->link);
	list_push_back(&hosts, &host->link);
}

static void visit_run(void *context)
{
	struct visit visit = *(struct visit *)context;

	free(context);
	visit.host->serve(visit.sock, visit.host->context);
}

bool host_take(struct sock *sock)
{
	list_each(node, &hosts) {
		const struct host *host = container_of(node, struct host, link);
		struct visit *visit;
		char name[64], text[OS_ADDRESS_TEXT_MAX];

		if (!os_address_equal(&host->address, &sock->local))
			continue;
		visit = malloc(sizeof(*visit));
		assert(visit);
		*visit = (struct visit){ host, sock };
		snprintf(name, sizeof(name), "%.40s/%u", os_address_text(&host->address, text),
			 sock->connection->number);
		fiber_start(name, visit_run, visit);
		return true;
	}
	return false;
}

/* ── waiting ──────────────────────────────────────────────────────────────────────── */

/* Until something stirs the socket; false at the time. */
static bool sock_wait(struct sock *sock, uint64_t until_ns)
{
	bool woken;

	if (sim_now() >= until_ns)
		return false;
	assert(!sock->waiting && fiber_self());
	sock->waiting = fiber_self();
	woken = fiber_park(until_ns);
	sock->waiting = NULL;
	return woken || sim_now() < until_ns;
}

static uint64_t time_after(uint64_t timeout_ns)
{
	return timeout_ns >= SIM_NEVER - sim_now() ? SIM_NEVER : sim_now() + timeout_ns;
}

/* ── calls ────────────────────────────────────────────────────────────────────────── */

struct sock *net_connect(const struct os_address *from, const struct os_address *to)
{
	struct sock *sock = sock_create();

	sock->remote = *to;
	if (from)
		sock->local = *from;
	else if (to->family == AF_UNIX)
		sock->local.family = AF_UNIX;
	else
		os_address_parse(to->family == AF_INET ? "127.0.0.1" : "::1", 0, &sock->local);
	connection_begin(sock);
	while (!sock->connected && sock->connect_result == 0)
		sock_wait(sock, SIM_NEVER);
	if (sock->connected)
		return sock;
	sock_close(sock, false);
	return NULL;
}

int net_read(struct sock *sock, void *bytes, size_t count, uint64_t timeout_ns)
{
	uint64_t until = time_after(timeout_ns);

	assert(count > 0);
	while (!sock_readable(sock))
		if (!sock_wait(sock, until))
			return -ETIMEDOUT;
	if (inbox_bytes(sock) == 0)
		return sock->broken;
	if (count > inbox_bytes(sock))
		count = inbox_bytes(sock);
	memcpy(bytes, sock->inbox + sock->inbox_begin, count);
	inbox_take(sock, (uint32_t)count);
	return (int)count;
}

size_t net_waiting(const struct sock *sock)
{
	return inbox_bytes(sock);
}

int net_read_line(struct sock *sock, char *line, size_t line_bytes, uint64_t timeout_ns)
{
	uint64_t until = time_after(timeout_ns);
	const char *end;
	size_t len;

	for (;;) {
		const char *begin = sock->inbox + sock->inbox_begin;

		len = inbox_bytes(sock);
		end = len > 0 ? memmem(begin, len, "\r\n", 2) : NULL;
		if (end) {
			len = (size_t)(end - begin);
			break;
		}
		if (len > line_bytes)
			return -EMSGSIZE;
		if (sock->fin || sock->broken)
			return sock->broken;
		if (!sock_wait(sock, until))
			return -ETIMEDOUT;
	}
	if (len >= line_bytes)
		return -EMSGSIZE;
	memcpy(line, sock->inbox + sock->inbox_begin, len);
	line[len] = 0;
	inbox_take(sock, (uint32_t)len + 2);
	return (int)len;
}

int net_write(struct sock *sock, const void *bytes, size_t count)
{
	uint64_t until = time_after(WRITE_TIMEOUT_S * SIM_S);
	const char *at = bytes;

	while (count > 0) {
		size_t sent;

		if (sock->broken)
			return sock->broken;
		sent = wire_send(sock, at, count);
		at += sent;
		count -= sent;
		if (count > 0 && !wire_has_room(sock) && !sock_wait(sock, until))
			return -ETIMEDOUT;
	}
	return 0;
}

int net_printf(struct sock *sock, const char *format, ...)
{
	char *text;
	va_list arguments;
	int count, result;

	va_start(arguments, format);
	count = vasprintf(&text, format, arguments);
	va_end(arguments);
	assert(count >= 0);
	result = net_write(sock, text, (size_t)count);
	free(text);
	return result;
}

bool net_arrived(const struct sock *sock)
{
	return sock_other(sock)->given_bytes == sock->written_bytes;
}

void net_finish(struct sock *sock)
{
	assert(!sock->waiting && sock->fd < 0);
	wire_finish(sock);
}

void net_close(struct sock *sock, bool reset)
{
	assert(!sock->waiting && sock->fd < 0);
	sock_close(sock, reset);
}

/* ── watches ──────────────────────────────────────────────────────────────────────── */

void net_watch(struct sock *sock, struct net_watch *watch)
{
	struct sock *other = sock_other(sock);

	watch->at_bytes = sock->written_bytes;
	watch->arrived = watch->due = false;
	list_init(&watch->link);
	if (other->given_bytes >= watch->at_bytes)
		watch_arrive(other, watch);
	else if (other->closed)
		watch->settled(watch, false);
	else
		list_push_back(&other->watches, &watch->link);
}

void net_watch_close(struct sock *sock, struct net_watch *watch)
{
	struct sock *other = sock_other(sock);

	watch->at_bytes = SIM_NEVER;
	watch->arrived = watch->due = false;
	list_init(&watch->link);
	if (other->closed)
		watch->settled(watch, false);
	else
		list_push_back(&other->watches, &watch->link);
}
