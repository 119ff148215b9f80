/*
 * thread - threads, the word that one sleeps on, and signals.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"

#define THREAD_NAME_MAX 16 /* the kernel's, with the NUL */

/* ── threads ──────────────────────────────────────────────────────────────────────── */

struct os_thread {
	pthread_t id;
	char name[THREAD_NAME_MAX];
	void (*run)(void *context);
	void *context; /* borrowed until the thread has ended */
};

static void *thread_main(void *argument)
{
	struct os_thread *thread = argument;

	pthread_setname_np(pthread_self(), thread->name);
	thread->run(thread->context);
	return NULL;
}

int os_thread_start(struct os_thread **out, const char *name, void (*run)(void *context),
		    void *context)
{
	struct os_thread *thread = calloc(1, sizeof(*thread));
	int failed;

	if (thread == NULL)
		return -ENOMEM;
	strncpy(thread->name, name, sizeof(thread->name) - 1);
	thread->run = run;
	thread->context = context;
	failed = pthread_create(&thread->id, NULL, thread_main, thread);
	if (failed != 0) {
		free(thread);
		return -failed;
	}
	*out = thread;
	return 0;
}

void os_thread_join(struct os_thread *thread)
{
	int failed = pthread_join(thread->id, NULL);

	assert(failed == 0);
	free(thread);
}

static _Thread_local void *thread_self;

void os_thread_set_self(void *self)
{
	thread_self = self;
}

void *os_thread_self(void)
{
	return thread_self;
}

/* ── a word to sleep on ───────────────────────────────────────────────────────────── */

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){
		.tv_sec = (time_t)(ns / OS_NS_PER_S),
		.tv_nsec = (long)(ns % OS_NS_PER_S),
	};
}

void os_futex_wait(_Atomic uint32_t *word, uint32_t value, struct os_mono until)
{
	struct timespec limit = timespec_of(until.ns);

	/* The BITSET form takes a time of the monotonic clock, not a duration. */
	syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value,
		until.ns == UINT64_MAX ? NULL : &limit, NULL, FUTEX_BITSET_MATCH_ANY);
}

void os_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ── signals ──────────────────────────────────────────────────────────────────────── */

static void signals_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR1);
}

void os_signals_block(void)
{
	sigset_t set;

	signals_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

int os_signal_wait(struct os_mono until)
{
	sigset_t set;

	signals_set(&set);
	for (;;) {
		uint64_t now = os_mono_now().ns;
		struct timespec rest = timespec_of(until.ns > now ? until.ns - now : 0);
		int got = sigtimedwait(&set, NULL, &rest);

		if (got > 0)
			return got;
		if (errno != EINTR)
			return 0;
	}
}
