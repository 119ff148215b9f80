/*
 * session_xclient - XCLIENT: a trusted client that speaks for another one.
 *
 * What was said before is forgotten, TLS apart, and the session stands where it began: 220. With
 * HELO the name is known already, so that MAIL may follow at once.
 */
#include "engine/smtp/session_private.h"
#include "os/check.h"

static void begin_anew(struct smtp_session *session, const struct xclient *client)
{
	session_reset(session, NULL);
	if (!session_hello_set(session, span_text(client->helo)))
		return;
	session->stage = client->helo[0] != '\0' ? SESSION_READY : SESSION_START;
	session->extended = client->extended;
	session->authenticated = client->login[0] != '\0';
	session->messages = session->errors = session->auth_failures = 0;
	smtp_session_greet(session, NULL);
}

void session_xclient(struct smtp_session *session, struct span argument)
{
	struct xclient client;
	const char *wrong;

	if (!session->options.xclient) {
		session_mistake(session, 550, "5.7.0", "Not authorized");
		return;
	}
	if (session->stage > SESSION_READY) {
		session_mistake(session, 503, "5.5.1", "Transaction in progress");
		return;
	}
	if (argument.len == 0) {
		session_mistake(session, 501, "5.5.4", "Syntax: XCLIENT attribute=value ...");
		return;
	}
	wrong = xclient_parse(argument, &client);
	if (wrong) {
		session_mistake(session, 501, "5.5.4", wrong);
		return;
	}
	struct smtp_answer answer = session->host->xclient(session->context, &client);

	if (answer.code == 220) {
		begin_anew(session, &client);
		return;
	}
	session_reply(session, answer.code, answer.enhanced, answer.text);
	session_close(session, answer.text);
}
