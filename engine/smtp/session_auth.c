/*
 * session_auth - AUTH PLAIN and LOGIN: one state for each answer that is awaited.
 *
 *   AUTH PLAIN response ───────────────────────────► check
 *   AUTH PLAIN ──► 334 ──► response ───────────────► check
 *   AUTH LOGIN [name] ──► 334 ──► name ──► 334 ──► password ──► check
 *
 * While the host checks, nothing is read. What carried a secret is wiped when it was used.
 *
 * Source: RFC 4954; RFC 4616 (PLAIN); draft-murchison-sasl-login.
 */
#include <stdlib.h>

#include "engine/smtp/base64.h"
#include "engine/smtp/session_private.h"
#include "os/check.h"

enum { DECODED_MAX = SESSION_AUTH_LINE_MAX / 4 * 3 };

static void secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

static void exchange_end(struct smtp_session *session)
{
	secret_free(session->auth_user);
	session->auth_user = NULL;
	session->auth_step = SESSION_AUTH_NONE;
	if (session->mode == SESSION_ANSWER)
		session->mode = SESSION_COMMAND;
}

void session_auth_free(struct smtp_session *session)
{
	secret_free(session->auth_user);
	session->auth_user = NULL;
}

void session_auth_cancel(struct smtp_session *session, uint16_t code, const char *enhanced,
			 const char *text)
{
	exchange_end(session);
	session_mistake(session, code, enhanced, text);
}

static void conclude(struct smtp_session *session, enum smtp_auth_verdict verdict)
{
	switch (verdict) {
	case SMTP_AUTH_OK:
		session->authenticated = true;
		session_reply(session, 235, "2.7.0", "Authenticated");
		return;
	case SMTP_AUTH_WRONG:
		session_mistake(session, 535, "5.7.8", "Wrong user name or password");
		if (session->mode != SESSION_CLOSED &&
		    ++session->auth_failures == SESSION_AUTH_FAILURES_MAX)
			smtp_session_shutdown(session, "4.7.0", "Too many failures");
		return;
	case SMTP_AUTH_UNAVAILABLE:
		session_reply(session, 454, "4.7.0",
			      "Authentication is not possible now, try again later");
		return;
	case SMTP_AUTH_BLOCKED:
		smtp_session_shutdown(session, "4.7.0", "Too many failures, try again later");
		return;
	case SMTP_AUTH_LATER:
		break;
	}
	assert(false);
}

static void check(struct smtp_session *session, const struct smtp_credentials *credentials)
{
	enum smtp_auth_verdict verdict = session->host->auth(session->context, credentials);

	exchange_end(session);
	if (verdict == SMTP_AUTH_LATER)
		session->mode = SESSION_CHECKING;
	else
		conclude(session, verdict);
}

void smtp_session_authenticated(struct smtp_session *session, enum smtp_auth_verdict verdict)
{
	if (session->mode != SESSION_CHECKING)
		return; /* it was shut down meanwhile */
	session->mode = SESSION_COMMAND;
	conclude(session, verdict);
}

/* ── the steps ────────────────────────────────────────────────────────────────────── */

static void malformed(struct smtp_session *session)
{
	session_auth_cancel(session, 501, "5.5.2", "Malformed response");
}

/* [authorization] NUL name NUL password */
static void on_plain(struct smtp_session *session, struct span response)
{
	const char *end = response.at + response.len;
	const char *name = memchr(response.at, 0, response.len);
	const char *password = name ? memchr(name + 1, 0, (size_t)(end - name - 1)) : NULL;

	if (!password || memchr(password + 1, 0, (size_t)(end - password - 1))) {
		malformed(session);
		return;
	}
	struct smtp_credentials credentials = {
		.authorize = span_of(response.at, (size_t)(name - response.at)),
		.user = span_of(name + 1, (size_t)(password - name - 1)),
		.password = span_of(password + 1, (size_t)(end - password - 1)),
	};

	check(session, &credentials);
}

static void ask(struct smtp_session *session, enum session_auth_step step);

static void on_login_user(struct smtp_session *session, struct span response)
{
	if (memchr(response.at, 0, response.len)) {
		malformed(session);
		return;
	}
	session->auth_user = strndup(response.at, response.len);
	if (session->auth_user) {
		ask(session, SESSION_AUTH_LOGIN_PASSWORD);
	} else {
		exchange_end(session);
		conclude(session, SMTP_AUTH_UNAVAILABLE);
	}
}

static void on_login_password(struct smtp_session *session, struct span response)
{
	struct smtp_credentials credentials = {
		.authorize = span_of("", 0),
		.user = span_text(session->auth_user),
		.password = response,
	};

	if (memchr(response.at, 0, response.len))
		malformed(session);
	else
		check(session, &credentials);
}

static const struct auth_rule {
	const char *challenge;
	void (*take)(struct smtp_session *session, struct span response);
} rules[] = {
	[SESSION_AUTH_PLAIN] = { "", on_plain },
	[SESSION_AUTH_LOGIN_USER] = { "VXNlcm5hbWU6", on_login_user },	       /* Username: */
	[SESSION_AUTH_LOGIN_PASSWORD] = { "UGFzc3dvcmQ6", on_login_password }, /* Password: */
};

static void ask(struct smtp_session *session, enum session_auth_step step)
{
	session->auth_step = step;
	session->mode = SESSION_ANSWER;
	session_reply(session, 334, NULL, rules[step].challenge);
}

static void take(struct smtp_session *session, enum session_auth_step step, struct span text)
{
	char decoded[DECODED_MAX];
	size_t len;

	if (base64_decode(text, decoded, &len))
		rules[step].take(session, span_of(decoded, len));
	else
		session_auth_cancel(session, 501, "5.5.2", "Not base64");
	explicit_bzero(decoded, sizeof(decoded));
}

void session_auth_answer(struct smtp_session *session, struct span line)
{
	assert(session->auth_step != SESSION_AUTH_NONE);
	session->secret = true;
	if (span_equal(line, span_text("*")))
		session_auth_cancel(session, 501, "5.7.0", "Authentication cancelled");
	else
		take(session, session->auth_step, line);
}

/* ── the command ──────────────────────────────────────────────────────────────────── */

/* Mechanisms that are known, and weaker than what we allow to anybody: RFC 4954, 6. */
static bool too_weak(struct span name)
{
	static const char *const weak[] = { "CRAM-MD5", "DIGEST-MD5", "NTLM", "ANONYMOUS" };

	for (size_t i = 0; i < array_count(weak); i++)
		if (span_equal_nocase(name, span_text(weak[i])))
			return true;
	return false;
}

static enum session_auth_step first_step(struct span name)
{
	if (span_equal_nocase(name, span_text("PLAIN")))
		return SESSION_AUTH_PLAIN;
	return span_equal_nocase(name, span_text("LOGIN")) ? SESSION_AUTH_LOGIN_USER
							   : SESSION_AUTH_NONE;
}

/* Whether AUTH is in order; false: it was answered. */
static bool in_order(struct smtp_session *session)
{
	if (session->options.auth == SMTP_AUTH_OFF)
		session_mistake(session, 502, "5.5.1", "Not offered");
	else if (session->authenticated)
		session_mistake(session, 503, "5.5.1", "Authenticated already");
	else if (session->stage != SESSION_READY)
		session_mistake(session, 503, "5.5.1",
				session->stage == SESSION_START ? "EHLO first"
								: "Not within a transaction");
	else
		return true;
	return false;
}

void session_auth(struct smtp_session *session, struct span argument)
{
	size_t word = 0;

	session->secret = true;
	while (word < argument.len && argument.at[word] != ' ')
		word++;

	struct span name = span_of(argument.at, word), initial = span_skip(argument, word);
	enum session_auth_step step = first_step(name);

	while (initial.len > 0 && *initial.at == ' ')
		initial = span_skip(initial, 1);
	if (!in_order(session))
		return;
	if (step == SESSION_AUTH_NONE && too_weak(name))
		session_mistake(session, 534, "5.7.9", "Mechanism too weak");
	else if (step == SESSION_AUTH_NONE)
		session_mistake(session, 504, "5.5.4", "Mechanism not known");
	else if (session->options.auth == SMTP_AUTH_TLS && !session->secured)
		session_mistake(session, 538, "5.7.11", "Only under TLS");
	else if (initial.len == 0)
		ask(session, step);
	else
		take(session, step, span_equal(initial, span_text("=")) ? span_of("", 0) : initial);
}

bool session_auth_offered(const struct smtp_session *session)
{
	return session->options.auth == SMTP_AUTH_ALWAYS ||
	       (session->options.auth == SMTP_AUTH_TLS && session->secured);
}
