/*
 * offload - helper threads for what would block a loop.
 *
 * Thread: called on loops' threads; all of them share the helpers and the computers.
 */
#include "os/thread_pool.h"

static void offload_work(struct os_op *op)
{
	op->u.offload.run(op);
}

static struct thread_pool helpers = THREAD_POOL("helper", 4, offload_work);

void os_offload(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op))
{
	loop_begin(loop, op, OP_OFFLOAD);
	op->u.offload.run = run;
	thread_pool_submit(&helpers, op);
}

static struct thread_pool computers = THREAD_POOL("computer", 2, offload_work);

void os_compute(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op))
{
	loop_begin(loop, op, OP_OFFLOAD);
	op->u.offload.run = run;
	thread_pool_submit(&computers, op);
}
