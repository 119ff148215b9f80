/*
 * near - see near.h.
 */
#include "tests/sim/near.h"

#include "os/check.h"

static struct {
	struct sim_event event;
	enum near_moment moment;
	uint32_t times; /* until it strikes */
	uint64_t delay_ns;
	enum sim_end end;
} crash;

static void on_crash(struct sim_event *event)
{
	(void)event;
	sim_crash(crash.end);
}

void near_happens(enum near_moment moment)
{
	if (crash.times == 0 || crash.moment != moment || --crash.times > 0)
		return;
	sim_trace("near: moment %d has come", (int)moment);
	crash.event.run = on_crash;
	sim_after(&crash.event, crash.delay_ns);
}

void near_crash(enum near_moment moment, uint32_t times, uint64_t delay_ns, enum sim_end end)
{
	assert(moment < NEAR_COUNT);
	crash.moment = moment;
	crash.times = times;
	crash.delay_ns = delay_ns;
	crash.end = end;
}
