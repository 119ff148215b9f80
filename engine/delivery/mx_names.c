/*
 * mx_names - see mx_names.h.
 *
 * A lookup is freed when it is neither in the cache nor in use. While its query is in flight,
 * the query uses it.
 */
#include "engine/delivery/mx_names.h"

#include <stdlib.h>
#include <xxhash.h>

#include "engine/delivery/mx.h"
#include "os/check.h"

enum { NO_MEMORY_S = 30 };

/* In flight; apart, because it is large and soon over. */
struct question {
	struct os_dns_query query;
	struct mx_lookup *lookup;
};

struct key {
	const char *name;
	enum os_dns_type type;
};

static bool lookup_equal(const struct mx_cache_node *node, const void *key)
{
	const struct mx_lookup *lookup = container_of(node, struct mx_lookup, node);
	const struct key *wanted = key;

	return lookup->type == wanted->type && strcmp(lookup->name, wanted->name) == 0;
}

static void lookup_destroy(struct mx_lookup *lookup)
{
	assert(lookup->users == 0 && list_empty(&lookup->waiters));
	free(lookup->targets);
	free(lookup->addresses);
	free(lookup);
}

static void lookup_evicted(struct mx_cache_node *node)
{
	lookup_destroy(container_of(node, struct mx_lookup, node));
}

/* An answer like any other, that never changes but for its time: all is deferred by it alike. */
static struct mx_answer *no_memory_create(void)
{
	struct mx_answer *answer = calloc(1, sizeof(*answer));

	if (answer == NULL)
		return NULL;
	*answer = (struct mx_answer){
		.status = MX_DEFER,
		.enhanced = 40300,
		.text = "out of memory",
		.references = 1,
	};
	return answer;
}

static struct mx_lookup *unasked_create(struct mx_names *names)
{
	struct mx_lookup *lookup = calloc(1, sizeof(*lookup) + 1);

	if (lookup == NULL)
		return NULL;
	lookup->known = true;
	lookup->status = OS_DNS_FAILED;
	lookup->names = names;
	lookup->users = 1;
	list_init(&lookup->waiters);
	list_init(&lookup->node.recent);
	return lookup;
}

bool mx_names_init(struct mx_names *names, struct os_loop *loop, uint32_t count_max)
{
	*names = (struct mx_names){ .loop = loop };
	names->unasked = unasked_create(names);
	names->no_memory = no_memory_create();
	os_random(&names->seed, sizeof(names->seed));
	return mx_cache_init(&names->cache, count_max, lookup_equal, lookup_evicted) &&
	       names->unasked != NULL && names->no_memory != NULL;
}

void mx_names_deinit(struct mx_names *names)
{
	assert(names->in_flight == 0);
	mx_cache_deinit(&names->cache);
	mx_names_put(names->unasked);
	mx_answer_unref(names->no_memory);
}

struct mx_answer *mx_names_no_memory(struct mx_names *names)
{
	names->no_memory->until =
		os_mono_add_ms(os_loop_mono(names->loop), UINT64_C(1000) * NO_MEMORY_S);
	return mx_answer_ref(names->no_memory);
}

/* ── what an answer leaves behind ─────────────────────────────────────────────────── */

static int compare_targets(const void *left, const void *right)
{
	const struct os_dns_record *a = left, *b = right;

	if (a->preference != b->preference)
		return a->preference < b->preference ? -1 : 1;
	return strcmp(a->name, b->name);
}

static bool target_known(const struct mx_lookup *lookup, const char *name)
{
	for (uint32_t i = 0; i < lookup->count; i++) {
		if (strcmp(lookup->targets[i].name, name) == 0)
			return true;
	}
	return false;
}

/* One block: the targets, then their names. False: no memory. */
static bool keep_targets(struct mx_lookup *lookup, struct os_dns_query *query)
{
	uint32_t count = query->record_count;
	size_t name_bytes = 0;

	assert(lookup->count == 0);
	qsort(query->records, count, sizeof(*query->records), compare_targets);
	if (count > MX_NAMES_RECORDS_MAX)
		count = MX_NAMES_RECORDS_MAX;
	for (uint32_t i = 0; i < count; i++)
		name_bytes += strlen(query->records[i].name) + 1;
	lookup->targets = malloc(count * sizeof(*lookup->targets) + name_bytes);
	if (lookup->targets == NULL)
		return false;

	char *name = (char *)(lookup->targets + count);
	for (uint32_t i = 0; i < count; i++) {
		const struct os_dns_record *record = &query->records[i];

		if (target_known(lookup, record->name))
			continue;
		lookup->targets[lookup->count++] = (struct mx_names_target){
			.preference = record->preference,
			.name = strcpy(name, record->name),
		};
		name += strlen(name) + 1;
	}
	return true;
}

static bool keep_addresses(struct mx_lookup *lookup, const struct os_dns_query *query)
{
	uint32_t count = query->record_count;

	if (count > MX_NAMES_RECORDS_MAX)
		count = MX_NAMES_RECORDS_MAX;
	lookup->addresses = malloc(count * sizeof(*lookup->addresses));
	if (lookup->addresses == NULL)
		return false;
	for (uint32_t i = 0; i < count; i++)
		lookup->addresses[i] = query->records[i].address;
	lookup->count = count;
	return true;
}

static struct os_mono keep_until(const struct mx_names *names, enum os_dns_status status,
				 uint32_t ttl_s)
{
	if (status == OS_DNS_FAILED)
		ttl_s = names->ttl_failed_s;
	else if (ttl_s > names->ttl_max_s)
		ttl_s = names->ttl_max_s;
	if (ttl_s < MX_TTL_MIN_S)
		ttl_s = MX_TTL_MIN_S;
	return os_mono_add_ms(os_loop_mono(names->loop), UINT64_C(1000) * ttl_s);
}

/* ── asking ───────────────────────────────────────────────────────────────────────── */

static void lookup_wake(struct mx_lookup *lookup)
{
	struct list *link;

	while ((link = list_pop_front(&lookup->waiters)) != NULL) {
		struct mx_waiter *waiter = container_of(link, struct mx_waiter, link);

		waiter->known(waiter);
	}
}

static bool keep(struct mx_lookup *lookup, struct os_dns_query *query)
{
	return query->type == OS_DNS_MX ? keep_targets(lookup, query)
					: keep_addresses(lookup, query);
}

static void question_done(struct os_op *op)
{
	struct question *question = container_of(op, struct question, query.op);
	struct os_dns_query *query = &question->query;
	struct mx_lookup *lookup = question->lookup;
	struct mx_names *names = lookup->names;

	assert(!lookup->known);
	lookup->status = query->status;
	if (query->status == OS_DNS_OK && query->record_count == 0)
		lookup->status = OS_DNS_NODATA;
	else if (query->status == OS_DNS_OK && !keep(lookup, query))
		lookup->status = OS_DNS_FAILED;
	lookup->until = keep_until(names, lookup->status, query->ttl_s);
	lookup->known = true;
	names->in_flight--;
	os_dns_release(query);
	free(question);

	lookup_wake(lookup);
	mx_names_put(lookup);
}

/* NULL: no memory. */
static struct mx_lookup *lookup_start(struct mx_names *names, const struct key *key, uint64_t hash)
{
	size_t name_bytes = strlen(key->name) + 1;
	struct mx_lookup *lookup = calloc(1, sizeof(*lookup) + name_bytes);
	struct question *question = calloc(1, sizeof(*question));

	if (lookup == NULL || question == NULL) {
		free(lookup);
		free(question);
		return NULL;
	}
	assert(name_bytes <= MX_NAMES_NAME_BYTES);
	lookup->names = names;
	lookup->type = key->type;
	lookup->users = 1;
	list_init(&lookup->waiters);
	memcpy(lookup->name, key->name, name_bytes);
	mx_cache_insert(&names->cache, &lookup->node, hash);

	question->lookup = lookup;
	question->query.type = key->type;
	question->query.op.done = question_done;
	memcpy(question->query.name, key->name, name_bytes);
	names->in_flight++;
	os_dns_ask(names->loop, &question->query);
	return lookup;
}

/* The kept lookup, unless its time is over: then who still uses it keeps it alive, unfound. */
static struct mx_lookup *lookup_find(struct mx_names *names, const struct key *key, uint64_t hash)
{
	struct mx_cache_node *node = mx_cache_find(&names->cache, hash, key);

	if (node == NULL)
		return NULL;
	struct mx_lookup *lookup = container_of(node, struct mx_lookup, node);
	if (!lookup->known || lookup->until.ns > os_loop_mono(names->loop).ns)
		return lookup;
	mx_cache_remove(&names->cache, node);
	if (lookup->users == 0)
		lookup_destroy(lookup);
	return NULL;
}

struct mx_lookup *mx_names_get(struct mx_names *names, const char *name, enum os_dns_type type,
			       struct mx_waiter *waiter)
{
	struct key key = { name, type };
	uint64_t hash = XXH3_64bits_withSeed(name, strlen(name), names->seed + type);
	struct mx_lookup *lookup = lookup_find(names, &key, hash);

	if (lookup == NULL)
		lookup = lookup_start(names, &key, hash);
	if (lookup == NULL)
		lookup = names->unasked;
	lookup->users++;
	mx_cache_busy(&lookup->node);
	if (!lookup->known) {
		list_init(&waiter->link);
		list_push_back(&lookup->waiters, &waiter->link);
	}
	return lookup;
}

void mx_names_put(struct mx_lookup *lookup)
{
	if (lookup == NULL)
		return;
	assert(lookup->users > 0);
	if (--lookup->users > 0)
		return;
	if (lookup->node.kept)
		mx_cache_idle(&lookup->names->cache, &lookup->node);
	else
		lookup_destroy(lookup);
}
