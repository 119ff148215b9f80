#include "engine/mailbox.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { RING_LETTERS = 1024 };

/* One direction between two workers: a ring with one writer and one reader.
 *
 *   taken ──► letters[taken % RING_LETTERS] ... letters[given % RING_LETTERS] ◄── given
 *
 * Each side owns its counter, publishes it with release and reads the other's with acquire:
 * a letter is written before `given` says so, and its place is read before `taken` frees it. */
struct box {
	/* owner: the sender */
	_Alignas(64) _Atomic uint32_t given;
	uint32_t taken_seen;
	bool sent;	     /* since the last flush */
	struct list waiting; /* no room in the ring */
	/* owner: the receiver */
	_Alignas(64) _Atomic uint32_t taken;
	/* shared: by the counters */
	_Alignas(64) struct letter *letters[RING_LETTERS];
};

struct mailboxes {
	uint32_t count;
	struct os_loop **loops;
	struct box *boxes; /* [from * count + to] */
};

struct mailboxes *mailboxes_create(uint32_t workers)
{
	struct mailboxes *boxes = calloc(1, sizeof(*boxes));

	if (!boxes)
		return NULL;
	boxes->count = workers;
	boxes->loops = calloc(workers, sizeof(*boxes->loops));
	boxes->boxes = aligned_alloc(64, (size_t)workers * workers * sizeof(struct box));
	if (!boxes->loops || !boxes->boxes) {
		mailboxes_destroy(boxes);
		return NULL;
	}
	for (uint32_t i = 0; i < workers * workers; i++) {
		struct box *box = &boxes->boxes[i];

		memset(box, 0, sizeof(*box));
		list_init(&box->waiting);
	}
	return boxes;
}

void mailboxes_destroy(struct mailboxes *boxes)
{
	if (!boxes)
		return;
	free(boxes->boxes);
	free(boxes->loops);
	free(boxes);
}

void mailboxes_join(struct mailboxes *boxes, uint32_t worker, struct os_loop *loop)
{
	__atomic_store_n(&boxes->loops[worker], loop, __ATOMIC_RELEASE);
}

static struct box *box_of(struct mailboxes *boxes, uint32_t from, uint32_t to)
{
	assert(from < boxes->count && to < boxes->count);
	return &boxes->boxes[from * boxes->count + to];
}

static bool box_give(struct box *box, struct letter *letter)
{
	uint32_t given = atomic_load_explicit(&box->given, memory_order_relaxed);

	if (given - box->taken_seen == RING_LETTERS)
		box->taken_seen = atomic_load_explicit(&box->taken, memory_order_acquire);
	if (given - box->taken_seen == RING_LETTERS)
		return false;
	box->letters[given % RING_LETTERS] = letter;
	atomic_store_explicit(&box->given, given + 1, memory_order_release);
	return true;
}

static struct letter *box_take(struct box *box)
{
	uint32_t taken = atomic_load_explicit(&box->taken, memory_order_relaxed);
	struct letter *letter;

	if (taken == atomic_load_explicit(&box->given, memory_order_acquire))
		return NULL;
	letter = box->letters[taken % RING_LETTERS];
	atomic_store_explicit(&box->taken, taken + 1, memory_order_release);
	return letter;
}

void mailbox_send(struct mailboxes *boxes, uint32_t from, uint32_t to, struct letter *letter)
{
	struct box *box = box_of(boxes, from, to);

	box->sent = true;
	/* A letter never overtakes one that waits. */
	if (list_empty(&box->waiting) && box_give(box, letter))
		return;
	list_init(&letter->link);
	list_push_back(&box->waiting, &letter->link);
}

static void refill(struct box *box)
{
	while (!list_empty(&box->waiting)) {
		struct letter *letter = list_first(&box->waiting, struct letter, link);
		struct list *next = letter->link.next;

		/* Once it is in the ring it is not ours: out of the list before that. */
		list_remove(&letter->link);
		if (!box_give(box, letter)) {
			list_insert_before(next, &letter->link);
			return;
		}
		box->sent = true;
	}
}

bool mailbox_flush(struct mailboxes *boxes, uint32_t from)
{
	bool waiting = false;

	for (uint32_t to = 0; to < boxes->count; to++) {
		struct box *box = box_of(boxes, from, to);

		refill(box);
		waiting |= !list_empty(&box->waiting);
		if (!box->sent)
			continue;
		box->sent = false;
		os_loop_wake(__atomic_load_n(&boxes->loops[to], __ATOMIC_ACQUIRE));
	}
	return waiting;
}

uint32_t mailbox_open(struct mailboxes *boxes, uint32_t worker)
{
	uint32_t opened = 0;

	for (uint32_t from = 0; from < boxes->count; from++) {
		struct box *box = box_of(boxes, from, worker);
		struct letter *letter;

		while ((letter = box_take(box)) != NULL) {
			letter->open(letter);
			opened++;
		}
	}
	return opened;
}
