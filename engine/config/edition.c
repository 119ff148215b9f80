#include "engine/config/edition.h"

#include "os/check.h"

/* ── counting ─────────────────────────────────────────────────────────────────────── */

/* More than one thread has out at a time. If it should have more, those are counted one by one. */
#define RESERVE UINT64_C(1000000)

/* References of this thread that nobody uses at the moment. */
static _Thread_local struct {
	struct edition *edition; /* borrowed: `count` keeps it; NULL: none is favoured */
	uint64_t count;
} reserve;

static void take(struct edition *edition, uint64_t count)
{
	/* relaxed: who takes one has one, or the lock of the shelf that has one. */
	uint64_t before = atomic_fetch_add_explicit(&edition->held, count, memory_order_relaxed);

	assert(before > 0);
}

static bool give_back(struct edition *edition, uint64_t count)
{
	/* acq_rel: the last one frees, after all that others have read. */
	uint64_t before = atomic_fetch_sub_explicit(&edition->held, count, memory_order_acq_rel);

	assert(before >= count);
	return before == count;
}

void edition_init(struct edition *edition)
{
	atomic_init(&edition->held, 1);
}

void edition_hold(struct edition *edition)
{
	if (reserve.edition == edition && reserve.count > 0)
		reserve.count--;
	else
		take(edition, 1);
}

bool edition_let_go(struct edition *edition)
{
	if (reserve.edition != edition)
		return give_back(edition, 1);
	reserve.count++;
	return false;
}

void edition_favour(struct edition *edition)
{
	if (reserve.edition == edition)
		return;
	if (reserve.edition) {
		bool last = reserve.count > 0 && give_back(reserve.edition, reserve.count);

		assert(!last);
	}
	reserve.edition = edition;
	reserve.count = edition ? RESERVE : 0;
	if (edition)
		take(edition, RESERVE);
}

/* ── the one in force ─────────────────────────────────────────────────────────────── */

void edition_shelf_init(struct edition_shelf *shelf, struct edition *edition)
{
	pthread_mutex_init(&shelf->lock, NULL);
	atomic_init(&shelf->edition, edition);
}

struct edition *edition_shelf_replace(struct edition_shelf *shelf, struct edition *next)
{
	struct edition *before;

	pthread_mutex_lock(&shelf->lock);
	/* relaxed: the lock orders it. */
	before = atomic_exchange_explicit(&shelf->edition, next, memory_order_relaxed);
	pthread_mutex_unlock(&shelf->lock);
	return before;
}

struct edition *edition_shelf_take(struct edition_shelf *shelf)
{
	struct edition *edition;

	/* relaxed: only whether there is one; who looks too early finds what was before. */
	if (!atomic_load_explicit(&shelf->edition, memory_order_relaxed))
		return NULL;
	pthread_mutex_lock(&shelf->lock);
	edition = atomic_load_explicit(&shelf->edition, memory_order_relaxed);
	if (edition)
		edition_hold(edition);
	pthread_mutex_unlock(&shelf->lock);
	return edition;
}

struct edition *edition_shelf_deinit(struct edition_shelf *shelf)
{
	pthread_mutex_destroy(&shelf->lock);
	return atomic_load_explicit(&shelf->edition, memory_order_relaxed);
}
