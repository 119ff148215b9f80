/*
 * explore - runs small threads in every order that there is.
 *
 *   model_start() ──► threads run one step at a time ──► model_end()      again, with the next
 *                     a step ends before each access                      order, until none is
 *                     to shared memory                                    left
 *
 * The sources under test are compiled as they are, with <stdatomic.h> replaced by the macros
 * below: each atomic operation is a point where another thread may go on. Stores that are not
 * sequentially consistent lie in a buffer of their thread's first, as on x86, and reach the others
 * at any later moment. Two orders that lead to the same memory, with all threads having seen the
 * same values, go on as one: that makes the search finite and keeps it exact, but for collisions
 * of a 64-bit hash.
 *
 * Promise: an order in which model_check() fails, an assert fails, a dead object is touched, or
 * nobody can go on, is found and printed.
 * Non-promise: reorderings beyond x86's (loads, fences weaker than real ones) and data races:
 * ThreadSanitizer looks for those (`make tsan`).
 *
 * Thread: one; the threads of the model are fibers.
 */
#ifndef TESTS_MODEL_EXPLORE_H
#define TESTS_MODEL_EXPLORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The model's own part, in the file that includes this: sets up memory anew and starts its
 * threads; then looks at what came out. */
void model_start(void);
void model_end(void);

void model_thread(void (*run)(void *context), void *context);
/* The calling thread goes on only when `ready` says so. */
void model_block(bool (*ready)(void *context), void *context);
/* Memory that begins as zeros in each order, and is part of what is compared. */
void *model_memory(size_t bytes);
/* From now on, whoever touches these bytes atomically has failed. */
void model_dead(const void *at, size_t bytes);
void model_check(bool fact, const char *what);
/* A value from outside, which the calling thread has now seen. */
void model_saw(uint64_t value);
/* A few bytes at a time, in between which others go on. */
void model_copy(volatile void *to, const volatile void *from, size_t bytes);

uint64_t model_load(const volatile void *at, size_t bytes);
void model_store(volatile void *at, uint64_t value, size_t bytes, bool ordered);
/* Before a read-modify-write, which empties the thread's buffer. */
void model_point(const volatile void *at);
void model_fence(void);

#define MODEL_TYPE(object) __typeof__((void)0, *(object))
#define MODEL_CHANGE(object, value, change)                                                        \
	({                                                                                         \
		model_point(object);                                                               \
		MODEL_TYPE(object) old_ = *(object);                                               \
		*(object) = (MODEL_TYPE(object))(change(value));                                   \
		model_saw((uint64_t)old_);                                                         \
		old_;                                                                              \
	})
#define MODEL_SET(value) (value)
#define MODEL_ADD(value) (old_ + (value))
#define MODEL_SUB(value) (old_ - (value))
#define MODEL_SWAP(object, expected, desired)                                                      \
	({                                                                                         \
		model_point(object);                                                               \
		MODEL_TYPE(object) old_ = *(object);                                               \
		bool same_ = old_ == *(expected);                                                  \
		if (same_)                                                                         \
			*(object) = (desired);                                                     \
		else                                                                               \
			*(expected) = old_;                                                        \
		model_saw((uint64_t)old_);                                                         \
		same_;                                                                             \
	})

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub
#undef atomic_fetch_sub_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit
#undef atomic_thread_fence

#define atomic_load_explicit(object, order)                                                        \
	((MODEL_TYPE(object))model_load((object), sizeof(*(object))))
#define atomic_store_explicit(object, value, order)                                                \
	model_store((object), (uint64_t)(value), sizeof(*(object)), (order) == memory_order_seq_cst)
#define atomic_load(object)				atomic_load_explicit(object, memory_order_seq_cst)
#define atomic_store(object, value)			atomic_store_explicit(object, value, memory_order_seq_cst)
#define atomic_exchange_explicit(object, value, order)	MODEL_CHANGE(object, value, MODEL_SET)
#define atomic_exchange(object, value)			MODEL_CHANGE(object, value, MODEL_SET)
#define atomic_fetch_add_explicit(object, value, order) MODEL_CHANGE(object, value, MODEL_ADD)
#define atomic_fetch_add(object, value)			MODEL_CHANGE(object, value, MODEL_ADD)
#define atomic_fetch_sub_explicit(object, value, order) MODEL_CHANGE(object, value, MODEL_SUB)
#define atomic_fetch_sub(object, value)			MODEL_CHANGE(object, value, MODEL_SUB)
#define atomic_compare_exchange_strong_explicit(object, expected, desired, order, failed)          \
	MODEL_SWAP(object, expected, desired)
#define atomic_compare_exchange_weak_explicit(object, expected, desired, order, failed)            \
	MODEL_SWAP(object, expected, desired)
#define atomic_thread_fence(order) model_fence()

#endif
