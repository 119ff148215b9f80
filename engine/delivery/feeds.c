#include "engine/delivery/feeds.h"

#include <stdlib.h>

#include "engine/delivery/feed_private.h"

enum {
	SWEEP_MS = 250,	 /* between looks for expired jobs */
	SWEEP_JOBS = 64, /* of a stream, each time */
};

/* ── the feed of a domain ─────────────────────────────────────────────────────────── */

static uint32_t stream_index(const struct worker *worker, const struct queue_stream *stream)
{
	for (uint32_t i = 0; i < worker->stream_count; i++)
		if (worker->streams[i] == stream)
			return i;
	assert(!"a stream of another worker");
	return 0;
}

static bool make_room(struct feeds *feeds, uint32_t index, uint32_t dest)
{
	uint32_t count = feeds->dest_counts[index], wanted = count ? count : 64;
	struct feed **grown;

	if (dest < count)
		return true;
	while (wanted <= dest)
		wanted *= 2;
	grown = realloc(feeds->by_stream[index], wanted * sizeof(struct feed *));
	if (!grown)
		return false;
	memset(grown + count, 0, (wanted - count) * sizeof(struct feed *));
	feeds->by_stream[index] = grown;
	feeds->dest_counts[index] = wanted;
	return true;
}

static struct feed *feed_get(struct feeds *feeds, struct queue_stream *stream, uint32_t dest)
{
	uint32_t index = stream_index(feeds->worker, stream);
	struct feed *feed;

	if (!make_room(feeds, index, dest))
		return NULL;
	feed = feeds->by_stream[index][dest];
	return feed ? feed : feed_create(feeds, stream, index, dest);
}

/* ── the queue's events, and the turn ─────────────────────────────────────────────── */

void feeds_ready(struct feeds *feeds, struct queue_stream *stream, uint32_t dest)
{
	struct feed *feed = feed_get(feeds, stream, dest);

	if (!feed) {
		queue_tell_again(stream, dest);
		return;
	}
	feed_ready(feed);
}

static bool take_expired(struct feeds *feeds, struct queue_stream *stream)
{
	struct queue_job *job = queue_take_expired(stream);
	struct feed *feed;

	if (!job)
		return false;
	feed = feed_get(feeds, stream, job->dest);
	if (feed)
		return feed_lend(feed, job, NULL);
	feed_give_back(feeds, job);
	return false;
}

static void on_sweep(struct timer *timer)
{
	struct feeds *feeds = container_of(timer, struct feeds, sweep);
	struct worker *worker = feeds->worker;

	for (uint32_t i = 0; i < worker->stream_count && feeds->state == FEEDS_GOING; i++)
		for (int taken = 0; taken < SWEEP_JOBS && take_expired(feeds, worker->streams[i]);)
			taken++;
	/* Those that had no memory try again, too. */
	list_splice_back(&feeds->active, &feeds->stalled);
	timer_set(&worker->timers, timer, os_mono_add_ms(worker_mono(worker), SWEEP_MS));
}

static void wake_stalled(struct feeds *feeds)
{
	list_each(node, &feeds->stalled) {
		struct feed *feed = container_of(node, struct feed, link);

		if (!queue_stream_may_dispatch(feed->stream))
			continue;
		list_remove(node);
		list_push_back(&feeds->active, node);
	}
}

void feeds_turn(struct feeds *feeds)
{
	struct list active;

	if (feeds->state != FEEDS_GOING)
		return;
	wake_stalled(feeds);
	list_init(&active);
	list_splice_back(&active, &feeds->active);
	for (struct list *node; (node = list_pop_front(&active));) {
		struct feed *feed = container_of(node, struct feed, link);

		feed_go(feed);
		feed_rest(feed);
	}
}

bool feeds_want_turn(const struct feeds *feeds)
{
	return !list_empty(&feeds->active) && feeds->state == FEEDS_GOING;
}

/* ── life ─────────────────────────────────────────────────────────────────────────── */

void feeds_go(struct feeds *feeds)
{
	feeds->state = FEEDS_GOING;
}

struct feeds *feeds_create(struct worker *worker)
{
	struct feeds *feeds = calloc(1, sizeof(*feeds));

	if (!feeds)
		return NULL;
	feeds->worker = worker;
	list_init(&feeds->active);
	list_init(&feeds->stalled);
	timer_init(&feeds->sweep, on_sweep);
	feeds->by_stream = calloc(worker->stream_count, sizeof(feeds->by_stream[0]));
	feeds->dest_counts = calloc(worker->stream_count, sizeof(feeds->dest_counts[0]));
	if (!feeds->by_stream || !feeds->dest_counts) {
		free(feeds->by_stream);
		free(feeds->dest_counts);
		free(feeds);
		return NULL;
	}
	timer_set(&worker->timers, &feeds->sweep, worker_mono(worker));
	return feeds;
}

void feeds_reconfigure(struct feeds *feeds)
{
	for (uint32_t i = 0; i < feeds->worker->stream_count; i++)
		for (uint32_t dest = 0; dest < feeds->dest_counts[i]; dest++)
			if (feeds->by_stream[i][dest])
				feed_reconsider(feeds->by_stream[i][dest]);
}

void feeds_drain(struct feeds *feeds)
{
	feeds->state = FEEDS_DRAINING;
}

bool feeds_idle(const struct feeds *feeds)
{
	return feeds->lent == 0;
}

void feeds_destroy(struct feeds *feeds)
{
	if (!feeds)
		return;
	assert(feeds_idle(feeds));
	for (uint32_t i = 0; i < feeds->worker->stream_count; i++) {
		for (uint32_t dest = 0; dest < feeds->dest_counts[i]; dest++)
			if (feeds->by_stream[i][dest])
				feed_destroy(feeds->by_stream[i][dest]);
		free(feeds->by_stream[i]);
	}
	timer_cancel(&feeds->worker->timers, &feeds->sweep);
	free(feeds->by_stream);
	free(feeds->dest_counts);
	free(feeds);
}
