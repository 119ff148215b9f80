#include "engine/dkim/crypto.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/check.h"
#include "os/os.h"

enum {
	FILE_BYTES_MAX = 64 << 10,
	MODE_REFUSED = 027, /* a group may read it, nobody else may do anything */
	RSA_BITS = 2048,
	RSA_BITS_MIN = 1024, /* RFC 8301, 3.2 */
	RSA_BITS_MAX = DKIM_SIGNATURE_BYTES_MAX * 8,
};

/* ── SHA-256 ──────────────────────────────────────────────────────────────────────── */

struct dkim_hash {
	EVP_MD_CTX *context;
};

struct dkim_hash *dkim_hash_create(void)
{
	struct dkim_hash *hash = malloc(sizeof(*hash));

	if (!hash)
		return NULL;
	hash->context = EVP_MD_CTX_new();
	if (hash->context && EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL))
		return hash;
	dkim_hash_destroy(hash);
	return NULL;
}

void dkim_hash_destroy(struct dkim_hash *hash)
{
	if (!hash)
		return;
	EVP_MD_CTX_free(hash->context);
	free(hash);
}

/* Without its name the digest is not looked up again, which would cost as much as hashing 500
 * octets. */
void dkim_hash_begin(struct dkim_hash *hash)
{
	int good = EVP_DigestInit_ex(hash->context, NULL, NULL);

	assert(good);
}

void dkim_hash_add(struct dkim_hash *hash, struct span bytes)
{
	int good = bytes.len == 0 || EVP_DigestUpdate(hash->context, bytes.at, bytes.len);

	assert(good);
}

void dkim_hash_end(struct dkim_hash *hash, uint8_t out[static DKIM_DIGEST_BYTES])
{
	unsigned int bytes = 0;
	int good = EVP_DigestFinal_ex(hash->context, out, &bytes);

	assert(good && bytes == DKIM_DIGEST_BYTES);
}

/* ── keys ─────────────────────────────────────────────────────────────────────────── */

struct dkim_key {
	enum dkim_kind kind;
	EVP_PKEY *rsa;
	uint8_t edwards[crypto_sign_SECRETKEYBYTES]; /* the seed, and the public key */
};

void dkim_key_destroy(struct dkim_key *key)
{
	if (!key)
		return;
	EVP_PKEY_free(key->rsa);
	sodium_memzero(key->edwards, sizeof(key->edwards));
	free(key);
}

static bool take_edwards(struct dkim_key *key, EVP_PKEY *from)
{
	uint8_t seed[crypto_sign_SEEDBYTES], public[crypto_sign_PUBLICKEYBYTES];
	size_t bytes = sizeof(seed);
	bool good = sodium_init() >= 0 && EVP_PKEY_get_raw_private_key(from, seed, &bytes) &&
		    crypto_sign_seed_keypair(public, key->edwards, seed) == 0;

	sodium_memzero(seed, sizeof(seed));
	EVP_PKEY_free(from);
	key->kind = DKIM_ED25519;
	return good;
}

/* NULL, or what is wrong with a key of that kind. */
static const char *unfit(EVP_PKEY *key)
{
	if (EVP_PKEY_is_a(key, "ED25519"))
		return NULL;
	if (!EVP_PKEY_is_a(key, "RSA"))
		return "is neither RSA nor Ed25519";
	if (EVP_PKEY_get_bits(key) < RSA_BITS_MIN)
		return "is an RSA key below 1024 bits, which nobody accepts";
	return EVP_PKEY_get_bits(key) > RSA_BITS_MAX ? "is an RSA key above 4096 bits" : NULL;
}

/* Takes `from`. NULL: no memory. */
static struct dkim_key *key_make(EVP_PKEY *from)
{
	struct dkim_key *key = calloc(1, sizeof(*key));

	if (!key) {
		EVP_PKEY_free(from);
		return NULL;
	}
	if (EVP_PKEY_is_a(from, "RSA")) {
		key->kind = DKIM_RSA;
		key->rsa = from;
		return key;
	}
	if (take_edwards(key, from))
		return key;
	dkim_key_destroy(key);
	return NULL;
}

static bool is_private(const char *path, char error[static DKIM_ERROR_BYTES])
{
	int fd = os_file_open(OS_CURRENT_FOLDER, path, OS_READ, 0);
	uint32_t mode = 0;
	int failed = fd < 0 ? fd : os_file_mode(fd, &mode);

	if (fd >= 0)
		os_file_close(fd);
	if (failed < 0)
		snprintf(error, DKIM_ERROR_BYTES, "%s cannot be read: %s. Give a readable file.",
			 path, strerror(-failed));
	else if (mode & MODE_REFUSED)
		snprintf(error, DKIM_ERROR_BYTES,
			 "%s is open to others (mode %04o), and it holds a private key. Say chmod "
			 "g-w,o= %s, and make a new key if others have been on this machine.",
			 path, mode, path);
	return failed >= 0 && !(mode & MODE_REFUSED);
}

static EVP_PKEY *pem_read(const char *path, char error[static DKIM_ERROR_BYTES])
{
	char *bytes;
	size_t count;
	int failed = os_file_load(OS_CURRENT_FOLDER, path, FILE_BYTES_MAX, &bytes, &count);
	EVP_PKEY *key;
	bool starved;
	BIO *bio;

	if (failed < 0) {
		snprintf(error, DKIM_ERROR_BYTES, "%s cannot be read: %s. Give a readable file.",
			 path, strerror(-failed));
		return NULL;
	}
	ERR_clear_error();
	bio = BIO_new_mem_buf(bytes, (int)count);
	key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"") : NULL;
	starved = ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE;
	ERR_clear_error();
	BIO_free(bio);
	OPENSSL_cleanse(bytes, count);
	free(bytes);
	if (!key && starved)
		snprintf(error, DKIM_ERROR_BYTES, "%s: out of memory.", path);
	else if (!key)
		snprintf(error, DKIM_ERROR_BYTES,
			 "%s holds no private key. Give one in PEM format, without a passphrase.",
			 path);
	return key;
}

struct dkim_key *dkim_key_load(const char *path, char error[static DKIM_ERROR_BYTES])
{
	EVP_PKEY *read = is_private(path, error) ? pem_read(path, error) : NULL;
	struct dkim_key *key = NULL;
	const char *wrong;

	if (!read)
		return NULL;
	wrong = unfit(read);
	if (wrong) {
		EVP_PKEY_free(read);
		snprintf(error, DKIM_ERROR_BYTES, "%s %s. Give an RSA key of 2048 bits or Ed25519.",
			 path, wrong);
		return NULL;
	}
	key = key_make(read);
	if (!key)
		snprintf(error, DKIM_ERROR_BYTES, "%s: out of memory.", path);
	return key;
}

struct dkim_key *dkim_key_generate(enum dkim_kind kind, struct dkim_text *pem)
{
	EVP_PKEY *made =
		kind == DKIM_RSA ? EVP_RSA_gen(RSA_BITS) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	long bytes;

	if (!made || !bio || !PEM_write_bio_PrivateKey(bio, made, NULL, NULL, 0, NULL, NULL)) {
		EVP_PKEY_free(made);
		BIO_free(bio);
		return NULL;
	}
	bytes = BIO_get_mem_data(bio, &text);
	dkim_text_add(pem, span_of(text, (size_t)bytes));
	BIO_free(bio);
	return key_make(made);
}

enum dkim_kind dkim_key_kind(const struct dkim_key *key)
{
	return key->kind;
}

const char *dkim_key_algorithm(const struct dkim_key *key)
{
	return key->kind == DKIM_RSA ? "rsa-sha256" : "ed25519-sha256";
}

void dkim_key_public(const struct dkim_key *key, struct dkim_text *out)
{
	unsigned char *der = NULL;
	int bytes;

	if (key->kind == DKIM_ED25519) {
		dkim_base64(
			span_of(key->edwards + crypto_sign_SEEDBYTES, crypto_sign_PUBLICKEYBYTES),
			out);
		return;
	}
	bytes = i2d_PUBKEY(key->rsa, &der);
	assert(bytes > 0);
	dkim_base64(span_of(der, (size_t)bytes), out);
	OPENSSL_free(der);
}

static size_t rsa_sign(const struct dkim_key *key, const uint8_t *digest, uint8_t *out)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key->rsa, NULL);
	size_t bytes = DKIM_SIGNATURE_BYTES_MAX;
	bool good = context && EVP_PKEY_sign_init(context) > 0 &&
		    EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) > 0 &&
		    EVP_PKEY_sign(context, out, &bytes, digest, DKIM_DIGEST_BYTES) > 0;

	EVP_PKEY_CTX_free(context);
	if (!good)
		ERR_clear_error();
	return good ? bytes : 0;
}

size_t dkim_key_sign(const struct dkim_key *key, const uint8_t digest[static DKIM_DIGEST_BYTES],
		     uint8_t out[static DKIM_SIGNATURE_BYTES_MAX])
{
	unsigned long long bytes = 0;

	if (key->kind == DKIM_RSA)
		return rsa_sign(key, digest, out);
	return crypto_sign_detached(out, &bytes, (const uint8_t *)digest, DKIM_DIGEST_BYTES,
				    key->edwards) == 0
		       ? (size_t)bytes
		       : 0;
}
