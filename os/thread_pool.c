#include "os/thread_pool.h"

#include <signal.h>

static struct os_op *pool_take(struct thread_pool *pool)
{
	struct list *node;

	pthread_mutex_lock(&pool->lock);
	while ((node = list_pop_front(&pool->waiting)) == NULL)
		pthread_cond_wait(&pool->filled, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	return container_of(node, struct os_op, link);
}

static void *thread_main(void *context)
{
	struct thread_pool *pool = context;

	/* By itself: for others it goes by /proc, which the sandbox closes. */
	pthread_setname_np(pthread_self(), pool->name);
	for (;;) {
		struct os_op *op = pool_take(pool);

		pool->work(op);
		loop_return(op->loop, op, op->result);
	}
	return NULL;
}

static void pool_start(struct thread_pool *pool)
{
	sigset_t all, before;
	int started_count = 0;

	list_init(&pool->waiting);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	for (int i = 0; i < pool->thread_count; i++) {
		pthread_t id;

		if (pthread_create(&id, NULL, thread_main, pool) != 0)
			continue;
		pthread_detach(id);
		started_count++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	assert(started_count > 0);
}

void thread_pool_submit(struct thread_pool *pool, struct os_op *op)
{
	pthread_mutex_lock(&pool->lock);
	if (!pool->started)
		pool_start(pool);
	pool->started = true;
	list_push_back(&pool->waiting, &op->link);
	pthread_mutex_unlock(&pool->lock);
	/* Not under the lock, which the woken thread takes first of all. */
	pthread_cond_signal(&pool->filled);
}
