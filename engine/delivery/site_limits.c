#include "engine/delivery/site_limits.h"

#include <stdlib.h>

enum {
	PROBES = 64,
	KEPT_BITS = 16, /* of `kept`; the time is above them */
	KEPT_MASK = (1 << KEPT_BITS) - 1,
};

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

/* ── what a host does ─────────────────────────────────────────────────────────────── */

/* Another worker's clock may be a little ahead. */
static uint64_t age_ms(uint64_t then_ns, struct os_mono now)
{
	return now.ns > then_ns ? (now.ns - then_ns) / OS_NS_PER_MS : 0;
}

void site_limit_keep(struct site_limit *limit, struct os_mono now, uint32_t connections)
{
	uint64_t ms = now.ns / OS_NS_PER_MS;

	if (connections == 0)
		connections = 1;
	if (connections > KEPT_MASK)
		connections = KEPT_MASK;
	atomic_store_explicit(&limit->kept, ms << KEPT_BITS | connections, memory_order_relaxed);
}

uint32_t site_limit_max(const struct site_limit *limit, struct os_mono now, uint32_t max)
{
	uint64_t kept = atomic_load_explicit(&limit->kept, memory_order_relaxed);
	uint64_t then_ns = (kept >> KEPT_BITS) * OS_NS_PER_MS;
	uint64_t known = (kept & KEPT_MASK) + age_ms(then_ns, now) / SITE_LIMIT_GROW_MS;

	return kept != 0 && known < max ? (uint32_t)known : max;
}
