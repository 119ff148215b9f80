/*
 * mx_cache - see mx_cache.h.
 */
#include "engine/delivery/mx_cache.h"

#include <stdlib.h>

#include "os/check.h"

bool mx_cache_init(struct mx_cache *cache, uint32_t count_max,
		   bool (*equal)(const struct mx_cache_node *node, const void *key),
		   void (*evicted)(struct mx_cache_node *node))
{
	uint32_t slots = 16;

	assert(count_max > 0 && count_max < UINT32_MAX / 4);
	while (slots < count_max * 2)
		slots *= 2;
	*cache = (struct mx_cache){
		.slot_mask = slots - 1, .count_max = count_max, .equal = equal, .evicted = evicted
	};
	cache->slots = calloc(slots, sizeof(*cache->slots));
	list_init(&cache->recent);
	return cache->slots != NULL;
}

void mx_cache_deinit(struct mx_cache *cache)
{
	mx_cache_clear(cache);
	free(cache->slots);
	cache->slots = NULL;
}

struct mx_cache_node *mx_cache_find(const struct mx_cache *cache, uint64_t hash, const void *key)
{
	for (uint32_t at = (uint32_t)hash & cache->slot_mask; cache->slots[at] != NULL;
	     at = (at + 1) & cache->slot_mask) {
		struct mx_cache_node *node = cache->slots[at];

		if (node->hash == hash && cache->equal(node, key))
			return node;
	}
	return NULL;
}

/* False: every node is busy. */
static bool make_room(struct mx_cache *cache)
{
	if (cache->count < cache->count_max)
		return true;
	if (list_empty(&cache->recent))
		return false;

	struct mx_cache_node *oldest = list_first(&cache->recent, struct mx_cache_node, recent);
	mx_cache_remove(cache, oldest);
	cache->evicted(oldest);
	return true;
}

bool mx_cache_insert(struct mx_cache *cache, struct mx_cache_node *node, uint64_t hash)
{
	*node = (struct mx_cache_node){ .hash = hash };
	list_init(&node->recent);
	if (!make_room(cache))
		return false;

	uint32_t at = (uint32_t)hash & cache->slot_mask;
	while (cache->slots[at] != NULL)
		at = (at + 1) & cache->slot_mask;
	cache->slots[at] = node;
	cache->count++;
	node->kept = true;
	return true;
}

/* Moves later nodes of the same run into the hole, so that no search ends there too early. */
static void close_hole(struct mx_cache *cache, uint32_t hole)
{
	uint32_t mask = cache->slot_mask;

	for (uint32_t at = (hole + 1) & mask; cache->slots[at] != NULL; at = (at + 1) & mask) {
		uint32_t home = (uint32_t)cache->slots[at]->hash & mask;

		if (((at - home) & mask) >= ((at - hole) & mask)) {
			cache->slots[hole] = cache->slots[at];
			hole = at;
		}
	}
	cache->slots[hole] = NULL;
}

void mx_cache_remove(struct mx_cache *cache, struct mx_cache_node *node)
{
	if (!node->kept)
		return;

	uint32_t at = (uint32_t)node->hash & cache->slot_mask;
	while (cache->slots[at] != node) {
		assert(cache->slots[at] != NULL);
		at = (at + 1) & cache->slot_mask;
	}
	close_hole(cache, at);
	cache->count--;
	node->kept = false;
	list_remove(&node->recent);
}

void mx_cache_idle(struct mx_cache *cache, struct mx_cache_node *node)
{
	assert(node->kept);
	list_remove(&node->recent);
	list_push_back(&cache->recent, &node->recent);
}

void mx_cache_busy(struct mx_cache_node *node)
{
	list_remove(&node->recent);
}

void mx_cache_clear(struct mx_cache *cache)
{
	for (uint32_t at = 0; cache->count > 0 && at <= cache->slot_mask; at++) {
		struct mx_cache_node *node = cache->slots[at];

		if (node == NULL)
			continue;
		bool idle = list_linked(&node->recent);
		cache->slots[at] = NULL;
		cache->count--;
		node->kept = false;
		list_remove(&node->recent);
		if (idle)
			cache->evicted(node);
	}
	assert(cache->count == 0);
}
