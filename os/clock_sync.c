/*
 * clock_sync - whether the kernel says that somebody keeps its wall clock right.
 */
#include <sys/timex.h>

#include "os/os.h"

bool os_clock_synchronised(void)
{
	struct timex state = { 0 };

	/* Reading needs no privilege; where it is forbidden all the same, nobody knows. */
	return adjtimex(&state) >= 0 && (state.status & STA_UNSYNC) == 0;
}
