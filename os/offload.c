/*
 * offload - helper threads for what would block a loop.
 *
 * Thread: os_offload() is called on loops' threads; the helpers take turns at one queue.
 */
#include <pthread.h>
#include <signal.h>

#include "os/backend.h"

#define HELPER_COUNT 4

static struct {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	struct list waiting; /* of struct os_op, under `lock` */
} pool = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, { NULL, NULL } };

static pthread_once_t pool_once = PTHREAD_ONCE_INIT;

static struct os_op *pool_take(void)
{
	struct list *node;

	pthread_mutex_lock(&pool.lock);
	while ((node = list_pop_front(&pool.waiting)) == NULL)
		pthread_cond_wait(&pool.filled, &pool.lock);
	pthread_mutex_unlock(&pool.lock);
	return container_of(node, struct os_op, link);
}

static void *helper_main(void *unused)
{
	for (;;) {
		struct os_op *op = pool_take();

		op->u.offload.run(op);
		loop_return(op->loop, op, op->result);
	}
	return unused;
}

/* The helpers live as long as the process, and take no signals. */
static void pool_start(void)
{
	sigset_t all, before;
	int started_count = 0;

	list_init(&pool.waiting);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	for (int i = 0; i < HELPER_COUNT; i++) {
		pthread_t id;

		if (pthread_create(&id, NULL, helper_main, NULL) != 0)
			continue;
		pthread_setname_np(id, "helper");
		pthread_detach(id);
		started_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	assert(started_count > 0);
}

void os_offload(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op))
{
	pthread_once(&pool_once, pool_start);
	loop_begin(loop, op, OP_OFFLOAD);
	op->u.offload.run = run;
	pthread_mutex_lock(&pool.lock);
	list_push_back(&pool.waiting, &op->link);
	pthread_cond_signal(&pool.filled);
	pthread_mutex_unlock(&pool.lock);
}
