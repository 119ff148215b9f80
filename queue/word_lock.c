/* Taking and giving, over the kernel's futex. */
#include "queue/word_lock.h"

#include "os/os.h"

enum { WORD_LOCK_FREE, WORD_LOCK_HELD, WORD_LOCK_AWAITED };

void word_lock_take(struct word_lock *lock)
{
	/* acquire: what the last holder wrote is seen. */
	uint32_t expected = WORD_LOCK_FREE;

	if (atomic_compare_exchange_strong_explicit(&lock->word, &expected, WORD_LOCK_HELD,
						    memory_order_acquire, memory_order_relaxed))
		return;
	/* Others may sleep beside this one, which can't know: so it holds the lock as awaited. */
	while (atomic_exchange_explicit(&lock->word, WORD_LOCK_AWAITED, memory_order_acquire) !=
	       WORD_LOCK_FREE)
		os_futex_wait(&lock->word, WORD_LOCK_AWAITED, (struct os_mono){ UINT64_MAX });
}

void word_lock_give(struct word_lock *lock)
{
	/* release: pairs with the next holder's acquire. */
	if (atomic_exchange_explicit(&lock->word, WORD_LOCK_FREE, memory_order_release) ==
	    WORD_LOCK_AWAITED)
		os_futex_wake(&lock->word);
}
