/*
 * TLS between two ends in memory, with certificates that the openssl command makes: records,
 * names, proofs, resumption, what a worker remembers, and who decides.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "engine/config/config.h"
#include "engine/tls/peers.h"
#include "engine/tls/tls.h"
#include "os/check.h"

static char folder[] = "/tmp/engine_tls.XXXXXX";
static struct config *config;
static struct tls_contexts *contexts;

/* ── certificates ─────────────────────────────────────────────────────────────────── */

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
	char command[1024];
	va_list list;
	int length;

	va_start(list, format);
	length = snprintf(command, sizeof(command), "cd %s && exec 2>/dev/null && ", folder);
	vsnprintf(command + length, sizeof(command) - (size_t)length, format, list);
	va_end(list);
	if (system(command) != 0) /* NOLINT(cert-env33-c): a test */
		fail_msg("%s", command);
}

static void authority_make(void)
{
	shell("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key "
	      "-out ca.pem -days 9 -subj /CN=authority");
}

static void certificate_make(const char *name, const char *names, bool rsa)
{
	shell("openssl genpkey %s -out %s.key && chmod 600 %s.key",
	      rsa ? "-algorithm RSA" : "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", name,
	      name);
	shell("openssl req -new -key %s.key -subj /CN=%s -out %s.req", name, name, name);
	shell("echo subjectAltName=%s >%s.ext && openssl x509 -req -in %s.req -CA ca.pem -CAkey "
	      "ca.key -CAcreateserial -days 9 -extfile %s.ext -out %s.pem",
	      names, name, name, name, name);
}

/* Another time for a certificate, in seconds from now; its signature is its own. */
static void certificate_move(const char *name, int from_s, int until_s)
{
	char chain[64], key_path[64];
	X509 *certificate;
	EVP_PKEY *key;
	FILE *file;

	snprintf(chain, sizeof(chain), "%s/%s.pem", folder, name);
	snprintf(key_path, sizeof(key_path), "%s/%s.key", folder, name);
	file = fopen(key_path, "r");
	assert_non_null(file);
	key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
	fclose(file);
	file = fopen(chain, "r+");
	assert_non_null(file);
	certificate = PEM_read_X509(file, NULL, NULL, NULL);
	rewind(file);
	assert_true(key && certificate);
	X509_gmtime_adj(X509_getm_notBefore(certificate), from_s);
	X509_gmtime_adj(X509_getm_notAfter(certificate), until_s);
	assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
	assert_int_equal(ftruncate(fileno(file), 0), 0);
	assert_int_equal(PEM_write_X509(file, certificate), 1);
	fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static struct config *config_make(const char *name, const char *text)
{
	char path[64], error[1024], command[2048];
	struct config *loaded;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	snprintf(command, sizeof(command), "tls { ca_file = \"%s/ca.pem\" }\n%s", folder, text);
	fputs(command, file);
	fclose(file);
	loaded = config_load(path, error, sizeof(error));
	if (!loaded)
		fail_msg("%s", error);
	return loaded;
}

static int set_up(void **state)
{
	char text[1024], error[1024];

	(void)state;
	assert_non_null(mkdtemp(folder));
	authority_make();
	certificate_make("one", "DNS:one.test,DNS:*.wild.test", false);
	certificate_make("two", "DNS:two.test", true);
	certificate_make("three", "DNS:three.test,IP:192.0.2.3", false);
	snprintf(text, sizeof(text),
		 "certificate { chain = \"%s/one.pem\" key = \"%s/one.key\" }\n"
		 "certificate { chain = \"%s/two.pem\" key = \"%s/two.key\" }\n"
		 "delivery { tls = \"verify\" }\n",
		 folder, folder, folder, folder);
	config = config_make("two.conf", text);
	contexts = tls_contexts_create(config, error, sizeof(error));
	if (!contexts)
		fail_msg("%s", error);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	tls_contexts_destroy(contexts);
	config_destroy(config);
	shell("rm -rf %s", folder);
	return 0;
}

/* ── two ends ─────────────────────────────────────────────────────────────────────── */

static char gather[TLS_RECORD_BYTES];

/* What OpenSSL has from malloc(): each piece has its length in front. */
enum { PIECE_HEAD = 16, IDLE_BYTES_MAX = 20 << 10 };
static size_t library_bytes;
static bool library_starves; /* it gets nothing */

static void *counted_malloc(size_t bytes, const char *file, int line)
{
	size_t *piece = library_starves ? NULL : malloc(PIECE_HEAD + bytes);

	(void)file;
	(void)line;
	if (!piece)
		return NULL;
	*piece = bytes;
	library_bytes += bytes;
	return (char *)piece + PIECE_HEAD;
}

static void counted_free(void *at, const char *file, int line)
{
	size_t *piece = at ? (size_t *)(void *)((char *)at - PIECE_HEAD) : NULL;

	(void)file;
	(void)line;
	library_bytes -= piece ? *piece : 0;
	free(piece);
}

static void *counted_realloc(void *at, size_t bytes, const char *file, int line)
{
	void *grown = counted_malloc(bytes, file, line);

	if (grown && at) {
		size_t old = *(size_t *)(void *)((char *)at - PIECE_HEAD);

		memcpy(grown, at, old < bytes ? old : bytes);
		counted_free(at, file, line);
	}
	return grown;
}

struct ends {
	struct tls *server, *client;
	bool server_done, client_done;
	const char *failure; /* of either */
};

static struct ends begin(enum tls_level level, const char *name, const struct tls_session *resume)
{
	struct tls_policy policy = { .level = level, .name = name };
	struct ends ends = {
		.server = tls_accept(contexts),
		.client = tls_connect(contexts, &policy, resume, os_wall_now()),
	};

	assert_non_null(ends.server);
	assert_non_null(ends.client);
	return ends;
}

static void end(struct ends *ends)
{
	tls_destroy(ends->server);
	tls_destroy(ends->client);
}

static void step(struct ends *ends, struct tls *tls, bool *done)
{
	enum tls_status status = tls_handshake(tls);

	*done = status == TLS_OK;
	if (status == TLS_FAILED && !ends->failure)
		ends->failure = tls_why(tls);
}

/* From one end to the other, in pieces; those behind the handshake are decrypted to nothing. */
static bool carry(struct ends *ends, struct tls *from, struct tls *to, bool *done, size_t piece)
{
	size_t len, count;
	char *bytes = tls_output_take(from, &len), plain[TLS_RECORD_BYTES + 4096];

	if (!bytes)
		return false;
	for (size_t at = 0; at < len && !ends->failure; at += piece) {
		tls_feed(to, span_of(bytes + at, piece < len - at ? piece : len - at));
		if (!*done)
			step(ends, to, done);
		if (*done && !ends->failure) {
			assert_int_equal(tls_decrypt(to, plain, sizeof(plain), &count), TLS_OK);
			assert_int_equal(count, 0);
		}
	}
	free(bytes);
	return true;
}

static void shake(struct ends *ends, size_t piece)
{
	step(ends, ends->client, &ends->client_done);
	for (bool there = true, back = true; there || back;) {
		there = carry(ends, ends->client, ends->server, &ends->server_done, piece);
		back = carry(ends, ends->server, ends->client, &ends->client_done, piece);
		if (ends->failure)
			return;
	}
	assert_true(ends->client_done && ends->server_done);
}

/* ── the handshake ────────────────────────────────────────────────────────────────── */

static const struct shake_case {
	const char *name, *host;
	enum tls_level level;
	bool verified;
	const char *failure; /* part of it */
} shakes[] = {
	{ "verify: the host's name", "one.test", TLS_VERIFY, true },
	{ "verify: another certificate by its name", "two.test", TLS_VERIFY, true },
	{ "verify: a wildcard", "mail.wild.test", TLS_VERIFY, true },
	{ "verify: a wildcard is one label", "a.b.wild.test", TLS_VERIFY, false,
	  "hostname mismatch" },
	{ "verify: nobody's name", "none.test", TLS_VERIFY, false, "hostname mismatch" },
	{ "verify: an address", "192.0.2.1", TLS_VERIFY, false, "IP address mismatch" },
	{ "encrypt: nobody's name", "none.test", TLS_ENCRYPT, false },
	{ "may: nobody's name", "none.test", TLS_MAY, false },
	{ "may: the host's name is found out", "one.test", TLS_MAY, true },
};

static void shake_run(void **state)
{
	static const size_t pieces[] = { 1, 7, 100000 };
	const struct shake_case *row = *state;

	for (size_t i = 0; i < array_count(pieces); i++) {
		struct ends ends = begin(row->level, row->host, NULL);

		shake(&ends, pieces[i]);
		assert_int_equal(ends.failure != NULL, row->failure != NULL);
		if (row->failure)
			assert_non_null(strstr(ends.failure, row->failure));
		else
			assert_int_equal(tls_facts(ends.client)->verified, row->verified);
		if (!row->failure)
			assert_string_equal(tls_facts(ends.server)->text,
					    "TLSv1.3 TLS_AES_128_GCM_SHA256");
		end(&ends);
	}
}

static void garbage_is_no_handshake(void **state)
{
	struct ends ends = begin(TLS_MAY, "one.test", NULL);

	(void)state;
	tls_feed(ends.server, span_text("EHLO a\r\nMAIL FROM:<>\r\n"));
	assert_int_equal(tls_handshake(ends.server), TLS_FAILED);
	assert_true(strlen(tls_why(ends.server)) > 5);
	end(&ends);
}

static void a_time_beyond_the_certificate(void **state)
{
	struct tls_policy policy = { .level = TLS_VERIFY, .name = "one.test" };
	struct os_wall then = { os_wall_now().us + 20 * INT64_C(86400) * OS_US_PER_S };
	struct ends ends = begin(TLS_VERIFY, "one.test", NULL);

	(void)state;
	tls_destroy(ends.client);
	ends.client = tls_connect(contexts, &policy, NULL, then);
	shake(&ends, 1000);
	assert_non_null(strstr(ends.failure, "expired"));
	end(&ends);
}

/* ── data ─────────────────────────────────────────────────────────────────────────── */

/* Encrypts `vectors` in batches and takes them apart again at the other end. */
static void send_over(struct ends *ends, const struct iovec *vectors, int count, size_t batch,
		      size_t piece, char *out, size_t room)
{
	size_t total = 0, skip = 0, got = 0, len, now;
	static char plain[200000];

	for (int i = 0; i < count; i++)
		total += vectors[i].iov_len;
	while (skip < total) {
		size_t took = tls_encrypt(ends->client, vectors, count, skip, batch, gather);
		char *bytes = tls_output_take(ends->client, &len);

		assert_true(took > 0 && took <= batch);
		skip += took;
		for (size_t at = 0; at < len; at += piece) {
			tls_feed(ends->server,
				 span_of(bytes + at, piece < len - at ? piece : len - at));
			assert_int_equal(tls_decrypt(ends->server, plain, sizeof(plain), &now),
					 TLS_OK);
			assert_true(got + now <= room);
			memcpy(out + got, plain, now);
			got += now;
		}
		free(bytes);
	}
	assert_int_equal(got, total);
}

static void pieces_arrive_in_order(void **state)
{
	static const size_t batches[] = { 65536, 16384, 5000 }, pieces[] = { 65536, 1000, 13 };
	static char big[50000], out[60000], wanted[60000];
	struct iovec vectors[] = {
		{ (char *)"MAIL", 4 }, { big, sizeof(big) }, { (char *)"", 0 },
		{ (char *)".", 1 },    { big + 3, 5000 },
	};
	size_t at = 0;
	struct ends ends = begin(TLS_MAY, "one.test", NULL);

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 + i / 251);
	for (size_t i = 0; i < array_count(vectors); i++) {
		memcpy(wanted + at, vectors[i].iov_base, vectors[i].iov_len);
		at += vectors[i].iov_len;
	}
	shake(&ends, 100000);
	for (size_t b = 0; b < array_count(batches); b++) {
		memset(out, 0, sizeof(out));
		send_over(&ends, vectors, array_count(vectors), batches[b], pieces[b], out,
			  sizeof(out));
		assert_memory_equal(out, wanted, at);
	}
	end(&ends);
}

static void small_pieces_share_a_record(void **state)
{
	struct iovec vectors[64];
	struct ends ends = begin(TLS_MAY, "one.test", NULL);
	size_t len;
	char *bytes;

	(void)state;
	for (size_t i = 0; i < array_count(vectors); i++)
		vectors[i] = (struct iovec){ (char *)"250 2.1.5 Ok\r\n", 14 };
	shake(&ends, 100000);
	assert_int_equal(
		tls_encrypt(ends.client, vectors, array_count(vectors), 0, SIZE_MAX, gather),
		14 * array_count(vectors));
	bytes = tls_output_take(ends.client, &len);
	assert_in_range(len, 14 * array_count(vectors) + 22, 14 * array_count(vectors) + 40);
	free(bytes);
	assert_null(tls_output_take(ends.client, &len));
	end(&ends);
}

static void the_end_is_heard(void **state)
{
	struct ends ends = begin(TLS_MAY, "one.test", NULL);
	struct iovec last = { (char *)"bye", 3 };
	char plain[TLS_RECORD_BYTES + 4096], *bytes;
	size_t len, count;

	(void)state;
	shake(&ends, 100000);
	tls_encrypt(ends.client, &last, 1, 0, 3, gather);
	tls_say_end(ends.client);
	bytes = tls_output_take(ends.client, &len);
	tls_feed(ends.server, span_of(bytes, len));
	assert_int_equal(tls_decrypt(ends.server, plain, sizeof(plain), &count), TLS_CLOSED);
	assert_int_equal(count, 3);
	free(bytes);
	end(&ends);
}

static void what_others_failed_at_is_not_ours(void **state)
{
	struct ends ends = begin(TLS_MAY, "one.test", NULL);
	struct iovec word = { (char *)"hello", 5 };
	char plain[TLS_RECORD_BYTES + 4096], *bytes;
	size_t len, count;

	(void)state;
	shake(&ends, 100000);
	tls_encrypt(ends.client, &word, 1, 0, 5, gather);
	bytes = tls_output_take(ends.client, &len);
	ERR_raise(ERR_LIB_USER, 1);
	tls_feed(ends.server, span_of(bytes, len - 1));
	assert_int_equal(tls_decrypt(ends.server, plain, sizeof(plain), &count), TLS_OK);
	assert_int_equal(count, 0);
	ERR_raise(ERR_LIB_USER, 1);
	tls_feed(ends.server, span_of(bytes + len - 1, 1));
	assert_int_equal(tls_decrypt(ends.server, plain, sizeof(plain), &count), TLS_OK);
	assert_int_equal(count, 5);
	ERR_clear_error();
	free(bytes);
	end(&ends);
}

/* Ten thousand of them are to cost little. A buffer of OpenSSL's has more than 16 KiB. */
static void an_idle_connection_holds_no_buffers(void **state)
{
	static char plain[TLS_RECORD_BYTES + 20000], big[TLS_RECORD_BYTES];
	struct iovec vector = { big, sizeof(big) };
	size_t before = library_bytes, len, count;
	struct ends ends = begin(TLS_MAY, "one.test", NULL);

	(void)state;
	shake(&ends, 100000);
	for (int i = 0; i < 4; i++) {
		struct tls *from = i % 2 ? ends.client : ends.server;
		struct tls *to = i % 2 ? ends.server : ends.client;
		char *bytes;

		tls_encrypt(from, &vector, 1, 0, SIZE_MAX, gather);
		bytes = tls_output_take(from, &len);
		tls_feed(to, span_of(bytes, len));
		assert_int_equal(tls_decrypt(to, plain, sizeof(plain), &count), TLS_OK);
		assert_int_equal(count, sizeof(big));
		free(bytes);
	}
	assert_in_range(library_bytes - before, 1, 2 * IDLE_BYTES_MAX);
	end(&ends);
}

static void without_memory_for_a_record_the_connection_ends(void **state)
{
	static char text[] = "250 2.0.0 OK\r\n";
	struct iovec vector = { text, strlen(text) };
	struct ends ends = begin(TLS_MAY, "one.test", NULL);
	char plain[TLS_RECORD_BYTES];
	size_t len, count;

	(void)state;
	shake(&ends, 1000);
	library_starves = true;
	assert_int_equal(tls_encrypt(ends.server, &vector, 1, 0, SIZE_MAX, gather), 0);
	library_starves = false;
	assert_true(strlen(tls_why(ends.server)) > 5);
	assert_int_equal(tls_encrypt(ends.server, &vector, 1, 0, SIZE_MAX, gather), 0);
	assert_null(tls_output_take(ends.server, &len));
	assert_int_equal(tls_decrypt(ends.server, plain, sizeof(plain), &count), TLS_FAILED);
	tls_say_end(ends.server);
	assert_null(tls_output_take(ends.server, &len));
	end(&ends);
}

static void a_changed_record_is_refused(void **state)
{
	struct ends ends = begin(TLS_MAY, "one.test", NULL);
	struct iovec last = { (char *)"hello", 5 };
	char plain[TLS_RECORD_BYTES + 4096], *bytes;
	size_t len, count;

	(void)state;
	shake(&ends, 100000);
	tls_encrypt(ends.client, &last, 1, 0, 5, gather);
	bytes = tls_output_take(ends.client, &len);
	bytes[len - 1] ^= 1;
	tls_feed(ends.server, span_of(bytes, len));
	assert_int_equal(tls_decrypt(ends.server, plain, sizeof(plain), &count), TLS_FAILED);
	assert_int_equal(count, 0);
	free(bytes);
	end(&ends);
}

/* ── resumption ───────────────────────────────────────────────────────────────────── */

static void a_session_is_resumed_with_its_proof(void **state)
{
	struct ends first = begin(TLS_VERIFY, "one.test", NULL);
	struct tls_session *session;

	(void)state;
	shake(&first, 100000);
	assert_false(tls_facts(first.client)->resumed);
	session = tls_session_take(first.client);
	assert_non_null(session);
	assert_null(tls_session_take(first.client));
	assert_in_range(tls_session_lifetime_s(session), 60, 7 * 86400);
	end(&first); /* broken off: its session stays good */
	for (int i = 0; i < 2; i++) {
		struct ends next = begin(TLS_VERIFY, "one.test", session);

		shake(&next, 100000);
		assert_true(tls_facts(next.client)->resumed && tls_facts(next.server)->resumed);
		assert_true(tls_facts(next.client)->verified);
		end(&next);
	}
	tls_session_destroy(session);
}

static void peers_keep_what_belongs_together(void **state)
{
	struct tls_peers *peers = tls_peers_create();
	struct tls_policy may = { .level = TLS_MAY, .name = "one.test" }, verify = may, other = may;
	struct os_mono now = { OS_NS_PER_S }, late = { UINT64_C(1000000) * OS_NS_PER_S };
	struct os_address here, there, port;
	struct ends ends = begin(TLS_MAY, "one.test", NULL);
	struct tls_session *session;

	(void)state;
	verify.level = TLS_VERIFY;
	other.name = "two.test";
	os_address_parse("192.0.2.1", 25, &here);
	os_address_parse("192.0.2.2", 25, &there);
	os_address_parse("192.0.2.1", 26, &port);
	shake(&ends, 100000);
	session = tls_session_take(ends.client);
	assert_null(tls_peers_session(peers, &here, &may, now));
	tls_peers_keep(peers, &here, &may, session, now);
	assert_ptr_equal(tls_peers_session(peers, &here, &may, now), session);
	assert_null(tls_peers_session(peers, &here, &verify, now));
	assert_null(tls_peers_session(peers, &here, &other, now));
	assert_null(tls_peers_session(peers, &there, &may, now));
	assert_null(tls_peers_session(peers, &port, &may, now));
	assert_false(tls_peers_has_failed(peers, &here, now));
	assert_null(tls_peers_session(peers, &here, &may, late));
	tls_peers_destroy(peers);
	end(&ends);
}

static void peers_forget_failures_in_time_and_number(void **state)
{
	struct tls_peers *peers = tls_peers_create();
	struct os_mono now = { OS_NS_PER_S }, later = { 3 * OS_NS_PER_S };
	struct os_address address;

	(void)state;
	os_address_parse("2001:db8::1", 25, &address);
	assert_true(tls_peers_failed(peers, &address, now, 1500));
	assert_true(tls_peers_has_failed(peers, &address, now));
	assert_false(tls_peers_has_failed(peers, &address, later));
	assert_true(tls_peers_failed(peers, &address, now, 60000));
	for (int i = 0; i < 3000; i++) {
		struct os_address one = address;

		one.ip[0] = (uint8_t)i;
		one.ip[1] = (uint8_t)(i >> 8);
		assert_true(tls_peers_failed(peers, &one, now, 60000));
		assert_true(tls_peers_has_failed(peers, &one, now));
	}
	assert_false(tls_peers_has_failed(peers, &address, now));
	tls_peers_destroy(peers);
}

/* ── what is configured ───────────────────────────────────────────────────────────── */

static void put(const struct config *from)
{
	char error[1024];
	struct tls_set *set = tls_set_read(from, error, sizeof(error));

	if (!set)
		fail_msg("%s", error);
	tls_contexts_put(contexts, set);
}

static void a_reload_is_for_later_connections(void **state)
{
	char text[512], error[1024];
	struct ends before = begin(TLS_VERIFY, "one.test", NULL), after;
	struct config *third, *bad;

	(void)state;
	snprintf(text, sizeof(text),
		 "certificate { chain = \"%s/three.pem\" key = \"%s/three.key\" }\n"
		 "delivery { tls = \"verify\" }\n",
		 folder, folder);
	third = config_make("three.conf", text);
	snprintf(text, sizeof(text),
		 "certificate { chain = \"%s/three.pem\" key = \"%s/one.key\" }\n", folder, folder);
	bad = config_make("bad.conf", text);
	put(third);
	assert_null(tls_set_read(bad, error, sizeof(error)));
	assert_non_null(strstr(error, "is not the key of the certificate"));
	shake(&before, 1000);
	assert_null(before.failure);
	after = begin(TLS_VERIFY, "192.0.2.3", NULL);
	shake(&after, 1000);
	assert_null(after.failure);
	assert_true(tls_facts(after.client)->verified);
	end(&before);
	end(&after);
	put(config);
	config_destroy(third);
	config_destroy(bad);
}

/* What tls_set_out_of_date() says of two.conf with times of its second certificate. */
static void check_date(int from_s, int until_s, bool told, bool told_expired)
{
	char error[1024];
	struct tls_set *set;
	const char *chain;
	bool expired;

	certificate_move("two", from_s, until_s);
	set = tls_set_read(config, error, sizeof(error));
	if (!set)
		fail_msg("%s", error);
	certificate_move("two", -60, 3600); /* the set is as it was read */
	chain = tls_set_out_of_date(set, config, &expired);
	assert_ptr_equal(chain, told ? config->certificates[1].chain : NULL);
	assert_true(!told || expired == told_expired);
	tls_set_unref(set);
}

static void a_certificate_out_of_its_time_is_told(void **state)
{
	(void)state;
	check_date(-60, 3600, false, false);
	check_date(-60, -30, true, true);
	check_date(30, 3600, true, false);
}

static void without_a_certificate_nothing_is_served(void **state)
{
	char error[256];
	struct config *none = config_load(NULL, error, sizeof(error));
	struct tls_contexts *bare = tls_contexts_create(none, error, sizeof(error));

	(void)state;
	assert_non_null(bare);
	assert_false(tls_contexts_serve(bare));
	assert_null(tls_accept(bare));
	assert_true(tls_contexts_serve(contexts));
	tls_contexts_destroy(bare);
	config_destroy(none);
}

/* ── who decides ──────────────────────────────────────────────────────────────────── */

static const struct policy_case {
	const char *name;
	enum tls_level tls;
	bool implicit, failed;
	uint16_t port;
	const char *tls_name;
	enum tls_level level;
	bool first_byte;
	const char *asked;
} policies[] = {
	{ "may", TLS_MAY, false, false, 25, "", TLS_MAY, false, "host.test" },
	{ "may, after a failure", TLS_MAY, false, true, 25, "", TLS_NONE, false, "host.test" },
	{ "encrypt, after a failure", TLS_ENCRYPT, false, true, 25, "", TLS_ENCRYPT, false,
	  "host.test" },
	{ "verify, after a failure", TLS_VERIFY, false, true, 25, "", TLS_VERIFY, false,
	  "host.test" },
	{ "none", TLS_NONE, false, false, 25, "", TLS_NONE, false, "host.test" },
	{ "none holds on port 465", TLS_NONE, true, false, 465, "", TLS_NONE, false, "host.test" },
	{ "port 465 is TLS from the first byte on", TLS_MAY, false, true, 465, "", TLS_ENCRYPT,
	  true, "host.test" },
	{ "so is what is said to be", TLS_VERIFY, true, false, 2465, "", TLS_VERIFY, true,
	  "host.test" },
	{ "a name of its own", TLS_VERIFY, false, false, 25, "own.test", TLS_VERIFY, false,
	  "own.test" },
};

static void policy_run(void **state)
{
	const struct policy_case *row = *state;
	struct config_delivery how = { .tls = row->tls, .tls_implicit = row->implicit };
	struct tls_policy policy;

	strcpy(how.tls_name, row->tls_name);
	policy = tls_policy_decide(&how, "host.test", row->port, row->failed);
	assert_int_equal(policy.level, row->level);
	assert_int_equal(policy.implicit, row->first_byte);
	assert_string_equal(policy.name, row->asked);
}

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(garbage_is_no_handshake),
		cmocka_unit_test(a_time_beyond_the_certificate),
		cmocka_unit_test(pieces_arrive_in_order),
		cmocka_unit_test(small_pieces_share_a_record),
		cmocka_unit_test(the_end_is_heard),
		cmocka_unit_test(what_others_failed_at_is_not_ours),
		cmocka_unit_test(an_idle_connection_holds_no_buffers),
		cmocka_unit_test(without_memory_for_a_record_the_connection_ends),
		cmocka_unit_test(a_changed_record_is_refused),
		cmocka_unit_test(a_session_is_resumed_with_its_proof),
		cmocka_unit_test(peers_keep_what_belongs_together),
		cmocka_unit_test(peers_forget_failures_in_time_and_number),
		cmocka_unit_test(a_reload_is_for_later_connections),
		cmocka_unit_test(a_certificate_out_of_its_time_is_told),
		cmocka_unit_test(without_a_certificate_nothing_is_served),
	};
	struct CMUnitTest tests[array_count(shakes) + array_count(policies) + array_count(others)];
	size_t n = 0;
	int counted = CRYPTO_set_mem_functions(counted_malloc, counted_realloc, counted_free);

	assert(counted == 1);
	for (size_t i = 0; i < array_count(shakes); i++)
		tests[n++] = (struct CMUnitTest){ shakes[i].name, shake_run, NULL, NULL,
						  (void *)&shakes[i] };
	for (size_t i = 0; i < array_count(policies); i++)
		tests[n++] = (struct CMUnitTest){ policies[i].name, policy_run, NULL, NULL,
						  (void *)&policies[i] };
	for (size_t i = 0; i < array_count(others); i++)
		tests[n++] = others[i];
	return cmocka_run_group_tests_name("engine/tls", tests, set_up, tear_down);
}
