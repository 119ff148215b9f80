/*
 * site_health - which of a site's addresses can be used, and whether the site as a whole can.
 *
 * An address that refused a connection is avoided for a time that grows with each failure in
 * a row; a success forgets them. The site is down while all its addresses are avoided. A
 * refusal while other connections to the address work is a limit of theirs: then the window is
 * kept to what works, and nothing is avoided. Where only another worker's work, that holds for
 * the connections of all workers (site_limits.h).
 *
 * Thread: the site's worker.
 * Source: design.md, 9; RFC 5321, 5.1 (order of hosts).
 */
#ifndef ENGINE_SITE_HEALTH_H
#define ENGINE_SITE_HEALTH_H

#include "engine/delivery/site.h"

/* The first address, in the order of the MX, that is not to be avoided now; for a delivery that
 * some have refused (or NULL), not one of those. */
bool site_choose_target(struct site *site, const struct delivery *delivery, struct mx_attempt *out);

/* There is no use in trying it later: each address has refused that delivery, or all mail (521). */
bool site_all_refuse(const struct site *site, const struct delivery *delivery);

/* DOWN: feeds defer until site_down_until(), for site->reason. */
bool site_is_down(struct site *site);
/* By the wall clock as it is now: it may have been set since. */
struct os_wall site_down_until(const struct site *site);
/* No address can be tried now. */
void site_go_down(struct site *site);

/* The address refused us, was not there or was of no use; why, for people. `greeted`: the
 * connection that found out still counts among those of the site that were past EHLO. */
void site_host_failed(struct site *site, const struct os_address *address, bool greeted,
		      uint16_t code, uint16_t enhanced, const char *why);
/* Past EHLO there: the site is up. */
void site_host_greeted(struct site *site);
/* It answered a transaction: its failures are forgotten. */
void site_host_answered(struct site *site, const struct os_address *address);
/* A newer answer names other addresses: what they know of trouble is not about these. */
void site_health_refresh(struct site *site);

/* site.c: the window shrinks to the `working` connections. */
void site_keep_to(struct site *site, uint32_t working);

#endif
