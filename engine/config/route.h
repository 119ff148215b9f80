/*
 * route - the table of routes: built once at loading, asked for every recipient.
 *
 * Thread: building belongs to config_load(); config_route() and config_trusts() are any thread's.
 */
#ifndef ENGINE_CONFIG_ROUTE_H
#define ENGINE_CONFIG_ROUTE_H

#include "engine/config/config.h"

/* Makes "*" the last of the routes: the file's, or one with the default delivery. There is room
 * for one more route. */
void config_routes_default(struct config *config);
/* Builds the index: of routes with one pattern it finds the first. false: out of memory. */
bool config_routes_index(struct config *config);
/* The first of those that have this route's pattern: itself, unless it is given twice. */
const struct config_route *config_routes_first(const struct config *config,
					       const struct config_route *route);
/* Frees what half a configuration may hold, too. */
void config_routes_free(struct config *config);

#endif
