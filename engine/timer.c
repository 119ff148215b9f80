#include "engine/timer.h"

#define TICK_NS (4 * OS_NS_PER_MS)

enum { SLOT_BITS = 6, SLOT_MASK = TIMER_SLOTS - 1 };

static const uint64_t span_max = UINT64_C(1) << (SLOT_BITS * TIMER_LEVELS);

void timer_wheel_init(struct timer_wheel *wheel, struct os_mono now)
{
	wheel->tick = now.ns / TICK_NS;
	for (int level = 0; level < TIMER_LEVELS; level++) {
		wheel->used[level] = 0;
		for (int slot = 0; slot < TIMER_SLOTS; slot++)
			list_init(&wheel->slots[level][slot]);
	}
}

void timer_init(struct timer *timer, void (*fire)(struct timer *timer))
{
	*timer = (struct timer){ .fire = fire };
	list_init(&timer->link);
}

/* The level is the coarsest whose slots still tell the timer from the present. */
static void place(struct timer_wheel *wheel, struct timer *timer)
{
	uint64_t ahead = timer->tick - wheel->tick;
	int level = ahead < TIMER_SLOTS ? 0 : (63 - __builtin_clzll(ahead)) / SLOT_BITS;

	timer->level = (uint8_t)level;
	timer->slot = (timer->tick >> (SLOT_BITS * level)) & SLOT_MASK;
	wheel->used[level] |= UINT64_C(1) << timer->slot;
	list_push_back(&wheel->slots[level][timer->slot], &timer->link);
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
	if (!list_linked(&timer->link))
		return;
	list_remove(&timer->link);
	if (list_empty(&wheel->slots[timer->level][timer->slot]))
		wheel->used[timer->level] &= ~(UINT64_C(1) << timer->slot);
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, struct os_mono when)
{
	uint64_t tick = when.ns / TICK_NS + 1;

	timer_cancel(wheel, timer);
	if (tick < wheel->tick)
		tick = wheel->tick;
	if (tick - wheel->tick >= span_max)
		tick = wheel->tick + span_max - 1;
	timer->tick = tick;
	place(wheel, timer);
}

/* Takes a slot's timers out before any of them can be set again. */
static void take_slot(struct timer_wheel *wheel, int level, uint64_t slot, struct list *out)
{
	list_init(out);
	if (!(wheel->used[level] & UINT64_C(1) << slot))
		return;
	wheel->used[level] &= ~(UINT64_C(1) << slot);
	list_splice_back(out, &wheel->slots[level][slot]);
}

/* A tick that begins a coarser slot brings that slot's timers down. */
static void cascade(struct timer_wheel *wheel)
{
	for (int level = 1; level < TIMER_LEVELS; level++) {
		uint64_t below = wheel->tick & ((UINT64_C(1) << (SLOT_BITS * level)) - 1);
		struct list timers;

		if (below != 0)
			return;
		take_slot(wheel, level, (wheel->tick >> (SLOT_BITS * level)) & SLOT_MASK, &timers);
		for (struct list *node; (node = list_pop_front(&timers));)
			place(wheel, container_of(node, struct timer, link));
	}
}

void timer_wheel_advance(struct timer_wheel *wheel, struct os_mono now)
{
	uint64_t until = now.ns / TICK_NS;

	while (wheel->tick <= until) {
		struct list due;

		cascade(wheel);
		take_slot(wheel, 0, wheel->tick & SLOT_MASK, &due);
		/* What `fire` sets for now goes to the next tick: this always ends. */
		wheel->tick++;
		for (struct list *node; (node = list_pop_front(&due));) {
			struct timer *timer = container_of(node, struct timer, link);

			timer->fire(timer);
		}
	}
}

struct os_mono timer_wheel_next(const struct timer_wheel *wheel)
{
	uint64_t best = UINT64_MAX;

	for (int level = 0; level < TIMER_LEVELS; level++) {
		int shift = SLOT_BITS * level;
		uint64_t now = wheel->tick >> shift;
		/* The slot of the present has come down already, unless it only begins. */
		uint64_t begin = now << shift == wheel->tick ? now : now + 1;
		uint64_t used = wheel->used[level];
		int turn = begin & SLOT_MASK;
		uint64_t turned = turn ? used >> turn | used << (TIMER_SLOTS - turn) : used;

		if (turned == 0)
			continue;
		uint64_t tick = (begin + (uint64_t)__builtin_ctzll(turned)) << shift;

		if (tick < best)
			best = tick;
	}
	return (struct os_mono){ best == UINT64_MAX ? UINT64_MAX : best * TICK_NS };
}
