/*
 * tls_cases - what TLS costs a message of 4 KiB that is relayed: four records are encrypted and
 * four decrypted, three of each with commands or replies, one with the message.
 *
 *   tls/message     by the engine's TLS, on one connection; _70: on as many in turn
 *   tls/stream      64 KiB at once, in records of 16 KiB
 *   tls/library     by OpenSSL alone, over its own memory BIOs
 *   tls/cipher      by the cipher alone, its key set once for each direction
 *
 * What lies between the last two is OpenSSL's record layer, which the engine cannot change.
 */
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/cases/cases.h"
#include "engine/config/config.h"
#include "engine/tls/tls.h"
#include "os/check.h"

enum {
	PATH_BYTES = 40,
	RECORDS = 4,
	AAD_BYTES = 5,
	TAG_BYTES = 16,
	MESSAGE_BYTES = 4200,
	STREAM_BYTES = 64 << 10
};

/* Who says how much, in this order. */
static const struct {
	bool by_client;
	size_t bytes;
} flights[RECORDS] = { { true, 62 }, { false, 88 }, { true, MESSAGE_BYTES }, { false, 60 } };

static char plain[(64 << 10) + 2 * TLS_RECORD_BYTES], gather[TLS_RECORD_BYTES];
static char text[STREAM_BYTES];

/* ── a certificate ────────────────────────────────────────────────────────────────── */

static X509 *certificate_make(EVP_PKEY *key)
{
	X509 *certificate = X509_new();
	X509_NAME *name;

	assert(certificate);
	name = X509_get_subject_name(certificate);
	X509_set_version(certificate, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"bench.test",
				   -1, -1, 0);
	X509_set_issuer_name(certificate, name);
	X509_set_pubkey(certificate, key);
	assert(X509_sign(certificate, key, EVP_sha256()) > 0);
	return certificate;
}

/* The path of a new file. */
static FILE *file_make(char path[PATH_BYTES])
{
	int fd;
	FILE *file;

	snprintf(path, PATH_BYTES, "/tmp/tls_cases.XXXXXX");
	fd = mkstemp(path);
	assert(fd >= 0);
	file = fdopen(fd, "w");
	assert(file);
	return file;
}

/* ── the engine ───────────────────────────────────────────────────────────────────── */

struct pair {
	struct tls *client, *server;
};

struct engine_world {
	struct tls_contexts *contexts;
	struct pair *pairs;
	uint64_t count;
};

static struct tls_contexts *contexts_make(void)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = certificate_make(key);
	char chain_path[PATH_BYTES], key_path[PATH_BYTES], error[512];
	FILE *chain_file = file_make(chain_path), *key_file = file_make(key_path);
	struct config_certificate files = { .chain = chain_path, .key = key_path };
	struct config config = {
		.certificates = &files,
		.certificate_count = 1,
		.tls_ca_file = (char *)"/dev/null",
	};
	struct tls_contexts *contexts;

	assert(PEM_write_X509(chain_file, certificate) == 1);
	assert(PEM_write_PrivateKey(key_file, key, NULL, NULL, 0, NULL, NULL) == 1);
	fclose(chain_file);
	fclose(key_file);
	contexts = tls_contexts_create(&config, error, sizeof(error));
	unlink(chain_path);
	unlink(key_path);
	X509_free(certificate);
	EVP_PKEY_free(key);
	assert(contexts);
	return contexts;
}

/* What one end has to say, to the other; false: nothing. */
static bool carry(struct tls *from, struct tls *to, bool *done)
{
	size_t len, count;
	char *bytes = tls_output_take(from, &len);

	if (!bytes)
		return false;
	tls_feed(to, span_of(bytes, len));
	if (!*done)
		*done = tls_handshake(to) == TLS_OK;
	if (*done)
		assert(tls_decrypt(to, plain, sizeof(plain), &count) == TLS_OK && count == 0);
	free(bytes);
	return true;
}

static void pair_make(struct pair *pair, struct tls_contexts *contexts)
{
	struct tls_policy policy = { .level = TLS_ENCRYPT, .name = "bench.test" };
	bool server_done = false, client_done = false, more = true;

	pair->client = tls_connect(contexts, &policy, NULL, os_wall_now());
	pair->server = tls_accept(contexts);
	assert(pair->client && pair->server);
	tls_handshake(pair->client);
	while (more) {
		more = carry(pair->client, pair->server, &server_done);
		more |= carry(pair->server, pair->client, &client_done);
	}
	assert(client_done && server_done);
}

/* `argument`: connections that take turns. */
static void *begin_engine(uint64_t argument)
{
	struct engine_world *world = calloc(1, sizeof(*world));

	assert(world);
	world->contexts = contexts_make();
	world->count = argument;
	world->pairs = calloc(argument, sizeof(*world->pairs));
	assert(world->pairs);
	for (uint64_t i = 0; i < argument; i++)
		pair_make(&world->pairs[i], world->contexts);
	return world;
}

static void flight_pass(struct tls *from, struct tls *to, size_t bytes)
{
	struct iovec vector = { text, bytes };
	size_t len, count;
	char *records;

	tls_encrypt(from, &vector, 1, 0, SIZE_MAX, gather);
	records = tls_output_take(from, &len);
	tls_feed(to, span_of(records, len));
	assert(tls_decrypt(to, plain, sizeof(plain), &count) == TLS_OK && count == bytes);
	free(records);
}

/* One flight on every connection, then the next on every one. */
static uint64_t run_engine(void *context)
{
	struct engine_world *world = context;

	for (int i = 0; i < RECORDS; i++)
		for (uint64_t n = 0; n < world->count; n++) {
			struct pair *pair = &world->pairs[n];

			if (flights[i].by_client)
				flight_pass(pair->client, pair->server, flights[i].bytes);
			else
				flight_pass(pair->server, pair->client, flights[i].bytes);
		}
	return world->count;
}

static uint64_t run_stream(void *context)
{
	struct engine_world *world = context;

	flight_pass(world->pairs[0].client, world->pairs[0].server, STREAM_BYTES);
	return 1;
}

static void end_engine(void *context)
{
	struct engine_world *world = context;

	for (uint64_t i = 0; i < world->count; i++) {
		tls_destroy(world->pairs[i].client);
		tls_destroy(world->pairs[i].server);
	}
	tls_contexts_destroy(world->contexts);
	free(world->pairs);
	free(world);
}

/* ── the library alone ────────────────────────────────────────────────────────────── */

struct library_world {
	SSL_CTX *client_context, *server_context;
	SSL *client, *server;
};

static void *begin_library(uint64_t argument)
{
	struct library_world *world = calloc(1, sizeof(*world));
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = certificate_make(key);
	BIO *to_server = BIO_new(BIO_s_mem()), *to_client = BIO_new(BIO_s_mem());
	size_t none;

	(void)argument;
	assert(world);
	world->client_context = SSL_CTX_new(TLS_client_method());
	world->server_context = SSL_CTX_new(TLS_server_method());
	assert(SSL_CTX_use_cert_and_key(world->server_context, certificate, key, NULL, 1) == 1);
	world->client = SSL_new(world->client_context);
	world->server = SSL_new(world->server_context);
	BIO_up_ref(to_server);
	BIO_up_ref(to_client);
	SSL_set_bio(world->client, to_client, to_server);
	SSL_set_bio(world->server, to_server, to_client);
	SSL_set_connect_state(world->client);
	SSL_set_accept_state(world->server);
	for (int i = 0; i < 4; i++) {
		SSL_do_handshake(world->client);
		SSL_do_handshake(world->server);
	}
	assert(SSL_read_ex(world->client, plain, sizeof(plain), &none) == 0); /* tickets */
	assert(SSL_is_init_finished(world->client) && SSL_is_init_finished(world->server));
	X509_free(certificate);
	EVP_PKEY_free(key);
	return world;
}

static uint64_t run_library(void *context)
{
	struct library_world *world = context;

	for (int i = 0; i < RECORDS; i++) {
		SSL *from = flights[i].by_client ? world->client : world->server;
		SSL *to = flights[i].by_client ? world->server : world->client;
		size_t count;

		assert(SSL_write_ex(from, text, flights[i].bytes, &count) == 1);
		assert(SSL_read_ex(to, plain, sizeof(plain), &count) == 1);
		assert(count == flights[i].bytes);
	}
	return 1;
}

static void end_library(void *context)
{
	struct library_world *world = context;

	SSL_free(world->client);
	SSL_free(world->server);
	SSL_CTX_free(world->client_context);
	SSL_CTX_free(world->server_context);
	free(world);
}

/* ── the cipher alone ─────────────────────────────────────────────────────────────── */

struct cipher_world {
	EVP_CIPHER *cipher;
	EVP_CIPHER_CTX *seal, *open;
};

static void *begin_cipher(uint64_t argument)
{
	struct cipher_world *world = calloc(1, sizeof(*world));
	static const unsigned char key[32] = { 1 };

	(void)argument;
	assert(world);
	world->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	world->seal = EVP_CIPHER_CTX_new();
	world->open = EVP_CIPHER_CTX_new();
	assert(EVP_EncryptInit_ex(world->seal, world->cipher, NULL, key, NULL) == 1);
	assert(EVP_DecryptInit_ex(world->open, world->cipher, NULL, key, NULL) == 1);
	return world;
}

static uint64_t run_cipher(void *context)
{
	struct cipher_world *world = context;
	unsigned char head[AAD_BYTES] = { 23, 3, 3 }, tag[TAG_BYTES], nonce[12] = { 0 };
	unsigned char *out = (unsigned char *)plain, *back = (unsigned char *)gather;

	for (int i = 0; i < RECORDS; i++) {
		int count = (int)flights[i].bytes, got;

		EVP_EncryptInit_ex(world->seal, NULL, NULL, NULL, nonce);
		EVP_EncryptUpdate(world->seal, NULL, &got, head, AAD_BYTES);
		EVP_EncryptUpdate(world->seal, out, &got, (const unsigned char *)text, count);
		EVP_EncryptFinal_ex(world->seal, out, &got);
		EVP_CIPHER_CTX_ctrl(world->seal, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, tag);
		EVP_DecryptInit_ex(world->open, NULL, NULL, NULL, nonce);
		EVP_CIPHER_CTX_ctrl(world->open, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag);
		EVP_DecryptUpdate(world->open, NULL, &got, head, AAD_BYTES);
		EVP_DecryptUpdate(world->open, back, &got, out, count);
		assert(EVP_DecryptFinal_ex(world->open, back, &got) == 1);
	}
	return 1;
}

static void end_cipher(void *context)
{
	struct cipher_world *world = context;

	EVP_CIPHER_CTX_free(world->seal);
	EVP_CIPHER_CTX_free(world->open);
	EVP_CIPHER_free(world->cipher);
	free(world);
}

const struct micro_case micro_tls_cases[] = {
	{ "tls/message", begin_engine, run_engine, end_engine, 1, 0 },
	{ "tls/message_70", begin_engine, run_engine, end_engine, 70, 0 },
	{ "tls/stream", begin_engine, run_stream, end_engine, 1, STREAM_BYTES },
	{ "tls/library", begin_library, run_library, end_library, 0, 0 },
	{ "tls/cipher", begin_cipher, run_cipher, end_cipher, 0, 0 },
	{ 0 },
};
