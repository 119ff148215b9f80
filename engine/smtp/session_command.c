/*
 * session_command - the verbs: which are in order when, and what each does.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/smtp/command.h"
#include "engine/smtp/params.h"
#include "engine/smtp/session_private.h"
#include "os/check.h"

enum { HELLO_MAX = 255 };

static bool accepted(const struct smtp_answer *answer)
{
	return answer->code >= 200 && answer->code <= 299;
}

/* Out of order. What a client pipelined behind a MAIL that we refused is no mistake of its. */
static void out_of_order(struct smtp_session *session, const char *text)
{
	if (session->wake)
		session_reply(session, 503, "5.5.1", text);
	else
		session_mistake(session, 503, "5.5.1", text);
}

/* It goes into a trace field: no more than names and address literals have. */
static bool hello_valid(struct span name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = name.at[i];

		if (!((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9') &&
		    !strchr("-_.:[]", c))
			return false;
	}
	return name.len <= HELLO_MAX;
}

/* HELO and EHLO: false if the name was not taken. */
static bool hello_take(struct smtp_session *session, struct span name, bool extended)
{
	if (!hello_valid(name)) {
		session_mistake(session, 501, extended ? "5.5.4" : NULL, "Not a host name");
		return false;
	}
	session_reset(session, NULL);
	if (!session_hello_set(session, name))
		return false;
	session->extended = extended;
	session->stage = SESSION_READY;
	return true;
}

static void on_helo(struct smtp_session *session, struct span argument)
{
	if (hello_take(session, argument, false))
		session_reply(session, 250, NULL, session->options.name);
}

/* RFC 9422. A limit that there isn't is not told. */
static const char *limits_line(const struct smtp_session_options *options, char line[static 64])
{
	char messages[24] = "";

	line[0] = '\0';
	if (options->messages_max > 0)
		snprintf(messages, sizeof(messages), " MAILMAX=%u", options->messages_max);
	if (options->limits)
		snprintf(line, 64, "250-LIMITS RCPTMAX=%u%s\r\n", options->recipients_max,
			 messages);
	return line;
}

static void on_ehlo(struct smtp_session *session, struct span argument)
{
	const struct smtp_session_options *options = &session->options;
	char size[48] = "", limits[64];
	char text[1000];

	if (!hello_take(session, argument, true))
		return;
	if (options->size_max > 0)
		snprintf(size, sizeof(size), "250-SIZE %llu\r\n",
			 (unsigned long long)options->size_max);
	int len = snprintf(text, sizeof(text),
			   "250-%.255s\r\n%s%s%s%s%s%s%s%s%s%s%s250 ENHANCEDSTATUSCODES\r\n",
			   options->name, options->pipelining ? "250-PIPELINING\r\n" : "",
			   options->size_max > 0 ? size : "250-SIZE\r\n",
			   options->eightbit ? "250-8BITMIME\r\n" : "",
			   options->smtputf8 ? "250-SMTPUTF8\r\n" : "",
			   options->dsn ? "250-DSN\r\n" : "",
			   options->chunking ? "250-CHUNKING\r\n" : "",
			   options->binarymime && options->chunking ? "250-BINARYMIME\r\n" : "",
			   options->starttls && !session->secured ? "250-STARTTLS\r\n" : "",
			   session_auth_offered(session) ? "250-AUTH PLAIN LOGIN\r\n" : "",
			   limits_line(options, limits),
			   options->xclient ? "250-XCLIENT " XCLIENT_ATTRIBUTES "\r\n" : "");

	assert(len > 0 && (size_t)len < sizeof(text));
	session_reply_raw(session, span_of(text, (size_t)len));
}

/* The path's fault, as an answer; false: it has none. */
static bool path_fault(struct smtp_session *session, enum smtp_address_status status,
		       const char *enhanced)
{
	static const char *const texts[] = {
		[SMTP_ADDRESS_SYNTAX] = "Not an address",
		[SMTP_ADDRESS_LOCAL] = "Local part too long",
		[SMTP_ADDRESS_DOMAIN] = "Not a domain",
		[SMTP_ADDRESS_TOO_LONG] = "Path too long",
		[SMTP_ADDRESS_UTF8] = "Not well-formed UTF-8",
	};

	if (status == SMTP_ADDRESS_OK)
		return false;
	if (status == SMTP_ADDRESS_UTF8)
		session_mistake(session, 553, "5.6.7", texts[status]);
	else
		session_mistake(session, 501, enhanced, texts[status]);
	return true;
}

static bool params_fault(struct smtp_session *session, enum smtp_params_status status)
{
	if (status == SMTP_PARAMS_UNKNOWN)
		session_mistake(session, 555, "5.5.4", "Parameter not known");
	else if (status == SMTP_PARAMS_BAD)
		session_mistake(session, 501, "5.5.4", "Bad parameter value");
	return status != SMTP_PARAMS_OK;
}

/* Reads MAIL's argument; false: it was answered. */
static bool mail_read(struct smtp_session *session, struct span argument, struct smtp_mail *mail)
{
	struct span rest;

	if (!smtp_keyword_skip(&argument, "FROM:")) {
		session_mistake(session, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
		return false;
	}
	enum smtp_address_status status = smtp_path_parse(argument, true, &mail->sender, &rest);

	if (status == SMTP_ADDRESS_OK && mail->sender.len > 0 &&
	    mail->sender.domain_at == mail->sender.len)
		status = SMTP_ADDRESS_SYNTAX; /* <postmaster> is a recipient only */
	if (path_fault(session, status, "5.1.7") ||
	    params_fault(session, smtp_params_mail(rest, &session->options, mail)))
		return false;
	if (mail->sender.utf8 && !mail->utf8) {
		session_mistake(session, 553, "5.6.7", "Address needs SMTPUTF8");
		return false;
	}
	if (session->options.size_max > 0 && mail->size > session->options.size_max) {
		session_reply(session, 552, "5.3.4", "Message too big");
		return false;
	}
	return true;
}

static void on_mail(struct smtp_session *session, struct span argument)
{
	struct smtp_mail mail; /* not zeroed: it is large, and this path is hot */

	if (session->stage != SESSION_READY) {
		session_mistake(session, 503, "5.5.1",
				session->stage == SESSION_START ? "EHLO first"
								: "Transaction in progress");
		return;
	}
	if (session->options.messages_max > 0 &&
	    session->messages == session->options.messages_max) {
		smtp_session_shutdown(session, "4.7.0", "Too many messages in one session");
		return;
	}
	session->wake = true;
	if (!mail_read(session, argument, &mail))
		return;
	struct smtp_answer answer = session->host->mail(session->context, &mail);

	if (accepted(&answer)) {
		session->wake = false;
		session->open = true;
		session->messages++;
		session->stage = SESSION_MAIL;
		session->utf8 = mail.utf8;
		session->binary = mail.body == SMTP_BODY_BINARYMIME;
	}
	session_reply(session, answer.code, answer.enhanced, answer.text);
}

/* Reads RCPT's argument; false: it was answered. */
static bool rcpt_read(struct smtp_session *session, struct span argument, struct smtp_rcpt *rcpt)
{
	struct span rest;

	if (!smtp_keyword_skip(&argument, "TO:")) {
		session_mistake(session, 501, "5.5.4", "Syntax: RCPT TO:<address>");
		return false;
	}
	enum smtp_address_status status = smtp_path_parse(argument, true, &rcpt->recipient, &rest);

	if (status == SMTP_ADDRESS_OK && rcpt->recipient.len == 0)
		status = SMTP_ADDRESS_SYNTAX;
	if (path_fault(session, status, "5.1.3") ||
	    params_fault(session, smtp_params_rcpt(rest, &session->options, session->utf8, rcpt)))
		return false;
	if (rcpt->recipient.utf8 && !session->utf8) {
		session_mistake(session, 553, "5.6.7", "Address needs SMTPUTF8");
		return false;
	}
	return true;
}

static void on_rcpt(struct smtp_session *session, struct span argument)
{
	struct smtp_rcpt rcpt;

	if (session->stage != SESSION_MAIL && session->stage != SESSION_RCPT) {
		out_of_order(session,
			     session->stage > SESSION_RCPT ? "Not within BDAT" : "MAIL first");
		return;
	}
	if (session->recipients >= session->options.recipients_max) {
		session_reply(session, 452, "4.5.3", "Too many recipients");
		return;
	}
	if (!rcpt_read(session, argument, &rcpt))
		return;
	session->suspect = false;
	struct smtp_answer answer = session->host->rcpt(session->context, &rcpt);

	if (accepted(&answer)) {
		session->recipients++;
		session->stage = SESSION_RCPT;
	}
	if (session->suspect)
		session_mistake(session, answer.code, answer.enhanced, answer.text);
	else
		session_reply(session, answer.code, answer.enhanced, answer.text);
}

static void on_data(struct smtp_session *session, struct span argument)
{
	(void)argument;
	if (session->stage == SESSION_MAIL)
		session_reply(session, 554, "5.5.1", "No valid recipients");
	else if (session->stage != SESSION_RCPT)
		out_of_order(session,
			     session->stage > SESSION_RCPT ? "Not within BDAT" : "MAIL first");
	else if (session->binary)
		session_mistake(session, 503, "5.5.1", "BINARYMIME needs BDAT");
	else
		session_data_begin(session);
}

static void on_bdat(struct smtp_session *session, struct span argument)
{
	uint64_t size;
	bool last;

	if (!smtp_bdat_parse(argument, &size, &last)) {
		/* What follows may be the chunk: nothing after it can be trusted. */
		session_mistake(session, 501, "5.5.4", "Syntax: BDAT size [LAST]");
		session_close(session, "unusable BDAT");
	} else if (!session->options.chunking) {
		session_mistake(session, 502, "5.5.1", "Not offered");
		session_close(session, "BDAT without CHUNKING");
	} else {
		session_bdat_begin(session, size, last);
	}
}

static void on_rset(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_reset(session, NULL);
	session_reply(session, 250, "2.0.0", "Ok");
}

static void on_noop(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_reply(session, 250, "2.0.0", "Ok");
}

static void on_quit(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_reply(session, 221, "2.0.0", "Bye");
	session_close(session, NULL);
}

static void on_vrfy(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_reply(session, 252, "2.0.0", "Not verified; send and see");
}

static void on_help(struct smtp_session *session, struct span argument)
{
	const struct smtp_session_options *options = &session->options;
	char text[128];

	(void)argument;
	snprintf(text, sizeof(text), "EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP%s%s%s%s",
		 options->chunking ? " BDAT" : "",
		 options->starttls && !session->secured ? " STARTTLS" : "",
		 session_auth_offered(session) ? " AUTH" : "", options->xclient ? " XCLIENT" : "");
	session_reply(session, 214, "2.0.0", text);
}

static void on_starttls(struct smtp_session *session, struct span argument)
{
	(void)argument;
	if (session->secured || session->stage == SESSION_START) {
		session_mistake(session, 503, "5.5.1",
				session->secured ? "TLS is on already" : "EHLO first");
		return;
	}
	if (!session->options.starttls) {
		session_mistake(session, 502, "5.5.1", "Not offered");
		return;
	}
	struct smtp_answer answer = session->host->starttls(session->context);

	if (answer.code == 220) {
		session_reset(session, NULL);
		session->mode = SESSION_TLS;
	}
	session_reply(session, answer.code, answer.enhanced, answer.text);
}

/* RFC 3207, 4. BDAT has to eat its chunk, and is refused for want of a MAIL. */
static bool needs_tls(const struct smtp_session *session, enum smtp_verb verb)
{
	static const bool in_clear[SMTP_VERB_COUNT] = {
		[SMTP_VERB_UNKNOWN] = true, [SMTP_VERB_EHLO] = true,	 [SMTP_VERB_NOOP] = true,
		[SMTP_VERB_QUIT] = true,    [SMTP_VERB_STARTTLS] = true, [SMTP_VERB_BDAT] = true,
		[SMTP_VERB_FOREIGN] = true,
	};

	return session->options.tls_required && !session->secured && !in_clear[verb];
}

/* RFC 4954, 6. What needs a MAIL is refused for want of it. */
static bool needs_auth(const struct smtp_session *session, enum smtp_verb verb)
{
	return session->options.auth_required && !session->authenticated &&
	       (verb == SMTP_VERB_MAIL || verb == SMTP_VERB_VRFY);
}

/* EXPN would tell who is here; ETRN (RFC 1985) asks a server that holds mail for hosts without a
 * steady connection, and we hold none: every destination is tried by its own schedule, so there
 * is no queue to start (458) and no list of nodes to be on (459). */
static void on_not_offered(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_mistake(session, 502, "5.5.1", "Not offered");
}

static void on_unknown(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_mistake(session, 500, "5.5.1", "Command not known");
}

static void on_foreign(struct smtp_session *session, struct span argument)
{
	(void)argument;
	session_foreign(session);
}

void session_foreign(struct smtp_session *session)
{
	session_mistake(session, 500, "5.5.1", "This is SMTP");
	if (session->mode != SESSION_CLOSED)
		session_close(session, "not SMTP");
}

static void refuse_stranger(struct smtp_session *session)
{
	session->wake = true; /* what is pipelined behind MAIL is no further mistake */
	session_mistake(session, 530, "5.7.0", "Authentication required");
}

enum argument_rule { ANY, NEEDED, NONE };

static const struct verb_rule {
	enum argument_rule argument;
	void (*run)(struct smtp_session *session, struct span argument);
} rules[SMTP_VERB_COUNT] = {
	[SMTP_VERB_UNKNOWN] = { ANY, on_unknown },
	[SMTP_VERB_HELO] = { NEEDED, on_helo },
	[SMTP_VERB_EHLO] = { NEEDED, on_ehlo },
	[SMTP_VERB_MAIL] = { NEEDED, on_mail },
	[SMTP_VERB_RCPT] = { NEEDED, on_rcpt },
	[SMTP_VERB_DATA] = { NONE, on_data },
	[SMTP_VERB_BDAT] = { ANY, on_bdat },
	[SMTP_VERB_RSET] = { NONE, on_rset },
	[SMTP_VERB_NOOP] = { ANY, on_noop },
	[SMTP_VERB_QUIT] = { NONE, on_quit },
	[SMTP_VERB_VRFY] = { NEEDED, on_vrfy },
	[SMTP_VERB_HELP] = { ANY, on_help },
	[SMTP_VERB_STARTTLS] = { NONE, on_starttls },
	[SMTP_VERB_AUTH] = { NEEDED, session_auth },
	[SMTP_VERB_XCLIENT] = { ANY, session_xclient },
	[SMTP_VERB_NOT_OFFERED] = { ANY, on_not_offered },
	[SMTP_VERB_FOREIGN] = { ANY, on_foreign },
};

void session_command(struct smtp_session *session, struct span line)
{
	if (memchr(line.at, '\n', line.len) || memchr(line.at, '\r', line.len) ||
	    memchr(line.at, 0, line.len)) {
		session_mistake(session, 500, "5.5.2", "CR, LF or NUL within a command");
		return;
	}

	struct smtp_command command = smtp_command_parse(line);
	const struct verb_rule *rule = &rules[command.verb];

	if (needs_tls(session, command.verb))
		session_mistake(session, 530, "5.7.0", "STARTTLS first");
	else if (needs_auth(session, command.verb))
		refuse_stranger(session);
	else if (rule->argument == NEEDED && command.argument.len == 0)
		session_mistake(session, 501, "5.5.4", "Argument needed");
	else if (rule->argument == NONE && command.argument.len > 0)
		session_mistake(session, 501, "5.5.4", "No argument allowed");
	else
		rule->run(session, command.argument);
}
