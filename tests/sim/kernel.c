/*
 * kernel - see kernel.h.
 */
#include "tests/sim/kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/os.h"
#include "tests/sim/arena.h"
#include "tests/sim/fiber.h"
#include "tests/sim/memory.h"
#include "tests/sim/story.h"
#include "tests/sim/weather.h"

enum {
	FILES_LIMIT = 65536,
	PROCESS_ID = 4711, /* of the first life */
};

/* ── time and randomness ──────────────────────────────────────────────────────────── */

struct os_mono os_mono_now(void)
{
	return (struct os_mono){ sim_now() };
}

void os_random(void *bytes, size_t count)
{
	char *at = bytes;

	while (count > 0) {
		uint64_t word = story_random();
		size_t part = count < sizeof(word) ? count : sizeof(word);

		memcpy(at, &word, part);
		at += part;
		count -= part;
	}
}

/* ── threads ──────────────────────────────────────────────────────────────────────── */

struct os_thread {
	void (*run)(void *context);
	void *context; /* borrowed until the thread has ended */
	bool ended;
	struct fiber *joiner; /* NULL: nobody waits yet */
};

static void thread_main(void *context)
{
	struct os_thread *thread = context;

	thread->run(thread->context);
	thread->ended = true;
	if (thread->joiner != NULL)
		fiber_wake(thread->joiner);
}

int os_thread_start(struct os_thread **out, const char *name, void (*run)(void *context),
		    void *context)
{
	struct os_thread *thread = calloc(1, sizeof(*thread));

	if (thread == NULL)
		return -ENOMEM;
	thread->run = run;
	thread->context = context;
	fiber_start(name, thread_main, thread);
	*out = thread;
	return 0;
}

void os_thread_join(struct os_thread *thread)
{
	assert(thread->joiner == NULL);
	thread->joiner = fiber_self();
	while (!thread->ended)
		fiber_park(SIM_NEVER);
	free(thread);
}

void os_thread_set_self(void *self)
{
	*fiber_local() = self;
}

void *os_thread_self(void)
{
	return *fiber_local();
}

/* ── words to sleep on ────────────────────────────────────────────────────────────── */

struct waiter {
	struct list link;
	const void *word;
	struct fiber *fiber;
	bool woken;
};

/* Of this life: a fork of the runner begins with none. */
static struct list waiters = { &waiters, &waiters };

void os_futex_wait(_Atomic uint32_t *word, uint32_t value, struct os_mono until)
{
	struct waiter waiter = { .word = word, .fiber = fiber_self() };

	if (*word != value)
		return;
	list_init(&waiter.link);
	list_push_back(&waiters, &waiter.link);
	while (!waiter.woken && (until.ns == SIM_NEVER || sim_now() < until.ns))
		fiber_park(until.ns);
	list_remove(&waiter.link);
}

void os_futex_wake(_Atomic uint32_t *word)
{
	list_each(node, &waiters) {
		struct waiter *waiter = container_of(node, struct waiter, link);

		if (waiter->word == word) {
			waiter->woken = true;
			fiber_wake(waiter->fiber);
		}
	}
}

/* ── signals ──────────────────────────────────────────────────────────────────────── */

static struct {
	uint64_t pending; /* a bit for each number */
	struct fiber *waiter;
} signals;

void kernel_signal(int number)
{
	sim_trace("signal %d", number);
	signals.pending |= UINT64_C(1) << number;
	if (signals.waiter != NULL)
		fiber_wake(signals.waiter);
}

void os_signals_block(void)
{
}

int os_signal_wait(struct os_mono until)
{
	int number;

	signals.waiter = fiber_self();
	while (signals.pending == 0 && sim_now() < until.ns)
		fiber_park(until.ns);
	signals.waiter = NULL;
	if (signals.pending == 0)
		return 0;
	number = __builtin_ctzll(signals.pending);
	signals.pending &= signals.pending - 1;
	return number;
}

/* ── the machine ──────────────────────────────────────────────────────────────────── */

uint32_t os_cpu_count(void)
{
	return weather()->workers[weather_life() % array_count(weather()->workers)];
}

uint32_t os_process_id(void)
{
	return PROCESS_ID + weather_life();
}

const char *os_host_name(void)
{
	return "stafette.example";
}

void os_vectors_narrow(char **argv)
{
	(void)argv;
}

uint64_t os_limits_raise(void)
{
	return FILES_LIMIT;
}

static bool is_ready;	/* in this life, which is a process */
static bool *was_ready; /* in the arena */

void kernel_create(void)
{
	was_ready = arena_alloc(sizeof(*was_ready));
}

bool kernel_is_ready(void)
{
	return is_ready;
}

bool kernel_was_ready(void)
{
	return *was_ready;
}

void os_notify(const char *state)
{
	sim_trace("notify: %s", state);
	is_ready = strcmp(state, "READY=1") == 0;
	if (is_ready) {
		*was_ready = true;
		memory_open();
	}
}

/* ── least privilege: there is nothing here to be kept from ───────────────────────── */

bool os_is_root(void)
{
	return false;
}

int os_user_find(const char *name, const char *group, struct os_user *out)
{
	(void)name;
	(void)group;
	(void)out;
	return -ENOENT;
}

int os_file_owner(int fd, uint32_t *uid_out)
{
	(void)fd;
	*uid_out = 0;
	return 0;
}

int os_file_give(int fd, const struct os_user *user)
{
	(void)fd;
	(void)user;
	return 0;
}

int os_path_real(const char *path, char *out, size_t bytes)
{
	(void)path;
	(void)out;
	(void)bytes;
	return -ENOENT; /* the simulated disk has no symbolic links */
}

int os_drop_privileges(const struct os_user *user)
{
	(void)user;
	return 0;
}

int os_sandbox(const struct os_sandbox *sandbox, char *what_out, size_t what_bytes)
{
	(void)sandbox;
	snprintf(what_out, what_bytes, "simulated");
	return 0;
}
