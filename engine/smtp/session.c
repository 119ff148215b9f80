/*
 * session - see session.h: life, and octets to lines and bodies.
 */
#include "engine/smtp/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/smtp/session_private.h"
#include "os/check.h"

enum { TLS_HANDSHAKE = 0x16 }; /* how a TLS client that skips STARTTLS begins */

struct smtp_session *smtp_session_create(const struct smtp_session_options *options,
					 const struct smtp_session_host *host, void *context)
{
	struct smtp_session *session = calloc(1, sizeof(*session));

	assert(options->pending_max >= 1 && options->recipients_max >= 1);
	if (!session)
		return NULL;
	session->options = *options;
	session->options.smtputf8 &= options->eightbit; /* RFC 6531, 3.1: only together */
	session->host = host;
	session->context = context;
	return session;
}

/* It may hold a password: nothing of it stays behind in the heap. */
static void line_free(struct smtp_session *session)
{
	if (session->line)
		explicit_bzero(session->line, session->line_len);
	free(session->line);
	session->line = NULL;
	session->line_len = session->line_size = 0;
}

void smtp_session_destroy(struct smtp_session *session)
{
	if (!session)
		return;
	session_output_free(session);
	session_auth_free(session);
	free(session->hello);
	line_free(session);
	free(session);
}

size_t smtp_session_memory(const struct smtp_session *session)
{
	return sizeof(*session) + session->out.size + session->held.size + session->line_size +
	       session->pending_size * sizeof(*session->pending) +
	       (session->hello ? strlen(session->hello) + 1 : 0);
}

void smtp_session_greet(struct smtp_session *session, const struct smtp_answer *refusal)
{
	char text[300];

	if (refusal) {
		session_reply(session, refusal->code, refusal->enhanced, refusal->text);
		session_close(session, NULL);
		return;
	}
	snprintf(text, sizeof(text), "%s ESMTP", session->options.name);
	session_reply(session, 220, NULL, text);
}

void smtp_session_suspect(struct smtp_session *session)
{
	session->suspect = true;
}

void smtp_session_normalise(struct smtp_session *session, bool normalise)
{
	session->options.normalise = normalise;
}

void session_reset(struct smtp_session *session, const char *why)
{
	if (session->open)
		session->host->abort(session->context, why);
	session->open = false;
	session->wake = false;
	session->recipients = 0;
	if (session->stage > SESSION_READY)
		session->stage = SESSION_READY;
}

void session_close(struct smtp_session *session, const char *why)
{
	session_reset(session, why);
	session->mode = SESSION_CLOSED;
	line_free(session);
}

/* 421 and the end, for want of memory. */
static void session_starve(struct smtp_session *session)
{
	smtp_session_shutdown(session, "4.3.2", "Out of memory, try again later");
}

bool session_hello_set(struct smtp_session *session, struct span name)
{
	free(session->hello);
	session->hello = strndup(name.at, name.len);
	if (!session->hello)
		session_starve(session);
	return session->hello;
}

void session_mistake(struct smtp_session *session, uint16_t code, const char *enhanced,
		     const char *text)
{
	session_reply(session, code, enhanced, text);
	if (session->host->complaint)
		session->host->complaint(session->context, text);
	if (session->options.errors_max == 0 || ++session->errors < session->options.errors_max)
		return;
	session_reply(session, 421, "4.7.0", "Too many errors");
	session_close(session, "too many errors");
}

/* How long the first line is, with its CRLF; 0: its end is not here. */
static size_t line_find(struct span bytes)
{
	const char *at = bytes.at, *end = bytes.at + bytes.len;

	while ((at = memchr(at, '\n', (size_t)(end - at)))) {
		at++;
		if (at - bytes.at >= 2 && at[-2] == '\r')
			return (size_t)(at - bytes.at);
		if (at == end)
			return 0;
	}
	return 0;
}

static void line_too_long(struct smtp_session *session)
{
	session->mode = SESSION_COMMAND;
	if (session->skip_auth)
		session_auth_cancel(session, 500, "5.5.6", "Line too long");
	else
		session_mistake(session, 500, "5.5.2", "Line too long");
}

/* AUTH, or a response within it. */
static bool is_auth(const struct smtp_session *session, struct span line)
{
	return session->mode == SESSION_ANSWER || span_starts_nocase(line, "AUTH ");
}

static size_t line_max(const struct smtp_session *session, struct span line)
{
	return is_auth(session, line) ? SESSION_AUTH_LINE_MAX : SESSION_LINE_MAX;
}

static struct span line_collected(const struct smtp_session *session)
{
	return span_of(session->line_len > 0 ? session->line : "", session->line_len);
}

/* Adds to the line that is being collected. False: no memory, and the session is closed. */
static bool line_append(struct smtp_session *session, struct span bytes)
{
	uint32_t len = session->line_len, need = len + (uint32_t)bytes.len;

	if (need > session->line_size) {
		uint32_t size = need < 128		  ? 128
				: need < 1024		  ? 1024
				: need < SESSION_LINE_MAX ? SESSION_LINE_MAX
							  : SESSION_AUTH_LINE_MAX;
		char *grown = malloc(size);

		if (!grown) {
			session->secret = true; /* for all that is known */
			session_starve(session);
			return false;
		}
		if (len > 0)
			memcpy(grown, session->line, len);
		line_free(session);
		session->line = grown;
		session->line_size = size;
	}
	memcpy(session->line + len, bytes.at, bytes.len);
	session->line_len = need;
	return true;
}

static void line_take(struct smtp_session *session, struct span line)
{
	if (session->mode == SESSION_ANSWER)
		session_auth_answer(session, line);
	else
		session_command(session, line);
}

static void line_run(struct smtp_session *session)
{
	char *line = session->line;
	size_t len = session->line_len - 2;

	/* The command may close the session, which drops its line. */
	session->line = NULL;
	session->line_len = session->line_size = 0;
	line_take(session, span_of(line, len));
	explicit_bzero(line, len);
	free(line);
}

/* Collects a line whose end the network has kept back. */
static size_t line_collect(struct smtp_session *session, struct span bytes)
{
	const char *lf = memchr(bytes.at, '\n', bytes.len);
	size_t room = line_max(session, line_collected(session)) - session->line_len;
	size_t take = lf ? (size_t)(lf + 1 - bytes.at) : bytes.len;

	if (take > room)
		take = room;
	if (!line_append(session, span_of(bytes.at, take)))
		return take;
	session->secret |= is_auth(session, line_collected(session));
	if (session->line_len >= 2 &&
	    memcmp(session->line + session->line_len - 2, "\r\n", 2) == 0) {
		line_run(session);
	} else if (session->line_len == line_max(session, line_collected(session))) {
		session->skip_cr = session->line[session->line_len - 1] == '\r';
		session->skip_auth = is_auth(session, line_collected(session));
		session->mode = SESSION_SKIP;
		line_free(session);
	}
	return take;
}

static size_t line_skip(struct smtp_session *session, struct span bytes)
{
	if (session->skip_cr && *bytes.at == '\n') {
		line_too_long(session);
		return 1;
	}
	size_t line = line_find(bytes);

	if (line > 0)
		line_too_long(session);
	session->skip_cr = bytes.at[bytes.len - 1] == '\r';
	return line > 0 ? line : bytes.len;
}

static size_t command_feed(struct smtp_session *session, struct span bytes)
{
	if (session->line_len > 0)
		return line_collect(session, bytes);
	if (session->mode == SESSION_COMMAND &&
	    ((uint8_t)*bytes.at == TLS_HANDSHAKE || (uint8_t)*bytes.at >= 128 || *bytes.at == 0)) {
		session_foreign(session);
		return 0;
	}
	size_t line = line_find(bytes);

	if (line == 0 || line > line_max(session, bytes))
		return line_collect(session, bytes);
	line_take(session, span_of(bytes.at, line - 2));
	return line;
}

size_t smtp_session_feed(struct smtp_session *session, struct span bytes)
{
	size_t taken = 0;

	while (taken < bytes.len && !session->paused && session->mode != SESSION_CLOSED &&
	       session->mode != SESSION_TLS && session->mode != SESSION_CHECKING) {
		struct span rest = span_skip(bytes, taken);

		if (session->mode == SESSION_DATA) {
			taken += session_data_feed(session, rest);
			continue;
		}
		if (session->mode == SESSION_CHUNK) {
			taken += session_chunk_feed(session, rest);
			continue;
		}
		if (session->pending_count >= session->options.pending_max ||
		    session_output_full(session))
			break;
		taken += session->mode == SESSION_SKIP ? line_skip(session, rest)
						       : command_feed(session, rest);
	}
	return taken;
}

void smtp_session_pause(struct smtp_session *session)
{
	session->paused = true;
}

void smtp_session_resume(struct smtp_session *session)
{
	session->paused = false;
}

void smtp_session_shutdown(struct smtp_session *session, const char *enhanced, const char *text)
{
	if (session->mode == SESSION_CLOSED)
		return;
	session_reply(session, 421, enhanced, text);
	session_close(session, text);
}

bool smtp_session_expects_tls(const struct smtp_session *session)
{
	return session->mode == SESSION_TLS;
}

void smtp_session_secured(struct smtp_session *session)
{
	assert(session->stage <= SESSION_READY && !session->secured);
	assert(session->line_len == 0 && session->pending_count == 0);
	session->secured = true;
	session->mode = SESSION_COMMAND;
	session->stage = SESSION_START;
	session->extended = session->authenticated = false;
	free(session->hello);
	session->hello = NULL;
}

bool smtp_session_heard_secret(struct smtp_session *session)
{
	bool heard = session->secret;

	session->secret = false;
	return heard;
}

bool smtp_session_finished(const struct smtp_session *session)
{
	return session->mode == SESSION_CLOSED && session->pending_count == 0;
}

bool smtp_session_in_data(const struct smtp_session *session)
{
	return session->mode == SESSION_DATA || session->mode == SESSION_CHUNK;
}
