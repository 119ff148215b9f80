/*
 * auth - checks logins off the worker: by the users' file, or by asking Dovecot.
 *
 *   auth_check() ──► os_compute(): users_verify()  ─┬─► right ──────────────► done
 *               └──► dovecot_auth: on the loop     ─┘└► wrong ──► a pause ──► done
 *
 * Promise: `done` is called once for each check, later, unless its owner let go before
 * (auth_abandon()). A worker has one password checked at a time. No thread waits for anything: the
 * pause after a failure is a timer, longer with each failure of that address. So many checks may be
 * under way, and no more. Passwords are wiped as soon as they are checked.
 *
 * Thread: a struct auth is its worker's.
 * Source: RFC 4954, 6; man/stafette.conf.5, "auth".
 */
#ifndef ENGINE_AUTH_H
#define ENGINE_AUTH_H

#include "engine/auth/dovecot.h"
#include "engine/smtp/session.h"
#include "engine/worker.h"

struct auth {
	struct worker *worker;
	struct dovecot_auth *dovecot; /* owned; NULL: never needed so far */
	uint32_t check_count;	      /* under way, also of those that were abandoned */
	struct list waiting;	      /* for the helper: one at a time, so that others get at it */
	bool computing;
	struct os_mono told; /* that the file can't be read, last */
};

/* Who logged in. */
struct auth_user {
	char *name;    /* owned by who gets it */
	char *senders; /* the same; as users_verify() has them; NULL: any */
};

struct auth_check; /* opaque */
/* `user` has a name only if the verdict is SMTP_AUTH_OK, and is then the callee's. */
typedef void auth_done(void *context, enum smtp_auth_verdict verdict, struct auth_user *user);

void auth_init(struct auth *auth, struct worker *worker);
bool auth_idle(const struct auth *auth);
/* Lets go of what would not end by itself: before the loop ends. */
void auth_stop(struct auth *auth);
void auth_deinit(struct auth *auth); /* idle */

/* The client has failed too often of late: 421. */
bool auth_blocked(const struct auth *auth, const struct os_address *client);

/* Copies what it needs. SMTP_AUTH_LATER, with the check lent until `done`; any other verdict is
 * final, and `done` is not called. */
enum smtp_auth_verdict auth_check(struct auth *auth, const struct smtp_credentials *credentials,
				  const struct os_address *client, bool secured, auth_done *done,
				  void *context, struct auth_check **check_out);
/* Its owner goes away. */
void auth_abandon(struct auth_check *check);

#endif
