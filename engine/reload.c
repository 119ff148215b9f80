#include "engine/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/auth/credentials.h"
#include "engine/auth/users.h"
#include "engine/config/change.h"
#include "engine/dkim/keys.h"
#include "engine/inbound/listener.h"
#include "engine/tls/tls.h"

enum { NAMES_BYTES = 256 };

/* What the next configuration needs, before it is in force. */
struct parts {
	struct worker_news **news; /* owned, each until it is told */
	/* references, or owned */
	struct tls_set *certificates;
	struct dkim_set *keys;
	struct log_target *log;
};

/* ── news for the workers ─────────────────────────────────────────────────────────── */

static struct worker_news *news_create(const struct config *next)
{
	struct worker_news *news =
		calloc(1, sizeof(*news) + next->listener_count * sizeof(news->doors[0]));

	if (news)
		news->config = config_ref(next);
	return news;
}

static bool write_news(const struct engine *engine, const struct config *next, struct parts *parts,
		       char *error, size_t error_bytes)
{
	uint32_t w = 0;

	parts->news = calloc(engine->worker_count, sizeof(parts->news[0]));
	while (parts->news && w < engine->worker_count && (parts->news[w] = news_create(next)))
		w++;
	if (parts->news && w == engine->worker_count)
		return true;
	snprintf(error, error_bytes, "out of memory");
	return false;
}

static void say_not_open(const struct config *next, const struct config_listener *where, int result,
			 char *error, size_t error_bytes)
{
	snprintf(error, error_bytes, "%s:%d: cannot listen on %s: %s%s",
		 next->path ? next->path : "(built in)", where->line, where->text,
		 strerror(-result), listener_advice(where, result));
}

/* What another daemon listens on is not shared with it, as at a start. Where we listen already,
 * nothing tells it from ourselves. */
static bool look_at_ports(const struct engine *engine, const struct config *next,
			  struct parts *parts, char *error, size_t error_bytes)
{
	(void)parts;
	for (uint32_t i = 0; i < next->listener_count; i++) {
		const struct config_listener *where = &next->listeners[i];
		int result = config_listener_meets(engine->config, where)
				     ? 0
				     : os_listen_try(&where->address);

		if (result == 0)
			continue;
		say_not_open(next, where, result, error, error_bytes);
		return false;
	}
	return true;
}

/* Sockets for the addresses that are new. */
static bool open_sockets(const struct engine *engine, const struct config *next,
			 struct parts *parts, char *error, size_t error_bytes)
{
	for (uint32_t i = 0; i < next->listener_count; i++) {
		const struct config_listener *where = &next->listeners[i];

		if (config_listener_same(engine->config, where))
			continue;
		for (uint32_t w = 0; w < engine->worker_count; w++) {
			int result = 0;

			if (listener_opens(w, where))
				result = listener_open(next, where, &parts->news[w]->doors[i]);
			if (result == 0)
				continue;
			say_not_open(next, where, result, error, error_bytes);
			return false;
		}
	}
	return true;
}

/* ── parts that read files of their own ───────────────────────────────────────────── */

static bool read_certificates(const struct engine *engine, const struct config *next,
			      struct parts *parts, char *error, size_t error_bytes)
{
	(void)engine;
	parts->certificates = tls_set_read(next, error, error_bytes);
	return parts->certificates != NULL;
}

static bool read_signing_keys(const struct engine *engine, const struct config *next,
			      struct parts *parts, char *error, size_t error_bytes)
{
	(void)engine;
	return dkim_keys_read(next, &parts->keys, error, error_bytes);
}

static bool open_log(const struct engine *engine, const struct config *next, struct parts *parts,
		     char *error, size_t error_bytes)
{
	int result = log_target_open(next->delivery_log, &parts->log);

	(void)engine;
	if (result < 0)
		snprintf(error, error_bytes, "cannot open the delivery log %s: %s",
			 next->delivery_log, strerror(-result));
	return result == 0;
}

static bool restart_resolver(const struct engine *engine, const struct config *next,
			     struct parts *parts, char *error, size_t error_bytes)
{
	int result = os_dns_restart(&next->dns);

	(void)engine;
	(void)parts;
	if (result < 0)
		snprintf(error, error_bytes, "cannot use dns { servers } or /etc/resolv.conf: %s",
			 strerror(-result));
	return result == 0;
}

/* ── all parts ────────────────────────────────────────────────────────────────────── */

/* In this order: the first that cannot ends it. The last one changes something at once; the others
 * do not before use_parts(). */
static bool (*const makers[])(const struct engine *engine, const struct config *next,
			      struct parts *parts, char *error, size_t error_bytes) = {
	write_news,	   look_at_ports, open_sockets,	    read_certificates,
	read_signing_keys, open_log,	  restart_resolver,
};

static bool make_parts(const struct engine *engine, const struct config *next, struct parts *parts,
		       char *error, size_t error_bytes)
{
	size_t made = 0;

	while (made < array_count(makers) && makers[made](engine, next, parts, error, error_bytes))
		made++;
	return made == array_count(makers);
}

static void drop_parts(const struct engine *engine, struct parts *parts)
{
	for (uint32_t w = 0; parts->news && w < engine->worker_count; w++)
		worker_news_destroy(parts->news[w]);
	free(parts->news);
	tls_set_unref(parts->certificates);
	dkim_keys_release(parts->keys);
	log_target_close(parts->log);
}

/* Nothing can go wrong any more. */
static void use_parts(const struct engine *engine, struct parts *parts)
{
	tls_contexts_put(engine->tls, parts->certificates);
	dkim_store_put(engine->dkim, parts->keys);
	log_move(engine->log, parts->log);
	for (uint32_t w = 0; w < engine->worker_count; w++)
		worker_tell(engine->workers[w], parts->news[w]);
	free(parts->news);
}

/* ── one reload ───────────────────────────────────────────────────────────────────── */

static void write_status(const struct reload *reload)
{
	int result = status_write(reload->engine->config->spool, &reload->status);

	if (result < 0)
		log_notice(LOG_WARNING,
			   "the file " STATUS_FILE " of the spool cannot be written: %s; "
			   "'stafette reload' will not know how it went",
			   strerror(-result));
}

/* NULL with the status' text filled. */
static struct config *read_next(struct reload *reload)
{
	const struct config *now = reload->engine->config;
	struct status *status = &reload->status;
	struct config *next = config_load(now->path, status->text, sizeof(status->text));
	char names[NAMES_BYTES], error[SECRET_FILE_ERROR_BYTES];

	if (!next)
		return NULL;
	if (!credentials_read(next, error)) {
		snprintf(status->text, sizeof(status->text), "%s", error);
		config_unref(next);
		return NULL;
	}
	next->generation = now->generation + 1;
	if (!config_keep_fixed(next, now, names, sizeof(names))) {
		snprintf(status->text, sizeof(status->text), "out of memory");
		config_unref(next);
		return NULL;
	}
	if (names[0] != '\0')
		snprintf(status->text, sizeof(status->text),
			 "changed, but stays as it is until a restart: %s", names);
	else if (next->auth.users && !users_check(next->auth.users, error))
		snprintf(status->text, sizeof(status->text), "nobody can log in: %s", error);
	return next;
}

static void say_listeners(const struct config *before, const struct config *now)
{
	for (uint32_t i = 0; i < now->listener_count; i++)
		if (!config_listener_same(before, &now->listeners[i]))
			log_notice(LOG_NOTICE, "listening on %s", now->listeners[i].text);
	for (uint32_t i = 0; i < before->listener_count; i++)
		if (!config_listener_same(now, &before->listeners[i]))
			log_notice(LOG_NOTICE, "no longer listening on %s",
				   before->listeners[i].text);
}

/* Unless there is something else to say. */
static void say_out_of_date(struct status *status, const struct tls_set *certificates,
			    const struct config *next)
{
	bool expired;
	const char *chain = tls_set_out_of_date(certificates, next, &expired);

	if (chain && status->text[0] == '\0')
		snprintf(status->text, sizeof(status->text), "the certificate in %s %s", chain,
			 expired ? "has expired" : "is not valid yet");
}

/* Takes over `next` in any case. */
static bool take(struct reload *reload, const struct config *next)
{
	struct engine *engine = reload->engine;
	char error[STATUS_TEXT_BYTES] = "";
	struct parts parts = { 0 };

	if (!make_parts(engine, next, &parts, error, sizeof(error))) {
		snprintf(reload->status.text, sizeof(reload->status.text), "%s", error);
		drop_parts(engine, &parts);
		config_unref(next);
		return false;
	}
	say_out_of_date(&reload->status, parts.certificates, next);
	say_listeners(engine->config, next);
	atomic_store_explicit(&engine->sessions_max, reload_sessions_max(next),
			      memory_order_relaxed);
	config_unref(engine->config);
	engine->config = next;
	use_parts(engine, &parts);
	reload->telling = true;
	return true;
}

/* A file may be refused by its mode, or by our own sandbox: both look the same. */
static void add_hint(const struct reload *reload, char *text, size_t text_bytes)
{
	size_t len = strlen(text);

	if (reload->engine->config->sandbox && strstr(text, strerror(EACCES)))
		snprintf(text + len, text_bytes - len,
			 "\n(a folder that no option named at the start is closed to the daemon "
			 "until a restart)");
}

static void refuse(struct reload *reload)
{
	add_hint(reload, reload->status.text, sizeof(reload->status.text));
	log_notice(LOG_ERROR, "not reloaded, the old configuration stays in force: %s",
		   reload->status.text);
	log_reopen(reload->engine->log);
	reload->status.good = false;
	write_status(reload);
}

void reload_begin(struct reload *reload)
{
	struct config *next;

	if (reload->telling) {
		reload->again = true;
		return;
	}
	reload->status.began = os_mono_now();
	reload->status.text[0] = '\0';
	next = read_next(reload);
	if (!next || !take(reload, next))
		refuse(reload);
}

static bool all_heard(const struct engine *engine)
{
	for (uint32_t w = 0; w < engine->worker_count; w++)
		if (!worker_heard(engine->workers[w], engine->config))
			return false;
	return true;
}

static void finish(struct reload *reload)
{
	const char *path = reload->engine->config->path;

	reload->telling = false;
	if (reload->status.text[0] != '\0')
		log_notice(LOG_WARNING, "%s", reload->status.text);
	log_notice(LOG_NOTICE, "reloaded: %s", path ? path : "built-in");
	reload->status.good = true;
	write_status(reload);
}

bool reload_look(struct reload *reload)
{
	if (reload->telling && all_heard(reload->engine))
		finish(reload);
	if (!reload->telling && reload->again) {
		reload->again = false;
		reload_begin(reload);
	}
	return reload->telling;
}

void reload_init(struct reload *reload, struct engine *engine)
{
	*reload = (struct reload){ .engine = engine, .again = reload->again };
	reload->status = (struct status){
		.process_id = os_process_id(),
		.began = os_mono_now(),
		.good = true,
	};
	write_status(reload);
}

void reload_deinit(struct reload *reload)
{
	status_remove(reload->engine->config->spool);
}

uint32_t reload_sessions_max(const struct config *config)
{
	uint64_t files = os_limits_raise(), sessions = files / 2;

	if (config->sessions_max <= sessions)
		return config->sessions_max;
	log_notice(LOG_WARNING,
		   "at most %u sessions at once, not the %u of sessions_max: %u files may be open; "
		   "raise that limit (LimitNOFILE=, ulimit -n)",
		   (unsigned)sessions, config->sessions_max, (unsigned)files);
	return (uint32_t)sessions;
}
