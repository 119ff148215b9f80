/*
 * stafetted - the daemon: start-up in order, signals, the end in order.
 *
 *   configuration → user → io backend → sandbox → log → resolver → spool (recovery) →
 *   workers → READY
 *   TERM, INT: drain, then stop; again: stop at once.  HUP: the configuration
 *   and the log anew (reload.h).  USR1: the log.
 *
 * Exit status: sysexits(3); 74 (EX_IOERR) means that a disk failed: don't restart blindly.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "engine/auth/credentials.h"
#include "engine/auth/failures.h"
#include "engine/auth/users.h"
#include "engine/config/config.h"
#include "engine/confine.h"
#include "engine/delivery/site_limits.h"
#include "engine/dkim/keys.h"
#include "engine/inbound/drop_folder.h"
#include "engine/inbound/listener.h"
#include "engine/log/log.h"
#include "engine/reload.h"
#include "engine/time_watch.h"
#include "engine/tls/tls.h"
#include "engine/worker.h"

enum {
	SITES_MAX = 1 << 16, /* whose limits are shared exactly */
	WATCH_MS = 200,	     /* between looks at the workers */
	RELOAD_LOOK_MS = 2,  /* ... while they take another configuration */
	START_LOOK_MS = 5,
	START_PATIENCE_MS = 3000, /* then it is said what a start waits for, or in vain */
	CONFIG_ERROR_BYTES = 8192,
};

/* jemalloc(3) reads it: freed pages go back soon and from a thread of its own, so that a queue
 * that waits holds no memory of the bodies that came in. */
extern const char *malloc_conf;
const char *malloc_conf = "background_thread:true,dirty_decay_ms:3000,muzzy_decay_ms:0";

static const char usage[] =
	"Usage: stafetted [-c FILE]\n"
	"The stafette queue delivery engine: accepts mail by SMTP, keeps it, delivers it.\n"
	"\n"
	"  -c, --config FILE  the configuration (stafette.conf(5)); without it: listens on\n"
	"                     127.0.0.1:2525, loopback may relay, spool in ./spool\n"
	"                     (root: /var/spool/stafette)\n"
	"  -h, --help         this text\n"
	"  -V, --version      the version\n"
	"\n"
	"Signals: TERM drains and stops, a second one stops at once; HUP reads the\n"
	"configuration again, with certificates and keys; HUP and USR1 open the delivery\n"
	"log again.\n";

/* ── options ──────────────────────────────────────────────────────────────────────── */

/* Leaves the process for --help, --version and mistakes. */
static const char *read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const char *path = NULL;

	for (int option; (option = getopt_long(argc, argv, "c:hV", options, NULL)) != -1;) {
		switch (option) {
		case 'c':
			path = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(EX_OK);
		case 'V':
			puts("stafetted " STAFETTE_VERSION);
			exit(EX_OK);
		default:
			fputs("Try 'stafetted --help'.\n", stderr);
			exit(EX_USAGE);
		}
	}
	if (optind < argc) {
		fprintf(stderr,
			"stafetted: unexpected argument '%s': the configuration is named with -c.\n"
			"Try 'stafetted --help'.\n",
			argv[optind]);
		exit(EX_USAGE);
	}
	return path;
}

static struct config *read_config(const char *path)
{
	char error[CONFIG_ERROR_BYTES];
	struct config *config = config_load(path, error, sizeof(error));

	if (config && credentials_read(config, error))
		return config;
	fprintf(stderr, "%s\nstafetted: not started: the configuration has errors.\n", error);
	exit(EX_CONFIG);
}

static bool is_broken(const struct engine *engine)
{
	return atomic_load_explicit(&engine->broken, memory_order_acquire);
}

static struct os_mono soon(uint32_t ms)
{
	return os_mono_add_ms(os_mono_now(), ms);
}

/* ── start ────────────────────────────────────────────────────────────────────────── */

static void on_recovery_line(void *context, bool problem, const char *line)
{
	(void)context;
	log_notice(problem ? LOG_WARNING : LOG_NOTICE, "spool: %s", line);
}

static int open_spool(struct engine *engine)
{
	const struct config *config = engine->config;
	struct queue_options options = {
		.path = config->spool,
		.node = config->node,
		.streams = (uint16_t)engine->worker_count,
		.segment_bytes = config->segment_bytes,
		.journal_bytes = config->journal_bytes,
		.space_low_bytes = config->space_low_bytes,
		.body_memory_bytes = config->memory_bytes / 2 / engine->worker_count,
		.outcome_sync_ms = config->outcome_sync_ms,
		.evacuate_after_s = config->evacuate_after_s,
		.group = config->group,
		.origins = drop_folder_remove_taken,
		.origins_context = (void *)config,
	};
	char error[512] = "";

	engine->queue = queue_open(&options, on_recovery_line, NULL, error);
	if (engine->queue)
		return EX_OK;
	log_notice(LOG_ERROR, "%s", error);
	return EX_CANTCREAT;
}

static int choose_backend(const struct config *config)
{
	char why[512];
	int result = config->io ? os_backend_use(config->io, why, sizeof(why))
				: os_backend_choose(why, sizeof(why));

	log_notice(result < 0 ? LOG_ERROR : LOG_NOTICE, "%s", why);
	return result < 0 ? EX_OSERR : EX_OK;
}

static int read_certificates(struct engine *engine)
{
	char error[CONFIG_ERROR_BYTES];
	struct tls_set *set;
	const char *chain;
	bool expired;

	engine->tls = tls_contexts_create(engine->config, error, sizeof(error));
	if (!engine->tls) {
		fprintf(stderr, "%s\nstafetted: not started: there is something wrong with TLS.\n",
			error);
		return EX_CONFIG;
	}
	set = tls_set_get(engine->tls);
	chain = tls_set_out_of_date(set, engine->config, &expired);
	tls_set_unref(set);
	if (chain)
		log_notice(LOG_WARNING, "the certificate in %s %s: who looks at it will refuse it",
			   chain, expired ? "has expired" : "is not valid yet");
	return EX_OK;
}

/* Nobody can log in with a broken file, but mail goes on. */
static void look_at_users(const struct config *config)
{
	char error[SECRET_FILE_ERROR_BYTES];

	if (config->auth.users && !users_check(config->auth.users, error))
		log_notice(LOG_WARNING, "%s", error);
}

static int read_signing_keys(struct engine *engine)
{
	char error[CONFIG_ERROR_BYTES];

	engine->dkim = dkim_store_create(engine->config, error, sizeof(error));
	if (engine->dkim)
		return EX_OK;
	fprintf(stderr, "%s\nstafetted: not started: there is something wrong with DKIM.\n", error);
	return EX_CONFIG;
}

static int start_services(struct engine *engine)
{
	const struct config *config = engine->config;
	int result = read_certificates(engine);

	if (result == EX_OK)
		result = read_signing_keys(engine);
	if (result != EX_OK)
		return result;
	look_at_users(config);
	result = log_open(config->delivery_log, engine->worker_count, &engine->log);
	if (result < 0) {
		log_notice(LOG_ERROR, "cannot open the delivery log %s: %s", config->delivery_log,
			   strerror(-result));
		return EX_CANTCREAT;
	}
	result = os_dns_start(&config->dns);
	if (result < 0) {
		log_notice(LOG_ERROR,
			   "cannot start the resolver: %s; look at dns { servers } and "
			   "/etc/resolv.conf",
			   strerror(-result));
		return EX_OSERR;
	}
	return open_spool(engine);
}

static void say_waiting(const struct engine *engine)
{
	log_notice(LOG_WARNING,
		   "not ready yet: the spool %s does not take its first records; is its disk full, "
		   "or very slow? It goes on by itself as soon as they are written",
		   engine->config->spool);
}

/* 1: all listen; 0: not yet; or -errno. One that fails leaves the others waiting for it. */
static int workers_ready(const struct engine *engine)
{
	int all = 1;

	for (uint32_t i = 0; i < engine->worker_count; i++) {
		int ready = worker_ready(engine->workers[i]);

		if (ready < 0)
			return ready;
		all &= ready;
	}
	return all;
}

/* A TERM before all are there ends the start: nothing was accepted yet. */
static int await_workers(struct engine *engine, struct reload *reload)
{
	struct os_mono patience = soon(START_PATIENCE_MS);
	int ready;

	while ((ready = workers_ready(engine)) == 0) {
		int signal = os_signal_wait(soon(START_LOOK_MS));

		if (os_mono_now().ns > patience.ns) {
			say_waiting(engine);
			patience.ns = UINT64_MAX;
		}
		if (is_broken(engine))
			return EX_IOERR;
		if (signal == SIGTERM || signal == SIGINT)
			return EX_TEMPFAIL;
		reload->again |= signal == SIGHUP;
	}
	if (ready < 0)
		return is_broken(engine) ? EX_IOERR : EX_OSERR;
	return EX_OK;
}

/* 0, or -errno: -EADDRINUSE after a while, for the ring of a killed process keeps its sockets for a
 * moment; -EINTR: TERM. */
static int await_port(const struct os_address *address)
{
	struct os_mono patience = soon(START_PATIENCE_MS);
	int result;

	while ((result = os_listen_try(address)) == -EADDRINUSE && os_mono_now().ns < patience.ns) {
		int signal = os_signal_wait(soon(START_LOOK_MS));

		if (signal == SIGTERM || signal == SIGINT)
			return -EINTR;
	}
	return result;
}

/* Before they listen, with SO_REUSEPORT: a second daemon of this user would get a share of the
 * first one's connections, and nobody would know. */
static int look_at_ports(const struct config *config)
{
	for (uint32_t i = 0; i < config->listener_count; i++) {
		int result = await_port(&config->listeners[i].address);

		if (result == 0)
			continue;
		if (result == -EINTR)
			return EX_TEMPFAIL;
		log_notice(LOG_ERROR, "cannot listen on %s: %s%s", config->listeners[i].text,
			   strerror(-result), listener_advice(&config->listeners[i], result));
		return EX_OSERR;
	}
	return EX_OK;
}

static int start_workers(struct engine *engine, struct reload *reload)
{
	engine->workers = calloc(engine->worker_count, sizeof(engine->workers[0]));
	engine->mailboxes = mailboxes_create(engine->worker_count);
	engine->site_limits = site_limits_create(SITES_MAX);
	engine->auth_failures = calloc(1, sizeof(*engine->auth_failures));
	os_random(&engine->address_seed, sizeof(engine->address_seed));
	if (!engine->workers || !engine->mailboxes || !engine->site_limits ||
	    !engine->auth_failures) {
		log_notice(LOG_ERROR, "out of memory");
		return EX_OSERR;
	}
	for (uint32_t i = 0; i < engine->worker_count; i++)
		if (worker_start(engine, i) < 0)
			return EX_OSERR;
	return await_workers(engine, reload);
}

static void say_ready(const struct engine *engine)
{
	for (uint32_t i = 0; i < engine->config->listener_count; i++)
		log_notice(LOG_NOTICE, "listening on %s", engine->config->listeners[i].text);
	log_notice(LOG_NOTICE, "stafetted " STAFETTE_VERSION " is ready: %u worker%s, spool %s",
		   engine->worker_count, engine->worker_count == 1 ? "" : "s",
		   engine->config->spool);
	os_notify("READY=1");
}

/* ── running and stopping ─────────────────────────────────────────────────────────── */

static void order_all(struct engine *engine, void (*order)(struct worker *worker))
{
	for (uint32_t i = 0; i < engine->worker_count; i++)
		order(engine->workers[i]);
}

/* Until TERM or INT, or until a disk fails. */
static void serve(struct engine *engine, struct reload *reload)
{
	struct time_watch clock = { 0 };

	while (!is_broken(engine)) {
		bool soon_again = reload_look(reload);

		time_watch_look(&clock, engine);
		switch (os_signal_wait(soon(soon_again ? RELOAD_LOOK_MS : WATCH_MS))) {
		case SIGTERM:
		case SIGINT:
			return;
		case SIGHUP:
			reload_begin(reload);
			break;
		case SIGUSR1:
			log_reopen(engine->log);
			break;
		default:
			break;
		}
	}
}

static void stop_workers(struct engine *engine)
{
	struct os_mono limit = soon(engine->config->drain_ms);
	bool cut = false;

	log_notice(LOG_NOTICE, "stopping: finishing what is under way, for at most %u s",
		   (engine->config->drain_ms + 999) / 1000);
	os_notify("STOPPING=1");
	order_all(engine, worker_drain);
	os_dns_give_up(); /* nothing new is begun with what it would say */
	while (atomic_load_explicit(&engine->running, memory_order_acquire) > 0) {
		int signal = os_signal_wait(soon(10));

		if (is_broken(engine))
			return;
		if (!cut &&
		    (signal == SIGTERM || signal == SIGINT || os_mono_now().ns > limit.ns)) {
			log_notice(LOG_NOTICE,
				   "stopping now: what is under way stays in the queue");
			order_all(engine, worker_stop);
			cut = true;
		}
	}
}

static void close_all(struct engine *engine)
{
	for (uint32_t i = 0; i < engine->worker_count; i++)
		worker_join(engine->workers[i]);
	queue_close(engine->queue);
	os_dns_stop();
	log_close(engine->log);
	mailboxes_destroy(engine->mailboxes);
	site_limits_destroy(engine->site_limits);
	free(engine->auth_failures);
	dkim_store_destroy(engine->dkim);
	tls_contexts_destroy(engine->tls);
	free(engine->workers);
}

int main(int argc, char **argv)
{
	static struct engine engine;
	static struct reload reload;
	struct config *config;
	int status;

	os_vectors_narrow(argv);
	config = read_config(read_options(argc, argv));
	engine.config = config;
	engine.worker_count = config->workers > 0 ? config->workers : os_cpu_count();
	os_signals_block();
	engine.sessions_max = reload_sessions_max(config);
	status = confine_user(config);
	if (status == EX_OK)
		status = choose_backend(config); /* what the user may, not root */
	if (status == EX_OK)
		status = confine_files(config);
	if (status == EX_OK)
		status = look_at_ports(config);
	if (status == EX_OK)
		status = start_services(&engine);
	if (status == EX_OK)
		status = start_workers(&engine, &reload);
	/* Threads are running: leave without unwinding them. The next start recovers. */
	if (status != EX_OK)
		_exit(status);
	reload_init(&reload, &engine);
	say_ready(&engine);
	serve(&engine, &reload);
	if (!is_broken(&engine))
		stop_workers(&engine);
	if (is_broken(&engine))
		_exit(EX_IOERR);
	reload_deinit(&reload);
	close_all(&engine);
	config_unref(engine.config);
	log_notice(LOG_NOTICE, "stopped");
	return EX_OK;
}
