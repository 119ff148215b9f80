#include "engine/inbound/listener.h"

#include <errno.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/config/change.h"
#include "engine/inbound/inbound.h"

enum { BACKLOG = 4096, PAUSE_MS = 1000 };

/* One listening socket. */
struct door {
	struct os_op op;
	struct listener *listener;
	struct list link;	     /* listener.doors */
	const struct config *config; /* a reference: `where` is in it */
	const struct config_listener *where;
	int fd;
	bool closing;	     /* a reload has taken the address away */
	uint32_t last_calls; /* how many of those that had come before were still let in */
};

struct listener {
	struct worker *worker;
	struct inbound_shared inbound;
	struct timer pause; /* after accept() ran out of descriptors or memory */
	struct list doors;
	uint32_t closing_count; /* of the doors */
};

/* Counted over all workers; addresses that share a hash share their limit. IPv6 clients are
 * counted by /64, which is what one of them usually has. */
static _Atomic uint32_t *sessions_of(struct engine *engine, const struct os_address *peer)
{
	size_t len = peer->family == AF_INET ? 4 : 8;
	uint64_t hash = XXH3_64bits_withSeed(peer->ip, len, engine->address_seed + peer->family);

	return &engine->sessions_of[hash % ADDRESS_COUNTERS];
}

/* All of them relaxed: counts, which order nothing else. */
static const struct smtp_answer *on_came(struct inbound_shared *shared,
					 const struct os_address *client)
{
	static const struct smtp_answer too_many_of_you = {
		421, "4.7.0", "Too many sessions from your address, try again later"
	};
	struct worker *worker = shared->worker;
	uint32_t own = atomic_fetch_add_explicit(sessions_of(worker->engine, client), 1,
						 memory_order_relaxed);

	return own >= worker->config->sessions_per_address_max ? &too_many_of_you : NULL;
}

static void on_left(struct inbound_shared *shared, const struct os_address *client)
{
	atomic_fetch_sub_explicit(sessions_of(shared->worker->engine, client), 1,
				  memory_order_relaxed);
}

static void on_gone(struct inbound_shared *shared)
{
	atomic_fetch_sub_explicit(&shared->worker->engine->sessions, 1, memory_order_relaxed);
}

static const struct inbound_gate gate = { .came = on_came, .left = on_left, .gone = on_gone };

static void welcome(struct door *door, int fd)
{
	struct listener *listener = door->listener;
	static const struct smtp_answer too_many = { 421, "4.7.0",
						     "Too many sessions, try again later" };
	struct engine *engine = listener->worker->engine;
	struct os_address peer;
	uint32_t all;

	if (os_peer_address(fd, &peer) < 0) {
		os_close(fd);
		return;
	}
	all = atomic_fetch_add_explicit(&engine->sessions, 1, memory_order_relaxed);
	bool full = all >= atomic_load_explicit(&engine->sessions_max, memory_order_relaxed);

	inbound_open(&listener->inbound, fd, &peer, door->config, door->where,
		     full ? &too_many : NULL, &gate);
}

static void knock(struct door *door)
{
	os_accept(door->listener->worker->loop, &door->op, door->fd);
}

/* Who comes now is refused by the kernel, instead of waiting for nobody. */
static void close_door(struct door *door)
{
	list_remove(&door->link);
	door->listener->closing_count -= door->closing;
	listener_shut(door);
}

/* Its address is no longer listened on: those who had connected before are let in. */
static void last_call(struct door *door, int fd)
{
	if (fd < 0 || ++door->last_calls == BACKLOG) {
		if (fd >= 0)
			os_close(fd);
		close_door(door);
		return;
	}
	welcome(door, fd);
	knock(door);
	os_cancel(door->listener->worker->loop, &door->op);
}

static void on_accept(struct os_op *op)
{
	struct door *door = container_of(op, struct door, op);
	struct listener *listener = door->listener;
	struct worker *worker = listener->worker;

	if (worker->phase != WORKER_RUNNING) {
		if (op->result >= 0)
			os_close(op->result);
		close_door(door);
		return;
	}
	if (door->closing) {
		last_call(door, op->result);
		return;
	}
	if (op->result >= 0) {
		welcome(door, op->result);
	} else if (op->result != -ECONNABORTED && op->result != -EINTR) {
		/* No descriptors or memory: those who wait in the backlog lose nothing. */
		if (worker_tell_shortage(worker))
			log_notice(LOG_WARNING,
				   "cannot accept connections (%s): trying again every %d s; raise "
				   "the limit of open files (LimitNOFILE=) if this goes on",
				   strerror(-op->result), PAUSE_MS / 1000);
		timer_set(&worker->timers, &listener->pause,
			  os_mono_add_ms(worker_mono(worker), PAUSE_MS));
		return;
	}
	knock(door);
}

static void on_pause_end(struct timer *timer)
{
	struct listener *listener = container_of(timer, struct listener, pause);

	list_each(node, &listener->doors) {
		struct door *door = container_of(node, struct door, link);

		if (!door->op.busy)
			knock(door);
	}
}

static void take_door(struct listener *listener, struct door *door)
{
	door->listener = listener;
	list_push_back(&listener->doors, &door->link);
	knock(door);
}

bool listener_opens(uint32_t worker_index, const struct config_listener *where)
{
	/* The kernel deals out TCP connections only; a UNIX socket has one owner. */
	return where->address.family != AF_UNIX || worker_index == 0;
}

int listener_open(const struct config *config, const struct config_listener *where,
		  struct door **out)
{
	struct door *door = calloc(1, sizeof(*door));
	int fd = door ? os_listen(&where->address, BACKLOG) : -ENOMEM;

	if (fd < 0) {
		free(door);
		return fd;
	}
	door->op.done = on_accept;
	door->config = config_ref(config);
	door->where = where;
	door->fd = fd;
	list_init(&door->link);
	*out = door;
	return 0;
}

const char *listener_advice(const struct config_listener *where, int result)
{
	if (where->address.family == AF_UNIX)
		return "";
	switch (result) {
	case -EADDRINUSE:
		return "; `ss -ltnp` shows who does";
	case -EACCES:
		return "; ports below 1024 take root, or CAP_NET_BIND_SERVICE";
	case -EADDRNOTAVAIL:
		return "; `ip address` shows those of this machine";
	default:
		return "";
	}
}

void listener_shut(struct door *door)
{
	if (!door)
		return;
	os_close(door->fd);
	config_unref(door->config);
	free(door);
}

static bool open_all(struct listener *listener)
{
	const struct config *config = listener->worker->config;

	for (uint32_t i = 0; i < config->listener_count; i++) {
		const struct config_listener *where = &config->listeners[i];
		struct door *door;
		int result;

		if (!listener_opens(listener->worker->index, where))
			continue;
		result = listener_open(config, where, &door);
		if (result < 0) {
			log_notice(LOG_ERROR, "cannot listen on %s: %s", where->text,
				   strerror(-result));
			return false;
		}
		take_door(listener, door);
	}
	return true;
}

struct listener *listener_create(struct worker *worker)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (!listener) {
		log_notice(LOG_ERROR, "worker %u cannot listen: out of memory", worker->index);
		return NULL;
	}
	listener->worker = worker;
	list_init(&listener->doors);
	timer_init(&listener->pause, on_pause_end);
	inbound_shared_init(&listener->inbound, worker);
	/* If one fails, the process ends: what is open needs no closing. */
	return open_all(listener) ? listener : NULL;
}

/* ── another configuration ────────────────────────────────────────────────────────── */

static void keep_or_close(struct door *door)
{
	struct worker *worker = door->listener->worker;
	const struct config_listener *where = config_listener_same(worker->config, door->where);

	if (where) {
		config_unref(door->config);
		door->config = config_ref(worker->config);
		door->where = where;
		return;
	}
	door->closing = true;
	door->listener->closing_count++;
	if (door->op.busy)
		os_cancel(worker->loop, &door->op);
	else
		close_door(door);
}

void listener_reconfigure(struct listener *listener, struct door *const *doors)
{
	const struct config *config = listener->worker->config;

	list_each(node, &listener->doors) {
		struct door *door = container_of(node, struct door, link);

		if (!door->closing)
			keep_or_close(door);
	}
	for (uint32_t i = 0; i < config->listener_count; i++)
		if (doors[i])
			take_door(listener, doors[i]);
}

bool listener_settled(const struct listener *listener)
{
	return listener->closing_count == 0;
}

/* ── the end ──────────────────────────────────────────────────────────────────────── */

void listener_drain(struct listener *listener)
{
	struct worker *worker = listener->worker;

	timer_cancel(&worker->timers, &listener->pause);
	list_each(node, &listener->doors) {
		struct door *door = container_of(node, struct door, link);

		if (door->op.busy)
			os_cancel(worker->loop, &door->op);
		else
			close_door(door);
	}
	inbound_drain(&listener->inbound);
}

void listener_stop(struct listener *listener)
{
	inbound_cut(&listener->inbound);
}

void listener_flush(struct listener *listener)
{
	inbound_flush(&listener->inbound);
}

bool listener_idle(const struct listener *listener)
{
	return list_empty(&listener->doors) && listener->inbound.count == 0 &&
	       listener->inbound.intakes.committing == 0 && auth_idle(&listener->inbound.auth);
}

void listener_destroy(struct listener *listener)
{
	if (!listener)
		return;
	assert(listener_idle(listener));
	inbound_shared_deinit(&listener->inbound);
	free(listener);
}
