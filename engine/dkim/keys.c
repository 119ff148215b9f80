#include "engine/dkim/keys.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/check.h"

struct dkim_set {
	_Atomic uint32_t references;
	bool sign_relayed;
	struct dkim_domain *domains; /* sorted by name */
	uint32_t count;
	char domain_default[IDN_DOMAIN_BYTES];
};

struct dkim_store {
	pthread_mutex_t lock; /* of `set`: a message takes its reference */
	struct dkim_set *set;
};

/* ── reading ──────────────────────────────────────────────────────────────────────── */

struct complaints {
	char *text;
	size_t bytes, used;
};

static void complain(struct complaints *complaints, const char *error)
{
	size_t room = complaints->bytes - complaints->used;
	int len = snprintf(complaints->text + complaints->used, room, "%s%s",
			   complaints->used > 0 ? "\n" : "", error);

	complaints->used += (size_t)len < room ? (size_t)len : room > 0 ? room - 1 : 0;
}

static void domain_read(struct complaints *complaints, const struct config_dkim_domain *from,
			struct dkim_domain *to)
{
	*to = (struct dkim_domain){
		.name = strdup(from->name),
		.subdomains = from->subdomains,
		.header = from->header,
		.body = from->body,
		.selectors = calloc(from->key_count, sizeof(*to->selectors)),
		.selector_count = from->key_count,
	};
	assert(to->name && to->selectors);
	for (uint32_t i = 0; i < from->key_count; i++) {
		char error[DKIM_ERROR_BYTES];

		to->selectors[i].name = strdup(from->keys[i].selector);
		to->selectors[i].key = dkim_key_load(from->keys[i].file, error);
		if (!to->selectors[i].key)
			complain(complaints, error);
	}
}

static int compare_domains(const void *a, const void *b)
{
	const struct dkim_domain *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static void set_destroy(struct dkim_set *set)
{
	for (uint32_t i = 0; i < set->count; i++) {
		struct dkim_domain *domain = &set->domains[i];

		for (uint32_t k = 0; k < domain->selector_count; k++) {
			dkim_key_destroy(domain->selectors[k].key);
			free(domain->selectors[k].name);
		}
		free(domain->selectors);
		free(domain->name);
	}
	free(set->domains);
	free(set);
}

static struct dkim_set *set_create(const struct config *config, char *error, size_t error_bytes)
{
	const struct config_dkim *dkim = &config->dkim;
	struct complaints complaints = { .text = error, .bytes = error_bytes };
	struct dkim_set *set = calloc(1, sizeof(*set));

	assert(set && error_bytes > 0);
	error[0] = '\0';
	atomic_init(&set->references, 1);
	set->sign_relayed = dkim->sign_relayed;
	memcpy(set->domain_default, dkim->domain_default, sizeof(set->domain_default));
	set->domains = calloc(dkim->domain_count + 1u, sizeof(*set->domains));
	assert(set->domains);
	for (uint32_t i = 0; i < dkim->domain_count; i++)
		domain_read(&complaints, &dkim->domains[i], &set->domains[set->count++]);
	qsort(set->domains, set->count, sizeof(*set->domains), compare_domains);
	if (complaints.used == 0)
		return set;
	set_destroy(set);
	return NULL;
}

/* ── the set in force ─────────────────────────────────────────────────────────────── */

struct dkim_store *dkim_store_create(const struct config *config, char *error, size_t error_bytes)
{
	struct dkim_set *set = set_create(config, error, error_bytes);
	struct dkim_store *store;

	if (!set)
		return NULL;
	store = calloc(1, sizeof(*store));
	assert(store);
	pthread_mutex_init(&store->lock, NULL);
	store->set = set;
	return store;
}

bool dkim_keys_reload(struct dkim_store *store, const struct config *config, char *error,
		      size_t error_bytes)
{
	struct dkim_set *set = set_create(config, error, error_bytes), *old;

	if (!set)
		return false;
	pthread_mutex_lock(&store->lock);
	old = store->set;
	store->set = set;
	pthread_mutex_unlock(&store->lock);
	dkim_keys_release(old);
	return true;
}

void dkim_store_destroy(struct dkim_store *store)
{
	if (!store)
		return;
	dkim_keys_release(store->set);
	pthread_mutex_destroy(&store->lock);
	free(store);
}

struct dkim_set *dkim_keys_take(struct dkim_store *store)
{
	struct dkim_set *set;

	pthread_mutex_lock(&store->lock);
	set = store->set->count > 0 ? store->set : NULL;
	if (set)
		atomic_fetch_add_explicit(&set->references, 1, memory_order_relaxed);
	pthread_mutex_unlock(&store->lock);
	return set;
}

void dkim_keys_release(struct dkim_set *set)
{
	/* acq_rel: the last one sees what the others did with it. */
	if (set && atomic_fetch_sub_explicit(&set->references, 1, memory_order_acq_rel) == 1)
		set_destroy(set);
}

/* ── looking up ───────────────────────────────────────────────────────────────────── */

bool dkim_keys_sign_relayed(const struct dkim_set *set)
{
	return set->sign_relayed;
}

static const struct dkim_domain *domain_of(const struct dkim_set *set, const char *name)
{
	struct dkim_domain wanted = { .name = (char *)name };

	return bsearch(&wanted, set->domains, set->count, sizeof(*set->domains), compare_domains);
}

const struct dkim_domain *dkim_keys_find(const struct dkim_set *set, const char *author)
{
	const struct dkim_domain *found = domain_of(set, author);

	if (found)
		return found;
	for (const char *dot = strchr(author, '.'); dot; dot = strchr(dot + 1, '.')) {
		found = domain_of(set, dot + 1);
		if (found && found->subdomains)
			return found;
	}
	return set->domain_default[0] ? domain_of(set, set->domain_default) : NULL;
}
