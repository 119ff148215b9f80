/*
 * thread_pool - a few threads that do what would block a loop, and give it back.
 *
 *   thread_pool_submit() ──► waiting ──► pool->work(op) ──► loop_return()
 *
 * Promise: operations are begun in the order of their submission; each is given to one thread.
 * The threads start at the first one, live as long as the process, and take no signals.
 *
 * Thread: submitted on loops' threads.
 */
#ifndef OS_THREAD_POOL_H
#define OS_THREAD_POOL_H

#include <pthread.h>

#include "os/backend.h"

struct thread_pool {
	const char *name; /* of its threads; at most 15 bytes */
	int thread_count;
	/* Blocks, and leaves its result in op->result. */
	void (*work)(struct os_op *op);

	pthread_mutex_t lock;
	pthread_cond_t filled;
	/* Under `lock`. */
	bool started;
	struct list waiting; /* of struct os_op */
};

#define THREAD_POOL(name_, count, function)                                                        \
	{                                                                                          \
		.name = (name_), .thread_count = (count), .work = (function),                      \
		.lock = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER,             \
	}

/* `op` is the pool's until loop_return() hands it to its loop. */
void thread_pool_submit(struct thread_pool *pool, struct os_op *op);

#endif
