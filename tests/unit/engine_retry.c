/* When a message is tried again. */
#include "engine/delivery/retry.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct config_delivery policy = {
	.retry_first_ms = 60000,
	.retry_base_ms = 300000,
	.retry_cap_ms = 14400000,
	.probe_ms = 30000,
};

struct retry_case {
	const char *name;
	uint64_t (*delay)(const struct config_delivery *, uint32_t, struct prng *);
	uint32_t attempts;
	uint64_t middle_ms; /* uniform in [1/2, 3/2] of it */
};

static const struct retry_case cases[] = {
	{ "the first retry is quick", retry_delay_ms, 1, 60000 },
	{ "the second waits the base", retry_delay_ms, 2, 300000 },
	{ "then it doubles", retry_delay_ms, 3, 600000 },
	{ "and doubles", retry_delay_ms, 7, 9600000 },
	{ "up to the cap", retry_delay_ms, 8, 14400000 },
	{ "and stays there", retry_delay_ms, 65535, 14400000 },
	{ "a site's first probe", retry_probe_ms, 1, 30000 },
	{ "a site's fourth probe", retry_probe_ms, 4, 240000 },
	{ "a site's probes have the same cap", retry_probe_ms, 1000, 14400000 },
};

static void retry_row(void **state)
{
	const struct retry_case *row = *state;
	struct prng prng = { 7 };
	uint64_t low = UINT64_MAX, high = 0;

	for (int i = 0; i < 2000; i++) {
		uint64_t delay_ms = row->delay(&policy, row->attempts, &prng);

		low = delay_ms < low ? delay_ms : low;
		high = delay_ms > high ? delay_ms : high;
	}
	assert_in_range(low, row->middle_ms / 2, row->middle_ms * 6 / 10);
	assert_in_range(high, row->middle_ms * 14 / 10, row->middle_ms * 3 / 2);
}

int main(void)
{
	struct CMUnitTest rows[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		rows[i] = (struct CMUnitTest){ .name = cases[i].name,
					       .test_func = retry_row,
					       .initial_state = (void *)&cases[i] };
	return cmocka_run_group_tests_name("retry", rows, NULL, NULL);
}
