#include "engine/listener.h"

#include <errno.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/inbound.h"

enum { BACKLOG = 4096, PAUSE_MS = 1000 };

/* One listening socket. */
struct door {
	struct os_op op;
	struct listener *listener;
	int fd;
};

struct listener {
	struct worker *worker;
	struct inbound_shared inbound;
	struct timer pause; /* after accept() ran out of descriptors or memory */
	uint32_t door_count;
	struct door doors[];
};

/* Counted over all workers; addresses that share a hash share their limit. IPv6 clients are
 * counted by /64, which is what one of them usually has. */
static _Atomic uint32_t *sessions_of(struct engine *engine, const struct os_address *peer)
{
	size_t len = peer->family == AF_INET ? 4 : 8;
	uint64_t hash = XXH3_64bits_withSeed(peer->ip, len, engine->address_seed + peer->family);

	return &engine->sessions_of[hash % ADDRESS_COUNTERS];
}

static void on_left(struct inbound_shared *shared, const struct os_address *peer)
{
	struct engine *engine = shared->worker->engine;

	atomic_fetch_sub_explicit(&engine->sessions, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(sessions_of(engine, peer), 1, memory_order_relaxed);
}

static void welcome(struct listener *listener, int fd)
{
	static const struct smtp_answer too_many = { 421, "4.7.0",
						     "Too many sessions, try again later" };
	static const struct smtp_answer too_many_of_you = {
		421, "4.7.0", "Too many sessions from your address, try again later"
	};
	struct worker *worker = listener->worker;
	struct engine *engine = worker->engine;
	const struct smtp_answer *refusal = NULL;
	struct os_address peer;
	uint32_t all, own;

	if (os_peer_address(fd, &peer) < 0) {
		os_close(fd);
		return;
	}
	/* relaxed: counts, which order nothing else. */
	all = atomic_fetch_add_explicit(&engine->sessions, 1, memory_order_relaxed);
	own = atomic_fetch_add_explicit(sessions_of(engine, &peer), 1, memory_order_relaxed);
	if (all >= worker->config->sessions_max)
		refusal = &too_many;
	else if (own >= worker->config->sessions_per_address_max)
		refusal = &too_many_of_you;
	inbound_open(&listener->inbound, fd, &peer, refusal, on_left);
}

static void knock(struct door *door)
{
	os_accept(door->listener->worker->loop, &door->op, door->fd);
}

/* Who comes now is refused by the kernel, instead of waiting for nobody. */
static void close_door(struct door *door)
{
	os_close(door->fd);
	door->fd = -1;
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
	if (op->result >= 0) {
		welcome(listener, op->result);
	} else if (op->result != -ECONNABORTED && op->result != -EINTR) {
		/* No descriptors or memory: those who wait in the backlog lose nothing. */
		log_notice(LOG_WARNING,
			   "cannot accept connections (%s): trying again in %d s; raise "
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

	for (uint32_t i = 0; i < listener->door_count; i++)
		if (!listener->doors[i].op.busy)
			knock(&listener->doors[i]);
}

struct listener *listener_create(struct worker *worker)
{
	const struct config *config = worker->config;
	struct listener *listener =
		calloc(1, sizeof(*listener) + config->listener_count * sizeof(struct door));

	if (!listener)
		return NULL;
	listener->worker = worker;
	timer_init(&listener->pause, on_pause_end);
	inbound_shared_init(&listener->inbound, worker);
	for (uint32_t i = 0; i < config->listener_count; i++) {
		const struct config_listener *where = &config->listeners[i];
		struct door *door = &listener->doors[listener->door_count];
		int fd;

		/* The kernel deals out TCP connections only; a UNIX socket has one owner. */
		if (where->address.family == AF_UNIX && worker->index > 0)
			continue;
		fd = os_listen(&where->address, BACKLOG);
		if (fd < 0) {
			log_notice(LOG_ERROR, "cannot listen on %s: %s", where->text,
				   strerror(-fd));
			while (listener->door_count > 0)
				os_close(listener->doors[--listener->door_count].fd);
			free(listener);
			return NULL;
		}
		*door = (struct door){ .op.done = on_accept, .listener = listener, .fd = fd };
		listener->door_count++;
	}
	for (uint32_t i = 0; i < listener->door_count; i++)
		knock(&listener->doors[i]);
	return listener;
}

void listener_drain(struct listener *listener)
{
	struct worker *worker = listener->worker;

	timer_cancel(&worker->timers, &listener->pause);
	for (uint32_t i = 0; i < listener->door_count; i++) {
		if (listener->doors[i].op.busy)
			os_cancel(worker->loop, &listener->doors[i].op);
		else
			close_door(&listener->doors[i]);
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
	for (uint32_t i = 0; i < listener->door_count; i++)
		if (listener->doors[i].op.busy)
			return false;
	return listener->inbound.count == 0 && listener->inbound.intakes.committing == 0;
}

void listener_destroy(struct listener *listener)
{
	if (!listener)
		return;
	assert(listener_idle(listener));
	for (uint32_t i = 0; i < listener->door_count; i++)
		assert(listener->doors[i].fd < 0);
	inbound_shared_deinit(&listener->inbound);
	free(listener);
}
