/*
 * shared - the shared memory of os/os.h, and what a tool would read in it.
 *
 * Thread: there is one; all of it dies with the life.
 */
#ifndef SIM_SHARED_H
#define SIM_SHARED_H

#include <stdbool.h>
#include <stdint.h>

struct format_job;

/* Shows each slot in use of the tables of all streams. False: the daemon has closed one already. */
bool shared_each_job(void (*each)(void *context, const struct format_job *job), void *context);
/* How many streams have a table; 0 once one is closed. */
uint32_t shared_stream_count(void);
/* What the daemon keeps on its heap for these slots, in use or not (queue/index.h). */
uint64_t shared_side_bytes(void);

#endif
