/*
 * lane - which worker delivers: a quiet site has one lane, on the worker that rendezvous
 * hashing names, so that its few connections are reused; a busy one has a lane on every worker
 * that has mail for it.
 *
 *   owner: lane_take() ──► here, or by letter to the site's home ──► site.waiting
 *   home:  lane_leave() ──► here, or by letter back ──► the owner concludes
 *
 * Thread: lane_take() is the owner's, lane_leave() the delivering worker's.
 * Source: design.md, 9.
 */
#ifndef ENGINE_LANE_H
#define ENGINE_LANE_H

#include "engine/delivery/site.h"

/* The worker with the site's lane while it is quiet. */
uint32_t lane_home(const struct worker *worker, uint64_t site_key);
bool lane_is_home(const struct site *site);
/* A job of this worker's. It comes back by feed_delivered(). */
void lane_take(struct site *site, struct delivery *delivery);
/* Where this worker may have no connection: it gives up those it has, and what waits goes to the
 * site's home. */
void lane_send_home(struct site *site);
/* The delivery is through here. */
void lane_leave(struct delivery *delivery);

#endif
