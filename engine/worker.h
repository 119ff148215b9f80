/*
 * worker - one thread, one loop, and everything that lives on it.
 *
 *   a turn:  completions → mailboxes → timers → streams (seal, write, due jobs) →
 *            replies to clients → letters out → sleep
 *
 * Promise: what a worker owns is touched by its thread alone; what crosses goes by mailbox,
 * or is an atomic of struct engine.
 *
 * Stopping: drain (no new sessions, no new transactions, what is under way ends), then stop
 * (what is left is cut), then the streams write out and the thread ends. Nothing accepted is
 * lost on either way.
 *
 * Thread: worker_start(), worker_drain(), worker_stop() and worker_join() are main's.
 */
#ifndef ENGINE_WORKER_H
#define ENGINE_WORKER_H

#include <stdatomic.h>

#include "engine/config.h"
#include "engine/log.h"
#include "engine/mailbox.h"
#include "engine/timer.h"
#include "os/prng.h"
#include "queue/queue.h"

struct listener;
struct feeds;
struct sites;
struct mx;
struct site_limits;

enum { ADDRESS_COUNTERS = 1 << 16 };

/* What all workers share. */
struct engine {
	/* set before the first worker, then constant */
	const struct config *config;
	struct queue *queue;
	struct log *log;
	struct mailboxes *mailboxes;
	struct worker **workers;
	uint32_t worker_count;
	struct site_limits *site_limits;
	uint64_t address_seed;

	/* shared: atomics */
	_Atomic uint32_t sessions;
	_Atomic uint32_t sessions_of[ADDRESS_COUNTERS]; /* by hash of the client's address */
	_Atomic bool broken;	  /* a disk failed for good: stop, and exit so */
	_Atomic uint32_t started; /* workers whose streams have begun (R9) */
	_Atomic uint32_t running; /* workers that have not stopped */
	_Atomic uint32_t idle;	  /* workers with nothing left to do: all, or letters may come */
};

enum worker_phase { WORKER_RUNNING, WORKER_DRAINING, WORKER_STOPPING, WORKER_STOPPED };

struct worker {
	/* owner: the worker */
	struct engine *engine;
	const struct config *config;
	struct os_loop *loop;
	struct timer_wheel timers;
	struct log_channel *log;
	struct list closing; /* connections: conn_reap() */
	struct prng prng;
	struct listener *listener;
	struct feeds *feeds;
	struct sites *sites;
	struct mx *mx;
	struct queue_stream **streams; /* [0] accepts */
	uint32_t stream_count, streams_running;
	uint32_t index;
	enum worker_phase phase;
	struct os_thread *thread;

	/* shared: atomics */
	_Atomic uint32_t wanted_phase;
	_Atomic uint32_t ready; /* worker_ready() */
};

/* Starts engine->workers[index]; each then waits for all. 0 or -errno. */
int worker_start(struct engine *engine, uint32_t index);
/* 1: it listens; 0: not yet; or -errno, with the reason logged. */
int worker_ready(struct worker *worker);
void worker_drain(struct worker *worker);
void worker_stop(struct worker *worker);
void worker_join(struct worker *worker); /* frees it; accepts NULL */

/* The worker whose thread this is. */
struct worker *worker_self(void);

static inline struct os_mono worker_mono(const struct worker *worker)
{
	return os_loop_mono(worker->loop);
}

static inline struct os_wall worker_wall(const struct worker *worker)
{
	return os_loop_wall(worker->loop);
}

#endif
