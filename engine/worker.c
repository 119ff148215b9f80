#include "engine/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/conn.h"
#include "engine/delivery/feed.h"
#include "engine/delivery/feeds.h"
#include "engine/delivery/mx.h"
#include "engine/delivery/sites.h"
#include "engine/inbound/drop.h"
#include "engine/inbound/listener.h"
#include "engine/time_watch.h"
#include "engine/tls/peers.h"

enum {
	OPERATIONS = 1024,
	RECV_BUFFERS = 128,
	RECV_BUFFER_BYTES = 64 << 10,
	SLEEP_MAX_MS = 1000, /* the heartbeat of the shared index */
	START_LOOK_MS = 5,   /* between looks at the other workers */
	SHORTAGE_TOLD_MS = 60000,
};

struct worker *worker_self(void)
{
	return os_thread_self();
}

bool worker_tell_shortage(struct worker *worker)
{
	if (worker_mono(worker).ns < worker->shortage_told.ns)
		return false;
	worker->shortage_told = os_mono_add_ms(worker_mono(worker), SHORTAGE_TOLD_MS);
	return true;
}

/* ── the queue's events ───────────────────────────────────────────────────────────── */

static void on_ready(void *context, struct queue_stream *stream, uint32_t dest)
{
	struct worker *worker = context;

	feeds_ready(worker->feeds, stream, dest);
}

static void on_loaded(void *context, struct queue_job *job, enum queue_status status)
{
	struct worker *worker = context;

	feed_loaded(worker->feeds, job, status);
}

static void on_broken(void *context, struct queue_stream *stream, const char *what)
{
	struct worker *worker = context;

	(void)stream;
	log_notice(LOG_ERROR,
		   "the spool's disk failed: %s. Stopping: nothing that was promised is "
		   "lost, and nothing more is promised. Check the disk before the next start.",
		   what);
	atomic_store_explicit(&worker->engine->broken, true, memory_order_release);
}

static void on_space(void *context, struct queue_stream *stream, bool low)
{
	(void)context;
	(void)stream;
	if (low)
		log_notice(LOG_WARNING,
			   "the spool's disk is nearly full: new mail is refused with 452, "
			   "queued mail goes on");
	else
		log_notice(LOG_NOTICE, "there is room in the spool again: new mail is accepted");
}

static void on_clock(void *context, struct queue_stream *stream, bool doubted)
{
	struct worker *worker = context;

	(void)stream;
	time_watch_doubt(worker->engine, doubted);
}

static const struct queue_events queue_events = {
	.ready = on_ready,
	.loaded = on_loaded,
	.broken = on_broken,
	.space = on_space,
	.clock = on_clock,
};

static void on_stream_started(void *context, struct queue_stream *stream)
{
	struct worker *worker = context;

	(void)stream;
	worker->streams_running++;
}

static void on_stream_stopped(void *context)
{
	struct worker *worker = context;

	worker->streams_running--;
}

/* ── stopping ─────────────────────────────────────────────────────────────────────── */

static void drain(struct worker *worker)
{
	worker->phase = WORKER_DRAINING;
	if (worker->listener)
		listener_drain(worker->listener);
	drop_drain(worker->drop);
	feeds_drain(worker->feeds);
	sites_drain(worker->sites);
}

static void cut(struct worker *worker)
{
	worker->phase = WORKER_STOPPING;
	if (worker->listener)
		listener_stop(worker->listener);
	sites_cut(worker->sites);
}

/* Every listener of the news has a place in `doors`, so the count is the configuration's. */
void worker_news_destroy(struct worker_news *news)
{
	if (!news)
		return;
	for (uint32_t i = 0; i < news->config->listener_count; i++)
		listener_shut(news->doors[i]);
	config_unref(news->config);
	free(news);
}

static void reconfigure(struct worker *worker, struct worker_news *news)
{
	const struct config *old = worker->config;
	const struct queue_options options = {
		.space_low_bytes = news->config->space_low_bytes,
		.body_memory_bytes = news->config->memory_bytes / 2 / worker->engine->worker_count,
		.outcome_sync_ms = news->config->outcome_sync_ms,
		.evacuate_after_s = news->config->evacuate_after_s,
	};

	worker->config = news->config;
	config_favour(worker->config);
	for (uint32_t i = 0; i < worker->stream_count; i++)
		queue_stream_configure(worker->streams[i], &options);
	mx_configure(worker->mx, worker->config);
	sites_reconfigure(worker->sites);
	feeds_reconfigure(worker->feeds);
	listener_reconfigure(worker->listener, news->doors);
	config_unref(old);
	free(news);
}

static void hear_news(struct worker *worker)
{
	struct worker_news *news;

	if (!atomic_load_explicit(&worker->news, memory_order_relaxed))
		return;
	/* acquire: pairs with worker_tell(). */
	news = atomic_exchange_explicit(&worker->news, NULL, memory_order_acquire);
	if (worker->phase != WORKER_RUNNING) {
		worker_news_destroy(news);
		return;
	}
	reconfigure(worker, news);
	worker->settling = true;
}

/* Only then: a reload that wants an address back must not find our own old socket there. */
static void say_heard(struct worker *worker)
{
	if (!worker->settling || !listener_settled(worker->listener))
		return;
	worker->settling = false;
	/* relaxed: nothing is read for it but the number. */
	atomic_store_explicit(&worker->generation, worker->config->generation,
			      memory_order_relaxed);
}

static void follow_orders(struct worker *worker)
{
	uint32_t wanted = atomic_load_explicit(&worker->wanted_phase, memory_order_relaxed);

	hear_news(worker);
	say_heard(worker);
	if (wanted >= WORKER_DRAINING && worker->phase < WORKER_DRAINING)
		drain(worker);
	if (wanted >= WORKER_STOPPING && worker->phase < WORKER_STOPPING)
		cut(worker);
}

static void believe_clock(struct worker *worker)
{
	uint32_t confirmed =
		atomic_load_explicit(&worker->engine->clock_confirmed, memory_order_relaxed);

	if (confirmed == worker->clock_confirmed)
		return;
	worker->clock_confirmed = confirmed;
	for (uint32_t i = 0; i < worker->stream_count; i++)
		queue_stream_confirm_time(worker->streams[i]);
}

static bool is_idle(const struct worker *worker)
{
	return (!worker->listener || listener_idle(worker->listener)) && drop_idle(worker->drop) &&
	       feeds_idle(worker->feeds) && sites_idle(worker->sites) && mx_idle(worker->mx) &&
	       list_empty(&worker->closing);
}

/* ── the turn ─────────────────────────────────────────────────────────────────────── */

static struct os_mono next_turn(const struct worker *worker, bool letters_wait)
{
	struct os_mono until = os_mono_add_ms(worker_mono(worker), SLEEP_MAX_MS);
	struct os_mono timer = timer_wheel_next(&worker->timers);

	if (letters_wait || feeds_want_turn(worker->feeds) || sites_want_turn(worker->sites))
		return (struct os_mono){ 0 };
	if (timer.ns < until.ns)
		until = timer;
	for (uint32_t i = 0; i < worker->stream_count; i++) {
		struct os_mono next = queue_stream_next(worker->streams[i]);

		if (next.ns < until.ns)
			until = next;
	}
	return until;
}

static void turn(struct worker *worker, struct os_mono until)
{
	os_loop_turn(worker->loop, until);
	mailbox_open(worker->engine->mailboxes, worker->index);
	timer_wheel_advance(&worker->timers, worker_mono(worker));
	follow_orders(worker);
	believe_clock(worker);
	for (uint32_t i = 0; i < worker->stream_count; i++)
		queue_stream_turn(worker->streams[i]);
	feeds_turn(worker->feeds);
	sites_dispatch(worker->sites);
	if (worker->listener)
		listener_flush(worker->listener);
	conn_reap(&worker->closing);
}

static void turn_and_flush(struct worker *worker)
{
	bool letters_wait = mailbox_flush(worker->engine->mailboxes, worker->index);

	turn(worker, next_turn(worker, letters_wait));
}

static void wake_others(const struct worker *worker)
{
	const struct engine *engine = worker->engine;

	for (uint32_t i = 0; i < engine->worker_count; i++)
		if (i != worker->index)
			os_loop_wake(engine->workers[i]->loop);
}

/* An idle worker goes on until all are: another may still lend it a delivery. */
static void run_until_idle(struct worker *worker)
{
	struct engine *engine = worker->engine;
	bool counted = false;

	while (atomic_load_explicit(&engine->idle, memory_order_acquire) < engine->worker_count) {
		bool idle = worker->phase > WORKER_RUNNING && is_idle(worker);

		if (idle != counted) {
			/* release: what this worker sent before is seen with the count. */
			atomic_fetch_add_explicit(&engine->idle, idle ? 1 : UINT32_MAX,
						  memory_order_release);
			counted = idle;
			continue;
		}
		turn_and_flush(worker);
	}
	wake_others(worker);
}

static void stop_streams(struct worker *worker)
{
	for (uint32_t i = 0; i < worker->stream_count; i++)
		queue_stream_stop(worker->streams[i], on_stream_stopped);
	while (worker->streams_running > 0)
		turn_and_flush(worker);
}

/* ── starting ─────────────────────────────────────────────────────────────────────── */

static int set_up(struct worker *worker)
{
	static const struct os_loop_options options = {
		.operations = OPERATIONS,
		.recv_buffers = RECV_BUFFERS,
		.recv_buffer_bytes = RECV_BUFFER_BYTES,
	};
	int result = os_loop_create(&options, &worker->loop);

	if (result < 0) {
		log_notice(LOG_ERROR, "worker %u has no event loop: %s%s", worker->index,
			   strerror(-result),
			   result == -ENOMEM ? "; raise the limit of locked memory (ulimit -l, "
					       "LimitMEMLOCK=), or set io = \"epoll\""
					     : "");
		return result;
	}
	mailboxes_join(worker->engine->mailboxes, worker->index, worker->loop);
	timer_wheel_init(&worker->timers, worker_mono(worker));
	os_random(&worker->prng.state, sizeof(worker->prng.state));
	worker->mx = mx_create(worker->loop, worker->config);
	worker->sites = sites_create(worker);
	worker->feeds = feeds_create(worker);
	worker->tls_peers = tls_peers_create();
	worker->tls_scratch = malloc(sizeof(*worker->tls_scratch));
	if (worker->mx && worker->sites && worker->feeds && worker->tls_peers &&
	    worker->tls_scratch)
		return 0;
	log_notice(LOG_ERROR, "worker %u: out of memory", worker->index);
	return -ENOMEM;
}

/* Nothing is delivered before START is durable in every journal (R9), so all workers wait for
 * each other; mail is taken only when its stream may be written. */
static int open_for_business(struct worker *worker)
{
	struct engine *engine = worker->engine;
	bool counted = false;

	for (uint32_t i = 0; i < worker->stream_count; i++)
		queue_stream_start(worker->streams[i], worker->loop, &queue_events, worker,
				   on_stream_started);
	while (atomic_load_explicit(&engine->started, memory_order_acquire) <
	       engine->worker_count) {
		if (atomic_load_explicit(&engine->broken, memory_order_acquire))
			return -EIO;
		if (!counted && worker->streams_running == worker->stream_count) {
			counted = true;
			/* release: our loop is there for letters. */
			atomic_fetch_add_explicit(&engine->started, 1, memory_order_acq_rel);
			continue;
		}
		turn(worker, os_mono_add_ms(worker_mono(worker), START_LOOK_MS));
	}
	feeds_go(worker->feeds);
	worker->listener = listener_create(worker);
	if (!worker->listener)
		return -EADDRINUSE;
	if (worker->index == 0)
		worker->drop = drop_create(worker);
	return 0;
}

static void tear_down(struct worker *worker)
{
	drop_destroy(worker->drop);
	listener_destroy(worker->listener);
	feeds_destroy(worker->feeds);
	sites_destroy(worker->sites);
	mx_destroy(worker->mx);
	tls_peers_destroy(worker->tls_peers);
	free(worker->tls_scratch);
	config_favour(NULL);
}

static void say_ready(struct worker *worker, int result)
{
	atomic_store_explicit(&worker->ready, result == 0 ? 1 : (uint32_t)result,
			      memory_order_release);
}

static void worker_run(void *context)
{
	struct worker *worker = context;
	int result;

	os_thread_set_self(worker);
	config_favour(worker->config);
	result = set_up(worker);
	if (result == 0)
		result = open_for_business(worker);
	say_ready(worker, result);
	if (result < 0)
		return; /* the process ends: there is nothing to be kept in order */
	run_until_idle(worker);
	stop_streams(worker);
	worker->phase = WORKER_STOPPED;
	tear_down(worker);
	atomic_fetch_sub_explicit(&worker->engine->running, 1, memory_order_release);
}

/* Streams are dealt out: the first `worker_count` accept, the others are drained. */
static bool deal_streams(struct worker *worker)
{
	struct engine *engine = worker->engine;
	uint32_t count = queue_stream_count(engine->queue);

	worker->streams = calloc(count, sizeof(struct queue_stream *));
	if (!worker->streams)
		return false;
	for (uint32_t i = worker->index; i < count; i += engine->worker_count)
		worker->streams[worker->stream_count++] = queue_stream(engine->queue, i);
	assert(worker->stream_count > 0);
	return true;
}

static int start(struct engine *engine, uint32_t index)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	char name[16];

	if (!worker)
		return -ENOMEM;
	engine->workers[index] = worker;
	worker->engine = engine;
	worker->config = config_ref(engine->config);
	worker->index = index;
	worker->log = log_channel(engine->log, index);
	list_init(&worker->closing);
	if (!deal_streams(worker))
		return -ENOMEM;
	snprintf(name, sizeof(name), "worker %u", index);
	atomic_fetch_add_explicit(&engine->running, 1, memory_order_relaxed);
	return os_thread_start(&worker->thread, name, worker_run, worker);
}

int worker_start(struct engine *engine, uint32_t index)
{
	int result = start(engine, index);

	if (result < 0)
		log_notice(LOG_ERROR, "worker %u cannot be started: %s", index, strerror(-result));
	return result;
}

int worker_ready(struct worker *worker)
{
	/* acquire: pairs with say_ready(); what was set up is seen. */
	return (int)atomic_load_explicit(&worker->ready, memory_order_acquire);
}

static void order(struct worker *worker, enum worker_phase phase)
{
	atomic_store_explicit(&worker->wanted_phase, phase, memory_order_relaxed);
	os_loop_wake(worker->loop);
}

void worker_tell(struct worker *worker, struct worker_news *news)
{
	/* release: pairs with hear_news(). */
	struct worker_news *before =
		atomic_exchange_explicit(&worker->news, news, memory_order_acq_rel);

	assert(before == NULL);
	os_loop_wake(worker->loop);
}

bool worker_heard(const struct worker *worker, const struct config *config)
{
	return atomic_load_explicit(&worker->generation, memory_order_relaxed) >=
	       config->generation;
}

void worker_drain(struct worker *worker)
{
	order(worker, WORKER_DRAINING);
}

void worker_stop(struct worker *worker)
{
	order(worker, WORKER_STOPPING);
}

void worker_join(struct worker *worker)
{
	if (!worker)
		return;
	os_thread_join(worker->thread);
	os_loop_destroy(worker->loop);
	worker_news_destroy(atomic_load_explicit(&worker->news, memory_order_relaxed));
	config_unref(worker->config);
	free(worker->streams);
	free(worker);
}
