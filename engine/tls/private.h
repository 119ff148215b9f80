/*
 * private - what tls.c (a connection) and contexts.c (what is configured) share.
 *
 * Thread: as tls.h says.
 */
#ifndef ENGINE_TLS_PRIVATE_H
#define ENGINE_TLS_PRIVATE_H

#include <openssl/ssl.h>

#include "engine/config/edition.h"
#include "engine/tls/tls.h"

/* Certificates and authorities as they were read at one time. */
struct tls_set {
	struct edition edition;
	SSL_CTX *client;
	/* For each configured certificate, in order: it, and its like with another kind of key. */
	SSL_CTX **servers;
	uint32_t server_count;
};

/* contexts.c. The servers' certificate for that name; the first if none has it. */
SSL_CTX *tls_set_find(const struct tls_set *set, const char *name);

/* tls.c: hooks of the contexts. */
int tls_on_server_name(SSL *ssl, int *alert, void *set);
int tls_on_session(SSL *ssl, SSL_SESSION *session);

#endif
