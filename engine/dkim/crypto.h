/*
 * crypto - hashes, private keys and signatures.
 *
 * Promise: a key that was read can sign; one that is open to others, too short, of another kind
 * or behind a passphrase is refused, with what to do. What was read of it is wiped.
 *
 * OpenSSL reads the keys and does SHA-256 and RSA. Ed25519 is libsodium's: OpenSSL 3.0 takes 2.4
 * times as long for it (37 and 89 us on the machine where both were measured, busy).
 *
 * Thread: a key may sign on several threads at once; a hash is its owner's.
 * Source: RFC 6376, 3.3; RFC 8301; RFC 8463.
 */
#ifndef ENGINE_DKIM_CRYPTO_H
#define ENGINE_DKIM_CRYPTO_H

#include "engine/dkim/tags.h"

enum {
	DKIM_SIGNATURE_BYTES_MAX = 512, /* RSA with 4096 bits */
	DKIM_ERROR_BYTES = 512,
};

/* ── SHA-256 ──────────────────────────────────────────────────────────────────────── */

struct dkim_hash; /* opaque; reused */

struct dkim_hash *dkim_hash_create(void);	/* NULL: no memory */
void dkim_hash_destroy(struct dkim_hash *hash); /* accepts NULL */
void dkim_hash_begin(struct dkim_hash *hash);
void dkim_hash_add(struct dkim_hash *hash, struct span bytes);
void dkim_hash_end(struct dkim_hash *hash, uint8_t out[static DKIM_DIGEST_BYTES]);

/* ── keys ─────────────────────────────────────────────────────────────────────────── */

enum dkim_kind { DKIM_RSA, DKIM_ED25519 };

struct dkim_key; /* opaque; never changed */

/* A private key in PEM format. NULL with `error` filled. Blocks. */
struct dkim_key *dkim_key_load(const char *path, char error[static DKIM_ERROR_BYTES]);
/* A new one: `pem` gets its text. NULL: no memory. Takes long. */
struct dkim_key *dkim_key_generate(enum dkim_kind kind, struct dkim_text *pem);
void dkim_key_destroy(struct dkim_key *key); /* accepts NULL */

enum dkim_kind dkim_key_kind(const struct dkim_key *key);
/* "rsa-sha256", "ed25519-sha256". */
const char *dkim_key_algorithm(const struct dkim_key *key);
/* Adds the public key as it stands behind p= in the DNS. */
void dkim_key_public(const struct dkim_key *key, struct dkim_text *out);
/* Returns the signature's length, or 0: it failed. */
size_t dkim_key_sign(const struct dkim_key *key, const uint8_t digest[static DKIM_DIGEST_BYTES],
		     uint8_t out[static DKIM_SIGNATURE_BYTES_MAX]);

#endif
