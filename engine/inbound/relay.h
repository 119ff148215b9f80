/*
 * relay - who may send to whom: the one place that keeps this server from being an open relay.
 *
 * A recipient is accepted if its domain is ours (a route with `accept`), or if the client is
 * trusted, or has logged in. Everything else is refused. Routes know only A-labels: a domain in
 * U-labels is asked for by its A-labels, and refused if it has none.
 *
 * Thread: pure.
 * Source: RFC 5321, 3.6.2 and 7.7; man/stafette.conf.5, "trusted" and "accept".
 */
#ifndef ENGINE_RELAY_H
#define ENGINE_RELAY_H

#include "engine/config/config.h"
#include "engine/smtp/session.h"

struct relay_client {
	const struct os_address *address;
	bool trusted;	     /* config_trusts(address), asked once per session */
	const char *user;    /* who logged in; NULL: nobody did */
	const char *senders; /* users_verify()'s list for that user; NULL: it names none */
};

/* Whether that sender is this login's: 250, or 553. */
struct smtp_answer relay_sender(const struct config *config, const struct relay_client *client,
				const struct smtp_address *sender);

/* 250, or the refusal that the client gets. */
struct smtp_answer relay_decide(const struct config *config, const struct relay_client *client,
				const struct smtp_address *recipient);

#endif
