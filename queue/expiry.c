/* Whether the calendar may be believed. */
#include "queue/expiry.h"

#define EXPIRY_STEP_MAX_US    (INT64_C(3600) * OS_US_PER_S)
#define EXPIRY_ABSENCE_MAX_US (INT64_C(86400) * OS_US_PER_S)

static int64_t expiry_offset_us(struct os_mono mono, struct os_wall wall)
{
	return wall.us - (int64_t)(mono.ns / 1000);
}

/* Of any two times: what is on the disk may be anything. */
static bool expiry_is_near(int64_t left_us, int64_t right_us, int64_t max_us)
{
	uint64_t apart_us = left_us > right_us ? (uint64_t)left_us - (uint64_t)right_us
					       : (uint64_t)right_us - (uint64_t)left_us;

	return apart_us <= (uint64_t)max_us;
}

void expiry_last_take(struct expiry_last *last, int64_t seen_us, int64_t believed_us)
{
	if (believed_us == 0)
		believed_us = seen_us;
	if (believed_us > last->believed_us)
		*last = (struct expiry_last){
			.believed_us = believed_us,
			.doubted = !expiry_is_near(seen_us, believed_us, EXPIRY_STEP_MAX_US),
		};
}

void expiry_start(struct expiry *expiry, struct expiry_last last, struct os_mono mono,
		  struct os_wall wall)
{
	int64_t apart_max_us = last.doubted ? EXPIRY_STEP_MAX_US : EXPIRY_ABSENCE_MAX_US;
	bool near =
		last.believed_us == 0 || expiry_is_near(wall.us, last.believed_us, apart_max_us);
	struct os_wall believed = { near ? wall.us : last.believed_us };

	*expiry = (struct expiry){ .trusted_us = expiry_offset_us(mono, believed) };
}

bool expiry_may(const struct expiry *expiry, struct os_mono mono, struct os_wall wall)
{
	return expiry_is_near(expiry_offset_us(mono, wall), expiry->trusted_us, EXPIRY_STEP_MAX_US);
}

bool expiry_look(struct expiry *expiry, struct os_mono mono, struct os_wall wall)
{
	bool doubted = !expiry_may(expiry, mono, wall);
	bool changed = doubted != expiry->doubted;

	if (!doubted)
		expiry->trusted_us = expiry_offset_us(mono, wall);
	expiry->doubted = doubted;
	return changed;
}

int64_t expiry_believed_us(const struct expiry *expiry, struct os_mono mono)
{
	return (int64_t)(mono.ns / 1000) + expiry->trusted_us;
}

void expiry_confirm(struct expiry *expiry, struct os_mono mono, struct os_wall wall)
{
	expiry->trusted_us = expiry_offset_us(mono, wall);
}
