/* The search: depth first, each order replayed from its beginning. */
#include "tests/model/explore.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	THREADS_MAX = 4,
	STACK_BYTES = 1 << 17,
	MEMORY_BYTES = 1 << 18,
	STEPS_MAX = 4000,
	BUFFER_MAX = 16,
	COPY_BYTES = 24,
	SEEN_BITS = 24, /* of the table of states */
};

struct store {
	void *at;
	uint64_t value;
	size_t bytes;
};

struct thread {
	ucontext_t context;
	void (*run)(void *context);
	void *argument;
	bool (*ready)(void *context); /* NULL: it can go on */
	void *ready_context;
	bool finished;
	uint64_t history; /* hash of what it has seen */
	struct store buffer[BUFFER_MAX];
	uint32_t buffered;
	_Alignas(64) char stack[STACK_BYTES];
};

/* A choice is a thread to run, or THREADS_MAX + a thread whose oldest store lands. */
struct choice {
	uint8_t taken;
	uint8_t others[2 * THREADS_MAX]; /* not yet tried */
	uint8_t other_count;
};

static struct {
	ucontext_t scheduler;
	struct thread threads[THREADS_MAX];
	uint32_t thread_count, running;
	char memory[MEMORY_BYTES] __attribute__((aligned(4096)));
	size_t memory_used;
	const char *dead;
	size_t dead_bytes;
	struct choice path[STEPS_MAX];
	uint32_t length;
	uint64_t *seen;
	uint64_t state_count, order_count;
} model;

/* ── what failed, and in which order ──────────────────────────────────────────────── */

static void tell(const char *what)
{
	dprintf(1, "model: %s; the order:", what);
	for (uint32_t i = 0; i < model.length; i++) {
		uint8_t taken = model.path[i].taken;

		dprintf(1, taken < THREADS_MAX ? " %c" : " (%c)", 'A' + taken % THREADS_MAX);
	}
	dprintf(1, "\n");
}

static void on_abort(int number)
{
	(void)number;
	tell("an assert failed");
	_exit(1);
}

void model_check(bool fact, const char *what)
{
	if (fact)
		return;
	tell(what);
	_exit(1);
}

/* ── what threads call ────────────────────────────────────────────────────────────── */

static struct thread *self(void)
{
	return &model.threads[model.running];
}

static bool inside(void)
{
	return model.running < THREADS_MAX;
}

void model_saw(uint64_t value)
{
	if (inside())
		self()->history = XXH3_64bits_withSeed(&value, sizeof(value), self()->history);
}

static void step(void)
{
	struct thread *thread = self();

	swapcontext(&thread->context, &model.scheduler);
	model_saw(0); /* a step further, whatever it sees */
}

static void look_alive(const volatile void *at)
{
	const char *byte = (const char *)at;

	model_check(!model.dead || byte < model.dead || byte >= model.dead + model.dead_bytes,
		    "something that is gone was touched");
}

static void land_oldest(struct thread *thread)
{
	struct store store = thread->buffer[0];

	look_alive(store.at);
	memcpy(store.at, &store.value, store.bytes);
	thread->buffered--;
	memmove(thread->buffer, thread->buffer + 1, thread->buffered * sizeof(store));
}

static void land_all(struct thread *thread)
{
	while (thread->buffered > 0)
		land_oldest(thread);
}

void model_point(const volatile void *at)
{
	if (!inside())
		return;
	step();
	look_alive(at);
	land_all(self());
}

void model_fence(void)
{
	if (inside())
		land_all(self());
}

uint64_t model_load(const volatile void *at, size_t bytes)
{
	uint64_t value = 0;

	if (inside()) {
		step();
		look_alive(at);
	}
	memcpy(&value, (const void *)at, bytes);
	for (uint32_t i = 0; inside() && i < self()->buffered; i++)
		if (self()->buffer[i].at == at)
			value = self()->buffer[i].value;
	model_saw(value);
	return value;
}

void model_store(volatile void *at, uint64_t value, size_t bytes, bool ordered)
{
	if (!inside()) {
		memcpy((void *)at, &value, bytes);
		return;
	}
	step();
	look_alive(at);
	model_saw(value);
	assert(self()->buffered < BUFFER_MAX);
	self()->buffer[self()->buffered++] = (struct store){ (void *)at, value, bytes };
	if (ordered)
		land_all(self());
}

void model_copy(volatile void *to, const volatile void *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += COPY_BYTES) {
		size_t part = bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES;

		step();
		memcpy((char *)to + at, (const char *)from + at, part);
		model_saw(XXH3_64bits((const char *)from + at, part));
	}
}

void model_block(bool (*ready)(void *context), void *context)
{
	struct thread *thread = self();

	thread->ready = ready;
	thread->ready_context = context;
	step();
	thread->ready = NULL;
}

/* ── one order ────────────────────────────────────────────────────────────────────── */

static void thread_main(void)
{
	struct thread *thread = self();

	model_saw(1); /* it has begun */
	thread->run(thread->argument);
	thread->finished = true;
	for (;;)
		step();
}

void model_thread(void (*run)(void *context), void *context)
{
	struct thread *thread = &model.threads[model.thread_count++];

	assert(model.thread_count <= THREADS_MAX);
	thread->run = run;
	thread->argument = context;
	thread->ready = NULL;
	thread->finished = false;
	thread->history = thread->buffered = 0;
	getcontext(&thread->context);
	thread->context.uc_stack.ss_sp = thread->stack;
	thread->context.uc_stack.ss_size = sizeof(thread->stack);
	thread->context.uc_link = NULL;
	makecontext(&thread->context, thread_main, 0);
}

void *model_memory(size_t bytes)
{
	char *at = model.memory + model.memory_used;

	model.memory_used += (bytes + 63) / 64 * 64;
	assert(model.memory_used <= MEMORY_BYTES);
	return at;
}

void model_dead(const void *at, size_t bytes)
{
	model.dead = at;
	model.dead_bytes = bytes;
}

static uint32_t choices(uint8_t out[static 2 * THREADS_MAX])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < model.thread_count; i++) {
		struct thread *thread = &model.threads[i];

		if (!thread->finished && (!thread->ready || thread->ready(thread->ready_context)))
			out[count++] = (uint8_t)i;
		if (thread->buffered > 0)
			out[count++] = (uint8_t)(THREADS_MAX + i);
	}
	return count;
}

/* True the first time. */
static bool is_new_state(void)
{
	uint64_t hash = XXH3_64bits(model.memory, model.memory_used);
	uint64_t mask = (UINT64_C(1) << SEEN_BITS) - 1, at;

	for (uint32_t i = 0; i < model.thread_count; i++) {
		const struct thread *thread = &model.threads[i];
		uint64_t parts[3] = { thread->history, thread->finished, thread->buffered };

		hash = XXH3_64bits_withSeed(parts, sizeof(parts), hash);
	}
	hash += model.dead != NULL;
	hash += hash == 0;
	for (at = hash & mask; model.seen[at] != 0; at = (at + 1) & mask)
		if (model.seen[at] == hash)
			return false;
	model.seen[at] = hash;
	model.state_count++;
	model_check(model.state_count < mask / 2, "more states than the table holds");
	return true;
}

static void take(uint8_t choice)
{
	if (choice >= THREADS_MAX) {
		land_oldest(&model.threads[choice - THREADS_MAX]);
		return;
	}
	model.running = choice;
	swapcontext(&model.scheduler, &model.threads[choice].context);
	model.running = THREADS_MAX;
}

static bool all_finished(void)
{
	for (uint32_t i = 0; i < model.thread_count; i++)
		if (!model.threads[i].finished)
			return false;
	return true;
}

/* Follows the first `given` choices of the path, then goes its own way to the end. */
static void run_order(uint32_t given)
{
	memset(model.memory, 0, model.memory_used);
	model.memory_used = model.thread_count = 0;
	model.dead = NULL;
	model.running = THREADS_MAX;
	model.length = 0;
	model.order_count++;
	model_start();
	for (;;) {
		uint8_t may[2 * THREADS_MAX];
		struct choice *choice = &model.path[model.length];
		uint32_t count;

		if (model.length >= given) {
			if (!is_new_state())
				return;
			count = choices(may);
			if (count == 0)
				break;
			choice->taken = may[0];
			choice->other_count = (uint8_t)(count - 1);
			memcpy(choice->others, may + 1, count - 1);
		}
		model.length++;
		assert(model.length < STEPS_MAX);
		take(choice->taken);
	}
	model_check(all_finished(), "nobody can go on: a wake-up was lost");
	model_end();
}

int main(void)
{
	uint32_t given = 0;

	signal(SIGABRT, on_abort);
	model.seen = calloc(UINT64_C(1) << SEEN_BITS, sizeof(*model.seen));
	assert(model.seen);
	do {
		run_order(given);
		for (given = model.length; given > 0; given--) {
			struct choice *last = &model.path[given - 1];

			if (last->other_count == 0)
				continue;
			last->taken = last->others[--last->other_count];
			break;
		}
	} while (given > 0);
	printf("model: %llu states, %llu orders\n", (unsigned long long)model.state_count,
	       (unsigned long long)model.order_count);
	free(model.seen);
	return 0;
}
