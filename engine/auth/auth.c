#include "engine/auth/auth.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/auth/failures.h"
#include "engine/auth/users.h"

enum {
	CHECKS_MAX = 64, /* of a worker, under way: beyond it 454, until the flood is over */
	PAUSE_STEPS_MAX = 8,
	TELL_MS = 60000,
};

struct auth_check {
	struct auth *auth;
	struct list link;		/* auth->waiting */
	struct os_op op;		/* users_verify() */
	struct dovecot_request request; /* or this */
	struct timer pause;
	struct os_address client;
	auth_done *done; /* NULL: abandoned */
	void *context;
	/* for the helper while `op` is busy */
	const struct config *config; /* owned: a reference */
	enum users_status status;
	char *senders;
	char error[SECRET_FILE_ERROR_BYTES];
	char name[USERS_NAME_MAX + 1];
	char password[USERS_PASSWORD_MAX + 1];
};

void auth_init(struct auth *auth, struct worker *worker)
{
	*auth = (struct auth){ .worker = worker };
	list_init(&auth->waiting);
}

bool auth_idle(const struct auth *auth)
{
	return auth->check_count == 0 && (!auth->dovecot || dovecot_auth_idle(auth->dovecot));
}

void auth_stop(struct auth *auth)
{
	if (auth->dovecot)
		dovecot_auth_rest(auth->dovecot);
}

void auth_deinit(struct auth *auth)
{
	assert(auth_idle(auth));
	dovecot_auth_destroy(auth->dovecot);
}

/* ── failures ─────────────────────────────────────────────────────────────────────── */

/* IPv6 clients are counted by /64, which is what one of them usually has. */
static uint64_t address_hash(const struct auth *auth, const struct os_address *client)
{
	size_t len = client->family == AF_INET ? 4 : 8;

	return XXH3_64bits_withSeed(client->ip, len,
				    auth->worker->engine->address_seed + client->family);
}

static uint32_t now_s(const struct auth *auth)
{
	return (uint32_t)(worker_mono(auth->worker).ns / OS_NS_PER_S);
}

bool auth_blocked(const struct auth *auth, const struct os_address *client)
{
	const struct config_auth *config = &auth->worker->config->auth;

	return auth_failures_count(auth->worker->engine->auth_failures, address_hash(auth, client),
				   now_s(auth), config->failure_kept_s) >= config->failures_max;
}

static uint32_t count_failure(struct auth *auth, const struct os_address *client)
{
	return auth_failures_add(auth->worker->engine->auth_failures, address_hash(auth, client),
				 now_s(auth), auth->worker->config->auth.failure_kept_s);
}

/* ── a check's end ────────────────────────────────────────────────────────────────── */

static void check_free(struct auth_check *check)
{
	struct auth *auth = check->auth;

	assert(!check->op.busy && !timer_is_set(&check->pause) && auth->check_count > 0);
	auth->check_count--;
	free(check->senders);
	config_unref(check->config);
	explicit_bzero(check, sizeof(*check));
	free(check);
	if (auth->worker->phase >= WORKER_DRAINING)
		auth_stop(auth);
}

static void finish(struct auth_check *check, enum smtp_auth_verdict verdict)
{
	struct auth_user user = { 0 };
	auth_done *done = check->done;
	void *context = check->context;

	if (done && verdict == SMTP_AUTH_OK) {
		user.name = strdup(check->name);
		if (user.name) {
			user.senders = check->senders;
			check->senders = NULL;
		} else {
			verdict = SMTP_AUTH_UNAVAILABLE;
		}
	}
	check_free(check);
	if (done)
		done(context, verdict, &user);
}

static void on_pause_end(struct timer *timer)
{
	struct auth_check *check = container_of(timer, struct auth_check, pause);

	finish(check,
	       auth_blocked(check->auth, &check->client) ? SMTP_AUTH_BLOCKED : SMTP_AUTH_WRONG);
}

/* A failure counts also if its client didn't wait for the answer. */
static void conclude(struct auth_check *check, enum smtp_auth_verdict verdict)
{
	struct worker *worker = check->auth->worker;
	uint32_t failures, steps;

	explicit_bzero(check->password, sizeof(check->password));
	if (verdict != SMTP_AUTH_WRONG) {
		finish(check, verdict);
		return;
	}
	failures = count_failure(check->auth, &check->client);
	steps = failures < PAUSE_STEPS_MAX ? failures : PAUSE_STEPS_MAX;
	if (check->done)
		timer_set(&worker->timers, &check->pause,
			  os_mono_add_ms(worker_mono(worker),
					 (uint64_t)worker->config->auth.pause_ms * steps));
	else
		finish(check, verdict);
}

/* ── the users' file ──────────────────────────────────────────────────────────────── */

static void verify(struct os_op *op)
{
	struct auth_check *check = container_of(op, struct auth_check, op);

	check->status = users_verify(check->config->auth.users, span_text(check->name),
				     check->password, &check->senders, check->error);
	op->result = 0;
}

static void tell(struct auth *auth, const char *why)
{
	struct os_mono now = worker_mono(auth->worker);

	if (auth->told.ns != 0 && now.ns < os_mono_add_ms(auth->told, TELL_MS).ns)
		return;
	auth->told = now;
	log_notice(LOG_WARNING, "nobody can log in: %s", why);
}

static void compute_next(struct auth *auth)
{
	struct list *node = auth->computing ? NULL : list_pop_front(&auth->waiting);

	if (!node)
		return;
	auth->computing = true;
	os_compute(auth->worker->loop, &container_of(node, struct auth_check, link)->op, verify);
}

static void on_verified(struct os_op *op)
{
	static const enum smtp_auth_verdict verdicts[] = {
		[USERS_OK] = SMTP_AUTH_OK,
		[USERS_WRONG] = SMTP_AUTH_WRONG,
		[USERS_UNAVAILABLE] = SMTP_AUTH_UNAVAILABLE,
	};
	struct auth_check *check = container_of(op, struct auth_check, op);

	check->auth->computing = false;
	compute_next(check->auth);
	if (check->status == USERS_UNAVAILABLE)
		tell(check->auth, check->error);
	conclude(check, verdicts[check->status]);
}

/* ── Dovecot ──────────────────────────────────────────────────────────────────────── */

static void on_answered(struct dovecot_request *request, enum smtp_auth_verdict verdict,
			const char *user)
{
	struct auth_check *check = container_of(request, struct auth_check, request);

	if (user[0] != '\0' && strlen(user) < sizeof(check->name))
		memcpy(check->name, user, strlen(user) + 1);
	conclude(check, verdict);
}

static bool ask_dovecot(struct auth_check *check, const struct smtp_credentials *credentials,
			bool secured)
{
	struct auth *auth = check->auth;

	if (!auth->dovecot)
		auth->dovecot = dovecot_auth_create(auth->worker);
	return auth->dovecot && dovecot_auth_ask(auth->dovecot, &check->request, credentials,
						 &check->client, secured);
}

/* ── its beginning ────────────────────────────────────────────────────────────────── */

static void copy(char *to, struct span text)
{
	if (text.len > 0)
		memcpy(to, text.at, text.len);
	to[text.len] = '\0';
}

static struct auth_check *check_create(struct auth *auth,
				       const struct smtp_credentials *credentials,
				       const struct os_address *client)
{
	struct auth_check *check = calloc(1, sizeof(*check));

	if (!check)
		return NULL;
	auth->check_count++;
	check->auth = auth;
	check->client = *client;
	check->op.done = on_verified;
	list_init(&check->link);
	check->config = config_ref(auth->worker->config);
	check->request.answered = on_answered;
	list_init(&check->request.link);
	timer_init(&check->pause, on_pause_end);
	copy(check->name, credentials->user);
	return check;
}

/* What no user has: it is wrong, and takes as long. */
static bool possible(const struct smtp_credentials *credentials)
{
	return credentials->user.len > 0 && credentials->user.len <= USERS_NAME_MAX &&
	       credentials->password.len <= USERS_PASSWORD_MAX;
}

enum smtp_auth_verdict auth_check(struct auth *auth, const struct smtp_credentials *credentials,
				  const struct os_address *client, bool secured, auth_done *done,
				  void *context, struct auth_check **check_out)
{
	struct smtp_credentials nobody = { { "", 0 }, { "", 0 }, { "", 0 } };
	struct auth_check *check;

	if (auth->check_count >= CHECKS_MAX)
		return SMTP_AUTH_UNAVAILABLE;
	if (!possible(credentials))
		credentials = &nobody;
	check = check_create(auth, credentials, client);
	if (!check)
		return SMTP_AUTH_UNAVAILABLE;
	check->done = done;
	check->context = context;
	if (check->config->auth.dovecot) {
		if (!ask_dovecot(check, credentials, secured)) {
			check_free(check);
			return SMTP_AUTH_UNAVAILABLE;
		}
	} else {
		/* To act as somebody else is not for users of the file. */
		if (credentials->authorize.len == 0 ||
		    span_equal(credentials->authorize, credentials->user))
			copy(check->password, credentials->password);
		else
			check->name[0] = '\0';
		list_push_back(&auth->waiting, &check->link);
		compute_next(auth);
	}
	*check_out = check;
	return SMTP_AUTH_LATER;
}

void auth_abandon(struct auth_check *check)
{
	struct auth *auth = check->auth;

	check->done = NULL;
	if (check->op.busy)
		return;
	timer_cancel(&auth->worker->timers, &check->pause);
	list_remove(&check->link);
	if (list_linked(&check->request.link))
		dovecot_auth_take_back(auth->dovecot, &check->request);
	check_free(check);
}
