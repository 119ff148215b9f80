#include "engine/delivery/sites.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/config/change.h"
#include "engine/delivery/lane.h"
#include "engine/delivery/outbound.h"
#include "engine/delivery/site_health.h"

enum {
	IDLE_KEPT_MS = 60000,
	FORGET_LOOKS = 4, /* at the longest unused, for each new one */
	BUCKETS = 4096,
};

struct sites {
	struct worker *worker;
	struct list all; /* the longest unused first */
	struct list dirty;
	struct list starving;
	struct timer again; /* for those that starve */
	bool draining;
	struct list buckets[BUCKETS]; /* struct site.bucket_link */
};

/* ── one of them ──────────────────────────────────────────────────────────────────── */

static bool is_busy(const struct site *site)
{
	return site->outstanding > 0 || site->foreign > 0 || site->connection_count > 0;
}

static void site_destroy(struct site *site)
{
	list_remove(&site->link);
	list_remove(&site->bucket_link);
	list_remove(&site->dirty_link);
	list_remove(&site->starving_link);
	mx_answer_unref(site->answer);
	config_unref(site->config);
	free(site->health);
	free(site);
}

/* ── the end of a turn ────────────────────────────────────────────────────────────── */

void sites_mark_dirty(struct site *site)
{
	if (!list_linked(&site->dirty_link))
		list_push_back(&site->sites->dirty, &site->dirty_link);
}

bool sites_want_turn(const struct sites *sites)
{
	return !list_empty(&sites->dirty);
}

void sites_dispatch(struct sites *sites)
{
	struct list dirty;

	list_init(&dirty);
	list_splice_back(&dirty, &sites->dirty);
	for (struct list *node; (node = list_pop_front(&dirty));) {
		struct site *site = container_of(node, struct site, dirty_link);

		site_dispatch(site);
		if (site->retired && !is_busy(site))
			site_destroy(site);
	}
}

static void on_again(struct timer *timer)
{
	struct sites *sites = container_of(timer, struct sites, again);

	for (struct list *node; (node = list_pop_front(&sites->starving));)
		sites_mark_dirty(container_of(node, struct site, starving_link));
}

void sites_try_again(struct site *site, uint32_t ms)
{
	struct sites *sites = site->sites;
	struct worker *worker = sites->worker;

	if (!list_linked(&site->starving_link))
		list_push_back(&sites->starving, &site->starving_link);
	if (!timer_is_set(&sites->again))
		timer_set(&worker->timers, &sites->again, os_mono_add_ms(worker_mono(worker), ms));
}

/* ── the table ────────────────────────────────────────────────────────────────────── */

struct sites *sites_create(struct worker *worker)
{
	struct sites *sites = calloc(1, sizeof(*sites));

	if (!sites)
		return NULL;
	sites->worker = worker;
	list_init(&sites->all);
	list_init(&sites->dirty);
	list_init(&sites->starving);
	timer_init(&sites->again, on_again);
	for (int i = 0; i < BUCKETS; i++)
		list_init(&sites->buckets[i]);
	return sites;
}

void sites_destroy(struct sites *sites)
{
	if (!sites)
		return;
	assert(sites_idle(sites));
	timer_cancel(&sites->worker->timers, &sites->again);
	list_each(node, &sites->all)
		site_destroy(container_of(node, struct site, link));
	free(sites);
}

static void touch_use(struct site *site)
{
	site->used_at = worker_mono(site->worker);
	list_remove(&site->link);
	list_push_back(&site->sites->all, &site->link);
}

static void forget_old(struct sites *sites)
{
	uint64_t now_ns = worker_mono(sites->worker).ns;
	int looks = FORGET_LOOKS;

	list_each(node, &sites->all) {
		struct site *site = container_of(node, struct site, link);

		if (looks-- == 0 || site->used_at.ns + IDLE_KEPT_MS * OS_NS_PER_MS > now_ns)
			return;
		if (is_busy(site) || !list_empty(&site->feeds) || site->down_until.ns > now_ns)
			touch_use(site);
		else
			site_destroy(site);
	}
}

static struct site *site_create(struct sites *sites, uint64_t key, struct mx_answer *answer,
				const struct config *config, const struct config_route *route)
{
	struct site *site = calloc(1, sizeof(*site));
	uint32_t start = route->delivery.connections_start;

	if (!site)
		return NULL;
	site->sites = sites;
	site->worker = sites->worker;
	site->key = key;
	site->config = config_ref(config);
	site->route = route;
	site->answer = mx_answer_ref(answer);
	site->home = lane_home(sites->worker, key);
	site->shared = site_limits_of(sites->worker->engine->site_limits, key);
	site->window = (start > 0 ? start : 1) * SITE_WINDOW_ONE;
	site->slow_start = true;
	list_init(&site->link);
	list_init(&site->bucket_link);
	list_init(&site->dirty_link);
	list_init(&site->starving_link);
	list_init(&site->waiting);
	list_init(&site->elsewhere);
	list_init(&site->connections);
	list_init(&site->feeds);
	list_push_back(&sites->buckets[key % BUCKETS], &site->bucket_link);
	return site;
}

static struct site *find(struct sites *sites, uint64_t key)
{
	list_each(node, &sites->buckets[key % BUCKETS]) {
		struct site *site = container_of(node, struct site, bucket_link);

		if (site->key == key)
			return site;
	}
	return NULL;
}

/* A letter may come with a configuration older than ours: then the route is taken from ours, if
 * it is there. A newer one reaches us soon, too. */
static bool still_holds(const struct sites *sites, const struct config **config,
			const struct config_route **route)
{
	const struct config *own = sites->worker->config;

	if ((*config)->generation < own->generation) {
		*config = own;
		*route = config_route_same(own, *route);
	}
	return *route != NULL;
}

struct site *sites_get(struct sites *sites, struct mx_answer *answer, const struct config *config,
		       const struct config_route *route)
{
	/* Two routes to the same hosts have their own limits. The same key, and so the same
	 * worker, in every run and over every reload that leaves the route as it is. */
	uint64_t key = XXH3_64bits_withSeed(&route->identity, sizeof(route->identity),
					    answer->fingerprint);
	struct site *site = find(sites, key);

	if (!site && !still_holds(sites, &config, &route))
		return NULL;
	if (!site) {
		forget_old(sites);
		site = site_create(sites, key, answer, config, route);
		if (!site)
			return NULL;
	}
	if (site->answer != answer) {
		mx_answer_unref(site->answer);
		site->answer = mx_answer_ref(answer);
		site_health_refresh(site);
	}
	touch_use(site);
	return site;
}

/* ── another configuration ────────────────────────────────────────────────────────── */

static void site_retire(struct site *site)
{
	site->retired = true;
	list_remove(&site->bucket_link);
	sites_mark_dirty(site);
}

void sites_reconfigure(struct sites *sites)
{
	const struct config *config = sites->worker->config;

	list_each(node, &sites->all) {
		struct site *site = container_of(node, struct site, link);
		const struct config_route *route = config_route_same(config, site->route);

		if (!route) {
			site_retire(site);
			continue;
		}
		config_unref(site->config);
		site->config = config_ref(config);
		site->route = route;
	}
}

/* ── the end ──────────────────────────────────────────────────────────────────────── */

void sites_drain(struct sites *sites)
{
	sites->draining = true;
	list_each(node, &sites->all)
		sites_mark_dirty(container_of(node, struct site, link));
}

bool sites_draining(const struct sites *sites)
{
	return sites->draining;
}

void sites_cut(struct sites *sites)
{
	list_each(node, &sites->all) {
		struct site *site = container_of(node, struct site, link);

		list_each(connection, &site->connections)
			outbound_cut(outbound_of(connection));
	}
}

bool sites_idle(const struct sites *sites)
{
	for (const struct list *node = sites->all.next; node != &sites->all; node = node->next)
		if (is_busy(container_of(node, struct site, link)))
			return false;
	return true;
}
