/*
 * mx - see mx.h. Here: the answers that are kept, who waits for one, and the order of attempts.
 * How an answer is found is in mx_search.c.
 */
#include "engine/delivery/mx.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/delivery/mx_search.h"
#include "engine/idn.h"
#include "os/check.h"

enum {
	DOMAINS_MAX = 16384, /* answers that a worker keeps: 1 to 2 KiB each */
	NAMES_MAX = 32768,
};

struct mx {
	struct os_loop *loop;
	struct mx_names names;
	struct mx_self self;
	struct mx_cache domains;
};

/* A destination: one domain, or (domain "") all that goes to a route's configured hosts. */
struct destination {
	struct mx_cache_node node;
	struct mx *mx;
	const struct config_route *route; /* compared, never followed */
	struct mx_answer *answer;	  /* NULL: being searched */
	struct list waiting;
	char domain[];
};

struct key {
	const struct config_route *route;
	uint64_t hash;
	char domain[MX_NAMES_NAME_BYTES];
};

static bool destination_equal(const struct mx_cache_node *node, const void *key)
{
	const struct destination *destination = container_of(node, struct destination, node);
	const struct key *wanted = key;

	return destination->route == wanted->route &&
	       strcmp(destination->domain, wanted->domain) == 0;
}

static void destination_destroy(struct destination *destination)
{
	assert(list_empty(&destination->waiting));
	mx_answer_unref(destination->answer);
	free(destination);
}

static void destination_evicted(struct mx_cache_node *node)
{
	destination_destroy(container_of(node, struct destination, node));
}

/* ── life ─────────────────────────────────────────────────────────────────────────── */

struct mx *mx_create(struct os_loop *loop, const struct config *config)
{
	struct mx *mx = calloc(1, sizeof(*mx));
	bool names, domains;

	if (mx == NULL)
		return NULL;
	mx->loop = loop;
	names = mx_names_init(&mx->names, loop, NAMES_MAX);
	domains = mx_cache_init(&mx->domains, DOMAINS_MAX, destination_equal, destination_evicted);
	if (!names || !domains) {
		mx_destroy(mx);
		return NULL;
	}
	mx_configure(mx, config);
	return mx;
}

void mx_destroy(struct mx *mx)
{
	if (mx == NULL)
		return;
	assert(mx_idle(mx));
	mx_cache_deinit(&mx->domains);
	mx_names_deinit(&mx->names);
	free(mx);
}

bool mx_idle(const struct mx *mx)
{
	return mx->names.in_flight == 0;
}

void mx_configure(struct mx *mx, const struct config *config)
{
	mx_cache_clear(&mx->domains);
	mx_cache_clear(&mx->names.cache);
	mx->self.config = config;
	mx->names.ttl_max_s = config->dns_ttl_max_s;
	mx->names.ttl_failed_s = config->dns_ttl_failed_s;
}

/* ── answers ──────────────────────────────────────────────────────────────────────── */

struct mx_answer *mx_answer_ref(struct mx_answer *answer)
{
	/* Relaxed: who takes a reference holds one. */
	uint32_t before = atomic_fetch_add_explicit(&answer->references, 1, memory_order_relaxed);

	assert(before > 0);
	return answer;
}

void mx_answer_unref(struct mx_answer *answer)
{
	if (answer == NULL)
		return;
	/* The last one frees, after every other thread's reads of it. */
	uint32_t before = atomic_fetch_sub_explicit(&answer->references, 1, memory_order_acq_rel);

	assert(before > 0);
	if (before == 1)
		free(answer);
}

/* ── finding and asking ───────────────────────────────────────────────────────────── */

/* The domain as it is kept: A-labels in lower case, without a final dot. What is no domain at
 * all becomes one that no search accepts. */
static void key_make(const struct mx *mx, struct key *key, struct span domain,
		     const struct config_route *route)
{
	static_assert(IDN_DOMAIN_BYTES == sizeof(key->domain), "idn writes into the key");
	key->route = route;
	if (domain.len > 1 && domain.at[domain.len - 1] == '.')
		domain.len--;
	if (route->action == CONFIG_ROUTE_HOSTS)
		domain.len = 0;
	if (!idn_to_ascii(domain, key->domain))
		strcpy(key->domain, "?");
	key->hash = XXH3_64bits_withSeed(key->domain, strlen(key->domain), mx->names.seed);
}

/* The destination with an answer that holds, or one that is being searched; NULL: neither. */
static struct destination *destination_find(struct mx *mx, const struct key *key)
{
	struct mx_cache_node *node = mx_cache_find(&mx->domains, key->hash, key);

	if (node == NULL)
		return NULL;
	struct destination *destination = container_of(node, struct destination, node);
	if (destination->answer == NULL)
		return destination;
	if (destination->answer->until.ns > os_loop_mono(mx->loop).ns) {
		mx_cache_idle(&mx->domains, node);
		return destination;
	}
	mx_cache_remove(&mx->domains, node);
	destination_destroy(destination);
	return NULL;
}

/* It stays only if the table has it; if not, this was its one use. */
static void destination_known(struct destination *destination, struct mx_answer *answer)
{
	destination->answer = answer;
	if (destination->node.kept)
		mx_cache_idle(&destination->mx->domains, &destination->node);
	else
		destination_destroy(destination);
}

static void on_searched(void *context, struct mx_answer *answer)
{
	struct destination *destination = context;
	struct list waiting, *link;

	/* The requests may do anything to the caches: first let go of the destination. */
	list_init(&waiting);
	list_splice_back(&waiting, &destination->waiting);
	mx_answer_ref(answer);
	destination_known(destination, answer);
	while ((link = list_pop_front(&waiting)) != NULL) {
		struct mx_request *request = container_of(link, struct mx_request, link);

		request->done(request, mx_answer_ref(answer));
	}
	mx_answer_unref(answer);
}

/* NULL: no memory. */
static struct destination *destination_create(struct mx *mx, const struct key *key)
{
	size_t domain_bytes = strlen(key->domain) + 1;
	struct destination *destination = calloc(1, sizeof(*destination) + domain_bytes);

	if (destination == NULL)
		return NULL;
	destination->mx = mx;
	destination->route = key->route;
	list_init(&destination->waiting);
	memcpy(destination->domain, key->domain, domain_bytes);
	mx_cache_insert(&mx->domains, &destination->node, key->hash);
	return destination;
}

struct mx_answer *mx_resolve(struct mx *mx, struct mx_request *request, struct span domain,
			     const struct config_route *route)
{
	struct key key;

	key_make(mx, &key, domain, route);
	struct destination *destination = destination_find(mx, &key);
	if (destination != NULL && destination->answer != NULL)
		return mx_answer_ref(destination->answer);
	if (destination == NULL) {
		destination = destination_create(mx, &key);
		if (destination == NULL)
			return mx_names_no_memory(&mx->names);

		struct mx_answer *answer = mx_search_begin(&mx->names, &mx->self, key.domain, route,
							   on_searched, destination);
		if (answer != NULL) {
			mx_answer_ref(answer);
			destination_known(destination, answer);
			return answer;
		}
	}
	list_init(&request->link);
	list_push_back(&destination->waiting, &request->link);
	return NULL;
}

struct mx_answer *mx_cached(struct mx *mx, struct span domain, const struct config_route *route)
{
	struct key key;

	key_make(mx, &key, domain, route);
	struct destination *destination = destination_find(mx, &key);
	return destination != NULL && destination->answer != NULL
		       ? mx_answer_ref(destination->answer)
		       : NULL;
}

void mx_cancel(struct mx_request *request)
{
	if (request->link.next != NULL)
		list_remove(&request->link);
}

/* ── the order of attempts ────────────────────────────────────────────────────────── */

/* Fisher and Yates. */
static void shuffle(uint8_t *items, uint32_t count, struct prng *prng)
{
	for (uint32_t i = count; i > 1; i--) {
		uint32_t j = (uint32_t)prng_below(prng, i);
		uint8_t item = items[i - 1];

		items[i - 1] = items[j];
		items[j] = item;
	}
}

/* Shuffles within runs of equal rank. */
static void order_hosts(const struct mx_answer *answer, struct prng *prng, uint8_t *order)
{
	for (uint32_t i = 0; i < answer->host_count; i++)
		order[i] = (uint8_t)i;
	for (uint32_t from = 0, to; from < answer->host_count; from = to) {
		to = from + 1;
		while (to < answer->host_count &&
		       answer->hosts[to].preference == answer->hosts[from].preference)
			to++;
		shuffle(order + from, to - from, prng);
	}
}

static void order_addresses(const struct mx_host *host, struct prng *prng, uint8_t *order)
{
	for (uint32_t i = 0; i < host->address_count; i++)
		order[i] = (uint8_t)i;
	for (uint32_t from = 0, to; from < host->address_count; from = to) {
		to = from + 1;
		while (to < host->address_count &&
		       host->addresses[to].family == host->addresses[from].family)
			to++;
		shuffle(order + from, to - from, prng);
	}
}

uint32_t mx_order(const struct mx_answer *answer, struct prng *prng,
		  struct mx_attempt out[static MX_ATTEMPTS_MAX])
{
	uint8_t hosts[MX_HOSTS_MAX], addresses[MX_ADDRESSES_MAX];
	uint32_t count = 0;

	assert(answer->status == MX_OK && answer->host_count <= MX_HOSTS_MAX);
	order_hosts(answer, prng, hosts);
	for (uint32_t i = 0; i < answer->host_count; i++) {
		const struct mx_host *host = &answer->hosts[hosts[i]];

		assert(host->address_count > 0 && host->address_count <= MX_ADDRESSES_MAX);
		order_addresses(host, prng, addresses);
		for (uint32_t j = 0; j < host->address_count && count < MX_ATTEMPTS_MAX; j++)
			out[count++] = (struct mx_attempt){ hosts[i], addresses[j] };
	}
	return count;
}
