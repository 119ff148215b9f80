/*
 * contexts - certificates, keys and authorities, read from their files; see tls.h.
 *
 * A certificate has the names that stand in it. For each there is a context, which also holds
 * the first certificate for the same names with another kind of key: so ECDSA and RSA stand
 * side by side, and the client chooses. A set of contexts is an edition: a reload makes a new
 * one, and the last connection of an old one frees it.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/config/complaints.h"
#include "engine/config/config.h"
#include "engine/tls/private.h"
#include "os/check.h"

enum { FILE_BYTES_MAX = 4 << 20, MODE_OF_OTHERS = 07, TICKETS = 1 };

struct tls_contexts {
	struct edition_shelf shelf; /* of a set */
	_Atomic bool serve;	    /* that set has a certificate */
};

/* One certificate with its chain and key, while a set is made. */
struct pair {
	const struct config_certificate *files;
	X509 *leaf;
	STACK_OF(X509) * chain;
	EVP_PKEY *key;
};

/* OpenSSL's word for what just failed. */
static const char *reason(void)
{
	unsigned long error = ERR_peek_last_error();
	const char *text = error ? ERR_reason_error_string(error) : NULL;

	ERR_clear_error();
	return text ? text : "not in PEM format";
}

static bool is_of_memory(unsigned long error)
{
	return ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE;
}

/* Whether what failed just now did so for want of memory, which is then complained of. OpenSSL does
 * not always say so: to fail without a word is the same. */
static bool starved(struct complaints *complaints)
{
	unsigned long first = ERR_peek_error();

	if (first != 0 && !is_of_memory(first) && !is_of_memory(ERR_peek_last_error()))
		return false;
	ERR_clear_error();
	complaints_add_memory(complaints);
	return true;
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

/* The file as a BIO over *bytes_out, which the caller frees after it; NULL: complained. */
static BIO *file_read(struct complaints *complaints, const char *path, char **bytes_out)
{
	size_t count;
	int failed = os_file_load(OS_CURRENT_FOLDER, path, FILE_BYTES_MAX, bytes_out, &count);
	BIO *bio;

	ERR_clear_error();
	if (failed == -ENOMEM) {
		complaints_add_memory(complaints);
		return NULL;
	}
	if (failed < 0) {
		complaints_add(complaints, "%s cannot be read: %s. Give a readable file.", path,
			       strerror(-failed));
		return NULL;
	}
	bio = BIO_new_mem_buf(*bytes_out, (int)count);
	if (!bio) {
		complaints_add_memory(complaints);
		free(*bytes_out);
	}
	return bio;
}

/* The next certificate; NULL: there is none, or complained. */
static X509 *certificate_next(struct complaints *complaints, BIO *bio, const char *path)
{
	X509 *next = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	if (!next && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE &&
	    !starved(complaints))
		complaints_add(complaints,
			       "%s holds a certificate that cannot be read: %s. Mend it or remove "
			       "it.",
			       path, reason());
	return next;
}

/* Those behind the leaf. */
static void chain_load(struct complaints *complaints, BIO *bio, struct pair *pair)
{
	X509 *next;

	pair->chain = sk_X509_new_null();
	if (!pair->chain)
		complaints_add_memory(complaints);
	while (pair->chain && (next = certificate_next(complaints, bio, pair->files->chain))) {
		if (sk_X509_push(pair->chain, next) > 0)
			continue;
		X509_free(next);
		complaints_add_memory(complaints);
		return;
	}
}

static void certificates_load(struct complaints *complaints, struct pair *pair)
{
	const char *path = pair->files->chain;
	char *bytes;
	BIO *bio = file_read(complaints, path, &bytes);

	if (!bio)
		return;
	pair->leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	if (pair->leaf)
		chain_load(complaints, bio, pair);
	else if (!starved(complaints))
		complaints_add(complaints,
			       "%s holds no certificate: %s. Give a chain in PEM format.", path,
			       reason());
	ERR_clear_error();
	BIO_free(bio);
	free(bytes);
}

/* Complains if the key could be read by those whom it is not for. */
static bool key_is_private(struct complaints *complaints, const char *path)
{
	int fd = os_file_open(OS_CURRENT_FOLDER, path, OS_READ, 0);
	uint32_t mode;
	int failed;

	if (fd < 0)
		return true; /* file_read() will say why */
	failed = os_file_mode(fd, &mode);
	os_file_close(fd);
	if (failed < 0 || !(mode & MODE_OF_OTHERS))
		return true;
	complaints_add(
		complaints,
		"%s is open to everybody (mode %04o), and it holds a private key. Say chmod o= %s, "
		"and make a new key if others have been on this machine.",
		path, mode, path);
	return false;
}

static void key_load(struct complaints *complaints, struct pair *pair)
{
	const char *path = pair->files->key;
	char *bytes;
	BIO *bio;

	if (!key_is_private(complaints, path))
		return;
	bio = file_read(complaints, path, &bytes);
	if (!bio)
		return;
	pair->key = PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)"");
	if (!pair->key && !starved(complaints))
		complaints_add(complaints,
			       "%s holds no private key: %s. Give one in PEM format, without a "
			       "passphrase.",
			       path, reason());
	BIO_free(bio);
	OPENSSL_cleanse(bytes, strlen(bytes));
	free(bytes);
}

static void pair_load(struct complaints *complaints, struct pair *pair)
{
	certificates_load(complaints, pair);
	key_load(complaints, pair);
	if (pair->leaf && pair->key && X509_check_private_key(pair->leaf, pair->key) != 1 &&
	    !starved(complaints))
		complaints_add(complaints, "%s is not the key of the certificate in %s: %s.",
			       pair->files->key, pair->files->chain, reason());
}

static void pair_free(struct pair *pair)
{
	X509_free(pair->leaf);
	sk_X509_pop_free(pair->chain, X509_free);
	EVP_PKEY_free(pair->key);
}

/* ── names ────────────────────────────────────────────────────────────────────────── */

static bool has_name(X509 *leaf, const char *name, size_t len)
{
	return X509_check_host(leaf, name, len, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

/* `other` is for every name that `leaf` is for. */
static bool same_names(X509 *leaf, X509 *other)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	bool all = sk_GENERAL_NAME_num(names) > 0;

	for (int i = 0; all && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const char *text;

		if (name->type != GEN_DNS)
			continue;
		text = (const char *)ASN1_STRING_get0_data(name->d.dNSName);
		/* A wildcard is asked for by a name that it covers. */
		if (text[0] == '*' && text[1] == '.') {
			char below[300];

			snprintf(below, sizeof(below), "a%s", text + 1);
			all = has_name(other, below, strlen(below));
		} else {
			all = has_name(other, text, (size_t)ASN1_STRING_length(name->d.dNSName));
		}
	}
	GENERAL_NAMES_free(names);
	return all;
}

SSL_CTX *tls_set_find(const struct tls_set *set, const char *name)
{
	for (uint32_t i = 0; i < set->server_count; i++)
		if (has_name(SSL_CTX_get0_certificate(set->servers[i]), name, strlen(name)))
			return set->servers[i];
	return set->servers[0];
}

/* ── contexts ─────────────────────────────────────────────────────────────────────── */

/* AES-128 before what costs more and protects no better here, if OpenSSL's configuration has it. */
static void ciphers_order(SSL_CTX *context)
{
	static const char first[] = "TLS_AES_128_GCM_SHA256";
	const STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(context);
	char names[256];
	size_t len = sizeof(first) - 1;
	bool there = false;

	memcpy(names, first, sizeof(first));
	for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
		const char *name = SSL_CIPHER_get_name(sk_SSL_CIPHER_value(ciphers, i));

		there |= strcmp(name, first) == 0;
		if (strncmp(name, "TLS_", 4) != 0 || strcmp(name, first) == 0)
			continue; /* of TLS 1.2, or named already */
		if (len + strlen(name) + 2 > sizeof(names))
			return;
		len += (size_t)sprintf(names + len, ":%s", name);
	}
	if (there)
		SSL_CTX_set_ciphersuites(context, names);
}

/* NULL: complained. */
static SSL_CTX *context_create(struct complaints *complaints, const struct config *config,
			       const SSL_METHOD *method)
{
	SSL_CTX *context;

	ERR_clear_error();
	context = SSL_CTX_new(method);
	if (!context) {
		if (!starved(complaints))
			complaints_add(complaints, "OpenSSL cannot be used: %s.", reason());
		return NULL;
	}
	SSL_CTX_set_min_proto_version(context, config->tls_version_min == CONFIG_TLS_1_3
						       ? TLS1_3_VERSION
						       : TLS1_2_VERSION);
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
					     SSL_OP_CIPHER_SERVER_PREFERENCE |
					     SSL_OP_PRIORITIZE_CHACHA);
	ciphers_order(context);
	return context;
}

static bool has_kind(SSL_CTX *context, EVP_PKEY *key)
{
	bool found = false;

	for (int more = SSL_CTX_set_current_cert(context, SSL_CERT_SET_FIRST); more == 1 && !found;
	     more = SSL_CTX_set_current_cert(context, SSL_CERT_SET_NEXT))
		found = EVP_PKEY_get_base_id(SSL_CTX_get0_privatekey(context)) ==
			EVP_PKEY_get_base_id(key);
	return found;
}

static void server_add(struct complaints *complaints, SSL_CTX *context, const struct pair *pair)
{
	assert(pair->files && pair->leaf && pair->key);
	ERR_clear_error();
	if (SSL_CTX_use_cert_and_key(context, pair->leaf, pair->key, pair->chain, 0) != 1 &&
	    !starved(complaints))
		complaints_add(complaints, "the certificate in %s cannot be used: %s.",
			       pair->files->chain, reason());
}

/* The certificate of pair `own`, and those that may stand beside it. NULL: complained. */
static SSL_CTX *server_create(struct complaints *complaints, const struct config *config,
			      const struct pair *pairs, uint32_t own)
{
	SSL_CTX *context = context_create(complaints, config, TLS_server_method());
	const struct pair *first = &pairs[own];

	if (!context)
		return NULL;
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets do it */
	SSL_CTX_set_num_tickets(context, TICKETS);
	SSL_CTX_set_session_id_context(context, (const unsigned char *)"stafette", 8);
	SSL_CTX_set_tlsext_servername_callback(context, tls_on_server_name);
	server_add(complaints, context, first);
	for (uint32_t i = 0; i < config->certificate_count; i++) {
		const struct pair *other = &pairs[i];

		if (i != own && !has_kind(context, other->key) &&
		    same_names(first->leaf, other->leaf))
			server_add(complaints, context, other);
		if (is_of_memory(ERR_peek_error())) /* names that were not read may be the same */
			complaints_add_memory(complaints);
	}
	/* What SSL_CTX_get0_certificate() shows is the one that the names come from. */
	SSL_CTX_select_current_cert(context, first->leaf);
	return context;
}

static void servers_create(struct complaints *complaints, const struct config *config,
			   struct tls_set *set)
{
	uint32_t count = config->certificate_count;
	struct pair *pairs = calloc(count + 1, sizeof(*pairs));

	set->servers = calloc(count + 1, sizeof(*set->servers));
	if (!pairs || !set->servers) {
		complaints_add_memory(complaints);
		free(pairs);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		pairs[i].files = &config->certificates[i];
		pair_load(complaints, &pairs[i]);
	}
	while (!complaints->any && set->server_count < count) {
		set->servers[set->server_count] =
			server_create(complaints, config, pairs, set->server_count);
		set->server_count++;
	}
	for (uint32_t i = 0; i < count; i++)
		pair_free(&pairs[i]);
	free(pairs);
}

static bool wants_authorities(const struct config *config)
{
	for (uint32_t i = 0; i < config->route_count; i++)
		if (config->routes[i].delivery.tls == TLS_VERIFY)
			return true;
	return false;
}

/* How many were read; ends early where it complained. */
static uint32_t authorities_read(struct complaints *complaints, BIO *bio, const char *path,
				 X509_STORE *store)
{
	uint32_t count = 0;
	bool good = true;
	X509 *one;

	while (good && (one = certificate_next(complaints, bio, path))) {
		good = X509_STORE_add_cert(store, one) == 1;
		if (!good)
			complaints_add_memory(complaints);
		X509_free(one);
		count++;
	}
	return count;
}

static void authorities_load(struct complaints *complaints, const struct config *config,
			     SSL_CTX *context)
{
	const char *path = config->tls_ca_file;
	char *bytes;
	BIO *bio = file_read(complaints, path, &bytes);

	if (!bio)
		return;
	if (authorities_read(complaints, bio, path, SSL_CTX_get_cert_store(context)) == 0 &&
	    !complaints->any)
		complaints_add(complaints,
			       "%s holds no certificate: %s. Give authorities in PEM format.", path,
			       reason());
	ERR_clear_error();
	BIO_free(bio);
	free(bytes);
}

/* Authorities need not be there where nobody asks for them. */
static void client_create(struct complaints *complaints, const struct config *config,
			  struct tls_set *set)
{
	char unsaid[256];
	struct complaints quiet;

	complaints_init(&quiet, unsaid, sizeof(unsaid));
	set->client = context_create(complaints, config, TLS_client_method());
	if (!set->client)
		return;
	SSL_CTX_set_session_cache_mode(set->client,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(set->client, tls_on_session);
	authorities_load(wants_authorities(config) ? complaints : &quiet, config, set->client);
	if (quiet.memory)
		complaints_add_memory(complaints);
}

struct tls_set *tls_set_read(const struct config *config, char *error, size_t error_bytes)
{
	struct tls_set *set = calloc(1, sizeof(*set));
	struct complaints complaints;

	complaints_init(&complaints, error, error_bytes);
	if (!set) {
		complaints_add_memory(&complaints);
		return NULL;
	}
	edition_init(&set->edition);
	client_create(&complaints, config, set);
	servers_create(&complaints, config, set);
	if (!complaints.any)
		return set;
	tls_set_unref(set);
	return NULL;
}

/* ── who uses them ────────────────────────────────────────────────────────────────── */

static struct tls_set *set_of(struct edition *edition)
{
	return container_of(edition, struct tls_set, edition);
}

struct tls_set *tls_set_get(struct tls_contexts *contexts)
{
	return set_of(edition_shelf_take(&contexts->shelf));
}

void tls_set_unref(struct tls_set *set)
{
	if (!set || !edition_let_go(&set->edition))
		return;
	for (uint32_t i = 0; i < set->server_count; i++)
		SSL_CTX_free(set->servers[i]);
	free(set->servers);
	SSL_CTX_free(set->client);
	free(set);
}

struct tls_contexts *tls_contexts_create(const struct config *config, char *error,
					 size_t error_bytes)
{
	struct tls_contexts *contexts = calloc(1, sizeof(*contexts));
	struct tls_set *set;

	if (!contexts) {
		snprintf(error, error_bytes, "out of memory.");
		return NULL;
	}
	set = tls_set_read(config, error, error_bytes);
	if (!set) {
		free(contexts);
		return NULL;
	}
	edition_shelf_init(&contexts->shelf, &set->edition);
	atomic_init(&contexts->serve, set->server_count > 0);
	return contexts;
}

void tls_contexts_put(struct tls_contexts *contexts, struct tls_set *set)
{
	/* relaxed: who sees it early or late finds a set without, and refuses. */
	atomic_store_explicit(&contexts->serve, set->server_count > 0, memory_order_relaxed);
	tls_set_unref(set_of(edition_shelf_replace(&contexts->shelf, &set->edition)));
}

void tls_contexts_destroy(struct tls_contexts *contexts)
{
	if (!contexts)
		return;
	tls_set_unref(set_of(edition_shelf_deinit(&contexts->shelf)));
	free(contexts);
}

bool tls_contexts_serve(struct tls_contexts *contexts)
{
	return atomic_load_explicit(&contexts->serve, memory_order_relaxed);
}
