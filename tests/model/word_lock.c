/* A lock that several take, sleep for and give back: queue/word_lock.c. */
#include "tests/model/explore.h"

#include "queue/word_lock.c"

#ifndef MODEL_LOCKERS
#define MODEL_LOCKERS 3
#endif
#ifndef MODEL_ROUNDS
#define MODEL_ROUNDS 1
#endif

static struct world {
	struct word_lock lock;
	uint32_t wakes;
	uint32_t inside, count; /* written by the holder */
} * world;

/* ── what the kernel does ─────────────────────────────────────────────────────────── */

static bool is_woken(void *context)
{
	return world->wakes != *(uint32_t *)context;
}

/* The look at the word and the beginning of the sleep are one; only a wake ends it. */
void os_futex_wait(_Atomic uint32_t *word, uint32_t value, struct os_mono until)
{
	uint32_t wakes;

	model_check(until.ns == UINT64_MAX, "a sleep with an end");
	model_fence(); /* a system call */
	if (model_load(word, sizeof(*word)) != value)
		return;
	wakes = world->wakes;
	model_saw(wakes);
	model_block(is_woken, &wakes);
}

/* All who sleep. */
void os_futex_wake(_Atomic uint32_t *word)
{
	model_point(word);
	world->wakes++;
}

/* ── the threads ──────────────────────────────────────────────────────────────────── */

/* What the holder does: its store lingers, and has to be seen by the next all the same. */
static void count_one(void)
{
	uint64_t count;

	model_check(world->inside++ == 0, "two hold the lock");
	count = model_load(&world->count, sizeof(world->count));
	model_store(&world->count, count + 1, sizeof(world->count), false);
	world->inside--;
}

static void locker_thread(void *context)
{
	(void)context;
	for (int round = 0; round < MODEL_ROUNDS; round++) {
		word_lock_take(&world->lock);
		count_one();
		word_lock_give(&world->lock);
	}
}

void model_start(void)
{
	world = model_memory(sizeof(*world));
	for (uint32_t i = 0; i < MODEL_LOCKERS; i++)
		model_thread(locker_thread, NULL);
}

void model_end(void)
{
	model_check(world->count == MODEL_LOCKERS * MODEL_ROUNDS, "a holder's store was not seen");
	model_check(world->lock.word == 0, "the lock is held by nobody");
}
