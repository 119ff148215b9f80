/*
 * retry - when to try again.
 *
 *   attempt 1 failed: retry_first, if that is sooner (greylisting wants a quick second try)
 *   attempt n failed: base * 2^(n-2), at most cap, times a uniform factor in [1/2, 3/2]
 *
 * Thread: pure.
 * Source: RFC 5321, 4.5.4.1; design.md, 9.
 */
#ifndef ENGINE_RETRY_H
#define ENGINE_RETRY_H

#include "engine/config/config.h"
#include "os/prng.h"

/* After `attempts` failed attempts (at least 1). */
uint64_t retry_delay_ms(const struct config_delivery *policy, uint32_t attempts, struct prng *prng);
/* How long a site is left alone after `failures` failed probes (at least 1). */
uint64_t retry_probe_ms(const struct config_delivery *policy, uint32_t failures, struct prng *prng);

#endif
