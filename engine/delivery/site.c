#include "engine/delivery/site.h"

#include <stdio.h>

#include "engine/delivery/feed.h"
#include "engine/delivery/lane.h"
#include "engine/delivery/outbound.h"
#include "engine/delivery/site_health.h"
#include "engine/delivery/sites.h"

enum {
	NARROW_INTERVAL_MS = 1000, /* several signs of one cause count once */
	STARVING_MS = 50,
	YIELDING_MS = 2 * STARVING_MS, /* in which the starving one has tried again */
	SHORT_OF_MEANS_MS = 1000,
	SERVICE_WEIGHT = 16,	   /* answers that an average looks back */
	SERVICE_BEST_MS = 300000,  /* how long a best time is one to compare with */
	SERVICE_SLOWER = 4,	   /* times the best time */
	SERVICE_SLACK_US = 500000, /* and at least that much more: a busy moment is none */
};

void site_touch(struct site *site)
{
	sites_mark_dirty(site);
}

/* Of all workers together. */
static uint32_t connections_max(const struct site *site)
{
	return site_limit_max(site->shared, worker_mono(site->worker),
			      site->route->delivery.connections_max);
}

uint32_t site_share(const struct site *site)
{
	uint32_t max = connections_max(site), share = max / site->worker->engine->worker_count;

	return share == 0 && lane_is_home(site) ? max : share;
}

void site_returned(struct site *site)
{
	assert(site->outstanding > 0);
	site->outstanding--;
	site_touch(site);
}

/* ── the window ───────────────────────────────────────────────────────────────────── */

/* It answers several times slower than it did lately: it has more than it can take. What lasts
 * is how it is. */
static bool gets_slower(struct site *site, uint64_t service_us)
{
	struct os_mono now = worker_mono(site->worker);

	bool first = site->best_at.ns == 0;

	site->service_us =
		first ? service_us
		      : (site->service_us * (SERVICE_WEIGHT - 1) + service_us) / SERVICE_WEIGHT;
	if (first || site->service_us < site->service_best_us ||
	    site->best_at.ns + SERVICE_BEST_MS * OS_NS_PER_MS < now.ns) {
		site->service_best_us = site->service_us;
		site->best_at = now;
	}
	return site->service_us > SERVICE_SLOWER * site->service_best_us &&
	       site->service_us > site->service_best_us + SERVICE_SLACK_US;
}

void site_answered(struct site *site, uint64_t service_us)
{
	uint32_t max = site->route->delivery.connections_max * SITE_WINDOW_ONE;

	if (gets_slower(site, service_us)) {
		site_slow_down(site);
		return;
	}
	if (site->grow_after.ns > worker_mono(site->worker).ns)
		return;
	site->window += site->slow_start ? SITE_WINDOW_ONE
					 : SITE_WINDOW_ONE * SITE_WINDOW_ONE / site->window;
	if (site->window > max)
		site->window = max;
}

void site_slow_down(struct site *site)
{
	struct os_mono now = worker_mono(site->worker);

	if (site->narrowed_at.ns + NARROW_INTERVAL_MS * OS_NS_PER_MS > now.ns)
		return;
	site->narrowed_at = now;
	site->slow_start = false;
	site->window = site->window / 2 > SITE_WINDOW_ONE ? site->window / 2 : SITE_WINDOW_ONE;
}

/* It takes as many connections as there are, and no more. */
void site_keep_to(struct site *site, uint32_t working)
{
	site->window = working * SITE_WINDOW_ONE;
	site->slow_start = false;
	site->grow_after = os_mono_add_ms(worker_mono(site->worker), SITE_LIMIT_GROW_MS);
	site_touch(site);
}

static uint32_t connections_wanted(const struct site *site)
{
	return site->state == SITE_PROBING ? 1 : site->window / SITE_WINDOW_ONE;
}

/* How many more deliveries it wants: enough to fill every connection that there may be, and as
 * much again behind it. What other workers send here because they may have no connection is not for
 * this one to wait behind. */
static uint32_t room_of(struct site *site)
{
	uint32_t depth = site->streams ? site->route->delivery.stream_depth : 1;
	bool enough = connections_max(site) >= site->worker->engine->worker_count;
	bool probes = site->state == SITE_PROBING && site_share(site) > 0;
	uint32_t wanted = probes ? 1 : connections_wanted(site) * depth * 2;
	uint32_t have = site->outstanding + (enough ? site->foreign : 0);

	return wanted > have ? wanted - have : 0;
}

/* ── connections ──────────────────────────────────────────────────────────────────── */

/* Below its share, a worker that finds all taken asks the others to give one up; not again if the
 * host then refused it what they gave up. */
static bool claim_connection(struct site *site)
{
	_Atomic uint32_t *all = &site->shared->connections;

	if (atomic_fetch_add_explicit(all, 1, memory_order_relaxed) < connections_max(site))
		return true;
	atomic_fetch_sub_explicit(all, 1, memory_order_relaxed);
	if (site->connection_count < site_share(site) && site->refusals < 2)
		atomic_store_explicit(&site->shared->starving, 1, memory_order_relaxed);
	if (site->connection_count == 0)
		sites_try_again(site, STARVING_MS);
	return false;
}

/* It has left a connection to a worker that has less than its share, and must not be quicker. */
static bool yields(struct site *site)
{
	if (site->connection_count < site_share(site) ||
	    worker_mono(site->worker).ns >= site->yields_until.ns)
		return false;
	sites_try_again(site, YIELDING_MS);
	return true;
}

/* The host took none beside another worker's, a moment ago. */
static bool is_refused(const struct site *site)
{
	return worker_mono(site->worker).ns < site->refused_until.ns;
}

static void feed_the_starving(struct site *site)
{
	if (site->connection_count <= site_share(site) || list_empty(&site->connections) ||
	    !atomic_load_explicit(&site->shared->starving, memory_order_relaxed))
		return;
	atomic_store_explicit(&site->shared->starving, 0, memory_order_relaxed);
	site->yields_until = os_mono_add_ms(worker_mono(site->worker), YIELDING_MS);
	outbound_quit(outbound_of(site->connections.next));
}

/* For want of descriptors or memory: our fault, and no reason to give the site up. */
static void on_no_socket(struct site *site, int error)
{
	if (worker_tell_shortage(site->worker))
		log_notice(LOG_WARNING,
			   "cannot open a connection to %s: %s; trying again. Look at the limit "
			   "of open files, and at source4 and source6",
			   site->answer->hosts[0].name, strerror(-error));
	sites_try_again(site, SHORT_OF_MEANS_MS);
}

static void uncount_connection(struct site *site, bool was_connecting)
{
	site->connection_count--;
	if (was_connecting)
		site->connecting_count--;
	else
		atomic_fetch_sub_explicit(&site->shared->working, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&site->shared->connections, 1, memory_order_relaxed);
}

enum opened { OPENED, OPENED_NOT_NOW, OPENED_NO_TARGET };

/* `delivery`: some hosts have refused it; NULL: any will do. */
static enum opened open_one(struct site *site, const struct delivery *delivery)
{
	struct mx_attempt target;
	const struct mx_host *host;
	int result;

	if (!site_choose_target(site, delivery, &target))
		return OPENED_NO_TARGET;
	if (is_refused(site)) {
		sites_try_again(site, STARVING_MS);
		return OPENED_NOT_NOW;
	}
	if (yields(site) || !claim_connection(site))
		return OPENED_NOT_NOW;
	host = &site->answer->hosts[target.host];
	site->connection_count++;
	site->connecting_count++;
	result = outbound_open(site, host, &host->addresses[target.address]);
	if (result == 0)
		return OPENED;
	uncount_connection(site, true);
	on_no_socket(site, result);
	return OPENED_NOT_NOW;
}

static void give_back_one(struct site *site, struct delivery *delivery, enum smtp_verdict verdict)
{
	delivery->retry_at = site_down_until(site);
	delivery_close(delivery, verdict, site->reason_code, site->reason_enhanced, site->reason);
	feed_delivered(delivery);
}

/* Gives back what waits, with what its verdicts are, or `verdict` for those without. */
static void give_back(struct site *site, enum smtp_verdict verdict)
{
	for (struct list *node; (node = list_pop_front(&site->elsewhere));) {
		struct delivery *delivery = container_of(node, struct delivery, link);

		if (delivery_is_judged(delivery))
			feed_delivered(delivery);
		else
			give_back_one(site, delivery, verdict);
	}
	for (struct list *node; (node = list_pop_front(&site->waiting));) {
		site->waiting_count--;
		give_back_one(site, container_of(node, struct delivery, link), verdict);
	}
}

static void open_connections(struct site *site)
{
	enum opened opened = OPENED;

	while (opened == OPENED && site->waiting_count > site->connecting_count &&
	       site->connection_count < connections_wanted(site))
		opened = open_one(site, NULL);
	/* Nobody would come back for what waits. */
	if (opened == OPENED_NO_TARGET && site->connection_count == 0) {
		site_go_down(site);
		give_back(site, site->takes_no_mail ? SMTP_FAILED : SMTP_DEFERRED);
	}
}

void site_connection_ready(struct site *site)
{
	assert(site->connecting_count > 0);
	site->connecting_count--;
	atomic_fetch_add_explicit(&site->shared->working, 1, memory_order_relaxed);
	site_touch(site);
}

void site_connection_gone(struct site *site, bool was_connecting)
{
	uncount_connection(site, was_connecting);
	site_touch(site);
}

/* ── deliveries ───────────────────────────────────────────────────────────────────── */

static void fill_connections(struct site *site)
{
	list_each(node, &site->connections) {
		struct outbound *outbound = outbound_of(node);
		uint32_t room = outbound_room(outbound);

		if (list_empty(&site->waiting))
			return;
		if (room == 0)
			continue;
		if (room > 1)
			site->streams = true;
		while (room-- > 0 && !list_empty(&site->waiting)) {
			struct list *first = list_pop_front(&site->waiting);

			site->waiting_count--;
			outbound_submit(outbound, container_of(first, struct delivery, link));
		}
		outbound_flush(outbound);
	}
}

/* Each feed in its turn, so that no domain waits behind another's backlog. */
static void pull_feeds(struct site *site)
{
	uint32_t room = room_of(site);

	while (room > 0 && !list_empty(&site->feeds)) {
		struct list *node = list_pop_front(&site->feeds);

		if (!feed_pull(feed_of_site_link(node), site))
			continue;
		room--;
		if (!list_linked(node))
			list_push_back(&site->feeds, node);
	}
}

/* ── deliveries for which not every connection will do ────────────────────────────── */

void site_renew(struct site *site, struct delivery *delivery)
{
	list_push_front(&site->waiting, &delivery->link);
	site->waiting_count++;
	site_touch(site);
}

bool site_try_elsewhere(struct site *site, struct delivery *delivery,
			const struct os_address *refused_by)
{
	struct mx_attempt target;

	if (site->retired || sites_draining(site->sites) ||
	    !delivery_refuse(delivery, refused_by) || !site_choose_target(site, delivery, &target))
		return false;
	list_push_back(&site->elsewhere, &delivery->link);
	site_touch(site);
	return true;
}

void site_end_refused(struct site *site, struct delivery *delivery)
{
	bool all = site_all_refuse(site, delivery);
	char text[SITE_REASON_BYTES + sizeof(delivery->host.name) + 64];

	if (!delivery_is_judged(delivery)) {
		snprintf(text, sizeof(text),
			 "the message is larger than %s takes, and elsewhere: %s",
			 delivery->host.name, site->reason);
		delivery_close(delivery, all ? SMTP_FAILED : SMTP_DEFERRED, 0,
			       all ? SMTP_OWN_TOO_BIG : site->reason_enhanced, text);
	}
	feed_delivered(delivery);
}

/* A connection was lost at it: whether it was to blame shows on one where it comes first. */
static bool wants_unused(const struct delivery *delivery)
{
	return delivery->job->suspect && !delivery_is_judged(delivery);
}

static bool will_do(const struct outbound *outbound, const struct delivery *delivery)
{
	return !delivery_refused_by(delivery, outbound_address(outbound)) &&
	       (!wants_unused(delivery) || outbound_is_unused(outbound));
}

/* NULL and *busy_out: a connection will do that has no room now. */
static struct outbound *find_elsewhere(struct site *site, const struct delivery *delivery,
				       bool *busy_out)
{
	*busy_out = false;
	list_each(node, &site->connections) {
		struct outbound *outbound = outbound_of(node);

		if (!will_do(outbound, delivery))
			continue;
		if (outbound_room(outbound) > 0)
			return outbound;
		*busy_out = true;
	}
	return NULL;
}

/* No connection of it will do. False: there is none to hope for. */
static bool await_elsewhere(struct site *site, const struct delivery *delivery)
{
	bool full = wants_unused(delivery) && site->connection_count >= connections_wanted(site);
	enum opened opened = full ? OPENED_NOT_NOW : open_one(site, delivery);

	if (opened != OPENED_NOT_NOW || delivery_is_judged(delivery))
		return opened == OPENED;
	/* It was asked of no host yet, and those connections that there may be are not for it: one
	 * gives way. */
	if (!list_empty(&site->connections) && !is_refused(site))
		outbound_quit(outbound_of(site->connections.next));
	return true;
}

static void dispatch_elsewhere(struct site *site)
{
	list_each(node, &site->elsewhere) {
		struct delivery *delivery = container_of(node, struct delivery, link);
		bool busy;
		struct outbound *outbound = find_elsewhere(site, delivery, &busy);

		if (!outbound && (busy || await_elsewhere(site, delivery)))
			continue;
		list_remove(node);
		if (outbound) {
			outbound_submit(outbound, delivery);
			outbound_flush(outbound);
		} else if (delivery->refusals > 0) {
			site_end_refused(site, delivery);
		} else { /* no host can be asked now: it waits with the others */
			site_renew(site, delivery);
		}
	}
}

/* ── the turn ─────────────────────────────────────────────────────────────────────── */

void site_dispatch(struct site *site)
{
	if (site->retired || sites_draining(site->sites)) {
		give_back(site, SMTP_NOT_SENT);
		list_each(node, &site->connections)
			outbound_quit(outbound_of(node));
		return;
	}
	if (site_is_down(site)) {
		for (struct list *node; (node = list_pop_front(&site->feeds));)
			feed_site_is_down(feed_of_site_link(node));
		give_back(site, site->takes_no_mail ? SMTP_FAILED : SMTP_DEFERRED);
		return;
	}
	feed_the_starving(site);
	lane_send_home(site);
	pull_feeds(site);
	dispatch_elsewhere(site);
	fill_connections(site);
	open_connections(site);
}
