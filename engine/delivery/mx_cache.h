/*
 * mx_cache - a bounded hash table of nodes that their owners embed.
 *
 *   slots (open addressing, linear, at most half full) ──► node ──► its owner
 *   recent: longest unused ... last used, of the nodes that may be evicted
 *
 * Promise: never more than `count_max` nodes. A node that is busy stays.
 * Non-promise: a full table of busy nodes takes no more: mx_cache_insert() says so, and the
 * node lives on without being found.
 *
 * Thread: its owner's.
 */
#ifndef ENGINE_MX_CACHE_H
#define ENGINE_MX_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "os/list.h"

struct mx_cache_node {
	uint64_t hash;
	bool kept;	    /* in the table */
	struct list recent; /* linked while it may be evicted */
};

struct mx_cache {
	struct mx_cache_node **slots;
	uint32_t slot_mask, count, count_max;
	struct list recent;
	bool (*equal)(const struct mx_cache_node *node, const void *key);
	/* The node is out of the table, and its owner's to free. */
	void (*evicted)(struct mx_cache_node *node);
};

/* False: no memory; mx_cache_deinit() is due all the same. */
bool mx_cache_init(struct mx_cache *cache, uint32_t count_max,
		   bool (*equal)(const struct mx_cache_node *node, const void *key),
		   void (*evicted)(struct mx_cache_node *node));
/* Evicts what is left; a busy node is only taken out. */
void mx_cache_deinit(struct mx_cache *cache);

/* NULL: not there. */
struct mx_cache_node *mx_cache_find(const struct mx_cache *cache, uint64_t hash, const void *key);
/* The node begins busy. False: there is no room, and it is not in the table. */
bool mx_cache_insert(struct mx_cache *cache, struct mx_cache_node *node, uint64_t hash);
/* Out of the table, if it is in; nobody is told. */
void mx_cache_remove(struct mx_cache *cache, struct mx_cache_node *node);
/* Just used, and may be evicted from now on. */
void mx_cache_idle(struct mx_cache *cache, struct mx_cache_node *node);
/* May not be evicted. */
void mx_cache_busy(struct mx_cache_node *node);
/* Evicts all that is idle, and takes out all that is busy. */
void mx_cache_clear(struct mx_cache *cache);

#endif
