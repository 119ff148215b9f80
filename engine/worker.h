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
 * Reload: worker_tell() hands over another configuration, which the worker takes up between two
 * turns. Sessions and deliveries under way keep to the one that they began with.
 *
 * Thread: worker_start(), worker_tell(), worker_heard(), worker_drain(), worker_stop() and
 * worker_join() are main's.
 */
#ifndef ENGINE_WORKER_H
#define ENGINE_WORKER_H

#include <stdatomic.h>

#include "engine/config/config.h"
#include "engine/log/log.h"
#include "engine/mailbox.h"
#include "engine/timer.h"
#include "os/prng.h"
#include "queue/queue.h"

struct listener;
struct drop;
struct feeds;
struct sites;
struct mx;
struct tls_contexts;
struct dkim_store;
struct tls_peers;
struct tls_scratch;
struct site_limits;
struct auth_failures;

enum { ADDRESS_COUNTERS = 1 << 16 };

/* What all workers share. */
struct engine {
	/* owner: main */
	const struct config *config; /* a reference; workers have their own */
	/* set before the first worker, then constant */
	struct queue *queue;
	struct log *log;
	struct mailboxes *mailboxes;
	struct worker **workers;
	uint32_t worker_count;
	struct site_limits *site_limits;
	struct auth_failures *auth_failures;
	struct tls_contexts *tls;
	struct dkim_store *dkim;
	uint64_t address_seed;

	/* shared: atomics */
	_Atomic uint32_t sessions_max; /* as configured, or what the limit of open files allows */
	_Atomic uint32_t sessions;
	_Atomic uint64_t converting_bytes; /* memory of all conversions: conversion.h */
	_Atomic uint32_t sessions_of[ADDRESS_COUNTERS]; /* by hash of the client's address */
	_Atomic bool broken;		  /* a disk failed for good: stop, and exit so */
	_Atomic uint32_t clock_doubts;	  /* streams that doubt the wall clock: time_watch.h */
	_Atomic uint32_t clock_confirmed; /* how often somebody said that it is right */
	_Atomic uint32_t started;	  /* workers whose streams have begun (R9) */
	_Atomic uint32_t running;	  /* workers that have not stopped */
	_Atomic uint32_t idle; /* workers with nothing left to do: all, or letters may come */
};

/* Another configuration, on its way to a worker. */
struct worker_news {
	const struct config *config; /* a reference */
	/* Owned: for each of its listeners a new socket; NULL: as before, or none. */
	struct door *doors[];
};

enum worker_phase { WORKER_RUNNING, WORKER_DRAINING, WORKER_STOPPING, WORKER_STOPPED };

struct worker {
	/* owner: the worker */
	struct engine *engine;
	const struct config *config; /* a reference; changes between turns: worker_tell() */
	struct os_loop *loop;
	struct timer_wheel timers;
	struct log_channel *log;
	struct list closing; /* connections: conn_reap() */
	struct prng prng;
	struct listener *listener;
	struct drop *drop; /* of the first worker */
	struct feeds *feeds;
	struct sites *sites;
	struct mx *mx;
	struct tls_peers *tls_peers;
	struct tls_scratch *tls_scratch;
	struct queue_stream **streams; /* [0] accepts */
	uint32_t stream_count, streams_running;
	uint32_t clock_confirmed; /* as last seen of the engine's */
	uint32_t index;
	struct os_mono shortage_told; /* no sooner again: worker_tell_shortage() */
	enum worker_phase phase;
	bool settling; /* not all is as the last news want it */
	struct os_thread *thread;

	/* shared: atomics */
	_Atomic uint32_t wanted_phase;
	_Atomic(struct worker_news *) news; /* owned until the worker takes it */
	_Atomic uint64_t generation;	    /* of the configuration that it works by */
	_Atomic uint32_t ready;		    /* worker_ready() */
};

/* Starts engine->workers[index]; each then waits for all. 0, or -errno, with the reason logged. */
int worker_start(struct engine *engine, uint32_t index);
/* 1: it listens; 0: not yet; or -errno, with the reason logged. */
int worker_ready(struct worker *worker);
/* Takes over `news`. The worker has heard what was told before. */
void worker_tell(struct worker *worker, struct worker_news *news);
/* It works by that configuration, and listens nowhere else any more. */
bool worker_heard(const struct worker *worker, const struct config *config);
/* Closes its sockets. Accepts NULL. */
void worker_news_destroy(struct worker_news *news);
void worker_drain(struct worker *worker);
void worker_stop(struct worker *worker);
void worker_join(struct worker *worker); /* frees it; accepts NULL */

/* Whether to log that descriptors or memory are missing: it is said once a minute. */
bool worker_tell_shortage(struct worker *worker);

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
