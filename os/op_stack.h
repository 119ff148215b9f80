/*
 * op_stack - operations on their way to one thread from any number of others.
 *
 *   pusher ── head ◄─ op ◄─ op        taker: takes all of it at once, oldest first
 *
 * Promise: op_stack_push() says whether the stack was empty, so that only the first pusher
 * has to wake the taker.
 * Thread: any thread pushes, one takes. C11 atomics rather than Concurrency Kit's, whose
 * inline assembly ThreadSanitizer cannot see.
 */
#ifndef OS_OP_STACK_H
#define OS_OP_STACK_H

#include <stdatomic.h>

#include "os/os.h"

struct op_stack {
	_Atomic(struct list *) head; /* linked by op->link.next */
};

static inline bool op_stack_push(struct op_stack *stack, struct os_op *op)
{
	struct list *head = atomic_load_explicit(&stack->head, memory_order_relaxed);

	do
		op->link.next = head;
	/* Release: the taker must see what the pusher wrote into the operation's owner. */
	while (!atomic_compare_exchange_weak_explicit(&stack->head, &head, &op->link,
						      memory_order_release, memory_order_relaxed));
	return head == NULL;
}

/* Moves everything to the end of `to`, oldest first. */
static inline void op_stack_take(struct op_stack *stack, struct list *to)
{
	struct list *newest, *place = to;

	/* Looking first keeps the cache line shared while nothing comes. */
	if (atomic_load_explicit(&stack->head, memory_order_relaxed) == NULL)
		return;
	newest = atomic_exchange_explicit(&stack->head, NULL, memory_order_acquire);
	while (newest != NULL) {
		struct list *older = newest->next;

		list_init(newest);
		list_insert_before(place, newest);
		place = newest;
		newest = older;
	}
}

#endif
