/*
 * contexts - certificates, keys and authorities, read from their files; see tls.h.
 *
 * A certificate has the names that stand in it. For each there is a context, which also holds
 * the first certificate for the same names with another kind of key: so ECDSA and RSA stand
 * side by side, and the client chooses. A set of contexts is never changed: a reload makes a
 * new one, and the last connection of an old one frees it.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/config/config.h"
#include "engine/tls/private.h"
#include "os/check.h"

enum { FILE_BYTES_MAX = 4 << 20, MODE_OF_OTHERS = 07, TICKETS = 1 };

struct tls_contexts {
	pthread_mutex_t lock; /* of `set`: a handshake takes its reference */
	struct tls_set *set;
};

/* One certificate with its chain and key, while a set is made. */
struct pair {
	const struct config_certificate *files;
	X509 *leaf;
	STACK_OF(X509) * chain;
	EVP_PKEY *key;
};

struct complaints {
	char *text;
	size_t bytes, used;
	bool any;
};

__attribute__((format(printf, 2, 3))) static void complain(struct complaints *complaints,
							   const char *format, ...)
{
	size_t room = complaints->bytes - complaints->used;
	char text[1024];
	va_list list;
	int len;

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	len = snprintf(complaints->text + complaints->used, room, "%s%s",
		       complaints->any ? "\n" : "", text);
	complaints->used += (size_t)len < room ? (size_t)len : room > 0 ? room - 1 : 0;
	complaints->any = true;
}

/* OpenSSL's word for what just failed. */
static const char *reason(void)
{
	unsigned long error = ERR_peek_last_error();
	const char *text = error ? ERR_reason_error_string(error) : NULL;

	ERR_clear_error();
	return text ? text : "not in PEM format";
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

/* The file as a BIO over *bytes_out, which the caller frees after it; NULL: complained. */
static BIO *file_read(struct complaints *complaints, const char *path, char **bytes_out)
{
	size_t count;
	int failed = os_file_load(OS_CURRENT_FOLDER, path, FILE_BYTES_MAX, bytes_out, &count);
	BIO *bio;

	ERR_clear_error();
	if (failed < 0) {
		complain(complaints, "%s cannot be read: %s. Give a readable file.", path,
			 strerror(-failed));
		return NULL;
	}
	bio = BIO_new_mem_buf(*bytes_out, (int)count);
	assert(bio);
	return bio;
}

static void certificates_load(struct complaints *complaints, struct pair *pair)
{
	const char *path = pair->files->chain;
	char *bytes;
	BIO *bio = file_read(complaints, path, &bytes);
	X509 *next;

	if (!bio)
		return;
	pair->leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	if (!pair->leaf)
		complain(complaints, "%s holds no certificate: %s. Give a chain in PEM format.",
			 path, reason());
	pair->chain = sk_X509_new_null();
	assert(pair->chain);
	while (pair->leaf && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
		sk_X509_push(pair->chain, next);
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
	complain(
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
	if (!pair->key)
		complain(complaints,
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
	if (pair->leaf && pair->key && X509_check_private_key(pair->leaf, pair->key) != 1)
		complain(complaints, "%s is not the key of the certificate in %s: %s.",
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

static SSL_CTX *context_create(const struct config *config, const SSL_METHOD *method)
{
	SSL_CTX *context = SSL_CTX_new(method);

	assert(context);
	SSL_CTX_set_min_proto_version(context, config->tls_version_min == CONFIG_TLS_1_3
						       ? TLS1_3_VERSION
						       : TLS1_2_VERSION);
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
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

/* The certificate of pair `own`, and those that may stand beside it. */
static SSL_CTX *server_create(struct complaints *complaints, const struct config *config,
			      const struct pair *pairs, uint32_t own)
{
	SSL_CTX *context = context_create(config, TLS_server_method());
	const struct pair *first = &pairs[own];

	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets do it */
	SSL_CTX_set_num_tickets(context, TICKETS);
	SSL_CTX_set_session_id_context(context, (const unsigned char *)"stafette", 8);
	SSL_CTX_set_tlsext_servername_callback(context, tls_on_server_name);
	ERR_clear_error();
	if (SSL_CTX_use_cert_and_key(context, first->leaf, first->key, first->chain, 0) != 1)
		complain(complaints, "the certificate in %s cannot be used: %s.",
			 config->certificates[own].chain, reason());
	for (uint32_t i = 0; i < config->certificate_count; i++) {
		const struct pair *other = &pairs[i];

		if (i == own || has_kind(context, other->key) ||
		    !same_names(first->leaf, other->leaf))
			continue;
		if (SSL_CTX_use_cert_and_key(context, other->leaf, other->key, other->chain, 0) !=
		    1)
			complain(complaints, "the certificate in %s cannot be used: %s.",
				 config->certificates[i].chain, reason());
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
	assert(pairs && set->servers);
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

static void authorities_load(struct complaints *complaints, const struct config *config,
			     SSL_CTX *context)
{
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	struct complaints quiet = { .text = (char[256]){ 0 }, .bytes = 256 };
	bool wanted = wants_authorities(config);
	char *bytes;
	BIO *bio = file_read(wanted ? complaints : &quiet, config->tls_ca_file, &bytes);
	uint32_t count = 0;

	if (!bio)
		return;
	for (X509 *one; (one = PEM_read_bio_X509(bio, NULL, NULL, NULL)); count++) {
		X509_STORE_add_cert(store, one);
		X509_free(one);
	}
	if (count == 0 && wanted)
		complain(complaints, "%s holds no certificate: %s. Give authorities in PEM format.",
			 config->tls_ca_file, reason());
	ERR_clear_error();
	BIO_free(bio);
	free(bytes);
}

static struct tls_set *set_create(const struct config *config, char *error, size_t error_bytes)
{
	struct complaints complaints = { .text = error, .bytes = error_bytes };
	struct tls_set *set = calloc(1, sizeof(*set));

	assert(set && error_bytes > 0);
	error[0] = '\0';
	atomic_init(&set->references, 1);
	set->client = context_create(config, TLS_client_method());
	SSL_CTX_set_session_cache_mode(set->client,
				       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(set->client, tls_on_session);
	authorities_load(&complaints, config, set->client);
	servers_create(&complaints, config, set);
	if (!complaints.any)
		return set;
	tls_set_unref(set);
	return NULL;
}

/* ── who uses them ────────────────────────────────────────────────────────────────── */

struct tls_set *tls_set_get(struct tls_contexts *contexts)
{
	struct tls_set *set;

	pthread_mutex_lock(&contexts->lock);
	set = contexts->set;
	atomic_fetch_add_explicit(&set->references, 1, memory_order_relaxed);
	pthread_mutex_unlock(&contexts->lock);
	return set;
}

void tls_set_unref(struct tls_set *set)
{
	/* acq_rel: the last one sees what the others did with it. */
	if (atomic_fetch_sub_explicit(&set->references, 1, memory_order_acq_rel) > 1)
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
	struct tls_set *set = set_create(config, error, error_bytes);
	struct tls_contexts *contexts;

	if (!set)
		return NULL;
	contexts = calloc(1, sizeof(*contexts));
	assert(contexts);
	pthread_mutex_init(&contexts->lock, NULL);
	contexts->set = set;
	return contexts;
}

bool tls_contexts_reload(struct tls_contexts *contexts, const struct config *config, char *error,
			 size_t error_bytes)
{
	struct tls_set *set = set_create(config, error, error_bytes), *old;

	if (!set)
		return false;
	pthread_mutex_lock(&contexts->lock);
	old = contexts->set;
	contexts->set = set;
	pthread_mutex_unlock(&contexts->lock);
	tls_set_unref(old);
	return true;
}

void tls_contexts_destroy(struct tls_contexts *contexts)
{
	if (!contexts)
		return;
	tls_set_unref(contexts->set);
	pthread_mutex_destroy(&contexts->lock);
	free(contexts);
}

bool tls_contexts_serve(struct tls_contexts *contexts)
{
	bool serve;

	pthread_mutex_lock(&contexts->lock);
	serve = contexts->set->server_count > 0;
	pthread_mutex_unlock(&contexts->lock);
	return serve;
}
