/*
 * policy - what a connection to a host must be: clear, encrypted, proven.
 *
 * The one place that decides. What a domain says of itself (DANE, MTA-STS) will be weighed
 * here too, between the operator's word and the handshake.
 *
 * Thread: pure.
 * Source: RFC 3207, 8314; man/stafette.conf.5, `tls`.
 */
#ifndef ENGINE_TLS_POLICY_H
#define ENGINE_TLS_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct config_delivery;

enum tls_level {
	TLS_NONE,
	TLS_MAY,     /* where it is offered; a handshake that fails is followed by clear text */
	TLS_ENCRYPT, /* always, with whoever answers */
	TLS_VERIFY,  /* always, with a certificate that a known authority gave to that name */
};

struct tls_policy {
	enum tls_level level;
	bool implicit;	  /* TLS from the first byte on, without STARTTLS */
	const char *name; /* whom we ask for, and who has to be proven; borrowed from either */
};

/* `host` is the name that led to the address; `failed`: a handshake with it failed lately. */
struct tls_policy tls_policy_decide(const struct config_delivery *how, const char *host,
				    uint16_t port, bool failed);

#endif
