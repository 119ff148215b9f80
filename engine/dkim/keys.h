/*
 * keys - which keys sign for which domain, as configured.
 *
 * A set of keys is never changed: a reload makes a new one, and the last message under an old
 * one frees it.
 *
 * Thread: all workers; dkim_keys_reload() and the rest of a store is main's.
 */
#ifndef ENGINE_DKIM_KEYS_H
#define ENGINE_DKIM_KEYS_H

#include "engine/config/config.h"
#include "engine/dkim/crypto.h"
#include "engine/idn.h"

struct dkim_selector {
	char *name; /* s= */
	struct dkim_key *key;
};

/* How a domain's mail is signed, and with which keys. */
struct dkim_domain {
	char *name; /* d= */
	bool subdomains;
	enum dkim_canon header, body;
	struct dkim_selector *selectors;
	uint32_t selector_count;
};

struct dkim_store; /* opaque: the set in force */
struct dkim_set;   /* opaque; reference counted */

/* Reads all keys. NULL with `error` filled, a line for each that can't be used. */
struct dkim_store *dkim_store_create(const struct config *config, char *error, size_t error_bytes);
void dkim_store_destroy(struct dkim_store *store); /* accepts NULL */
/* Reads them again. False, with `error` filled: those in force stay. */
bool dkim_keys_reload(struct dkim_store *store, const struct config *config, char *error,
		      size_t error_bytes);

/* A reference to the set in force; NULL: nothing is to be signed. */
struct dkim_set *dkim_keys_take(struct dkim_store *store);
void dkim_keys_release(struct dkim_set *set); /* accepts NULL */

/* Whether mail from clients that are not trusted is signed, too. */
bool dkim_keys_sign_relayed(const struct dkim_set *set);
/* Who signs for this author's domain (lower case): the domain itself, the next one above it that
 * signs for its subdomains, the default. NULL: nobody. Valid as long as the set. */
const struct dkim_domain *dkim_keys_find(const struct dkim_set *set, const char *author);

#endif
