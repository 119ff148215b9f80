/*
 * word_lock - a lock of one word, for what workers and their helpers share; who has to wait,
 * sleeps.
 *
 *   0 free ──take──► 1 held ──another comes──► 2 held, and somebody may sleep
 *   ▲                │                         │
 *   └──────give──────┴───give, waking all──────┘
 *
 * Promise: one holder at a time, who sees what those before it wrote; nobody sleeps on a free lock.
 * Non-promise: no order among those who wait, and none may take what it holds already.
 *
 * Thread: any.
 * Source: U. Drepper, "Futexes Are Tricky", 5; every order of it: tests/model/word_lock.c.
 */
#ifndef QUEUE_WORD_LOCK_H
#define QUEUE_WORD_LOCK_H

#include <stdatomic.h>
#include <stdint.h>

/* Zero: free. */
struct word_lock {
	_Atomic uint32_t word;
};

void word_lock_take(struct word_lock *lock);
void word_lock_give(struct word_lock *lock);

#endif
