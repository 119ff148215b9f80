/*
 * feed - the ready jobs of one domain of one stream, on their way to the domain's site.
 *
 *   queue: ready(dest) ──► route ──► MX answer ──► site wants more ──► queue_take()
 *                                        │
 *                                        └─ no hosts: defer or fail them all
 *
 * Promise: a job that was taken is concluded, exactly once, on this worker.
 *
 * Thread: the worker that owns the stream.
 */
#ifndef ENGINE_FEED_H
#define ENGINE_FEED_H

#include "engine/delivery/delivery.h"
#include "engine/delivery/site.h"

/* The queue has read the message of a job that was taken, or could not. */
void feed_loaded(struct feeds *feeds, struct queue_job *job, enum queue_status status);
/* A delivery is back from its site, with verdicts. */
void feed_delivered(struct delivery *delivery);
/* The next job of the feed, on its way to the site (now, or when it is loaded). False: none. */
bool feed_pull(struct feed *feed, struct site *site);
/* Its site is down: its jobs are deferred. */
void feed_site_is_down(struct feed *feed);
struct feed *feed_of_site_link(struct list *link);

#endif
