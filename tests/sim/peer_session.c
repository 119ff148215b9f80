/*
 * peer_session - commands, in order and in form, and their replies.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/smtp/command.h"
#include "tests/sim/ledger.h"
#include "tests/sim/peer_private.h"
#include "tests/sim/weather.h"

enum {
	COMMAND_TIMEOUT_S = 300,
	LINE_MAX_BYTES = 512,		       /* with CRLF: RFC 5321, 4.5.3.1.4 */
	MAIL_EXTRA_BYTES = 26 + 17 + 10 + 108, /* SIZE, BODY, SMTPUTF8, RET and ENVID */
	RCPT_EXTRA_BYTES = 500 + 40,	       /* ORCPT, NOTIFY */
};

static bool offers(const struct peer_session *session, uint32_t extension)
{
	return session->offers & extension;
}

void session_breach(const struct peer_session *session, const char *what, const char *line)
{
	sim_finding("the daemon breaks the protocol at %s: %s%s%s", session->peer->traits.name,
		    what, line[0] ? ": " : "", line);
}

void message_reset(struct peer_message *message)
{
	for (uint32_t i = 0; i < message->count; i++)
		free(message->recipients[i]);
	free(message->recipients);
	free(message->text);
	*message = (struct peer_message){ 0 };
}

/* ── replies ──────────────────────────────────────────────────────────────────────── */

static size_t reply_text(const struct peer_session *session, uint16_t code, const char *enhanced,
			 const char *text, char out[static PEER_LINE_BYTES])
{
	const char *gap = "";
	size_t len = 0;

	if (!offers(session, PEER_ENHANCED))
		enhanced = "";
	else if (enhanced[0])
		gap = " ";
	if (session->peer->traits.multiline)
		for (uint64_t lines = sim_below(3); lines > 0; lines--)
			len += (size_t)snprintf(out + len, PEER_LINE_BYTES - len, "%u-%s%s%s\r\n",
						code, enhanced, gap, "and furthermore");
	len += (size_t)snprintf(out + len, PEER_LINE_BYTES - len, "%u %s%s%s\r\n", code, enhanced,
				gap, text);
	return len;
}

static void reply_pause(const struct peer_session *session)
{
	uint32_t ms = session->peer->traits.reply_ms;

	if (ms > 0)
		fiber_sleep(sim_below(2 * ms * SIM_MS));
}

bool session_reply(struct peer_session *session, uint16_t code, const char *enhanced,
		   const char *text)
{
	char reply[PEER_LINE_BYTES];
	size_t len = reply_text(session, code, enhanced, text, reply);

	sim_trace("> %u %s", code, text);
	return net_write(session->sock, reply, len) == 0;
}

static void babble(struct peer_session *session)
{
	static const char *const nonsense[] = {
		"hello?\r\n",	     "25\r\n",	       "999 what\r\n",	   "\r\n", "250\n",
		"250-and so on\r\n", "250-a\r\nb\r\n", "\x01\xff\xfe\r\n",
	};
	uint64_t which = sim_below(array_count(nonsense) + 1);

	sim_trace("> nonsense, of kind %u", (unsigned)which);
	if (which < array_count(nonsense)) {
		net_write(session->sock, nonsense[which], strlen(nonsense[which]));
		return;
	}
	for (int i = 0; i < 100; i++)
		if (net_printf(session->sock, "250-%0200d\r\n", i) < 0)
			return;
}

bool session_fault(struct peer_session *session, enum peer_fault fault, uint16_t code,
		   const char *enhanced, const char *text)
{
	static const char *const names[] = { "none", "close",  "reset", "half",	 "after",
					     "421",  "babble", "late",	"finish" };
	char reply[PEER_LINE_BYTES];

	sim_trace("fault: %s, in place of %u", names[fault], code);
	switch (fault) {
	case FAULT_LATE:
		fiber_sleep(sim_between(SIM_S, PEER_LATE_S_MAX * SIM_S));
		return session_reply(session, code, enhanced, text);
	case FAULT_AFTER:
		session_reply(session, code, enhanced, text);
		return false;
	case FAULT_HALF:
		net_write(session->sock, reply,
			  sim_below(reply_text(session, code, enhanced, text, reply)));
		return false;
	case FAULT_421:
		session_reply(session, 421, "4.3.2", "closing");
		return false;
	case FAULT_BABBLE:
		babble(session);
		return false;
	default:
		session->reset = fault == FAULT_RESET;
		session->lingers = fault == FAULT_FINISH;
		return false;
	}
}

bool session_say(struct peer_session *session, uint16_t code, const char *enhanced,
		 const char *text)
{
	enum peer_fault fault = peer_fault_draw();

	reply_pause(session);
	if (fault != FAULT_NONE)
		return session_fault(session, fault, code, enhanced, text);
	return session_reply(session, code, enhanced, text);
}

/* ── input ────────────────────────────────────────────────────────────────────────── */

bool session_fill(struct peer_session *session)
{
	size_t there = session->input_end - session->input_begin;
	int count;

	memmove(session->input, session->input + session->input_begin, there);
	session->input_begin = 0;
	session->input_end = there;
	assert(there < sizeof(session->input));
	count = net_read(session->sock, session->input + there, sizeof(session->input) - there,
			 COMMAND_TIMEOUT_S * SIM_S);
	if (count <= 0) {
		sim_trace("the daemon is gone: %d", count);
		return false;
	}
	session->input_end += (size_t)count;
	return true;
}

bool session_more(const struct peer_session *session)
{
	return session->input_end > session->input_begin || net_waiting(session->sock) > 0;
}

static void line_check(const struct peer_session *session, const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (line[i] == '\r' || line[i] == 0)
			session_breach(session, "a bare CR or a NUL in a command", line);
		if ((line[i] & 0x80) && !offers(session, PEER_SMTPUTF8))
			session_breach(session, "8-bit text in a command", line);
	}
}

/* A command without its CRLF, NUL-terminated in the input; NULL: the connection is over. */
static char *line_read(struct peer_session *session, size_t *len_out)
{
	for (;;) {
		char *begin = session->input + session->input_begin;
		size_t there = session->input_end - session->input_begin;
		char *end = there > 0 ? memchr(begin, '\n', there) : NULL;

		if (!end && there > PEER_LINE_BYTES)
			session_breach(session, "a command is too long", "");
		if (end) {
			if (end == begin || end[-1] != '\r')
				session_breach(session, "a command ends with a bare LF", "");
			session->input_begin += (size_t)(end + 1 - begin);
			*len_out = (size_t)(end - 1 - begin);
			end[-1] = 0;
			line_check(session, begin, *len_out);
			return begin;
		}
		if (!session_fill(session))
			return NULL;
	}
}

/* ── addresses and parameters ─────────────────────────────────────────────────────── */

/* "FROM:<address>" to the address; *rest_out: the parameters. */
static void path_take(const struct peer_session *session, struct span argument, const char *keyword,
		      char *address, struct span *rest_out)
{
	const char *end;
	size_t len;

	if (!span_starts_nocase(argument, keyword))
		session_breach(session, "no path in", argument.at);
	argument = span_skip(argument, strlen(keyword));
	end = argument.len > 0 && argument.at[0] == '<' ? memchr(argument.at, '>', argument.len)
							: NULL;
	if (!end)
		session_breach(session, "no angle brackets in", argument.at);
	len = (size_t)(end - argument.at - 1);
	if (len >= PEER_ADDRESS_BYTES)
		session_breach(session, "a path is too long", argument.at);
	memcpy(address, argument.at + 1, len);
	address[len] = 0;
	*rest_out = span_skip(argument, len + 2);
}

/* Each parameter belongs to an extension that was offered. */
static void param_check(struct peer_session *session, struct span param, bool mail)
{
	static const struct rule {
		const char *keyword;
		bool mail;
		uint32_t extension;
	} rules[] = {
		{ "SIZE=", true, PEER_SIZE },	      { "BODY=8BITMIME", true, PEER_8BITMIME },
		{ "BODY=7BIT", true, PEER_8BITMIME }, { "SMTPUTF8", true, PEER_SMTPUTF8 },
		{ "RET=", true, PEER_DSN },	      { "ENVID=", true, PEER_DSN },
		{ "NOTIFY=", false, PEER_DSN },	      { "ORCPT=", false, PEER_DSN },
	};

	for (size_t i = 0; i < array_count(rules); i++) {
		if (rules[i].mail != mail || !span_starts_nocase(param, rules[i].keyword))
			continue;
		if (!offers(session, rules[i].extension))
			session_breach(session, "a parameter that was not offered", param.at);
		if (rules[i].extension == PEER_SIZE)
			session->message.declared_bytes = strtoull(param.at + 5, NULL, 10);
		return;
	}
	session_breach(session, "an unknown parameter", param.at);
}

static void params_check(struct peer_session *session, struct span rest, bool mail)
{
	while (rest.len > 0) {
		const char *space;
		size_t len;

		if (rest.at[0] != ' ' || rest.len < 2 || rest.at[1] == ' ')
			session_breach(session, "parameters are not set apart by one blank",
				       rest.at);
		rest = span_skip(rest, 1);
		space = memchr(rest.at, ' ', rest.len);
		len = space ? (size_t)(space - rest.at) : rest.len;
		param_check(session, span_of(rest.at, len), mail);
		rest = span_skip(rest, len);
	}
}

/* ── commands ─────────────────────────────────────────────────────────────────────── */

static bool on_ehlo(struct peer_session *session, struct span argument)
{
	const struct peer_traits *traits = &session->peer->traits;
	static const struct word {
		uint32_t extension;
		const char *text;
	} words[] = {
		{ PEER_PIPELINING, "PIPELINING" },
		{ PEER_CHUNKING, "CHUNKING" },
		{ PEER_8BITMIME, "8BITMIME" },
		{ PEER_SMTPUTF8, "SMTPUTF8" },
		{ PEER_SIZE, "SIZE 104857600" },
		{ PEER_DSN, "DSN" },
		{ PEER_ENHANCED, "ENHANCEDSTATUSCODES" },
	};
	char text[PEER_LINE_BYTES];
	enum peer_fault fault = peer_fault_draw();
	int len;

	if (argument.len == 0)
		session_breach(session, "EHLO without a name", "");
	if (traits->helo_only)
		return session_say(session, 502, "", "what?");
	reply_pause(session);
	message_reset(&session->message);
	session->greeted = true;
	session->offers = 0;
	if (fault != FAULT_NONE)
		return session_fault(session, fault, 250, "", traits->name);
	session->offers = traits->offers;
	len = snprintf(text, sizeof(text), "250-%s\r\n", traits->name);
	for (size_t i = 0; i < array_count(words); i++)
		if (offers(session, words[i].extension))
			len += snprintf(text + len, sizeof(text) - (size_t)len, "250-%s\r\n",
					words[i].text);
	len += snprintf(text + len, sizeof(text) - (size_t)len, "250 HELP\r\n");
	sim_trace("> 250 offers %x", session->offers);
	return net_write(session->sock, text, (size_t)len) == 0;
}

static bool on_helo(struct peer_session *session, struct span argument)
{
	if (argument.len == 0)
		session_breach(session, "HELO without a name", "");
	message_reset(&session->message);
	session->greeted = true;
	session->offers = 0;
	return session_say(session, 250, "", session->peer->traits.name);
}

static bool on_mail(struct peer_session *session, struct span argument)
{
	struct peer_message *message = &session->message;
	const struct peer_traits *traits = &session->peer->traits;
	enum peer_fault fault = peer_fault_draw();
	struct span rest;

	if (!session->greeted)
		session_breach(session, "MAIL before EHLO", argument.at);
	if (message->open)
		session_breach(session, "MAIL within a transaction", argument.at);
	message_reset(message);
	path_take(session, argument, "FROM:", message->sender, &rest);
	params_check(session, rest, true);
	reply_pause(session);
	if (traits->messages_max > 0 && session->taken_count >= traits->messages_max) {
		if (sim_below(2) == 0)
			return session_say(session, 452, "4.3.2", "enough for this session");
		session_reply(session, 421, "4.7.0", "enough for this session");
		return false;
	}
	if (fault != FAULT_NONE) {
		message->open = fault == FAULT_LATE;
		return session_fault(session, fault, 250, "2.1.0", "sender ok");
	}
	message->open = true;
	return session_reply(session, 250, "2.1.0", "sender ok");
}

static void recipient_add(struct peer_message *message, const char *address)
{
	if (!message->recipients) {
		message->recipients = calloc(PEER_RECIPIENTS_MAX, sizeof(char *));
		assert(message->recipients);
	}
	message->recipients[message->count++] = strdup(address);
}

static struct peer_verdict verdict_of(struct peer_session *session, const char *address)
{
	uint32_t max = session->peer->traits.recipients_max;
	uint32_t count = session->message.count;

	if (!session->message.open)
		return (struct peer_verdict){ 503, "5.5.1", "no MAIL was accepted" };
	if ((max > 0 && count >= max) || count == PEER_RECIPIENTS_MAX)
		return (struct peer_verdict){ 452, "4.5.3", "too many recipients" };
	if (session->peer->traits.judges_late)
		return (struct peer_verdict){ 250, "2.1.5", "recipient ok" };
	return peer_judge(session->peer, address);
}

static bool on_rcpt(struct peer_session *session, struct span argument)
{
	struct peer_message *message = &session->message;
	enum peer_fault fault = peer_fault_draw();
	char address[PEER_ADDRESS_BYTES];
	struct peer_verdict verdict;
	struct span rest;

	if (!message->open && !offers(session, PEER_PIPELINING))
		session_breach(session, "RCPT without MAIL", argument.at);
	path_take(session, argument, "TO:", address, &rest);
	params_check(session, rest, false);
	if (memmem(rest.at, rest.len, "NOTIFY=", 7))
		ledger_handed_on(address);
	message->tried++;
	verdict = verdict_of(session, address);
	reply_pause(session);
	if (fault == FAULT_NONE || fault == FAULT_LATE || fault == FAULT_AFTER) {
		if (verdict.code >= 500 && message->open)
			ledger_refused(address);
		if (verdict.code == 250)
			recipient_add(message, address);
	}
	if (fault != FAULT_NONE)
		return session_fault(session, fault, verdict.code, verdict.enhanced, verdict.text);
	return session_reply(session, verdict.code, verdict.enhanced, verdict.text);
}

static bool on_data(struct peer_session *session, struct span argument)
{
	struct peer_message *message = &session->message;
	bool pipelined = offers(session, PEER_PIPELINING);
	enum peer_fault fault = peer_fault_draw();

	if (argument.len > 0)
		session_breach(session, "DATA with an argument", argument.at);
	if (message->tried == 0 || (message->count == 0 && !pipelined))
		session_breach(session, "DATA without a recipient", "");
	if (session_more(session))
		session_breach(session, "something was sent behind DATA", "");
	reply_pause(session);
	if (fault != FAULT_NONE && fault != FAULT_LATE)
		return session_fault(session, fault, 354, "", "go ahead");
	if (message->count == 0 && !(message->open && session->peer->traits.takes_lone_dot))
		return session_reply(session, 503, "5.5.1", "no valid recipients");
	if (fault == FAULT_LATE)
		fiber_sleep(sim_between(SIM_S, PEER_LATE_S_MAX * SIM_S));
	return session_reply(session, 354, "", "go ahead") && session_data(session);
}

static bool on_bdat(struct peer_session *session, struct span argument)
{
	uint64_t bytes;
	bool last;

	if (!offers(session, PEER_CHUNKING))
		session_breach(session, "BDAT was not offered", argument.at);
	if (!smtp_bdat_parse(argument, &bytes, &last))
		session_breach(session, "a malformed BDAT", argument.at);
	if (session->message.tried == 0)
		session_breach(session, "BDAT without RCPT", argument.at);
	return session_bdat(session, bytes, last);
}

static bool on_rset(struct peer_session *session, struct span argument)
{
	if (argument.len > 0)
		session_breach(session, "RSET with an argument", argument.at);
	message_reset(&session->message);
	return session_say(session, 250, "2.0.0", "forgotten");
}

static bool on_quit(struct peer_session *session)
{
	if (session_more(session))
		session_breach(session, "something was sent behind QUIT", "");
	session_say(session, 221, "2.0.0", "bye");
	return false;
}

/* ── the session ──────────────────────────────────────────────────────────────────── */

static void length_check(const struct peer_session *session, enum smtp_verb verb, const char *line,
			 size_t len)
{
	size_t max = LINE_MAX_BYTES;

	if (verb == SMTP_VERB_MAIL)
		max += MAIL_EXTRA_BYTES;
	if (verb == SMTP_VERB_RCPT && offers(session, PEER_DSN))
		max += RCPT_EXTRA_BYTES;
	if (len + 2 > max)
		session_breach(session, "a command is too long", line);
}

static bool command_run(struct peer_session *session, struct smtp_command command, const char *line)
{
	if (session->peer->traits.lmtp && !session->greeted && command.verb != SMTP_VERB_QUIT)
		session_breach(session, "LMTP does not begin with LHLO", line);
	switch (command.verb) {
	case SMTP_VERB_EHLO:
		return on_ehlo(session, command.argument);
	case SMTP_VERB_HELO:
		return on_helo(session, command.argument);
	case SMTP_VERB_MAIL:
		return on_mail(session, command.argument);
	case SMTP_VERB_RCPT:
		return on_rcpt(session, command.argument);
	case SMTP_VERB_DATA:
		return on_data(session, command.argument);
	case SMTP_VERB_BDAT:
		return on_bdat(session, command.argument);
	case SMTP_VERB_RSET:
		return on_rset(session, command.argument);
	case SMTP_VERB_QUIT:
		return on_quit(session);
	default:
		session_breach(session, "a command that makes no sense here", line);
	}
}

/* Forgets what came behind a command, as a server does that reads with two hands. */
static void input_lose(struct peer_session *session)
{
	if (!session->peer->traits.pipelining_lie || weather_is_clear() || sim_below(8) > 0 ||
	    !session_more(session))
		return;
	sim_trace("fault: loses what was pipelined");
	session->deaf = true;
}

/* Until the daemon has waited long enough. */
static void input_drop(struct peer_session *session)
{
	do
		session->input_begin = session->input_end;
	while (session_fill(session));
}

static bool command_next(struct peer_session *session)
{
	struct smtp_command command;
	size_t len;
	const char *line;

	if (session->deaf) {
		input_drop(session);
		return false;
	}
	line = line_read(session, &len);
	if (!line)
		return false;
	sim_trace("< %.200s", line);
	if (session->peer->traits.lmtp && span_starts_nocase(span_of(line, len), "LHLO "))
		return on_ehlo(session, span_of(line + 5, len - 5));
	command = smtp_command_parse(span_of(line, len));
	length_check(session, command.verb, line, len);
	if (session_more(session) && !offers(session, PEER_PIPELINING) &&
	    command.verb != SMTP_VERB_BDAT)
		session_breach(session, "pipelining was not offered", line);
	if (command.verb == SMTP_VERB_MAIL || command.verb == SMTP_VERB_RCPT)
		input_lose(session);
	return command_run(session, command, line);
}

static bool greet(struct peer_session *session)
{
	const struct peer_traits *traits = &session->peer->traits;
	char text[128];

	if (traits->connections_max > 0 && session->peer->open_count > traits->connections_max) {
		session_reply(session, 421, "", "too many connections");
		return false;
	}
	snprintf(text, sizeof(text), "%s ESMTP", traits->name);
	return session_say(session, 220, "", text);
}

static void linger(struct sock *sock)
{
	uint64_t until = sim_now() + sim_between(1, PEER_LINGER_S_MAX) * SIM_S;
	char bytes[512];

	net_finish(sock);
	while (sim_now() < until && net_read(sock, bytes, sizeof(bytes), until - sim_now()) > 0)
		;
}

void peer_serve(struct sock *sock, void *context)
{
	struct peer_session *session = calloc(1, sizeof(*session));
	struct peer *peer = context;

	assert(session);
	session->peer = peer;
	session->sock = sock;
	peer->open_count++;
	if (greet(session))
		while (command_next(session))
			;
	peer->open_count--;
	if (session->lingers)
		linger(sock);
	net_close(sock, session->reset);
	message_reset(&session->message);
	free(session);
}
