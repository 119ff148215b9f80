/*
 * feeds - the feeds of all domains of a worker's streams: whose turn it is.
 *
 * Promise: a feed that may go on has its turn; jobs whose time is over are looked for, with or
 * without a feed.
 * Non-promise: that an idle feed is kept: what it knew of its domain is asked again.
 *
 * Thread: the worker that owns the streams.
 */
#ifndef ENGINE_FEEDS_H
#define ENGINE_FEEDS_H

#include "engine/worker.h"

struct feeds *feeds_create(struct worker *worker);
void feeds_destroy(struct feeds *feeds); /* idle; accepts NULL */

/* The queue's event. */
void feeds_ready(struct feeds *feeds, struct queue_stream *stream, uint32_t dest);
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

#endif
