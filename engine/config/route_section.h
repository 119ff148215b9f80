/*
 * route_section - how the file says where mail goes: the sections `delivery` and `route`.
 *
 * Promise: after config_routes_apply() without a complaint, the routes of the configuration are
 * whole: the default is among them, each has its identity, and the index is built.
 *
 * Thread: the one that is in config_load().
 * Source: man/stafette.conf.5; RFC 2033 for LMTP.
 */
#ifndef ENGINE_CONFIG_ROUTE_SECTION_H
#define ENGINE_CONFIG_ROUTE_SECTION_H

#include "engine/config/reader.h"

/* A section `delivery`, or the same options in a route; what it doesn't give stays. */
void config_delivery_apply(struct config_reader *reader, struct config_section *section,
			   struct config_delivery *delivery);
/* All routes; the default delivery, which they inherit, is there. `top` NULL: the built-in one.
 * config_routes_free() frees them, also after a failure. */
void config_routes_apply(struct config_reader *reader, struct config_section *top);

#endif
