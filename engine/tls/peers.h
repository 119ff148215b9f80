/*
 * peers - what a worker remembers of TLS with other hosts: sessions to be resumed, and
 * handshakes that failed.
 *
 * Promise: a session is offered only where the policy is the one that it was made under, so
 * what was proven then need not be proven again; and not beyond its time. Memory is bounded:
 * the longest unused are forgotten.
 *
 * Thread: its worker's.
 * Source: RFC 8446, 4.6.1; 3207, 4.1.
 */
#ifndef ENGINE_TLS_PEERS_H
#define ENGINE_TLS_PEERS_H

#include "engine/tls/tls.h"

struct tls_peers; /* opaque */

struct tls_peers *tls_peers_create(void);	 /* NULL: no memory */
void tls_peers_destroy(struct tls_peers *peers); /* accepts NULL */

/* Borrowed until the next call; NULL: none. */
const struct tls_session *tls_peers_session(struct tls_peers *peers,
					    const struct os_address *address,
					    const struct tls_policy *policy, struct os_mono now);
/* Takes the session. */
void tls_peers_keep(struct tls_peers *peers, const struct os_address *address,
		    const struct tls_policy *policy, struct tls_session *session,
		    struct os_mono now);

/* A handshake with that address failed: remembered for `ms`. False: no memory. */
bool tls_peers_failed(struct tls_peers *peers, const struct os_address *address, struct os_mono now,
		      uint32_t ms);
bool tls_peers_has_failed(struct tls_peers *peers, const struct os_address *address,
			  struct os_mono now);

#endif
