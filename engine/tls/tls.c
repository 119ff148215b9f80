/*
 * tls - see tls.h. OpenSSL reads from the span that was fed and writes to our buffer through a
 * BIO of our own, so that nothing is copied twice.
 */
#include "engine/tls/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/tls/private.h"
#include "os/check.h"

enum {
	OUTPUT_MIN = 512,
	RECORD_OVERHEAD = 128, /* header, padding and tag, with room */
};

struct tls {
	SSL *ssl; /* owned */
	struct tls_set *set;
	struct span in; /* fed, and not yet read */
	char *output;	/* owned; NULL: none */
	size_t output_len, output_size;
	bool done;	      /* the handshake */
	bool broken;	      /* nothing more can be said */
	SSL_SESSION *session; /* owned: the newest */
	struct tls_facts facts;
	char why[160];
};

struct tls_session {
	SSL_SESSION *ssl; /* owned */
};

/* ── our BIO ──────────────────────────────────────────────────────────────────────── */

static BIO_METHOD *wire;
static pthread_once_t wire_once = PTHREAD_ONCE_INIT;

static int wire_read(BIO *bio, char *out, int max)
{
	struct tls *tls = BIO_get_data(bio);
	size_t take = tls->in.len < (size_t)max ? tls->in.len : (size_t)max;

	BIO_clear_retry_flags(bio);
	if (take == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(out, tls->in.at, take);
	tls->in = span_skip(tls->in, take);
	return (int)take;
}

static bool output_reserve(struct tls *tls, size_t more)
{
	size_t need = tls->output_len + more;
	char *grown;

	if (need <= tls->output_size)
		return true;
	if (need < OUTPUT_MIN)
		need = OUTPUT_MIN;
	grown = realloc(tls->output, need);
	if (!grown)
		return false;
	tls->output = grown;
	tls->output_size = need;
	return true;
}

static int wire_write(BIO *bio, const char *bytes, int count)
{
	struct tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (count <= 0 || !output_reserve(tls, (size_t)count))
		return -1;
	memcpy(tls->output + tls->output_len, bytes, (size_t)count);
	tls->output_len += (size_t)count;
	return count;
}

static long wire_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static void wire_make(void)
{
	wire = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stafette");
	assert(wire);
	BIO_meth_set_read(wire, wire_read);
	BIO_meth_set_write(wire, wire_write);
	BIO_meth_set_ctrl(wire, wire_ctrl);
}

/* ── life ─────────────────────────────────────────────────────────────────────────── */

/* Takes the reference to `set`. */
static struct tls *tls_create(struct tls_set *set, SSL_CTX *context)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	BIO *bio;

	pthread_once(&wire_once, wire_make);
	if (!tls || !context)
		goto failed;
	tls->ssl = SSL_new(context);
	bio = BIO_new(wire);
	if (!tls->ssl || !bio) {
		BIO_free(bio);
		goto failed;
	}
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	SSL_set_app_data(tls->ssl, tls);
	tls->set = set;
	tls->in = span_of("", 0);
	return tls;
failed:
	if (tls)
		SSL_free(tls->ssl);
	free(tls);
	tls_set_unref(set);
	return NULL;
}

struct tls *tls_accept(struct tls_contexts *contexts)
{
	struct tls_set *set = tls_set_get(contexts);
	struct tls *tls = tls_create(set, set->server_count > 0 ? set->servers[0] : NULL);

	if (tls)
		SSL_set_accept_state(tls->ssl);
	return tls;
}

/* Whom the certificate has to name, and whom we ask for. */
static bool name_set(SSL *ssl, const char *name)
{
	struct os_address address;

	if (os_address_parse(name, 0, &address))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

/* A copy, because OpenSSL lets each be used only once; connections to a host begin together. */
static bool session_offer(SSL *ssl, const struct tls_session *resume)
{
	SSL_SESSION *copy;
	bool fine;

	if (!resume)
		return true;
	copy = SSL_SESSION_dup(resume->ssl);
	fine = copy && SSL_set_session(ssl, copy) == 1;
	SSL_SESSION_free(copy);
	return fine;
}

struct tls *tls_connect(struct tls_contexts *contexts, const struct tls_policy *policy,
			const struct tls_session *resume, struct os_wall now)
{
	struct tls_set *set = tls_set_get(contexts);
	struct tls *tls = tls_create(set, set->client);

	assert(policy->level > TLS_NONE);
	if (!tls)
		return NULL;
	SSL_set_connect_state(tls->ssl);
	X509_VERIFY_PARAM_set_time(SSL_get0_param(tls->ssl), now.us / OS_US_PER_S);
	SSL_set_verify(tls->ssl, policy->level == TLS_VERIFY ? SSL_VERIFY_PEER : SSL_VERIFY_NONE,
		       NULL);
	if (policy->level == TLS_MAY)
		SSL_set_security_level(tls->ssl, 1); /* the other choice is none at all */
	if (!name_set(tls->ssl, policy->name) || !session_offer(tls->ssl, resume)) {
		tls_destroy(tls);
		return NULL;
	}
	return tls;
}

void tls_destroy(struct tls *tls)
{
	if (!tls)
		return;
	/* A connection that broke says nothing against its session (RFC 4346, 7.2.1). */
	SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(tls->ssl);
	SSL_SESSION_free(tls->session);
	tls_set_unref(tls->set);
	free(tls->output);
	free(tls);
}

/* ── the handshake ────────────────────────────────────────────────────────────────── */

int tls_on_server_name(SSL *ssl, int *alert, void *unused)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const struct tls *tls = SSL_get_app_data(ssl);

	(void)alert;
	(void)unused;
	if (!name)
		return SSL_TLSEXT_ERR_NOACK;
	SSL_set_SSL_CTX(ssl, tls_set_find(tls->set, name));
	return SSL_TLSEXT_ERR_OK;
}

int tls_on_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls *tls = SSL_get_app_data(ssl);

	SSL_SESSION_free(tls->session);
	tls->session = session;
	return 1; /* it is ours now */
}

/* SSL_get_error() takes what others left behind for ours. To look is cheap; to clear is not: it
 * frees whatever the queue has room for. */
static void forget_errors(void)
{
	if (ERR_peek_error())
		ERR_clear_error();
}

static enum tls_status fail(struct tls *tls)
{
	unsigned long error = ERR_peek_last_error();
	const char *reason = error ? ERR_reason_error_string(error) : NULL;
	long verdict = SSL_get_verify_result(tls->ssl);

	tls->broken = true;
	tls->in = span_of("", 0);
	if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		snprintf(tls->why, sizeof(tls->why), "the certificate is not to be trusted: %s",
			 X509_verify_cert_error_string(verdict));
	else
		snprintf(tls->why, sizeof(tls->why), "TLS: %s", reason ? reason : "failed");
	ERR_clear_error();
	return TLS_FAILED;
}

static void facts_take(struct tls *tls)
{
	struct tls_facts *facts = &tls->facts;

	snprintf(facts->text, sizeof(facts->text), "%s %s", SSL_get_version(tls->ssl),
		 SSL_get_cipher_name(tls->ssl));
	facts->resumed = SSL_session_reused(tls->ssl) == 1;
	facts->verified = SSL_get0_peer_certificate(tls->ssl) != NULL &&
			  SSL_get_verify_result(tls->ssl) == X509_V_OK;
}

void tls_feed(struct tls *tls, struct span ciphertext)
{
	assert(tls->in.len == 0);
	tls->in = ciphertext;
}

enum tls_status tls_handshake(struct tls *tls)
{
	int result;

	assert(!tls->done && !tls->broken);
	forget_errors();
	result = SSL_do_handshake(tls->ssl);
	if (result == 1) {
		tls->done = true;
		facts_take(tls);
		return TLS_OK;
	}
	return SSL_get_error(tls->ssl, result) == SSL_ERROR_WANT_READ ? TLS_MORE : fail(tls);
}

/* ── data ─────────────────────────────────────────────────────────────────────────── */

enum tls_status tls_decrypt(struct tls *tls, char *out, size_t room, size_t *count_out)
{
	size_t count = 0, got;
	bool more;

	assert(tls->done && room >= tls->in.len + TLS_RECORD_BYTES);
	*count_out = 0;
	if (tls->broken)
		return TLS_FAILED;
	forget_errors();
	/* A read in vain is not free, so none is tried without need. */
	do {
		more = SSL_read_ex(tls->ssl, out + count, room - count, &got) == 1;
		count += more ? got : 0;
	} while (more && (tls->in.len > 0 || SSL_has_pending(tls->ssl)));
	*count_out = count;
	if (more)
		return TLS_OK;
	switch (SSL_get_error(tls->ssl, 0)) {
	case SSL_ERROR_WANT_READ:
		assert(tls->in.len == 0);
		return TLS_OK;
	case SSL_ERROR_ZERO_RETURN:
		tls->in = span_of("", 0);
		return TLS_CLOSED;
	default:
		return fail(tls);
	}
}

/* False: no memory, for our BIO takes all. There is no going on behind a record that is missing. */
static bool write_record(struct tls *tls, struct span plain)
{
	size_t written = 0;

	if (SSL_write_ex(tls->ssl, plain.at, plain.len, &written) != 1) {
		fail(tls);
		return false;
	}
	assert(written == plain.len);
	return true;
}

/* As many of the vectors' octets behind `skip` as fit into a record: in place if they lie
 * together, else gathered. */
static struct span next_piece(const struct iovec *vectors, int count, size_t skip, size_t max,
			      char *gather)
{
	size_t len = 0;

	while (count > 0 && skip >= vectors->iov_len) {
		skip -= vectors->iov_len;
		vectors++;
		count--;
	}
	if (count == 0)
		return span_of("", 0);
	if (count == 1 || vectors->iov_len - skip >= max) {
		size_t left = vectors->iov_len - skip;

		return span_of((const char *)vectors->iov_base + skip, left < max ? left : max);
	}
	for (; count > 0 && len < max; vectors++, count--, skip = 0) {
		size_t take = vectors->iov_len - skip;

		if (take > max - len)
			take = max - len;
		memcpy(gather + len, (const char *)vectors->iov_base + skip, take);
		len += take;
	}
	return span_of(gather, len);
}

size_t tls_encrypt(struct tls *tls, const struct iovec *vectors, int count, size_t skip, size_t max,
		   char *gather)
{
	size_t total = 0, taken = 0;

	assert(tls->done);
	for (int i = 0; i < count; i++)
		total += vectors[i].iov_len;
	assert(skip <= total);
	if (max > total - skip)
		max = total - skip;
	if (tls->broken ||
	    !output_reserve(tls, max + (max / TLS_RECORD_BYTES + 1) * RECORD_OVERHEAD))
		return 0;
	while (taken < max) {
		size_t most = max - taken < TLS_RECORD_BYTES ? max - taken : TLS_RECORD_BYTES;
		struct span piece = next_piece(vectors, count, skip + taken, most, gather);

		if (!write_record(tls, piece))
			break;
		taken += piece.len;
	}
	return taken;
}

void tls_say_end(struct tls *tls)
{
	if (!tls->done || tls->broken)
		return;
	SSL_shutdown(tls->ssl);
	tls->broken = true;
}

char *tls_output_take(struct tls *tls, size_t *len_out)
{
	char *output = tls->output;

	if (tls->output_len == 0)
		return NULL;
	*len_out = tls->output_len;
	tls->output = NULL;
	tls->output_len = tls->output_size = 0;
	return output;
}

const struct tls_facts *tls_facts(const struct tls *tls)
{
	assert(tls->done);
	return &tls->facts;
}

const char *tls_why(const struct tls *tls)
{
	return tls->why;
}

/* ── resumption ───────────────────────────────────────────────────────────────────── */

struct tls_session *tls_session_take(struct tls *tls)
{
	struct tls_session *session;

	if (!tls->session)
		return NULL;
	session = malloc(sizeof(*session));
	if (session) {
		session->ssl = tls->session;
		tls->session = NULL;
	}
	return session;
}

uint32_t tls_session_lifetime_s(const struct tls_session *session)
{
	long lifetime = SSL_SESSION_get_timeout(session->ssl);
	unsigned long hint = SSL_SESSION_get_ticket_lifetime_hint(session->ssl);

	if (hint > 0 && (long)hint < lifetime)
		lifetime = (long)hint;
	return lifetime > 0 ? (uint32_t)lifetime : 0;
}

void tls_session_destroy(struct tls_session *session)
{
	if (!session)
		return;
	SSL_SESSION_free(session->ssl);
	free(session);
}
