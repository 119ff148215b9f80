/*
 * big - which files in big/ are still needed, and their end.
 *
 * Promise: a file is unlinked only when the last job of its message is durably done.
 *
 * Thread: the owner of the stream.
 */
#ifndef QUEUE_BIG_H
#define QUEUE_BIG_H

#include "queue/pool.h"

enum { BIG_BUCKETS = 1024 };

struct big_entry; /* opaque */

struct big {
	struct os_loop *loop;
	struct pool *pool;
	struct big_entry *buckets[BIG_BUCKETS];
	struct list done;  /* of entries without jobs, by journal number */
	struct list spare; /* of entries, reserved */
	struct os_op op;
	uint64_t unlinking;
};

void big_init(struct big *big, struct pool *pool);
void big_deinit(struct big *big);
/* Memory for a message more. False: there is none. */
bool big_reserve(struct big *big);
void big_unreserve(struct big *big);
/* Some job needs it already. */
bool big_knows(struct big *big, uint64_t message);
/* One more, or one less, job needs the body of `message`; the first one takes what was reserved,
 * the last one was settled by journal record `number`. */
void big_use(struct big *big, uint64_t message);
void big_drop(struct big *big, uint64_t message, uint64_t number);
/* Unlinks what may go, one after the other, as far as the journal is durable. */
void big_turn(struct big *big, uint64_t durable);

#endif
