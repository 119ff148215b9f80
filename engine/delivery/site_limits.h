/*
 * site_limits - what all workers must agree on about a site, as atomics.
 *
 * Promise: an entry, once found, stays its site's for good.
 * Non-promise: the fields order nothing else, so all accesses are relaxed.
 *
 * Thread: any.
 */
#ifndef ENGINE_SITE_LIMITS_H
#define ENGINE_SITE_LIMITS_H

#include <stdatomic.h>
#include <stdint.h>

#include "os/os.h"

enum { SITE_LIMIT_GROW_MS = 10000 };

struct site_limit {
	_Atomic uint64_t key;
	_Atomic uint64_t down_until_ns; /* os_mono; in the past: up */
	_Atomic uint32_t takes_no_mail; /* why it is down; written before down_until_ns */
	_Atomic uint32_t connections;
	_Atomic uint32_t starving; /* somebody has less than its share and wants one */
	_Atomic uint32_t working;  /* of the connections, those past EHLO */
	_Atomic uint64_t heard_at; /* os_address_hash() of who answered mail last; 0: nobody did */
	_Atomic uint64_t kept;	   /* what it took when it refused one more: ms << 16 | that */
};

struct site_limits; /* opaque */

/* NULL: no memory. Never shrinks; holds `sites_max` sites, those beyond share an entry. */
struct site_limits *site_limits_create(uint32_t sites_max);
void site_limits_destroy(struct site_limits *limits); /* accepts NULL */
struct site_limit *site_limits_of(struct site_limits *limits, uint64_t key);

/* It takes so many connections (at least 1) and no more now. */
void site_limit_keep(struct site_limit *limit, struct os_mono now, uint32_t connections);
/* How many there may be now, of all workers together: `max`, or what it was found to take and one
 * more for each SITE_LIMIT_GROW_MS since then. */
uint32_t site_limit_max(const struct site_limit *limit, struct os_mono now, uint32_t max);

#endif
