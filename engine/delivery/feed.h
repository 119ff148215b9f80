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

struct feeds *feeds_create(struct worker *worker);
void feeds_destroy(struct feeds *feeds); /* idle; accepts NULL */

/* The queue's events. */
void feeds_ready(struct feeds *feeds, struct queue_stream *stream, uint32_t dest);
void feeds_loaded(struct feeds *feeds, struct queue_job *job, enum queue_status status);
/* Once per turn: expired jobs, domains that wait for room. */
void feeds_turn(struct feeds *feeds);
/* Something is to be done in the next turn, without any event. */
bool feeds_want_turn(const struct feeds *feeds);
/* May take jobs: not before START is durable everywhere (R9). */
void feeds_go(struct feeds *feeds);
/* The worker has another configuration: asks anew where everything goes. */
void feeds_reconfigure(struct feeds *feeds);
/* Takes no more jobs. */
void feeds_drain(struct feeds *feeds);
bool feeds_idle(const struct feeds *feeds);

/* A delivery is back from its site, with verdicts. */
void feed_delivered(struct delivery *delivery);
/* The next job of the feed, on its way to the site (now, or when it is loaded). False: none. */
bool feed_pull(struct feed *feed, struct site *site);
/* Its site is down: its jobs are deferred. */
void feed_site_is_down(struct feed *feed);
struct feed *feed_of_site_link(struct list *link);

#endif
