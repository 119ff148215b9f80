/* A folder of the program's own, in memory; it goes when the program ends. */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include <stdio.h>
#include <stdlib.h>

#include "os/check.h"

static char folder[] = "/dev/shm/stafette-fuzz-XXXXXX";

static void folder_remove(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (system(command) != 0)
		fprintf(stderr, "%s: still there\n", folder);
}

static inline void folder_make(void)
{
	assert(mkdtemp(folder));
	atexit(folder_remove);
}

#endif
