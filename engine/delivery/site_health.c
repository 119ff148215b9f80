#include "engine/delivery/site_health.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/delivery/outbound.h"
#include "engine/delivery/retry.h"

enum {
	HEALTH_KEPT = 64,
	DOWN_LEAST_MS = 1000,
	REFUSALS_MAX = 3,
	REFUSED_PAUSE_MS = 1000,
	REFUSALS_KEPT_MS = 30000, /* after that pause: then they count anew */
	REPLY_CLOSING = 421,
	REPLY_TAKES_NO_MAIL = 521, /* RFC 7504 */
	STATUS_TAKES_NO_MAIL = 50302,
};

/* ── addresses ────────────────────────────────────────────────────────────────────── */

static struct host_health *health_of(const struct site *site, const struct os_address *address)
{
	for (uint32_t i = 0; i < site->health_count; i++)
		if (os_address_equal(&site->health[i].address, address))
			return &site->health[i];
	return NULL;
}

/* Of no use any more: nothing is known against the address now. */
static bool is_stale(const struct site *site, const struct host_health *health)
{
	return health->avoid_until.ns + UINT64_C(3600) * OS_NS_PER_S < worker_mono(site->worker).ns;
}

static void drop_stale(struct site *site)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < site->health_count; i++)
		if (!is_stale(site, &site->health[i]))
			site->health[kept++] = site->health[i];
	site->health_count = kept;
}

static bool health_grow(struct site *site)
{
	uint32_t size = site->health_size ? site->health_size * 2 : 4;
	struct host_health *grown = realloc(site->health, size * sizeof(*grown));

	if (!grown)
		return false;
	site->health = grown;
	site->health_size = size;
	return true;
}

/* NULL: no memory, or more failing addresses than are remembered. */
static struct host_health *health_add(struct site *site, const struct os_address *address)
{
	struct host_health *health = health_of(site, address);

	if (health)
		return health;
	if (site->health_count == site->health_size)
		drop_stale(site);
	if (site->health_count == HEALTH_KEPT ||
	    (site->health_count == site->health_size && !health_grow(site)))
		return NULL;
	health = &site->health[site->health_count++];
	*health = (struct host_health){ .address = *address };
	return health;
}

static bool is_avoided(const struct site *site, const struct os_address *address)
{
	const struct host_health *health = health_of(site, address);

	return health && health->avoid_until.ns > worker_mono(site->worker).ns;
}

bool site_choose_target(struct site *site, const struct delivery *delivery, struct mx_attempt *out)
{
	struct mx_attempt order[MX_ATTEMPTS_MAX];
	uint32_t count = mx_order(site->answer, &site->worker->prng, order);

	for (uint32_t i = 0; i < count; i++) {
		const struct mx_host *host = &site->answer->hosts[order[i].host];
		const struct os_address *address = &host->addresses[order[i].address];

		if (is_avoided(site, address) ||
		    (delivery && delivery_refused_by(delivery, address)))
			continue;
		*out = order[i];
		return true;
	}
	return false;
}

static bool refuses(const struct site *site, const struct delivery *delivery,
		    const struct os_address *address)
{
	const struct host_health *health = health_of(site, address);

	return delivery_refused_by(delivery, address) || (health && health->takes_no_mail);
}

/* Who was refused that often is refused. */
bool site_all_refuse(const struct site *site, const struct delivery *delivery)
{
	if (delivery->refusals == DELIVERY_REFUSALS_MAX)
		return true;
	for (uint32_t h = 0; h < site->answer->host_count; h++) {
		const struct mx_host *host = &site->answer->hosts[h];

		for (uint32_t a = 0; a < host->address_count; a++)
			if (!refuses(site, delivery, &host->addresses[a]))
				return false;
	}
	return true;
}

/* When the first of its addresses may be tried again; in the past: one may be now. */
static struct os_mono next_try(const struct site *site)
{
	struct os_mono best = { UINT64_MAX };

	for (uint32_t h = 0; h < site->answer->host_count; h++) {
		const struct mx_host *host = &site->answer->hosts[h];

		for (uint32_t a = 0; a < host->address_count; a++) {
			const struct host_health *health = health_of(site, &host->addresses[a]);

			if (!health)
				return (struct os_mono){ 0 };
			if (health->avoid_until.ns < best.ns)
				best = health->avoid_until;
		}
	}
	return best;
}

/* ── the site as a whole ──────────────────────────────────────────────────────────── */

static void set_down(struct site *site, struct os_mono until)
{
	struct os_mono least = os_mono_add_ms(worker_mono(site->worker), DOWN_LEAST_MS);

	if (until.ns < least.ns)
		until = least;
	site->state = SITE_DOWN;
	site->window = SITE_WINDOW_ONE;
	site->down_until = until;
}

struct os_wall site_down_until(const struct site *site)
{
	uint64_t now_ns = worker_mono(site->worker).ns;
	uint64_t left_ns = site->down_until.ns > now_ns ? site->down_until.ns - now_ns : 0;

	return (struct os_wall){ worker_wall(site->worker).us + (int64_t)(left_ns / 1000) };
}

/* Every address that mail would be tried at has said 521. */
static bool takes_no_mail(const struct site *site)
{
	for (uint32_t h = 0; h < site->answer->host_count; h++) {
		const struct mx_host *host = &site->answer->hosts[h];

		for (uint32_t a = 0; a < host->address_count; a++) {
			const struct host_health *health = health_of(site, &host->addresses[a]);

			if (!health || !health->takes_no_mail)
				return false;
		}
	}
	return true;
}

void site_go_down(struct site *site)
{
	site->takes_no_mail = takes_no_mail(site);
	if (site->takes_no_mail)
		site->reason_enhanced = STATUS_TAKES_NO_MAIL;
	atomic_store_explicit(&site->shared->takes_no_mail, site->takes_no_mail,
			      memory_order_relaxed);
	if (site->state == SITE_UP)
		log_notice(LOG_WARNING, "site of %s is down: %s", site->answer->hosts[0].name,
			   site->reason);
	set_down(site, next_try(site));
	/* release, and acquire in site_is_down(): who sees the time sees the reason. */
	atomic_store_explicit(&site->shared->down_until_ns, site->down_until.ns,
			      memory_order_release);
	site_touch(site);
}

/* Another worker found out: this one needn't try. */
static void adopt_down(struct site *site, uint64_t until_ns)
{
	site->takes_no_mail =
		atomic_load_explicit(&site->shared->takes_no_mail, memory_order_relaxed);
	if (site->state == SITE_UP)
		snprintf(site->reason, sizeof(site->reason), "%s, as another worker found",
			 site->takes_no_mail ? "no host takes mail" : "no host could be reached");
	site->reason_code = 0;
	site->reason_enhanced = site->takes_no_mail ? STATUS_TAKES_NO_MAIL : 40401;
	set_down(site, (struct os_mono){ until_ns });
}

bool site_is_down(struct site *site)
{
	uint64_t now_ns = worker_mono(site->worker).ns;
	uint64_t until_ns =
		atomic_load_explicit(&site->shared->down_until_ns, memory_order_acquire);

	/* One of this worker's own, on its way, may be welcome where another worker's was refused:
	 * else what waits for it would be deferred just before, each time anew. */
	if (site->state != SITE_DOWN && until_ns > now_ns && site->down_until.ns < until_ns &&
	    site->connection_count == 0)
		adopt_down(site, until_ns);
	if (site->state == SITE_DOWN && site->down_until.ns <= now_ns)
		site->state = SITE_PROBING;
	return site->state == SITE_DOWN;
}

/* Connections past EHLO to that address. */
static uint32_t working_at(struct site *site, const struct os_address *address)
{
	uint32_t count = 0;

	list_each(node, &site->connections) {
		const struct outbound *outbound = outbound_of(node);

		count += outbound_is_greeted(outbound) &&
			 os_address_equal(outbound_address(outbound), address);
	}
	return count;
}

static uint32_t working_of_all(const struct site *site)
{
	return atomic_load_explicit(&site->shared->working, memory_order_relaxed);
}

static bool answers_mail(const struct site *site, const struct os_address *address)
{
	return atomic_load_explicit(&site->shared->heard_at, memory_order_relaxed) ==
	       os_address_hash(address);
}

/* True: it refused one connection more than those of other workers, `working` in all, which is its
 * limit then. It may not have seen yet that one of those is gone: a few refusals in a row have that
 * reason, and more of them another one. */
static bool take_as_limit(struct site *site, const struct os_address *address, uint32_t working)
{
	struct os_mono now = worker_mono(site->worker);

	if (!answers_mail(site, address))
		return false;
	if (now.ns < site->refused_until.ns) /* asked before that answer came */
		return true;
	if (now.ns > os_mono_add_ms(site->refused_until, REFUSALS_KEPT_MS).ns)
		site->refusals = 0;
	if (site->refusals == REFUSALS_MAX || (site->refusals == 0 && working == 0))
		return false;
	if (site->refusals++ == 0)
		site_limit_keep(site->shared, now, working);
	site->refused_until = os_mono_add_ms(now, REFUSED_PAUSE_MS);
	return true;
}

void site_host_failed(struct site *site, const struct os_address *address, bool greeted,
		      uint16_t code, uint16_t enhanced, const char *why)
{
	struct worker *worker = site->worker;
	uint32_t working = site->connection_count - site->connecting_count - greeted;
	struct host_health *health;

	site_slow_down(site);
	snprintf(site->reason, sizeof(site->reason), "%s", why);
	site->reason_code = code;
	/* A host that refuses the session says nothing for good about a recipient. */
	site->reason_enhanced = enhanced / 10000 == 4 ? enhanced : 40402;
	if (working_at(site, address) > greeted) {
		site_keep_to(site, working);
		if (code == REPLY_CLOSING)
			site_limit_keep(site->shared, worker_mono(worker),
					working_of_all(site) - greeted);
		return;
	}
	if (working == 0 && code == REPLY_CLOSING &&
	    take_as_limit(site, address, working_of_all(site) - greeted)) {
		site_touch(site);
		return;
	}
	health = health_add(site, address);
	if (!health)
		return;
	health->failures++;
	health->takes_no_mail = code == REPLY_TAKES_NO_MAIL;
	/* One connection that broke is an accident; two in a row are the host. */
	if (greeted && health->failures == 1) {
		site_touch(site);
		return;
	}
	health->avoid_until = os_mono_add_ms(
		worker_mono(worker),
		retry_probe_ms(&site->route->delivery, health->failures, &worker->prng));
	if (working == 0 && next_try(site).ns > worker_mono(worker).ns)
		site_go_down(site);
	site_touch(site);
}

void site_host_greeted(struct site *site)
{
	if (site->state != SITE_UP)
		log_notice(LOG_NOTICE, "site of %s is up again", site->answer->hosts[0].name);
	site->state = SITE_UP;
	atomic_store_explicit(&site->shared->down_until_ns, 0, memory_order_relaxed);
	site_connection_ready(site);
}

void site_host_answered(struct site *site, const struct os_address *address)
{
	struct host_health *health = health_of(site, address);

	if (!answers_mail(site, address))
		atomic_store_explicit(&site->shared->heard_at, os_address_hash(address),
				      memory_order_relaxed);
	site->refusals = 0;
	if (health)
		*health = (struct host_health){ .address = *address };
}

void site_health_refresh(struct site *site)
{
	if (site->state == SITE_DOWN && next_try(site).ns <= worker_mono(site->worker).ns)
		site->down_until = worker_mono(site->worker);
}
