/*
 * edition - something that is never changed but replaced, while readers keep the one they have.
 *
 *   shelf ──► edition 2 ◄── readers from now on
 *             edition 1 ◄── those who took it before; the last one frees it
 *
 * A configuration is one, and so are the certificates and the signing keys that were read for it.
 * An edition is a count, embedded in the thing; what has none left is freed by who let go last, so
 * nothing here owns memory. References are all alike: one may be taken on one thread and let go
 * on another.
 *
 * Promise: what is held stays as it is until it is let go; edition_shelf_take() gives the old one
 * or the new one, whole.
 * Non-promise: when the last reader of an old one goes.
 *
 * Thread: any, at any time; init and deinit of a shelf while nobody else uses it.
 */
#ifndef ENGINE_EDITION_H
#define ENGINE_EDITION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct edition {
	_Atomic uint64_t held; /* references, those that a thread has in reserve included */
};

/* With one reference: the caller's. */
void edition_init(struct edition *edition);
/* Another reference, for who has one. */
void edition_hold(struct edition *edition);
/* Gives a reference back. True: it was the last, so the caller frees the thing. */
bool edition_let_go(struct edition *edition);

/* This thread will hold and let go of that one often, and has a reference as long as it does: from
 * now on neither touches memory that other threads use. One at a time; NULL: none any more, which
 * must come before the thread's own reference goes, and before the thread ends. */
void edition_favour(struct edition *edition);

/* Where the edition in force stands. */
struct edition_shelf {
	pthread_mutex_t lock; /* whoever takes one has counted himself before it is replaced */
	_Atomic(struct edition *) edition; /* a reference; NULL: there is nothing */
};

/* Takes over the reference; NULL: nothing. */
void edition_shelf_init(struct edition_shelf *shelf, struct edition *edition);
/* Takes over the reference to `next`, and gives that to the one before to the caller. */
struct edition *edition_shelf_replace(struct edition_shelf *shelf, struct edition *next);
/* A reference to what is in force. NULL: nothing, which is found out without the lock. */
struct edition *edition_shelf_take(struct edition_shelf *shelf);
/* Gives its reference to the caller. */
struct edition *edition_shelf_deinit(struct edition_shelf *shelf);

#endif
