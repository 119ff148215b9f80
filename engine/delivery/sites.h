/*
 * sites - all sites that a worker knows.
 *
 * Promise: a site stays while anything is under way for it; idle ones are forgotten a minute
 * after their last use, so that their number follows the traffic.
 *
 * Thread: the worker's.
 */
#ifndef ENGINE_SITES_H
#define ENGINE_SITES_H

#include "engine/delivery/site.h"

struct sites *sites_create(struct worker *worker); /* NULL: no memory */
void sites_destroy(struct sites *sites);	   /* idle; accepts NULL */

/* `route` is in `config`, which may be another worker's, older or newer than this worker's. Keeps
 * references to both. NULL: no memory, or a reload has ended this route. */
struct site *sites_get(struct sites *sites, struct mx_answer *answer, const struct config *config,
		       const struct config_route *route);

/* The worker has another configuration. Sites whose route is as it was go on, with their
 * connections; the others end what is under way, give back what waits, and are gone. */
void sites_reconfigure(struct sites *sites);

/* Once per turn: site_dispatch() for those that something happened to. */
void sites_dispatch(struct sites *sites);
bool sites_want_turn(const struct sites *sites);
void sites_mark_dirty(struct site *site);
/* Dispatches it after that time, as nothing else may come. */
void sites_try_again(struct site *site, uint32_t ms);

/* Gives back what waits, and lets connections end. */
void sites_drain(struct sites *sites);
bool sites_draining(const struct sites *sites);
void sites_cut(struct sites *sites);
bool sites_idle(const struct sites *sites);

#endif
