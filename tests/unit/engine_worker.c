/*
 * A worker without memory. At its start each allocation until it listens is refused in its turn: it
 * starts all the same, or says what is missing; so does the drop directory, without which it may.
 * Another configuration it takes up with no memory at all.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/delivery/site_limits.h"
#include "engine/dkim/keys.h"
#include "engine/tls/tls.h"
#include "engine/worker.h"
#include "tests/unit/memory_refuse.h"

enum {
	ALLOCATIONS_MAX = 1000,
	SITES = 64,
	PATIENCE_S = 60,
	/* how a start ended */
	READY = 0,
	READY_WITHOUT,
	SAID,
	SILENT,
	NOT_BEGUN,
};

static char folder[] = "/tmp/engine_worker.XXXXXX";

static void file_path(char path[static 64], const char *name)
{
	snprintf(path, 64, "%s/%s", folder, name);
}

static int set_up(void **state)
{
	char path[64];
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	file_path(path, "conf");
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file,
		"spool = \"%1$s\"\n"
		"hostname = \"a.test\"\n"
		"delivery_log = \"%1$s/log\"\n"
		"listen = { \"%1$s/socket\" }\n"
		"dns { servers = { \"127.0.0.1:5\" } }\n",
		folder);
	fclose(file);
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command); /* NOLINT(cert-env33-c): a test */
}

/* ── a process with one worker ────────────────────────────────────────────────────── */

/* All that main() has made before the first worker. */
static bool engine_make(struct engine *engine)
{
	struct queue_options options = {
		.path = folder, .streams = 1, .segment_bytes = 1 << 20, .journal_bytes = 1 << 20
	};
	char path[64], error[2048];

	file_path(path, "conf");
	engine->config = config_load(path, error, sizeof(error));
	if (!engine->config || os_backend_use("epoll", error, sizeof(error)) < 0)
		return false;
	engine->tls = tls_contexts_create(engine->config, error, sizeof(error));
	engine->dkim = dkim_store_create(engine->config, error, sizeof(error));
	engine->queue = queue_open(&options, NULL, NULL, error);
	engine->worker_count = 1;
	engine->workers = calloc(1, sizeof(engine->workers[0]));
	engine->mailboxes = mailboxes_create(1);
	engine->site_limits = site_limits_create(SITES);
	engine->sessions_max = 100;
	return engine->tls && engine->dkim && engine->queue && engine->workers &&
	       engine->mailboxes && engine->site_limits &&
	       log_open(engine->config->delivery_log, 1, &engine->log) == 0 &&
	       os_dns_start(&engine->config->dns) == 0;
}

static int await_ready(struct engine *engine)
{
	const struct timespec moment = { 0, 1000000 };
	int result;

	while ((result = worker_ready(engine->workers[0])) == 0)
		nanosleep(&moment, NULL);
	return result;
}

static bool was_said(const char *word)
{
	char text[4096];
	ssize_t bytes = pread(2, text, sizeof(text) - 1, 0);

	text[bytes > 0 ? bytes : 0] = '\0';
	return strstr(text, word) != NULL;
}

/* In a process of its own, which just ends: see worker_run(). */
static int start_without(uint32_t after)
{
	static struct engine engine;
	int result;
	bool refused;

	if (!engine_make(&engine))
		return NOT_BEGUN;
	memory_refuse(after, false);
	result = worker_start(&engine, 0);
	if (result == 0)
		result = await_ready(&engine);
	refused = memory_refuse_end();
	if (result < 0)
		return refused && was_said("memory") ? SAID : SILENT;
	if (!engine.workers[0]->drop)
		return was_said("out of memory; it is not looked into") ? SAID : SILENT;
	return refused ? READY_WITHOUT : READY;
}

/* As a reload does it, with the same sockets. */
static int reconfigure_without(uint32_t after)
{
	static struct engine engine;
	const struct timespec moment = { 0, 1000000 };
	struct worker_news *news = calloc(1, sizeof(*news) + sizeof(news->doors[0]));
	struct config *config;
	char path[64], error[2048];

	file_path(path, "conf");
	if (!engine_make(&engine) || worker_start(&engine, 0) < 0 || await_ready(&engine) != 1)
		return NOT_BEGUN;
	config = config_load(path, error, sizeof(error));
	if (!news || !config)
		return NOT_BEGUN;
	config->generation = engine.config->generation + 1;
	news->config = config_ref(config);
	memory_refuse(after, true);
	worker_tell(engine.workers[0], news);
	while (!worker_heard(engine.workers[0], config))
		nanosleep(&moment, NULL);
	return READY;
}

static int outcome_of(int (*run)(uint32_t after), uint32_t after)
{
	char path[64];
	int status;
	pid_t child;

	file_path(path, "errors");
	unlink(path);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int errors = open(path, O_RDWR | O_CREAT | O_APPEND, 0600);

		alarm(PATIENCE_S);
		dup2(errors, 2);
		_exit(run(after));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : SILENT;
}

static void a_start_without_memory_is_not_silent(void **state)
{
	uint32_t said = 0;
	int outcome = SAID;

	(void)state;
	for (uint32_t after = 0; outcome != READY; after++) {
		assert_true(after < ALLOCATIONS_MAX);
		outcome = outcome_of(start_without, after);
		if (outcome == SILENT || outcome == NOT_BEGUN)
			fail_msg("%s, allocation %u refused",
				 outcome == SILENT ? "not a word" : "not even begun", after);
		said += outcome == SAID;
	}
	assert_true(said > 5);
}

static void another_configuration_needs_no_memory(void **state)
{
	(void)state;
	assert_int_equal(outcome_of(reconfigure_without, 0), READY);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_start_without_memory_is_not_silent),
		cmocka_unit_test(another_configuration_needs_no_memory),
	};

	return cmocka_run_group_tests_name("engine_worker", tests, set_up, tear_down);
}
