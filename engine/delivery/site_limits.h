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

struct site_limit {
	_Atomic uint64_t key;
	_Atomic uint64_t down_until_ns; /* os_mono; in the past: up */
	_Atomic uint32_t takes_no_mail; /* why it is down; written before down_until_ns */
	_Atomic uint32_t connections;
	_Atomic uint32_t starving; /* somebody has less than its share and wants one */
};

struct site_limits; /* opaque */

/* NULL: no memory. Never shrinks; holds `sites_max` sites, those beyond share an entry. */
struct site_limits *site_limits_create(uint32_t sites_max);
void site_limits_destroy(struct site_limits *limits); /* accepts NULL */
struct site_limit *site_limits_of(struct site_limits *limits, uint64_t key);

#endif
