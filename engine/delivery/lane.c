#include "engine/delivery/lane.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/delivery/feed.h"
#include "engine/delivery/outbound.h"
#include "engine/delivery/sites.h"

enum {
	LOCAL_RATE = 50, /* deliveries a second that are worth a lane of one's own */
	LOCAL_READY = 8, /* ... or jobs that are ready */
};

/* Rendezvous hashing: a changed number of workers moves few sites. */
uint32_t lane_home(const struct worker *worker, uint64_t site_key)
{
	uint32_t best = 0;
	uint64_t best_weight = 0;

	for (uint32_t i = 0; i < worker->engine->worker_count; i++) {
		uint64_t weight = XXH3_64bits_withSeed(&i, sizeof(i), site_key);

		if (weight >= best_weight) {
			best = i;
			best_weight = weight;
		}
	}
	return best;
}

bool lane_is_home(const struct site *site)
{
	return site->home == site->worker->index;
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
	if (delivery->refusals > 0 || delivery->job->suspect) {
		list_push_back(&site->elsewhere, &delivery->link);
	} else {
		list_push_back(&site->waiting, &delivery->link);
		site->waiting_count++;
	}
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

static void send_home(struct site *site, struct delivery *delivery)
{
	struct worker *worker = site->worker;

	assert(delivery->owner == worker);
	delivery->lane = NULL;
	delivery->answer = mx_answer_ref(site->answer);
	delivery->letter.open = on_arrival;
	mailbox_send(worker->engine->mailboxes, worker->index, site->home, &delivery->letter);
}

void lane_take(struct site *site, struct delivery *delivery)
{
	struct queue_job *job = delivery->job;

	count_taken(site);
	site->local =
		site_share(site) > 0 && is_busy(site, queue_dest_ready(job->stream, job->dest));
	if (site->local || lane_is_home(site))
		enter(site, delivery);
	else
		send_home(site, delivery);
}

void lane_send_home(struct site *site)
{
	if (lane_is_home(site) || site_share(site) > 0)
		return;
	site->refusals = 0;
	list_each(node, &site->connections)
		outbound_quit(outbound_of(node));
	for (struct list *node; (node = list_pop_front(&site->waiting));) {
		site->waiting_count--;
		send_home(site, container_of(node, struct delivery, link));
	}
	for (struct list *node; (node = list_pop_front(&site->elsewhere));) {
		struct delivery *delivery = container_of(node, struct delivery, link);

		if (delivery_is_judged(delivery)) /* it would lose its verdicts there */
			feed_delivered(delivery);
		else
			send_home(site, delivery);
	}
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
