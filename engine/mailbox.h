/*
 * mailbox - the only path between workers.
 *
 *   worker A ── letter ──► ring A→B ──► worker B: letter->open(letter)
 *
 * A letter is embedded in what it hands over; with it goes the ownership of that thing.
 *
 * Promise: letters from one worker to another arrive in order, each once. Sending never
 * fails and never waits: what the ring has no room for stays with the sender until its next
 * flush. A sleeping receiver is woken once per flush.
 *
 * Thread: mailbox_send() and mailbox_flush() are the sender's, mailbox_open() the receiver's.
 */
#ifndef ENGINE_MAILBOX_H
#define ENGINE_MAILBOX_H

#include "os/os.h"

struct letter {
	struct list link;
	void (*open)(struct letter *letter); /* on the receiver */
};

struct mailboxes; /* opaque: the rings between all pairs of a number of workers */

struct mailboxes *mailboxes_create(uint32_t workers);
void mailboxes_destroy(struct mailboxes *boxes); /* every letter was opened; accepts NULL */
/* Each worker says which loop to wake; before any letter is sent to it. */
void mailboxes_join(struct mailboxes *boxes, uint32_t worker, struct os_loop *loop);

void mailbox_send(struct mailboxes *boxes, uint32_t from, uint32_t to, struct letter *letter);
/* Once per turn: moves on what had no room, and wakes receivers. True: some is still here. */
bool mailbox_flush(struct mailboxes *boxes, uint32_t from);
/* Opens all letters that are there for `worker`. */
uint32_t mailbox_open(struct mailboxes *boxes, uint32_t worker);

#endif
