/*
 * keys - which keys sign for which domain, as configured.
 *
 * A set of keys is an edition (engine/config/edition.h): a reload reads a new one and puts it in
 * force, and the last message under an old one frees it.
 *
 * Thread: all workers take and release; to read keys is for main and tools, since it blocks, and
 * so is the rest of a store.
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

/* Reads all keys. False with `error` filled, a line for each that can't be used; else the set is
 * the caller's, to be put in force or released. NULL: no domain signs. */
bool dkim_keys_read(const struct config *config, struct dkim_set **set_out, char *error,
		    size_t error_bytes);

/* With the keys of that configuration; NULL with `error` filled. */
struct dkim_store *dkim_store_create(const struct config *config, char *error, size_t error_bytes);
/* Takes over `set` (NULL: none), for messages from now on. */
void dkim_store_put(struct dkim_store *store, struct dkim_set *set);
void dkim_store_destroy(struct dkim_store *store); /* accepts NULL */

/* A reference to the set in force; NULL: nothing is to be signed. */
struct dkim_set *dkim_keys_take(struct dkim_store *store);
void dkim_keys_release(struct dkim_set *set); /* accepts NULL */

/* Whether mail from clients that are not trusted is signed, too. */
bool dkim_keys_sign_relayed(const struct dkim_set *set);
/* Who signs for this author's domain (lower case): the domain itself, the next one above it that
 * signs for its subdomains, the default. NULL: nobody. Valid as long as the set. */
const struct dkim_domain *dkim_keys_find(const struct dkim_set *set, const char *author);

#endif
