/*
 * change - from one configuration to the next: what stays the same, what must stay.
 *
 * Promise: two routes with one identity, also of two configurations, deliver in the same way.
 *
 * Thread: any; the configurations do not change, but for config_keep_fixed().
 * Source: man/stafette.conf.5, "Reload".
 */
#ifndef ENGINE_CONFIG_CHANGE_H
#define ENGINE_CONFIG_CHANGE_H

#include "engine/config/config.h"

/* Of its pattern, its action, its hosts and its delivery: the same on every worker and in every
 * run. Whether it accepts mail is no part of it. */
uint64_t config_route_identity(const struct config_route *route);

/* The route of that pattern, if it has the same identity; NULL: it is gone, or another one. */
const struct config_route *config_route_same(const struct config *config,
					     const struct config_route *route);

/* What only a start can change stays in `next`, which nobody uses yet, as it is in `now`. Fills
 * `names_out` with the options that differed, with ", " between them; "": none. False: no memory.
 */
bool config_keep_fixed(struct config *next, const struct config *now, char *names_out,
		       size_t names_bytes);

/* The listener at the same address; NULL: none. */
const struct config_listener *config_listener_same(const struct config *config,
						   const struct config_listener *listener);
/* Who connects to the one could reach a listener of `config`, or the other way round: it has the
 * same address, or one of the two is "0.0.0.0" or "::" with the same port. */
bool config_listener_meets(const struct config *config, const struct config_listener *listener);

#endif
