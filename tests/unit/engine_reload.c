/*
 * A reload for which memory is missing: each allocation of it is refused in its turn, alone or with
 * all that follow. It is taken whole or not at all, and if not, that is said.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/crypto.h>

#include "engine/dkim/keys.h"
#include "engine/inbound/listener.h"
#include "engine/reload.h"
#include "engine/tls/private.h"
#include "os/check.h"
#include "tests/sim/rfc8463.h"
#include "tests/unit/memory_refuse.h"

enum { WORKERS = 2 };

static char folder[] = "/tmp/engine_reload.XXXXXX";
static struct engine engine;
static struct worker workers[WORKERS];
static struct reload reload;

/* ── OpenSSL's memory ─────────────────────────────────────────────────────────────── */

static bool for_openssl; /* its allocations are refused, too */

static void *crypto_malloc(size_t bytes, const char *file, int line)
{
	(void)file;
	(void)line;
	return for_openssl && memory_fails() ? NULL : __real_malloc(bytes);
}

static void *crypto_realloc(void *at, size_t bytes, const char *file, int line)
{
	(void)file;
	(void)line;
	return for_openssl && memory_fails() ? NULL : __real_realloc(at, bytes);
}

static void crypto_free(void *at, const char *file, int line)
{
	(void)file;
	(void)line;
	free(at);
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

static const char *path_of(const char *name)
{
	static char paths[4][128];
	static int turn;

	turn = (turn + 1) % 4;
	snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", folder, name);
	return paths[turn];
}

static void file_make(const char *name, const char *text)
{
	FILE *file = fopen(path_of(name), "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(chmod(path_of(name), 0600), 0);
}

static void certificate_make(void)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "cd %s && exec 2>&1 >openssl.out && openssl req -x509 -newkey ec -pkeyopt "
		 "ec_paramgen_curve:P-256 -nodes -keyout key -out one -days 9 -subj /CN=a.test "
		 "-addext subjectAltName=DNS:a.test && cat one one >chain && chmod 600 key",
		 folder);
	if (system(command) != 0) /* NOLINT(cert-env33-c): a test */
		fail_msg("%s", command);
}

/* Another host name, log and address each time. */
static void config_write(uint32_t turn)
{
	char text[2048];

	snprintf(text, sizeof(text),
		 "spool = \"%1$s\"\n"
		 "hostname = \"%2$s.test\"\n"
		 "delivery_log = \"%1$s/%2$s.log\"\n"
		 "listen = { \"%1$s/%2$s.socket\" }\n"
		 "tls { ca_file = \"%1$s/chain\" }\n"
		 "certificate { chain = \"%1$s/chain\" key = \"%1$s/key\" }\n"
		 "delivery { tls = \"verify\" }\n"
		 "dns { servers = { \"127.0.0.1:5\" } }\n"
		 "dkim { domain \"a.test\" { key \"s\" { file = \"%1$s/dkim\" } } }\n"
		 "route \"b.test\" { hosts = { \"127.0.0.1:9\" } }\n",
		 folder, turn % 2 == 0 ? "even" : "odd");
	file_make("conf", text);
}

/* ── an engine without threads ────────────────────────────────────────────────────── */

static int set_up(void **state)
{
	static struct worker *list[WORKERS];
	char error[2048];

	(void)state;
	assert_non_null(mkdtemp(folder));
	file_make("dkim", rfc8463_edwards);
	certificate_make();
	config_write(0);
	assert_int_equal(os_backend_use("epoll", error, sizeof(error)), 0);
	engine.config = config_load(path_of("conf"), error, sizeof(error));
	if (!engine.config)
		fail_msg("%s", error);
	engine.tls = tls_contexts_create(engine.config, error, sizeof(error));
	engine.dkim = dkim_store_create(engine.config, error, sizeof(error));
	assert_true(engine.tls && engine.dkim);
	assert_int_equal(log_open(engine.config->delivery_log, 1, &engine.log), 0);
	assert_int_equal(os_dns_start(&engine.config->dns), 0);
	for (uint32_t w = 0; w < WORKERS; w++) {
		list[w] = &workers[w];
		assert_int_equal(os_loop_create(NULL, &workers[w].loop), 0);
	}
	engine.workers = list;
	engine.worker_count = WORKERS;
	reload_init(&reload, &engine);
	config_write(1);
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	reload_deinit(&reload);
	os_dns_stop();
	log_close(engine.log);
	for (uint32_t w = 0; w < WORKERS; w++)
		os_loop_destroy(workers[w].loop);
	dkim_store_destroy(engine.dkim);
	tls_contexts_destroy(engine.tls);
	config_unref(engine.config);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command); /* NOLINT(cert-env33-c): a test */
}

/* What is in force. */
struct force {
	const struct config *config;
	struct tls_set *certificates;
	struct dkim_set *keys;
};

static struct force force_now(void)
{
	struct force force = { engine.config, tls_set_get(engine.tls),
			       dkim_keys_take(engine.dkim) };

	tls_set_unref(force.certificates); /* only their addresses are looked at */
	dkim_keys_release(force.keys);
	return force;
}

static void check_refused(const struct force *before)
{
	struct force now = force_now();

	assert_ptr_equal(now.config, before->config);
	assert_ptr_equal(now.certificates, before->certificates);
	assert_ptr_equal(now.keys, before->keys);
	assert_false(reload.status.good || reload.telling);
	for (uint32_t w = 0; w < WORKERS; w++)
		assert_null(atomic_load(&workers[w].news));
	assert_true(reload.status.text[0] != '\0');
}

/* The workers hear it. */
static void check_taken(const struct force *before)
{
	struct tls_set *certificates = tls_set_get(engine.tls);
	struct dkim_set *keys = dkim_keys_take(engine.dkim);
	STACK_OF(X509) * chain;

	assert_ptr_not_equal(engine.config, before->config);
	assert_ptr_not_equal(certificates, before->certificates);
	assert_ptr_not_equal(keys, before->keys);
	assert_int_equal(certificates->server_count, 1);
	SSL_CTX_get0_chain_certs(certificates->servers[0], &chain);
	assert_int_equal(sk_X509_num(chain), 1);
	assert_int_equal(sk_X509_OBJECT_num(X509_STORE_get0_objects(
				 SSL_CTX_get_cert_store(certificates->client))),
			 1);
	assert_non_null(dkim_keys_find(keys, "a.test"));
	for (uint32_t w = 0; w < WORKERS; w++) {
		struct worker_news *news = atomic_exchange(&workers[w].news, NULL);

		assert_ptr_equal(news->config, engine.config);
		for (uint32_t i = 0; i < engine.config->listener_count; i++)
			assert_int_equal(news->doors[i] != NULL,
					 listener_opens(w, &engine.config->listeners[i]));
		worker_news_destroy(news);
		atomic_store(&workers[w].generation, engine.config->generation);
	}
	assert_false(reload_look(&reload));
	assert_true(reload.status.good);
	config_write((uint32_t)engine.config->generation + 1);
	tls_set_unref(certificates);
	dkim_keys_release(keys);
}

/* True: something was refused. */
static bool reload_without(uint32_t after, bool lasting)
{
	struct force before = force_now();
	bool refused;

	memory_refuse(after, lasting);
	reload_begin(&reload);
	refused = memory_refuse_end();
	if (reload.telling)
		check_taken(&before);
	else
		check_refused(&before);
	assert_true(refused || reload.status.good);
	return refused;
}

/* `step` allocations further each time. */
static void without_each(uint32_t step)
{
	bool refused = true;

	for (uint32_t after = 0; refused; after += step) {
		refused = reload_without(after, false);
		refused |= reload_without(after, true);
	}
}

static void it_is_taken_whole_or_not_at_all(void **state)
{
	(void)state;
	without_each(1);
}

/* OpenSSL asks 15,000 times: too often for each to be refused. */
static void openssl_without_memory_does_not_spoil_it(void **state)
{
	(void)state;
	for_openssl = true;
	without_each(211);
	for_openssl = false;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_taken_whole_or_not_at_all),
		cmocka_unit_test(openssl_without_memory_does_not_spoil_it),
	};

	if (!CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free))
		return 1;
	return cmocka_run_group_tests_name("reload", tests, set_up, tear_down);
}
