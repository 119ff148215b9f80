/*
 * listener_section - how the file says where clients come in, and whom they are trusted as:
 * `listen`, the sections `listener`, and `trusted`.
 *
 * Promise: a listener that got no complaint can do what it offers: it has the certificate, the
 * users and the proxies that its options need.
 * Non-promise: that its address can be bound to.
 *
 * Thread: the one that is in config_load().
 * Source: man/stafette.conf.5.
 */
#ifndef ENGINE_CONFIG_LISTENER_SECTION_H
#define ENGINE_CONFIG_LISTENER_SECTION_H

#include "engine/config/reader.h"

/* All listeners; certificates and auth are there. A section, with options of its own, may stand
 * in place of the list, or beside it. `top` NULL: the built-in listener. */
void config_listeners_apply(struct config_reader *reader, struct config_section *top);
/* Frees what half a configuration may hold, too. */
void config_listeners_free(struct config *config);

/* The networks of config_trusts(); its list is the configuration's. `top` NULL: the built-in
 * ones. */
void config_trusted_apply(struct config_reader *reader, struct config_section *top);

#endif
