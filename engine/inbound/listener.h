/*
 * listener - a worker's share of the listening sockets, and the limits on who may come in.
 *
 * Each worker listens on every address with SO_REUSEPORT; the kernel deals out connections.
 *
 * Promise: a connection beyond the limits (in all, per address) hears 421 and is closed; the
 * counters are exact over all workers, but for addresses that share a hash.
 *
 * Thread: its worker.
 */
#ifndef ENGINE_LISTENER_H
#define ENGINE_LISTENER_H

#include "engine/worker.h"

/* Listens on all configured addresses: NULL with the reason logged. */
struct listener *listener_create(struct worker *worker);
/* The worker has another configuration: listens at `doors`, one for each listener of it (taken
 * over; NULL: none), and no longer where it does not say so. Sessions go on. Never fails. */
void listener_reconfigure(struct listener *listener, struct door *const *doors);
/* What it no longer listens at is closed. */
bool listener_settled(const struct listener *listener);
/* No more connections; idle sessions hear 421, others end after their message. */
void listener_drain(struct listener *listener);
/* Cuts what is left. */
void listener_stop(struct listener *listener);
/* Sends what verdicts on messages have added to sessions' output: once per turn. */
void listener_flush(struct listener *listener);
/* Nothing is open or in flight. */
bool listener_idle(const struct listener *listener);
void listener_destroy(struct listener *listener); /* idle; accepts NULL */

/* Any thread: whether that worker has a socket of its own there; */
bool listener_opens(uint32_t worker_index, const struct config_listener *where);
/* such a socket, with all that a worker needs to listen there, in *out (owned); or -errno. `where`
 * is of `config`. */
int listener_open(const struct config *config, const struct config_listener *where,
		  struct door **out);
/* What to do about the -errno of such an address, to stand behind its text: "; ..." or "". */
const char *listener_advice(const struct config_listener *where, int result);
/* Closes one that no worker has taken. Accepts NULL. */
void listener_shut(struct door *door);

#endif
