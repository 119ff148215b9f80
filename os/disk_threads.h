/*
 * disk_threads - reads, writes and syncs of files for a backend whose kernel has no way to wait
 * for a disk beside sockets.
 *
 * Promise: as os.h says of os_read(), os_write() and os_sync(). These threads are their own, so
 * that a commit never waits behind os_offload()'s slow chores.
 * Non-promise: operations on one file end in any order, also those of one loop.
 *
 * Thread: submitted on loops' threads; all loops share the disk threads.
 */
#ifndef OS_DISK_THREADS_H
#define OS_DISK_THREADS_H

#include "os/backend.h"

#define DISK_THREAD_COUNT 4

/* `op` is an OP_READ, OP_WRITE or OP_SYNC, and comes back by loop_return(). */
void disk_submit(struct os_op *op);

#endif
