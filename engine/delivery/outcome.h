/*
 * outcome - what an attempt means: for the log, the sender and the queue.
 *
 *   all recipients settled ──► log ──► report wanted? ── no ──► queue_settle()
 *                                          └─ yes ──► report is durable ──► settled with it (R8)
 *
 * Promise: each recipient ends in exactly one of delivered, bounced, discarded, or stays
 * pending with a due time. A recipient that failed is settled only together with its report,
 * where one is due. If the report finds no room on the disk, those who failed stay pending and
 * are tried again soon; a success is then not reported. If nobody knows whether the report is on
 * the disk, its stream is broken: nobody is tried again before the next start has looked.
 *
 * Thread: the job's owner.
 */
#ifndef ENGINE_OUTCOME_H
#define ENGINE_OUTCOME_H

#include "engine/delivery/delivery.h"

/* Takes the delivery and its job; `concluded` is called when both are gone. */
void outcome_conclude(struct worker *worker, struct delivery *delivery,
		      void (*concluded)(struct feed *feed));
/* Recipients of a job that is past its expiry: bounced, with the last error. */
void outcome_expire(struct worker *worker, struct delivery *delivery,
		    void (*concluded)(struct feed *feed));

/* The message can't be read: nobody is told, the job stays. */
void outcome_unreadable(struct worker *worker, struct delivery *delivery,
			void (*concluded)(struct feed *feed));

/* Where a message came from, for the log; empty: not known, or not so. */
struct outcome_origin {
	const struct os_address *client; /* NULL: a report of ours */
	struct span hello, user, tls;	 /* `user` logged in */
	struct span dkim;
};

/* The message was accepted: one line. */
void outcome_log_received(struct worker *worker, const struct queue_message *message,
			  struct span envelope, const struct outcome_origin *origin);

#endif
