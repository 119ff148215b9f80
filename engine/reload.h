/*
 * reload - the daemon takes another configuration, and no connection notices.
 *
 *   HUP ──► read ──► parts: new sockets, certificates, keys, log, resolver ──► in force ──► workers
 *             └─ wrong ──┴─ cannot, no memory ──► the old one stays
 *
 * Promise: a configuration is taken whole, or not at all; what is wrong is logged with file and
 * line, and left for `stafette reload` (engine/status.h). What only a start can change stays, and
 * is named. Sessions, deliveries and connections keep to what they began with; workers take the
 * new one between two turns, without a lock. One reload at a time; a HUP meanwhile is another one
 * afterwards. When a reload is over, nothing listens where the new one does not say so; what
 * another daemon listens on is refused, as at a start.
 * Non-promise: to see that daemon where this one listens already, on all addresses or on one.
 *
 * Thread: main.
 * Source: man/stafette.conf.5, "Reload".
 */
#ifndef ENGINE_RELOAD_H
#define ENGINE_RELOAD_H

#include "engine/status.h"
#include "engine/worker.h"

struct reload {
	struct engine *engine;
	bool telling; /* not all workers have taken it */
	bool again;   /* asked for meanwhile */
	struct status status;
};

/* The daemon is ready: says so in the spool. `again` may be set before: HUP came too early. */
void reload_init(struct reload *reload, struct engine *engine);
/* HUP. */
void reload_begin(struct reload *reload);
/* Goes on with one that is under way; true: call again soon. */
bool reload_look(struct reload *reload);
/* The daemon ends. */
void reload_deinit(struct reload *reload);

/* Half of the descriptors are for sessions: the spool, deliveries and the resolver need others. */
uint32_t reload_sessions_max(const struct config *config);

#endif
