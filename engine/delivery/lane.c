#include "engine/delivery/lane.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/delivery/feed.h"
#include "engine/delivery/sites.h"

enum {
	LOCAL_RATE = 50, /* deliveries a second that are worth a lane of one's own */
	LOCAL_READY = 8, /* ... or jobs that are ready */
};

/* Rendezvous hashing: a changed number of workers moves few sites. */
static uint32_t home_of(const struct site *site)
{
	uint32_t best = 0;
	uint64_t best_weight = 0;

	for (uint32_t i = 0; i < site->worker->engine->worker_count; i++) {
		uint64_t weight = XXH3_64bits_withSeed(&i, sizeof(i), site->key);

		if (weight >= best_weight) {
			best = i;
			best_weight = weight;
		}
	}
	return best;
}

static void count_taken(struct site *site)
{
	uint64_t second = worker_mono(site->worker).ns / OS_NS_PER_S;

	if (second != site->second) {
		site->taken_before = second == site->second + 1 ? site->taken : 0;
		site->taken = 0;
		site->second = second;
	}
	site->taken++;
}

/* Half of what begins it ends it. */
static bool is_busy(const struct site *site, uint32_t ready)
{
	uint32_t halves = site->local ? 1 : 2;

	return ready >= LOCAL_READY / 2 * halves || site->taken >= LOCAL_RATE / 2 * halves ||
	       site->taken_before >= LOCAL_RATE / 2 * halves;
}

static void enter(struct site *site, struct delivery *delivery)
{
	delivery->lane = site;
	if (delivery->owner != site->worker)
		site->foreign++;
	list_push_back(&site->waiting, &delivery->link);
	site->waiting_count++;
	site_touch(site);
}

static void on_arrival(struct letter *letter)
{
	struct delivery *delivery = container_of(letter, struct delivery, letter);
	struct site *site = sites_get(worker_self()->sites, delivery->answer, delivery->config,
				      delivery->route);

	mx_answer_unref(delivery->answer);
	delivery->answer = NULL;
	if (site) {
		enter(site, delivery);
		return;
	}
	delivery_close(delivery, SMTP_NOT_SENT, 0, 0, "");
	feed_delivered(delivery);
}

void lane_take(struct site *site, struct delivery *delivery)
{
	struct worker *worker = site->worker;
	struct queue_job *job = delivery->job;
	uint32_t home = home_of(site);

	count_taken(site);
	site->local =
		site_share(site) > 0 && is_busy(site, queue_dest_ready(job->stream, job->dest));
	if (site->local || home == worker->index) {
		enter(site, delivery);
		return;
	}
	delivery->answer = mx_answer_ref(site->answer);
	delivery->letter.open = on_arrival;
	mailbox_send(worker->engine->mailboxes, worker->index, home, &delivery->letter);
}

void lane_leave(struct delivery *delivery)
{
	struct site *site = delivery->lane;

	delivery->lane = NULL;
	if (!site || delivery->owner == site->worker)
		return;
	assert(site->foreign > 0);
	site->foreign--;
	site_touch(site);
}
