/*
 * dovecot - a worker's connection to Dovecot's auth socket, with any number of logins asked
 * for at once.
 *
 * Promise: each request is answered once, unless it is taken back. When the connection is lost,
 * or Dovecot says nothing for half a minute, what is open is answered SMTP_AUTH_UNAVAILABLE, and
 * the next request connects anew.
 *
 * Thread: its worker.
 * Source: dovecot_protocol.h.
 */
#ifndef ENGINE_DOVECOT_AUTH_H
#define ENGINE_DOVECOT_AUTH_H

#include "engine/auth/dovecot_protocol.h"
#include "engine/worker.h"

struct dovecot_auth; /* opaque */

/* Embedded in its owner, who may free it from inside `answered`. */
struct dovecot_request {
	struct list link;
	uint32_t id;
	/* `user` as Dovecot calls it, or "". */
	void (*answered)(struct dovecot_request *request, enum smtp_auth_verdict verdict,
			 const char *user);
};

/* NULL: no memory. */
struct dovecot_auth *dovecot_auth_create(struct worker *worker);
/* Connects to the socket that the configuration names now, where nothing else is under way. False:
 * it can't be asked for; nothing is called then. */
bool dovecot_auth_ask(struct dovecot_auth *dovecot, struct dovecot_request *request,
		      const struct smtp_credentials *credentials, const struct os_address *client,
		      bool secured);
void dovecot_auth_take_back(struct dovecot_auth *dovecot, struct dovecot_request *request);
/* Closes the connection if nothing is asked for. */
void dovecot_auth_rest(struct dovecot_auth *dovecot);
bool dovecot_auth_idle(const struct dovecot_auth *dovecot);
void dovecot_auth_destroy(struct dovecot_auth *dovecot); /* idle; accepts NULL */

#endif
