#include "engine/delivery/site_limits.h"

#include <stdlib.h>

enum { PROBES = 64 };

struct site_limits {
	uint32_t count; /* a power of two */
	struct site_limit entries[];
};

struct site_limits *site_limits_create(uint32_t sites_max)
{
	uint32_t count = 1;
	struct site_limits *limits;

	while (count < sites_max)
		count *= 2;
	limits = calloc(1, sizeof(*limits) + count * sizeof(limits->entries[0]));
	if (limits)
		limits->count = count;
	return limits;
}

void site_limits_destroy(struct site_limits *limits)
{
	free(limits);
}

struct site_limit *site_limits_of(struct site_limits *limits, uint64_t key)
{
	uint64_t wanted = key ? key : 1; /* 0 is a free entry */

	for (uint32_t probe = 0; probe < PROBES; probe++) {
		struct site_limit *entry = &limits->entries[(wanted + probe) & (limits->count - 1)];
		uint64_t found = 0;

		if (atomic_compare_exchange_strong_explicit(&entry->key, &found, wanted,
							    memory_order_relaxed,
							    memory_order_relaxed) ||
		    found == wanted)
			return entry;
	}
	return &limits->entries[wanted & (limits->count - 1)];
}
