/*
 * socket - sockets before and after their life on a loop.
 *
 * Whether sockets block, as the kernel sees them, is the backend's wish: io_uring waits by itself,
 * and would hand EAGAIN through to us if they did not; epoll must never wait inside a call.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/backend.h"

/* The kernel's form; its length, 0 for an address of no family. */
static socklen_t address_to_kernel(const struct os_address *address, struct sockaddr_un *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	out->sun_family = address->family;
	switch (address->family) {
	case AF_UNIX:
		strcpy(out->sun_path, address->path);
		return sizeof(*out);
	case AF_INET:
		in->sin_port = htons(address->port);
		memcpy(&in->sin_addr, address->ip, 4);
		return sizeof(*in);
	case AF_INET6:
		in6->sin6_port = htons(address->port);
		in6->sin6_scope_id = address->scope_id;
		memcpy(&in6->sin6_addr, address->ip, 16);
		return sizeof(*in6);
	default:
		return 0;
	}
}

static void address_from_kernel(const struct sockaddr_un *from, socklen_t length,
				struct os_address *out)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;

	*out = (struct os_address){ .family = from->sun_family };
	switch (from->sun_family) {
	case AF_UNIX:
		/* The far end of a UNIX connection has no name: nothing but the family. */
		if (length > offsetof(struct sockaddr_un, sun_path))
			/* One that fills its field has no end. */
			snprintf(out->path, sizeof(out->path), "%.*s", (int)sizeof(out->path) - 1,
				 from->sun_path);
		break;
	case AF_INET:
		out->port = ntohs(in->sin_port);
		memcpy(out->ip, &in->sin_addr, 4);
		break;
	case AF_INET6:
		out->port = ntohs(in6->sin6_port);
		out->scope_id = in6->sin6_scope_id;
		memcpy(out->ip, &in6->sin6_addr, 16);
		break;
	}
}

/* ── sockets ──────────────────────────────────────────────────────────────────────── */

static int socket_option(int fd, int level, int option)
{
	int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on)) == 0 ? 0 : -errno;
}

/* The result of a step of making a socket: closes it if the step failed. */
static int socket_or_close(int fd, int result)
{
	if (result == 0)
		return fd;
	close(fd);
	return result;
}

/* A socket that an earlier process left behind: nobody accepts connections on it. */
static bool unix_is_stale(const struct sockaddr_un *name, socklen_t length)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)name, length) != 0 &&
		       errno == ECONNREFUSED;
	struct stat info;

	if (fd >= 0)
		close(fd);
	return refused && lstat(name->sun_path, &info) == 0 && S_ISSOCK(info.st_mode);
}

static int socket_bind(int fd, const struct os_address *address)
{
	struct sockaddr_un name;
	socklen_t length = address_to_kernel(address, &name);

	if (bind(fd, (struct sockaddr *)&name, length) == 0)
		return 0;
	if (errno != EADDRINUSE || address->family != AF_UNIX)
		return -errno;
	if (!unix_is_stale(&name, length) || unlink(name.sun_path) != 0)
		return -EADDRINUSE;
	return bind(fd, (struct sockaddr *)&name, length) == 0 ? 0 : -errno;
}

int os_listen_try(const struct os_address *address)
{
	int fd, result = 0;

	if (address->family == AF_UNIX)
		return 0;
	fd = socket(address->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	result = socket_option(fd, SOL_SOCKET, SO_REUSEADDR);
	if (result == 0 && address->family == AF_INET6)
		result = socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (result == 0)
		result = socket_bind(fd, address);
	close(fd);
	return result;
}

int os_listen(const struct os_address *address, int backlog)
{
	int fd = socket(address->family, SOCK_STREAM | SOCK_CLOEXEC | loop_socket_flags(), 0);
	int result = 0;

	if (fd < 0)
		return -errno;
	if (address->family != AF_UNIX) {
		result = socket_option(fd, SOL_SOCKET, SO_REUSEADDR);
		if (result == 0)
			result = socket_option(fd, SOL_SOCKET, SO_REUSEPORT);
		/* Accepted connections inherit it, at no call of their own. */
		if (result == 0)
			result = socket_option(fd, IPPROTO_TCP, TCP_NODELAY);
	}
	if (result == 0 && address->family == AF_INET6)
		result = socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY);
	if (result == 0)
		result = socket_bind(fd, address);
	if (result == 0 && listen(fd, backlog) != 0)
		result = -errno;
	return socket_or_close(fd, result);
}

int os_socket(sa_family_t family, const struct os_address *source)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | loop_socket_flags(), 0);
	int result = 0;

	if (fd < 0)
		return -errno;
	if (family != AF_UNIX)
		result = socket_option(fd, IPPROTO_TCP, TCP_NODELAY);
	if (result == 0 && source != NULL) {
		/* Takes the port at connect, when the far end makes it unique: else one source
		 * address had only some 28,000 connections to all of the world. */
		if (family != AF_UNIX && source->port == 0)
			result = socket_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
		if (result == 0)
			result = socket_bind(fd, source);
	}
	return socket_or_close(fd, result);
}

int os_local_address(int fd, struct os_address *out)
{
	struct sockaddr_un name;
	socklen_t length = sizeof(name);

	if (getsockname(fd, (struct sockaddr *)&name, &length) != 0)
		return -errno;
	address_from_kernel(&name, length, out);
	return 0;
}

int os_peer_address(int fd, struct os_address *out)
{
	struct sockaddr_un name;
	socklen_t length = sizeof(name);

	if (getpeername(fd, (struct sockaddr *)&name, &length) != 0)
		return -errno;
	address_from_kernel(&name, length, out);
	return 0;
}

void os_connect(struct os_loop *loop, struct os_op *op, int fd, const struct os_address *address)
{
	assert(!op->busy);
	op->u.connect.length = address_to_kernel(address, &op->u.connect.address);
	loop_start(loop, op, OP_CONNECT, fd);
}

/* Descriptors that share a place here only look closed to each other, see socket_closings(). */
static _Atomic uint32_t closings[1 << 16];

static _Atomic uint32_t *closings_of(int fd)
{
	return &closings[(uint32_t)fd % array_count(closings)];
}

uint32_t socket_closings(int fd)
{
	/* relaxed: whoever has the number again has it from the kernel, whose lock on the table
	 * of descriptors orders this behind the close. */
	return atomic_load_explicit(closings_of(fd), memory_order_relaxed);
}

void os_close(int fd)
{
	/* Before the close, behind which the number may be another thread's. */
	atomic_fetch_add_explicit(closings_of(fd), 1, memory_order_relaxed);
	close(fd);
}
