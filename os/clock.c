/*
 * clock - what the machine alone can tell: the time and randomness.
 */
#include <errno.h>
#include <sys/random.h>
#include <time.h>

#include "os/os.h"

struct os_mono os_mono_now(void)
{
	struct timespec now;
	int failed = clock_gettime(CLOCK_MONOTONIC, &now);

	assert(failed == 0);
	return (struct os_mono){ (uint64_t)now.tv_sec * OS_NS_PER_S + (uint64_t)now.tv_nsec };
}

struct os_wall os_wall_now(void)
{
	struct timespec now;
	int failed = clock_gettime(CLOCK_REALTIME, &now);

	assert(failed == 0);
	return (struct os_wall){ now.tv_sec * OS_US_PER_S + now.tv_nsec / 1000 };
}

void os_random(void *bytes, size_t count)
{
	char *at = bytes;

	while (count > 0) {
		ssize_t got = getrandom(at, count, 0);

		if (got < 0) {
			assert(errno == EINTR); /* nothing else can happen, and no plan B is safe */
			continue;
		}
		at += got;
		count -= (size_t)got;
	}
}
