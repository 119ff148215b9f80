/* XCLIENT: what its attributes mean, and what becomes of the session. */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/session.h"
#include "os/check.h"

/* ── attributes ───────────────────────────────────────────────────────────────────── */

#define X64  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X255 X64 X64 X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static const struct parse_case {
	const char *name, *argument;
	const char *wrong; /* NULL: taken, and says what follows */
	uint32_t given;
	const char *address; /* NULL: none is known */
	uint16_t port;
	const char *helo, *login; /* NULL: "" */
	bool extended;
} parses[] = {
	{ "an IPv4 address", "ADDR=192.0.2.1", NULL, XCLIENT_ADDR, "192.0.2.1" },
	{ "an IPv6 address", "ADDR=IPV6:2001:db8::1", NULL, XCLIENT_ADDR, "2001:db8::1" },
	{ "an IPv4 address in the form of an IPv6 one", "ADDR=IPV6:::ffff:192.0.2.1", NULL,
	  XCLIENT_ADDR, "192.0.2.1" },
	{ "keywords in any case", "addr=ipv6:2001:db8::1 proto=esmtp", NULL,
	  XCLIENT_ADDR | XCLIENT_PROTO, "2001:db8::1", .extended = true },
	{ "all of them",
	  "NAME=a.example ADDR=192.0.2.1 PORT=4711 PROTO=ESMTP HELO=h.example LOGIN=ann "
	  "DESTADDR=198.51.100.1 DESTPORT=25",
	  NULL, 255, "192.0.2.1", 4711, "h.example", "ann", true },
	{ "PORT before ADDR", "PORT=1 ADDR=192.0.2.1", NULL, XCLIENT_ADDR | XCLIENT_PORT,
	  "192.0.2.1", 1 },
	{ "two blanks", "PORT=1  PROTO=SMTP ", NULL, XCLIENT_PORT | XCLIENT_PROTO, NULL, 1 },
	{ "unavailable",
	  "NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[unavailable] HELO=[TEMPUNAVAIL] "
	  "LOGIN=[UNAVAILABLE] DESTADDR=[UNAVAILABLE] DESTPORT=[UNAVAILABLE]",
	  NULL, 255 - XCLIENT_PROTO },
	{ "xtext", "LOGIN=a+2Bb+40c+20d", NULL, XCLIENT_LOGIN, .login = "a+b@c d" },
	{ "xtext in an address", "ADDR=192+2E0.2.1", NULL, XCLIENT_ADDR, "192.0.2.1" },
	{ "255 octets", "LOGIN=" X255, NULL, XCLIENT_LOGIN, .login = X255 },
	{ "256 octets", "LOGIN=" X255 "x", "Attribute value too long" },
	{ "without a value", "LOGIN=", "Bad attribute value" },
	{ "without '='", "ADDR", "Syntax: XCLIENT attribute=value ..." },
	{ "not known", "COLOUR=red", "Attribute not known" },
	{ "twice", "PORT=1 PORT=1", "Attribute given twice" },
	{ "half of an escape", "LOGIN=a+4", "Bad attribute value" },
	{ "a line end in xtext", "HELO=a+0D+0Ab", "Bad attribute value" },
	{ "NUL in xtext", "LOGIN=ann+00x", "Bad attribute value" },
	{ "no address", "ADDR=mail.example", "Bad ADDR" },
	{ "a path", "ADDR=/run/x", "Bad ADDR" },
	{ "IPv6 without its prefix", "ADDR=2001:db8::1", "Bad ADDR" },
	{ "IPv4 with IPv6's prefix", "ADDR=IPV6:192.0.2.1", "Bad ADDR" },
	{ "an interface", "ADDR=IPV6:fe80::1%lo", "Bad ADDR" },
	{ "a bad destination", "DESTADDR=x", "Bad DESTADDR" },
	{ "a port too high", "PORT=65536", "Bad PORT" },
	{ "a port in letters", "DESTPORT=smtp", "Bad DESTPORT" },
	{ "another protocol", "PROTO=LMTP", "Bad PROTO" },
	{ "no protocol", "PROTO=[UNAVAILABLE]", "Bad PROTO" },
	{ "a name that ends a comment", "HELO=a+29b", "Bad HELO" },
	{ "a name with a blank", "NAME=a+20b", "Bad NAME" },
};

static void parse_row(void **state)
{
	const struct parse_case *row = *state;
	char text[OS_ADDRESS_TEXT_MAX];
	struct xclient client;
	const char *wrong = xclient_parse(span_text(row->argument), &client);

	if (row->wrong) {
		assert_non_null(wrong);
		assert_string_equal(wrong, row->wrong);
		return;
	}
	if (wrong)
		fail_msg("%s", wrong);
	assert_int_equal(client.given, row->given);
	assert_string_equal(os_address_text(&client.address, text),
			    row->address ? row->address : "none");
	assert_int_equal(client.address.port, row->port);
	assert_int_equal(client.extended, row->extended);
	assert_string_equal(client.helo, row->helo ? row->helo : "");
	assert_string_equal(client.login, row->login ? row->login : "");
}

/* ── the session ──────────────────────────────────────────────────────────────────── */

struct world {
	char log[400]; /* M mail, R rcpt, A abort, X xclient: each with what it said */
	char greeted[64];
};

static void log_add(struct world *world, const char *what, const char *text)
{
	size_t used = strlen(world->log);

	snprintf(world->log + used, sizeof(world->log) - used, "%s%s", what, text);
}

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	(void)mail;
	log_add(context, "M", "");
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	(void)rcpt;
	log_add(context, "R", "");
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	log_add(context, greeting->extended ? "B+" : "B-", "");
	snprintf(((struct world *)context)->greeted, 64, "%.*s", SPAN_ARG(greeting->name));
	log_add(context, "", ((struct world *)context)->greeted);
	return (struct smtp_answer){ 452, "4.3.1", "no" };
}

static void on_abort(void *context, const char *why)
{
	(void)why;
	log_add(context, "A", "");
}

static struct smtp_answer on_xclient(void *context, const struct xclient *client)
{
	char text[OS_ADDRESS_TEXT_MAX];

	log_add(context, "X", os_address_text(&client->address, text));
	if (client->address.port == 421)
		return (struct smtp_answer){ 421, "4.7.0", "Too many" };
	return (struct smtp_answer){ 220, NULL, NULL };
}

static const struct smtp_session_host host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.abort = on_abort,
	.xclient = on_xclient,
};

static const struct smtp_session_options usual = {
	.name = "b",
	.recipients_max = 2,
	.errors_max = 3,
	.pending_max = 8,
	.xclient = true,
}, with_auth = {
	.name = "b",
	.recipients_max = 2,
	.messages_max = 1,
	.pending_max = 8,
	.xclient = true,
	.auth = SMTP_AUTH_ALWAYS,
	.auth_required = true,
};

#define X    "XCLIENT ADDR=192.0.2.1\r\n"
#define XED  "X192.0.2.1"
#define G    "220 b ESMTP\r\n"
#define EHLO "EHLO a\r\n"
#define EHLOED                                                                                     \
	"250-b\r\n250-SIZE\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"   \
	"250 ENHANCEDSTATUSCODES\r\n"
#define MAIL	 "MAIL FROM:<s@x>\r\n"
#define RCPT	 "RCPT TO:<r@x>\r\n"
#define OK_M	 "250 2.1.0 Ok\r\n"
#define OK_R	 "250 2.1.5 Ok\r\n"
#define NO	 "452 4.3.1 no\r\n"
#define FIRST	 "503 5.5.1 EHLO first\r\n"
#define STRANGER "530 5.7.0 Authentication required\r\n"

static const struct session_case {
	const char *name, *in, *out, *log;
	bool closed;
	const struct smtp_session_options *options; /* NULL: usual */
} sessions[] = {
	{ "is offered", EHLO, EHLOED, "" },
	{ "begins anew", EHLO X MAIL EHLO MAIL, EHLOED G FIRST EHLOED OK_M, XED "M" },
	{ "before EHLO, and again", X X, G G, XED XED },
	{ "not within a transaction", EHLO MAIL X RCPT,
	  EHLOED OK_M "503 5.5.1 Transaction in progress\r\n" OK_R, "MR" },
	{ "after RSET", EHLO MAIL "RSET\r\n" X, EHLOED OK_M "250 2.0.0 Ok\r\n" G, "MA" XED },
	{ "without attributes", "XCLIENT\r\n", "501 5.5.4 Syntax: XCLIENT attribute=value ...\r\n",
	  "" },
	{ "with a wrong one nothing changes", EHLO "XCLIENT ADDR=192.0.2.1 PORT=x\r\n" MAIL,
	  EHLOED "501 5.5.4 Bad PORT\r\n" OK_M, "M" },
	{ "HELO and PROTO stand for EHLO", "XCLIENT HELO=h PROTO=ESMTP\r\n" MAIL RCPT "DATA\r\n",
	  G OK_M OK_R NO, "XnoneMRB+h" },
	{ "HELO alone stands for HELO", "XCLIENT HELO=h\r\n" MAIL RCPT "DATA\r\n", G OK_M OK_R NO,
	  "XnoneMRB-h" },
	{ "a HELO of its own comes after it",
	  "XCLIENT HELO=h PROTO=ESMTP\r\nHELO i\r\n" MAIL RCPT "DATA\r\n",
	  G "250 b\r\n" OK_M OK_R NO, "XnoneMRB-i" },
	{ "refused, it is the end", "XCLIENT ADDR=192.0.2.1 PORT=421\r\nNOOP\r\n",
	  "421 4.7.0 Too many\r\n", XED, true },
	{ "errors of another client are forgotten", "FOO\r\nFOO\r\n" X "FOO\r\nFOO\r\nNOOP\r\n",
	  "500 5.5.1 Command not known\r\n500 5.5.1 Command not known\r\n" G
	  "500 5.5.1 Command not known\r\n500 5.5.1 Command not known\r\n250 2.0.0 Ok\r\n",
	  XED },
	{ "LOGIN logs in", "XCLIENT LOGIN=ann HELO=h\r\n" MAIL, G OK_M, "XnoneM", false,
	  &with_auth },
	{ "LOGIN not available", "XCLIENT LOGIN=[UNAVAILABLE] HELO=h\r\n" MAIL, G STRANGER, "Xnone",
	  false, &with_auth },
	{ "without LOGIN nobody is logged in any more",
	  "XCLIENT LOGIN=ann HELO=h\r\nXCLIENT HELO=h\r\n" MAIL, G G STRANGER, "XnoneXnone", false,
	  &with_auth },
	{ "messages of another client don't count",
	  "XCLIENT LOGIN=ann HELO=h\r\n" MAIL "RSET\r\nXCLIENT LOGIN=ann HELO=h\r\n" MAIL,
	  G OK_M "250 2.0.0 Ok\r\n" G OK_M, "XnoneMAXnoneM", false, &with_auth },
};

/* Fed in pieces of `step` octets. */
static void session_run(const struct session_case *row, size_t step)
{
	struct world world = { 0 };
	struct smtp_session *session =
		smtp_session_create(row->options ? row->options : &usual, &host, &world);
	char out[1024];
	struct span in = span_text(row->in), output;

	while (in.len > 0) {
		size_t len = in.len < step ? in.len : step;
		size_t taken = smtp_session_feed(session, span_of(in.at, len));

		if (taken == 0)
			break;
		in = span_skip(in, taken);
	}
	output = smtp_session_output(session);
	assert_true(output.len < sizeof(out));
	memcpy(out, output.at, output.len);
	out[output.len] = '\0';
	assert_string_equal(out, row->out);
	assert_string_equal(world.log, row->log);
	assert_int_equal(smtp_session_finished(session), row->closed);
	smtp_session_destroy(session);
}

static void session_row(void **state)
{
	session_run(*state, SIZE_MAX);
	session_run(*state, 1);
}

int main(void)
{
	struct CMUnitTest rows[array_count(parses) + array_count(sessions)];
	size_t count = 0;

	for (size_t i = 0; i < array_count(parses); i++)
		rows[count++] = (struct CMUnitTest){ .name = parses[i].name,
						     .test_func = parse_row,
						     .initial_state = (void *)&parses[i] };
	for (size_t i = 0; i < array_count(sessions); i++)
		rows[count++] = (struct CMUnitTest){ .name = sessions[i].name,
						     .test_func = session_row,
						     .initial_state = (void *)&sessions[i] };
	return cmocka_run_group_tests_name("xclient", rows, NULL, NULL);
}
