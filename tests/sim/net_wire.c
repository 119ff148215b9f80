#include "tests/sim/net_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/weather.h"

enum {
	WINDOW_BYTES = 65536,
	PIECES_MAX = 4, /* of a segment that is split */
	EPHEMERAL_FIRST = 32768,
	EPHEMERAL_COUNT = 28000,
	CONNECT_TIMEOUT_S = 130,
};

/* By then a daemon that gives up for want of memory, in the turn in which it hears of what was
 * completed, has closed the connection. */
#define TURN_NS_MAX (50 * SIM_US)

enum segment_kind { SEGMENT_DATA, SEGMENT_FIN, SEGMENT_RESET };

struct segment {
	struct list link;
	uint64_t due_ns; /* SIM_NEVER: the connection has fallen silent */
	enum segment_kind kind;
	uint32_t bytes;
	char data[];
};

static uint32_t connection_count;

/* ── the wire ─────────────────────────────────────────────────────────────────────── */

static uint64_t wire_delay_ns(void)
{
	uint64_t typical = weather()->net_us * SIM_US;
	uint64_t delay = typical / 2 + sim_below(typical + 1);

	return sim_below(64) == 0 ? delay * (2 + sim_below(20)) : delay;
}

struct sock *sock_other(const struct sock *sock)
{
	struct connection *connection = sock->connection;

	return connection->ends[connection->ends[0] == sock];
}

static void arrival_arm(struct sock *to)
{
	uint64_t due, now = sim_now();

	if (list_empty(&to->wire) || to->arrival.armed)
		return;
	due = list_first(&to->wire, struct segment, link)->due_ns;
	if (due != SIM_NEVER)
		sim_after(&to->arrival, due > now ? due - now : 0);
}

static void segment_push(struct sock *to, enum segment_kind kind, const char *data, size_t bytes)
{
	struct segment *segment = malloc(sizeof(*segment) + bytes);
	uint64_t due = sim_now() + wire_delay_ns();

	assert(segment);
	if (due > to->wire_due_ns)
		to->wire_due_ns = due;
	*segment = (struct segment){
		.due_ns = to->connection->silent ? SIM_NEVER : to->wire_due_ns,
		.kind = kind,
		.bytes = (uint32_t)bytes,
	};
	if (bytes > 0)
		memcpy(segment->data, data, bytes);
	list_init(&segment->link);
	list_push_back(&to->wire, &segment->link);
	to->wire_bytes += (uint32_t)bytes;
	to->connection->moved_bytes += bytes;
	arrival_arm(to);
}

static void wire_clear(struct sock *to)
{
	for (struct list *node; (node = list_pop_front(&to->wire));)
		free(container_of(node, struct segment, link));
	to->wire_bytes = 0;
	sim_cancel_event(&to->arrival);
}

/* To one end; what was on its way there arrives before, or is lost. */
static void reset_push(struct sock *to)
{
	if (to->closed)
		return;
	if (sim_below(2) == 0)
		wire_clear(to);
	segment_push(to, SEGMENT_RESET, NULL, 0);
}

/* Somebody on the way, or one end, has had enough. */
static void connection_break(struct connection *connection, const char *why)
{
	if (connection->broken)
		return;
	connection->broken = true;
	sim_trace("connection %u breaks: %s", connection->number, why);
	reset_push(connection->ends[0]);
	reset_push(connection->ends[1]);
}

static void pieces_push(struct sock *to, const char *bytes, size_t count)
{
	for (int pieces = 1; pieces < PIECES_MAX && count > 1; pieces++) {
		size_t piece;

		if (sim_below(1000) >= weather()->split_permille)
			break;
		piece = 1 + sim_below(count - 1);
		segment_push(to, SEGMENT_DATA, bytes, piece);
		bytes += piece;
		count -= piece;
	}
	if (count > 0)
		segment_push(to, SEGMENT_DATA, bytes, count);
}

/* What comes before the byte at which this connection falls silent goes on its way. */
static size_t silence_reach(struct sock *to, const char *bytes, size_t count)
{
	struct connection *connection = to->connection;
	uint64_t left = connection->stall_bytes - connection->moved_bytes;

	if (connection->silent || left >= count)
		return 0;
	pieces_push(to, bytes, left);
	connection->silent = true;
	sim_trace("connection %u falls silent", connection->number);
	return left;
}

static size_t wire_room(const struct sock *from)
{
	const struct sock *to = sock_other(from);
	uint32_t used = to->wire_bytes + inbox_bytes(to);

	if (from->connection->broken || to->closed)
		return from->connection->window_bytes;
	return used < from->connection->window_bytes ? from->connection->window_bytes - used : 0;
}

bool wire_has_room(const struct sock *from)
{
	return wire_room(from) > 0;
}

size_t wire_send(struct sock *from, const char *bytes, size_t count)
{
	struct sock *to = sock_other(from);
	struct connection *connection = from->connection;
	size_t room = wire_room(from), silent;

	assert(!from->shut);
	if (count > room)
		count = room;
	from->written_bytes += count;
	if (connection->broken || count == 0)
		return count;
	if (to->closed) {
		connection_break(connection, "nobody reads it");
		return count;
	}
	silent = silence_reach(to, bytes, count);
	if (!connection->silent && sim_chance(weather()->resets)) {
		pieces_push(to, bytes, sim_below(count + 1));
		connection_break(connection, "the weather");
		return count;
	}
	pieces_push(to, bytes + silent, count - silent);
	return count;
}

void wire_finish(struct sock *from)
{
	struct sock *to = sock_other(from);

	if (from->shut)
		return;
	from->shut = true;
	if (!from->connection->broken && to && !to->closed)
		segment_push(to, SEGMENT_FIN, NULL, 0);
}

/* ── arrival ──────────────────────────────────────────────────────────────────────── */

static void inbox_append(struct sock *sock, const char *bytes, uint32_t count)
{
	if (sock->inbox_begin > 0) {
		memmove(sock->inbox, sock->inbox + sock->inbox_begin, inbox_bytes(sock));
		sock->inbox_end -= sock->inbox_begin;
		sock->inbox_begin = 0;
	}
	if (sock->inbox_size - sock->inbox_end < count) {
		sock->inbox_size = (sock->inbox_end + count) * 2;
		sock->inbox = realloc(sock->inbox, sock->inbox_size);
		assert(sock->inbox);
	}
	memcpy(sock->inbox + sock->inbox_end, bytes, count);
	sock->inbox_end += count;
}

void watch_arrive(struct sock *sock, struct net_watch *watch)
{
	bool more = watch->heard != NULL;

	watch->arrived = true;
	if (more)
		list_push_back(&sock->watches, &watch->link);
	watch->settled(watch, true); /* may be freed here, if nobody asks for more */
	if (more && !sock->send_op)
		watches_hear_soon(sock);
}

static void watches_hear(struct sock *sock)
{
	list_each(node, &sock->watches) {
		struct net_watch *watch = container_of(node, struct net_watch, link);

		if (!watch->due)
			continue;
		list_remove(node);
		watch->heard(watch, true);
	}
}

static void on_hear_event(struct sim_event *event)
{
	watches_hear(container_of(event, struct sock, hear_event));
}

void watches_hear_soon(struct sock *sock)
{
	list_each(node, &sock->watches) {
		struct net_watch *watch = container_of(node, struct net_watch, link);

		watch->due = watch->arrived;
	}
	sim_cancel_event(&sock->hear_event);
	sim_after(&sock->hear_event, TURN_NS_MAX);
}

void inbox_take(struct sock *sock, uint32_t count)
{
	struct sock *other = sock_other(sock);

	assert(count <= inbox_bytes(sock));
	sock->inbox_begin += count;
	sock->given_bytes += count;
	list_each(node, &sock->watches) {
		struct net_watch *watch = container_of(node, struct net_watch, link);

		if (watch->arrived || watch->at_bytes > sock->given_bytes)
			continue;
		list_remove(node);
		watch_arrive(sock, watch);
	}
	if (!other->closed)
		sock_stir(other); /* there is room in the window */
}

static void segment_arrive(struct sock *to, struct segment *segment)
{
	to->wire_bytes -= segment->bytes;
	switch (segment->kind) {
	case SEGMENT_DATA:
		inbox_append(to, segment->data, segment->bytes);
		break;
	case SEGMENT_FIN:
		to->fin = true;
		break;
	case SEGMENT_RESET:
		to->broken = -ECONNRESET;
		if (sim_below(2) == 0) /* as some kernels do */
			to->inbox_begin = to->inbox_end;
		break;
	}
	free(segment);
}

static void on_arrival(struct sim_event *event)
{
	struct sock *to = container_of(event, struct sock, arrival);

	while (!list_empty(&to->wire)) {
		struct segment *first = list_first(&to->wire, struct segment, link);

		if (first->due_ns > sim_now())
			break;
		list_remove(&first->link);
		segment_arrive(to, first);
	}
	arrival_arm(to);
	sock_stir(to);
}

void sock_stir(struct sock *sock)
{
	if (sock->waiting)
		fiber_wake(sock->waiting);
	daemon_stir(sock);
}

/* ── beginning and end ────────────────────────────────────────────────────────────── */

struct sock *sock_create(void)
{
	struct sock *sock = calloc(1, sizeof(*sock));

	assert(sock);
	sock->fd = -1;
	sock->arrival.run = on_arrival;
	sock->hear_event.run = on_hear_event;
	list_init(&sock->wire);
	list_init(&sock->watches);
	list_init(&sock->backlog);
	list_init(&sock->link);
	daemon_sock_init(sock);
	return sock;
}

static void sock_free(struct sock *sock)
{
	if (!sock)
		return;
	wire_clear(sock);
	sim_cancel_event(&sock->recv_event);
	sim_cancel_event(&sock->send_event);
	sim_cancel_event(&sock->hear_event);
	free(sock->inbox);
	free(sock);
}

void watches_fail(struct sock *sock)
{
	if (weather()->memory_fails == 0)
		watches_hear(sock);
	for (struct list *node; (node = list_pop_front(&sock->watches));) {
		struct net_watch *watch = container_of(node, struct net_watch, link);

		if (watch->arrived)
			watch->heard(watch, false);
		else
			watch->settled(watch, false);
	}
}

void sock_close(struct sock *sock, bool reset)
{
	struct connection *connection = sock->connection;
	struct sock *other = connection ? sock_other(sock) : NULL;

	assert(!sock->closed && !sock->recv_op && !sock->send_op);
	watches_fail(sock);
	if (other && !other->closed && !connection->broken) {
		bool unread = inbox_bytes(sock) > 0;

		if (!reset && !unread)
			wire_finish(sock);
		if (reset || unread || sock->wire_bytes > 0)
			connection_break(connection, reset ? "closed hard" : "closed unread");
	}
	sock->closed = true;
	wire_clear(sock);
	if (other && !other->closed)
		return;
	sock_free(other);
	if (connection)
		sim_cancel_event(&connection->syn);
	free(connection);
	sock_free(sock);
}

static void connect_end(struct sock *sock, int result, uint64_t delay_ns)
{
	sock->connect_result = result;
	sim_after(&sock->send_event, delay_ns);
}

/* The far end hears of it. */
static void on_syn(struct sim_event *event)
{
	struct connection *connection = container_of(event, struct connection, syn);
	struct sock *near = connection->ends[0], *far = sock_create();

	far->connection = connection;
	far->local = near->remote;
	far->remote = near->local;
	far->connected = true;
	connection->ends[1] = far;
	if (host_take(far) || listener_take(far)) {
		connect_end(near, 0, wire_delay_ns());
		return;
	}
	far->closed = true;
	connect_end(near, -ECONNREFUSED, wire_delay_ns());
}

static struct connection *connection_create(struct sock *near)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	assert(connection);
	connection->number = ++connection_count;
	connection->ends[0] = near;
	connection->syn.run = on_syn;
	connection->window_bytes = WINDOW_BYTES;
	if (!weather_is_clear() && sim_below(16) == 0)
		connection->window_bytes = (uint32_t)sim_between(512, WINDOW_BYTES);
	connection->stall_bytes = SIM_NEVER;
	if (sim_chance(weather()->stalls))
		connection->stall_bytes = sim_below(sim_below(2) == 0 ? 2048 : 200000);
	return connection;
}

void connection_begin(struct sock *sock)
{
	struct connection *connection = connection_create(sock);
	char text[OS_ADDRESS_TEXT_MAX];

	assert(!sock->connection);
	sock->connection = connection;
	if (sock->local.port == 0)
		sock->local.port =
			(uint16_t)(EPHEMERAL_FIRST + connection->number % EPHEMERAL_COUNT);
	sim_trace("connection %u to %s:%u", connection->number,
		  os_address_text(&sock->remote, text), sock->remote.port);
	if (!sim_chance(weather()->connect_fails))
		sim_after(&connection->syn, wire_delay_ns());
	else if (sim_below(2) == 0)
		connect_end(sock, -ECONNREFUSED, 2 * wire_delay_ns());
	else
		connect_end(sock, -ETIMEDOUT, CONNECT_TIMEOUT_S * SIM_S);
}
