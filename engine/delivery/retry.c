#include "engine/delivery/retry.h"

static uint64_t backoff(uint64_t base_ms, uint64_t cap_ms, uint32_t doublings, struct prng *prng)
{
	uint64_t delay_ms = base_ms;

	while (doublings-- > 0 && delay_ms < cap_ms)
		delay_ms *= 2;
	if (delay_ms > cap_ms)
		delay_ms = cap_ms;
	return delay_ms / 2 + prng_below(prng, delay_ms + 1);
}

uint64_t retry_delay_ms(const struct config_delivery *policy, uint32_t attempts, struct prng *prng)
{
	assert(attempts > 0);
	if (attempts == 1)
		return backoff(policy->retry_first_ms, policy->retry_cap_ms, 0, prng);
	return backoff(policy->retry_base_ms, policy->retry_cap_ms, attempts - 2, prng);
}

uint64_t retry_probe_ms(const struct config_delivery *policy, uint32_t failures, struct prng *prng)
{
	assert(failures > 0);
	return backoff(policy->probe_ms, policy->retry_cap_ms, failures - 1, prng);
}
