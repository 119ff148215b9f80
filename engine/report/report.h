/*
 * report - tells a sender what became of the recipients of one attempt: composes one report of
 * all that there is to tell, and queues it together with what it settles.
 *
 * Promise: `done` is called once; with QUEUE_OK the report is durable and the job is settled
 * by `verdict` (R8); otherwise nothing has happened, and the job is still lent.
 *
 * Thread: the job's owner.
 * Source: design.md, 11; standards.md, Reports.
 */
#ifndef ENGINE_REPORT_H
#define ENGINE_REPORT_H

#include "engine/delivery/delivery.h"
#include "engine/report/bounce.h"

/* What there is to tell of the job's recipients: for each kind their bits, as in the job. A
 * recipient is in one of them at most. */
struct report_about {
	uint64_t of[BOUNCE_KINDS];
};

/* Whether anybody is to be told any of it. */
bool report_wanted(const struct worker *worker, const struct delivery *delivery,
		   const struct report_about *about);
/* Tells what is wanted of it. `about` is copied; `delivery` and `verdict` stay until `done`. */
void report_send(struct worker *worker, struct delivery *delivery, const struct report_about *about,
		 const struct queue_verdict *verdict,
		 void (*done)(void *context, enum queue_status status), void *context);

#endif
