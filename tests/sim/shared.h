/*
 * shared - the shared memory of os/os.h, and what a tool would read in it.
 *
 * Thread: there is one; all of it dies with the life.
 */
#ifndef SIM_SHARED_H
#define SIM_SHARED_H

#include <stdint.h>

/* Jobs in the tables of all streams. */
uint64_t shared_jobs(void);

#endif
