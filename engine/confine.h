/*
 * confine - the daemon gives up what it does not need: its user, its capabilities, its files.
 *
 *   root: spool and log made and given ──► user, group, CAP_NET_BIND_SERVICE alone
 *     ──► Landlock: spool, log, keys, sockets ──► seccomp ──► the daemon starts
 *
 * Promise: after confine_user() nothing is read or written as root, unless the configuration says
 * user = "root"; so a key that the daemon could not read again at a reload is found at the start.
 * Whoever takes the process over has the spool, the network and the keys, and nothing else.
 * Non-promise: a folder that a later configuration names is not reachable before a restart.
 *
 * Thread: main, before all others.
 */
#ifndef ENGINE_CONFINE_H
#define ENGINE_CONFINE_H

#include "engine/config/config.h"

/* Whom root becomes if the configuration names nobody. */
#define CONFINE_USER "stafette"

/* Both: 0, or an exit status of sysexits(3), with the reason logged. */
int confine_user(const struct config *config);
/* Landlock and seccomp, unless `sandbox` is false. */
int confine_files(const struct config *config);

#endif
