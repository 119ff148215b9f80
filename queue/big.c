/* The files in big/ by message. */
#include "queue/big.h"

#include <stdlib.h>

#include "queue/queue.h"

struct big_entry {
	struct big_entry *next; /* in its bucket */
	struct list link;	/* in `done` */
	uint64_t message, number;
	uint32_t jobs;
};

static struct big_entry **big_find(struct big *big, uint64_t message)
{
	struct big_entry **at = &big->buckets[message % BIG_BUCKETS];

	while (*at != NULL && (*at)->message != message)
		at = &(*at)->next;
	return at;
}

bool big_reserve(struct big *big)
{
	struct big_entry *entry = calloc(1, sizeof(*entry));

	if (entry == NULL)
		return false;
	list_init(&entry->link);
	list_push_back(&big->spare, &entry->link);
	return true;
}

void big_unreserve(struct big *big)
{
	free(container_of(list_pop_front(&big->spare), struct big_entry, link));
}

bool big_knows(struct big *big, uint64_t message)
{
	return *big_find(big, message) != NULL;
}

void big_use(struct big *big, uint64_t message)
{
	struct big_entry **at = big_find(big, message);

	if (*at == NULL) {
		assert(!list_empty(&big->spare));
		*at = container_of(list_pop_front(&big->spare), struct big_entry, link);
		(*at)->message = message;
	}
	(*at)->jobs++;
}

void big_drop(struct big *big, uint64_t message, uint64_t number)
{
	struct big_entry **at = big_find(big, message);
	struct big_entry *entry = *at;

	assert(entry != NULL && entry->jobs > 0);
	if (--entry->jobs > 0)
		return;
	*at = entry->next;
	entry->number = number;
	list_push_back(&big->done, &entry->link);
}

static void big_run_unlink(struct os_op *op)
{
	struct big *big = container_of(op, struct big, op);
	char name[QUEUE_ID_TEXT_BYTES];

	queue_id_text(big->unlinking, name);
	/* A file that stays is removed by the next recovery. */
	op->result = os_unlink(big->pool->folders[POOL_BIG], name);
}

static void big_on_unlink(struct os_op *op)
{
	struct big *big = container_of(op, struct big, op);

	big->unlinking = 0;
}

void big_turn(struct big *big, uint64_t durable)
{
	struct big_entry *entry;

	if (big->op.busy || list_empty(&big->done))
		return;
	entry = list_first(&big->done, struct big_entry, link);
	if (entry->number > durable)
		return;
	list_remove(&entry->link);
	big->unlinking = entry->message;
	free(entry);
	big->op.done = big_on_unlink;
	os_offload(big->loop, &big->op, big_run_unlink);
}

void big_init(struct big *big, struct pool *pool)
{
	big->pool = pool;
	list_init(&big->done);
	list_init(&big->spare);
}

void big_deinit(struct big *big)
{
	for (uint32_t bucket = 0; bucket < BIG_BUCKETS; bucket++) {
		while (big->buckets[bucket] != NULL) {
			struct big_entry *entry = big->buckets[bucket];

			big->buckets[bucket] = entry->next;
			free(entry);
		}
	}
	if (big->done.next == NULL)
		return;
	list_each(node, &big->done)
		free(container_of(node, struct big_entry, link));
	while (!list_empty(&big->spare))
		big_unreserve(big);
}
