#include "engine/dkim/keys.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/config/complaints.h"
#include "os/check.h"

struct dkim_set {
	struct edition edition;
	bool sign_relayed;
	struct dkim_domain *domains; /* sorted by name; one at least */
	uint32_t count;
	char domain_default[IDN_DOMAIN_BYTES];
};

struct dkim_store {
	struct edition_shelf shelf;
};

/* ── reading ──────────────────────────────────────────────────────────────────────── */

static void selector_read(struct complaints *complaints, const struct config_dkim_key *from,
			  struct dkim_selector *to)
{
	char error[DKIM_ERROR_BYTES];

	to->name = strdup(from->selector);
	if (!to->name)
		complaints_add_memory(complaints);
	to->key = dkim_key_load(from->file, error);
	if (!to->key)
		complaints_add(complaints, "%s", error);
}

/* What can't be had is left NULL. */
static void domain_read(struct complaints *complaints, const struct config_dkim_domain *from,
			struct dkim_domain *to)
{
	*to = (struct dkim_domain){
		.name = strdup(from->name),
		.subdomains = from->subdomains,
		.header = from->header,
		.body = from->body,
		.selectors = calloc(from->key_count, sizeof(*to->selectors)),
	};
	if (!to->name || !to->selectors) {
		complaints_add_memory(complaints);
		return;
	}
	while (to->selector_count < from->key_count) {
		uint32_t i = to->selector_count++;

		selector_read(complaints, &from->keys[i], &to->selectors[i]);
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

static struct dkim_set *set_create(const struct config_dkim *dkim)
{
	struct dkim_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	edition_init(&set->edition);
	set->sign_relayed = dkim->sign_relayed;
	memcpy(set->domain_default, dkim->domain_default, sizeof(set->domain_default));
	set->domains = calloc(dkim->domain_count, sizeof(*set->domains));
	if (set->domains)
		return set;
	free(set);
	return NULL;
}

bool dkim_keys_read(const struct config *config, struct dkim_set **set_out, char *error,
		    size_t error_bytes)
{
	const struct config_dkim *dkim = &config->dkim;
	struct complaints complaints;
	struct dkim_set *set;

	complaints_init(&complaints, error, error_bytes);
	if (dkim->domain_count == 0) {
		*set_out = NULL;
		return true;
	}
	set = set_create(dkim);
	if (!set) {
		complaints_add_memory(&complaints);
		return false;
	}
	for (uint32_t i = 0; i < dkim->domain_count; i++)
		domain_read(&complaints, &dkim->domains[i], &set->domains[set->count++]);
	if (complaints.any) {
		set_destroy(set);
		return false;
	}
	qsort(set->domains, set->count, sizeof(*set->domains), compare_domains);
	*set_out = set;
	return true;
}

/* ── the set in force ─────────────────────────────────────────────────────────────── */

static struct dkim_set *set_of(struct edition *edition)
{
	return edition ? container_of(edition, struct dkim_set, edition) : NULL;
}

struct dkim_store *dkim_store_create(const struct config *config, char *error, size_t error_bytes)
{
	struct dkim_store *store = calloc(1, sizeof(*store));
	struct dkim_set *set;

	if (!store)
		snprintf(error, error_bytes, "out of memory.");
	if (!store || !dkim_keys_read(config, &set, error, error_bytes)) {
		free(store);
		return NULL;
	}
	edition_shelf_init(&store->shelf, set ? &set->edition : NULL);
	return store;
}

void dkim_store_put(struct dkim_store *store, struct dkim_set *set)
{
	dkim_keys_release(set_of(edition_shelf_replace(&store->shelf, set ? &set->edition : NULL)));
}

void dkim_store_destroy(struct dkim_store *store)
{
	if (!store)
		return;
	dkim_keys_release(set_of(edition_shelf_deinit(&store->shelf)));
	free(store);
}

struct dkim_set *dkim_keys_take(struct dkim_store *store)
{
	return set_of(edition_shelf_take(&store->shelf));
}

void dkim_keys_release(struct dkim_set *set)
{
	if (set && edition_let_go(&set->edition))
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
