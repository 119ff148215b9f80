/*
 * tls - TLS on one connection, over memory: no I/O of its own.
 *
 *   ciphertext ── tls_feed() ──► tls_handshake() ... then tls_decrypt() ──► plaintext
 *   ciphertext ◄─ tls_output_take() ◄── tls_encrypt() ◄── plaintext
 *
 * Promise: every byte fed is taken; what it decrypts to is all there after tls_decrypt(), so
 * nothing waits inside for a byte that need not come. Small pieces of plaintext share a record
 * of up to 16 KiB. An idle connection holds no buffers.
 * Non-promise: OpenSSL takes its randomness, and the age of tickets, from the system itself;
 * certificates are checked at the time that tls_connect() is given.
 *
 * Thread: a connection belongs to one; struct tls_contexts may be used by all.
 * Source: RFC 8446, 5246, 3207; OpenSSL 3.0. No other header of ours knows OpenSSL.
 */
#ifndef ENGINE_TLS_H
#define ENGINE_TLS_H

#include <sys/uio.h>

#include "engine/tls/policy.h"
#include "os/os.h"

struct config;
struct tls;	     /* opaque */
struct tls_contexts; /* opaque: the set in force */
struct tls_set;	     /* opaque: certificates and authorities as they were read at one time */
struct tls_session;  /* opaque: what resumes a connection */

/* ── what is configured ───────────────────────────────────────────────────────────── */

/* Reads certificates, keys and authorities. NULL with `error` filled: a line for each. Blocks. */
struct tls_set *tls_set_read(const struct config *config, char *error, size_t error_bytes);
void tls_set_unref(struct tls_set *set); /* accepts NULL */

/* The path of a chain whose certificate, as it was read, has expired or is not valid yet
 * (*expired_out says which), by the clock of now; NULL: there is none. That is no reason not to
 * start: many who send to us don't look. `config` is the one that the set was read for; the path is
 * borrowed from it. */
const char *tls_set_out_of_date(const struct tls_set *set, const struct config *config,
				bool *expired_out);

/* With what is read for that configuration. NULL with `error` filled. */
struct tls_contexts *tls_contexts_create(const struct config *config, char *error,
					 size_t error_bytes);
/* Takes over `set`, for connections from now on; those that are there keep what they have. */
void tls_contexts_put(struct tls_contexts *contexts, struct tls_set *set);
/* The set in force: a reference, for tls_set_unref(). */
struct tls_set *tls_set_get(struct tls_contexts *contexts);
/* Connections may outlive it. Accepts NULL. */
void tls_contexts_destroy(struct tls_contexts *contexts);
/* There is a certificate: STARTTLS can be offered. */
bool tls_contexts_serve(struct tls_contexts *contexts);

/* ── a connection ─────────────────────────────────────────────────────────────────── */

enum { TLS_RECORD_BYTES = 16 << 10, TLS_FACTS_BYTES = 96 };

enum tls_status {
	TLS_OK = 0,
	TLS_MORE = 1,	 /* the handshake waits for the peer */
	TLS_CLOSED = 2,	 /* the peer says that nothing follows */
	TLS_FAILED = -1, /* tls_why() */
};

/* What became of a handshake. */
struct tls_facts {
	char text[TLS_FACTS_BYTES]; /* "TLSv1.3 TLS_AES_256_GCM_SHA384"; "": no TLS */
	bool verified;		    /* the peer's certificate: by an authority, for that name */
	bool resumed;
};

/* The server's side; NULL: no memory, or no certificate. */
struct tls *tls_accept(struct tls_contexts *contexts);
/* The client's side, for a level above TLS_NONE. `resume` may be NULL, and is borrowed. */
struct tls *tls_connect(struct tls_contexts *contexts, const struct tls_policy *policy,
			const struct tls_session *resume, struct os_wall now);
void tls_destroy(struct tls *tls); /* accepts NULL */

/* Lent until the next call of handshake or decrypt has returned anything but TLS_OK, or
 * decrypt anything. */
void tls_feed(struct tls *tls, struct span ciphertext);
/* Goes on with it; look for output after each. TLS_OK, TLS_MORE or TLS_FAILED. */
enum tls_status tls_handshake(struct tls *tls);
/* All that was fed; `room` is at least that and TLS_RECORD_BYTES more. What *count_out says is
 * there whatever is returned. TLS_OK, TLS_CLOSED or TLS_FAILED. */
enum tls_status tls_decrypt(struct tls *tls, char *out, size_t room, size_t *count_out);
/* Makes records of up to `max` octets of the vectors behind the first `skip`, and returns how
 * many: fewer for want of memory. `gather` has TLS_RECORD_BYTES for what lies in pieces. Only after
 * the handshake. */
size_t tls_encrypt(struct tls *tls, const struct iovec *vectors, int count, size_t skip, size_t max,
		   char *gather);
/* Nothing more will be encrypted: the peer is to hear it. */
void tls_say_end(struct tls *tls);
/* What is to be sent, now the caller's to free(); NULL: nothing. */
char *tls_output_take(struct tls *tls, size_t *len_out);

/* After the handshake. */
const struct tls_facts *tls_facts(const struct tls *tls);
/* Why it failed, for people. */
const char *tls_why(const struct tls *tls);

/* ── resumption ───────────────────────────────────────────────────────────────────── */

/* The newest that the server gave, now the caller's; NULL: none since the last call. */
struct tls_session *tls_session_take(struct tls *tls);
/* How long the server will know it. */
uint32_t tls_session_lifetime_s(const struct tls_session *session);
void tls_session_destroy(struct tls_session *session); /* accepts NULL */

#endif
