/*
 * report - sends a bounce or a delay warning: composes it, and queues it together with what
 * it settles.
 *
 * Promise: `done` is called once; with QUEUE_OK the report is durable and the job is settled
 * by `verdict` (R8); otherwise nothing has happened, and the job is still lent.
 *
 * Thread: the job's owner.
 * Source: design.md, 11; standards.md, Reports.
 */
#ifndef ENGINE_REPORT_H
#define ENGINE_REPORT_H

#include "engine/bounce.h"
#include "engine/delivery.h"

/* Whether anybody is to be told about the recipients in `about` (bits as in the job). */
bool report_wanted(const struct worker *worker, const struct delivery *delivery,
		   enum bounce_kind kind, uint64_t about);
/* `delivery` and `verdict` stay until `done`. */
void report_send(struct worker *worker, struct delivery *delivery, enum bounce_kind kind,
		 uint64_t about, const struct queue_verdict *verdict,
		 void (*done)(void *context, enum queue_status status), void *context);

#endif
