/*
 * fiber - see fiber.h.
 *
 *   sim_run() ──► earliest event ──► its function, or the fiber that waits for it
 *             ◄── fiber_park() ─────────────────────────────────────────┘
 *
 * A fiber begins by makecontext() and goes on by _longjmp(), which costs no system call.
 */
#include "tests/sim/fiber.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "os/check.h"
#include "os/prng.h"
#include "tests/sim/story.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

enum {
	STACK_BYTES = 256 << 10,
	GUARD_BYTES = 4096,
	NAME_BYTES = 24,
};

struct fiber {
	char name[NAME_BYTES];
	void (*run)(void *context);
	void *context;
	void *local; /* os_thread_self() */
	char *stack; /* above its guard page */
	jmp_buf place;
	struct sim_event event;
	bool begun, parked, woken, ended;
	struct fiber *next_free;
};

/* Of this life; a fork of the runner begins with nothing. */
static struct {
	struct sim_event **heap; /* the earliest first; owned */
	uint32_t count, room;
	struct fiber *now;    /* NULL: an event */
	struct fiber *freed;  /* with their stacks */
	jmp_buf place;	      /* of sim_run() */
	uint64_t events_left; /* until the crash that is planned; 0: none is */
	enum sim_end end;
	void *fake_stack;
} life;

/* ── events ───────────────────────────────────────────────────────────────────────── */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void heap_put(uint32_t place, struct sim_event *event)
{
	life.heap[place] = event;
	event->place = place;
}

static void heap_up(uint32_t place, struct sim_event *event)
{
	while (place > 0 && earlier(event, life.heap[(place - 1) / 2])) {
		heap_put(place, life.heap[(place - 1) / 2]);
		place = (place - 1) / 2;
	}
	heap_put(place, event);
}

static void heap_down(uint32_t place, struct sim_event *event)
{
	for (;;) {
		uint32_t child = 2 * place + 1;

		if (child + 1 < life.count && earlier(life.heap[child + 1], life.heap[child]))
			child++;
		if (child >= life.count || !earlier(life.heap[child], event))
			break;
		heap_put(place, life.heap[child]);
		place = child;
	}
	heap_put(place, event);
}

void sim_cancel_event(struct sim_event *event)
{
	struct sim_event *last;
	uint32_t place = event->place;

	if (!event->armed)
		return;
	assert(life.heap[place] == event);
	event->armed = false;
	last = life.heap[--life.count];
	if (last == event)
		return;
	if (place > 0 && earlier(last, life.heap[(place - 1) / 2]))
		heap_up(place, last);
	else
		heap_down(place, last);
}

void sim_after(struct sim_event *event, uint64_t delay_ns)
{
	sim_cancel_event(event);
	if (life.count == life.room) {
		life.room = life.room > 0 ? 2 * life.room : 1024;
		life.heap = realloc(life.heap, life.room * sizeof(*life.heap));
		assert(life.heap != NULL);
	}
	assert(event->run != NULL && delay_ns < SIM_NEVER - sim_now());
	event->at_ns = sim_now() + delay_ns;
	event->order = sim_below(UINT64_MAX);
	event->armed = true;
	heap_up(life.count++, event);
}

void sim_crash_after(uint64_t events, enum sim_end end)
{
	life.events_left = events;
	life.end = end;
}

void sim_run(void)
{
	while (life.count > 0) {
		struct sim_event *event = life.heap[0];

		sim_cancel_event(event);
		story_set_now(event->at_ns);
		story_mix(event->at_ns ^ event->order);
		if (life.events_left > 0 && --life.events_left == 0)
			sim_crash(life.end);
		event->run(event);
	}
}

/* ── switching ────────────────────────────────────────────────────────────────────── */

#ifdef __SANITIZE_ADDRESS__
static void switch_begins(const void *stack, size_t bytes)
{
	__sanitizer_start_switch_fiber(&life.fake_stack, stack, bytes);
}

static void switch_ended(const void **stack, size_t *bytes)
{
	__sanitizer_finish_switch_fiber(life.fake_stack, stack, bytes);
}
#else
static void switch_begins(const void *stack, size_t bytes)
{
	(void)stack, (void)bytes;
}

static void switch_ended(const void **stack, size_t *bytes)
{
	(void)stack, (void)bytes;
}
#endif

static const void *run_stack; /* of sim_run(), as the sanitizer tells it */
static size_t run_stack_bytes;

/* Back to sim_run(). */
static void fiber_leave(struct fiber *fiber)
{
	life.now = NULL;
	switch_begins(run_stack, run_stack_bytes);
	if (_setjmp(fiber->place) == 0)
		_longjmp(life.place, 1);
	switch_ended(&run_stack, &run_stack_bytes);
}

static void fiber_main(void)
{
	struct fiber *fiber = life.now;

	switch_ended(&run_stack, &run_stack_bytes);
	for (;;) {
		fiber->run(fiber->context);
		fiber->ended = true;
		fiber_leave(fiber);
	}
}

static void fiber_begin(struct fiber *fiber)
{
	static ucontext_t context;

	fiber->begun = true;
	getcontext(&context);
	context.uc_stack.ss_sp = fiber->stack;
	context.uc_stack.ss_size = STACK_BYTES;
	context.uc_link = NULL;
	makecontext(&context, fiber_main, 0);
	setcontext(&context);
}

static void fiber_resume(struct sim_event *event)
{
	struct fiber *fiber = container_of(event, struct fiber, event);

	assert(life.now == NULL);
	life.now = fiber;
	fiber->parked = false;
	switch_begins(fiber->stack, STACK_BYTES);
	if (_setjmp(life.place) == 0) {
		if (fiber->begun)
			_longjmp(fiber->place, 1);
		fiber_begin(fiber);
	}
	switch_ended(NULL, NULL);
	if (fiber->ended) {
		fiber->next_free = life.freed;
		life.freed = fiber;
	}
}

/* ── fibers ───────────────────────────────────────────────────────────────────────── */

static struct fiber *fiber_create(void)
{
	struct fiber *fiber = calloc(1, sizeof(*fiber));
	char *stack = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(fiber != NULL && stack != MAP_FAILED);
	mprotect(stack, GUARD_BYTES, PROT_NONE);
	fiber->stack = stack + GUARD_BYTES;
	return fiber;
}

/* One that has ended goes on behind its end: that costs no system call. */
static struct fiber *fiber_take(void)
{
	struct fiber *fiber = life.freed;

	if (fiber == NULL)
		return fiber_create();
	assert(fiber->ended && !fiber->event.armed);
	life.freed = fiber->next_free;
	fiber->ended = fiber->woken = false;
	fiber->local = NULL;
	return fiber;
}

struct fiber *fiber_start(const char *name, void (*run)(void *context), void *context)
{
	struct fiber *fiber = fiber_take();

	snprintf(fiber->name, sizeof(fiber->name), "%s", name);
	fiber->run = run;
	fiber->context = context;
	fiber->event.run = fiber_resume;
	sim_after(&fiber->event, 0);
	return fiber;
}

struct fiber *fiber_self(void)
{
	return life.now;
}

const char *fiber_name(const struct fiber *fiber)
{
	return fiber != NULL ? fiber->name : "-";
}

void **fiber_local(void)
{
	assert(life.now != NULL);
	return &life.now->local;
}

bool fiber_park(uint64_t until_ns)
{
	struct fiber *fiber = life.now;
	bool woken;

	assert(fiber != NULL);
	if (!fiber->woken && until_ns > sim_now()) {
		fiber->parked = true;
		if (until_ns != SIM_NEVER)
			sim_after(&fiber->event, until_ns - sim_now());
		fiber_leave(fiber);
	}
	woken = fiber->woken;
	fiber->woken = false;
	return woken;
}

void fiber_wake(struct fiber *fiber)
{
	if (fiber->woken || fiber->ended)
		return;
	fiber->woken = true;
	if (fiber->parked)
		sim_after(&fiber->event, 0);
}

void fiber_sleep(uint64_t ns)
{
	struct fiber *fiber = life.now;
	uint64_t until = sim_now() + ns;
	bool woken = false;

	/* Also for 0: others of this instant may come first. A wake stays for the next park. */
	do {
		fiber->parked = true;
		sim_after(&fiber->event, until > sim_now() ? until - sim_now() : 0);
		woken |= fiber->woken;
		fiber->woken = false;
		fiber_leave(fiber);
		woken |= fiber->woken;
	} while (sim_now() < until);
	fiber->woken = woken;
}
