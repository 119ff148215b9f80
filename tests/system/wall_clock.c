/*
 * wall_clock - a wall clock of a daemon's own, for LD_PRELOAD: CLOCK_REALTIME is off by the
 * microseconds that the file WALL_CLOCK holds, an int64_t that a test changes at any time.
 *
 * libfaketime can't be used: it calls malloc() where jemalloc asks for the time.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_us; /* NULL: none yet */

__attribute__((constructor)) static void wall_clock_open(void)
{
	const char *path = getenv("WALL_CLOCK");
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *at =
		fd >= 0 ? mmap(NULL, sizeof(*offset_us), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	assert(at != MAP_FAILED);
	offset_us = at;
	close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
	long result = syscall(SYS_clock_gettime, clock, out);
	int64_t us;

	if (result != 0 || clock != CLOCK_REALTIME || offset_us == NULL)
		return (int)result;
	us = (int64_t)out->tv_sec * 1000000 + out->tv_nsec / 1000 + *offset_us;
	out->tv_sec = us / 1000000;
	out->tv_nsec = us % 1000000 * 1000;
	return 0;
}
