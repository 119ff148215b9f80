/*
 * STARTTLS in both machines: what is forgotten, what is refused, and that nothing said in clear
 * is ever taken for something said under TLS. The handshake itself is not theirs.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/client.h"
#include "engine/smtp/session.h"
#include "os/check.h"

/* ── the server's side ────────────────────────────────────────────────────────────── */

struct served {
	struct smtp_session *session;
	bool unavailable;
	char log[64]; /* M mail, R rcpt, A abort, T starttls */
	char out[4096];
	size_t taken;
};

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	(void)mail;
	strcat(((struct served *)context)->log, "M");
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	(void)rcpt;
	strcat(((struct served *)context)->log, "R");
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static void on_abort(void *context, const char *why)
{
	(void)why;
	strcat(((struct served *)context)->log, "A");
}

static struct smtp_answer on_starttls(void *context)
{
	struct served *served = context;

	strcat(served->log, "T");
	return served->unavailable ? (struct smtp_answer){ 454, "4.7.0", "Not now" }
				   : (struct smtp_answer){ 220, "2.0.0", "Go" };
}

static const struct smtp_session_host session_host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.abort = on_abort,
	.starttls = on_starttls,
};

static struct served *serve(bool offered, bool required)
{
	struct smtp_session_options options = {
		.name = "b",
		.recipients_max = 2,
		.pending_max = 8,
		.chunking = true,
		.starttls = offered,
		.tls_required = required,
	};
	struct served *served = calloc(1, sizeof(*served));

	served->session = smtp_session_create(&options, &session_host, served);
	return served;
}

static void serve_end(struct served *served)
{
	smtp_session_destroy(served->session);
	free(served);
}

/* Octet for octet or at once; returns what was said, in served->out. */
static const char *say(struct served *served, const char *text, bool bytewise)
{
	struct span in = span_text(text), output;
	size_t step = bytewise ? 1 : in.len;

	served->out[0] = '\0';
	served->taken = 0;
	while (served->taken < in.len) {
		size_t took = smtp_session_feed(
			served->session,
			span_of(in.at + served->taken,
				step < in.len - served->taken ? step : in.len - served->taken));

		served->taken += took;
		if (took == 0)
			break;
	}
	output = smtp_session_output(served->session);
	memcpy(served->out, output.at, output.len);
	served->out[output.len] = '\0';
	smtp_session_sent(served->session, output.len);
	return served->out;
}

#define EHLO	"EHLO a\r\n"
#define OFFERED "250-b\r\n250-SIZE\r\n250-CHUNKING\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES\r\n"
#define EHLOED	"250-b\r\n250-SIZE\r\n250-CHUNKING\r\n250 ENHANCEDSTATUSCODES\r\n"
#define GO	"220 2.0.0 Go\r\n"
#define FIRST	"530 5.7.0 STARTTLS first\r\n"

static const struct served_case {
	const char *name, *in, *out, *log;
	size_t left; /* octets that were not taken */
	bool expects, absent, required, unavailable;
} served_cases[] = {
	{ "STARTTLS is offered and taken", EHLO "STARTTLS\r\n", OFFERED GO, "T", .expects = true },
	{ "nothing behind it is taken", EHLO "STARTTLS\r\nMAIL FROM:<s@x>\r\n", OFFERED GO, "T", 17,
	  .expects = true },
	{ "nor half a line", EHLO "STARTTLS\r\nMA", OFFERED GO, "T", 2, .expects = true },
	{ "a transaction before it is off", EHLO "MAIL FROM:<s@x>\r\nSTARTTLS\r\n",
	  OFFERED "250 2.1.0 Ok\r\n" GO, "MTA", .expects = true },
	{ "an argument is a mistake", EHLO "STARTTLS x\r\n",
	  OFFERED "501 5.5.4 No argument allowed\r\n", "" },
	{ "EHLO comes first", "STARTTLS\r\n", "503 5.5.1 EHLO first\r\n", "" },
	{ "unavailable now", EHLO "STARTTLS\r\nMAIL FROM:<s@x>\r\n",
	  OFFERED "454 4.7.0 Not now\r\n250 2.1.0 Ok\r\n", "TM", .unavailable = true },
	{ "not offered", EHLO "STARTTLS\r\n", EHLOED "502 5.5.1 Not offered\r\n", "",
	  .absent = true },
	{ "required: nothing before it",
	  EHLO "MAIL FROM:<s@x>\r\nRSET\r\nHELO a\r\nVRFY a\r\nNOOP\r\nSTARTTLS\r\n",
	  OFFERED FIRST FIRST FIRST FIRST "250 2.0.0 Ok\r\n" GO, "T", .expects = true,
	  .required = true },
	{ "required: a chunk is no command", EHLO "BDAT 6 LAST\r\nNOOP\r\nQUIT\r\n",
	  OFFERED "503 5.5.1 MAIL first\r\n221 2.0.0 Bye\r\n", "", .required = true },
	{ "a bare LF does not end it", EHLO "STARTTLS\nMAIL FROM:<s@x>\r\n",
	  OFFERED "500 5.5.2 CR, LF or NUL within a command\r\n", "" },
};

static void served_run(void **state)
{
	const struct served_case *row = *state;

	for (int bytewise = 0; bytewise < 2; bytewise++) {
		struct served *served = serve(!row->absent, row->required);

		served->unavailable = row->unavailable;
		assert_string_equal(say(served, row->in, bytewise), row->out);
		assert_string_equal(served->log, row->log);
		assert_int_equal(strlen(row->in) - served->taken, row->left);
		assert_int_equal(smtp_session_expects_tls(served->session), row->expects);
		serve_end(served);
	}
}

static void under_tls_all_is_forgotten(void **state)
{
	struct served *served = serve(true, true);

	(void)state;
	say(served, EHLO "STARTTLS\r\n", false);
	smtp_session_secured(served->session);
	assert_false(smtp_session_expects_tls(served->session));
	assert_string_equal(say(served, "MAIL FROM:<s@x>\r\n", false), "503 5.5.1 EHLO first\r\n");
	assert_string_equal(say(served, EHLO, false), EHLOED);
	assert_string_equal(say(served, "STARTTLS\r\nMAIL FROM:<s@x>\r\n", false),
			    "503 5.5.1 TLS is on already\r\n250 2.1.0 Ok\r\n");
	serve_end(served);
}

static void tls_from_the_first_byte_on(void **state)
{
	struct served *served = serve(true, false);

	(void)state;
	smtp_session_secured(served->session);
	smtp_session_greet(served->session, NULL);
	assert_string_equal(say(served, EHLO, false), "220 b ESMTP\r\n" EHLOED);
	serve_end(served);
}

/* ── the client's side ────────────────────────────────────────────────────────────── */

struct client {
	struct smtp_client *smtp;
	char wire[1024];
	bool ready;
	uint32_t handshakes;
	char ended[128];
};

static void on_ready(void *context)
{
	((struct client *)context)->ready = true;
}

static void on_handshake(void *context)
{
	((struct client *)context)->handshakes++;
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct client *client = context;

	(void)reply;
	snprintf(client->ended, sizeof(client->ended), "%s", why);
}

static const struct smtp_client_host client_host = {
	.ready = on_ready,
	.starttls = on_handshake,
	.ended = on_ended,
};

static void pull(struct client *client)
{
	struct iovec iov[4];
	int count;

	while ((count = smtp_client_output(client->smtp, iov, 4)) > 0) {
		size_t sum = 0;

		for (int i = 0; i < count; i++) {
			strncat(client->wire, iov[i].iov_base, iov[i].iov_len);
			sum += iov[i].iov_len;
		}
		smtp_client_sent(client->smtp, sum);
	}
}

static void hear(struct client *client, const char *text, bool bytewise)
{
	size_t len = strlen(text);

	for (size_t i = 0; bytewise && i < len && client->handshakes == 0 && !*client->ended; i++) {
		smtp_client_feed(client->smtp, span_of(text + i, 1));
		pull(client);
	}
	if (!bytewise)
		smtp_client_feed(client->smtp, span_text(text));
	pull(client);
}

static struct client *client_begin(bool required)
{
	struct smtp_client_options options = {
		.hello = "a",
		.depth_max = 1,
		.pipelining = true,
		.tls = true,
		.tls_required = required,
	};
	struct client *client = calloc(1, sizeof(*client));

	client->smtp = smtp_client_create(&options, &client_host, client);
	return client;
}

static void client_end(struct client *client)
{
	smtp_client_lost(client->smtp, "test over");
	smtp_client_destroy(client->smtp);
	free(client);
}

#define HAS_TLS "220 b\r\n", "250-b\r\n250-SIZE 10\r\n250 STARTTLS\r\n"

static const struct client_case {
	const char *name;
	const char *replies[4];
	const char *wire, *ended;
	uint16_t trouble;
	bool required, handshake, ready;
} client_cases[] = {
	{ "STARTTLS where it is offered",
	  { HAS_TLS, "220 go\r\n" },
	  "EHLO a\r\nSTARTTLS\r\n",
	  "",
	  .handshake = true },
	{ "in clear where it is not",
	  { "220 b\r\n", "250 b\r\n" },
	  "EHLO a\r\n",
	  "",
	  .ready = true },
	{ "required and not offered",
	  { "220 b\r\n", "250 b\r\n" },
	  "EHLO a\r\n",
	  "TLS is required, and the server does not offer it",
	  40704,
	  .required = true },
	{ "refused: on in clear",
	  { HAS_TLS, "454 4.7.0 no\r\n" },
	  "EHLO a\r\nSTARTTLS\r\n",
	  "",
	  .ready = true },
	{ "required and refused",
	  { HAS_TLS, "554 no\r\n" },
	  "EHLO a\r\nSTARTTLS\r\n",
	  "TLS is required, and the server refused it",
	  40704,
	  .required = true },
	{ "421 at STARTTLS",
	  { HAS_TLS, "421 bye\r\n" },
	  "EHLO a\r\nSTARTTLS\r\n",
	  "the peer is closing",
	  40705 },
	{ "354 at STARTTLS",
	  { HAS_TLS, "354 go\r\n" },
	  "EHLO a\r\nSTARTTLS\r\n",
	  "STARTTLS answered by 3xx",
	  40705 },
	{ "required: no HELO",
	  { "220 b\r\n", "502 what\r\n" },
	  "EHLO a\r\n",
	  "hello refused",
	  .required = true },
	{ "HELO, where clear text will do",
	  { "220 b\r\n", "502 what\r\n", "250 b\r\n" },
	  "EHLO a\r\nHELO a\r\n",
	  "",
	  .ready = true },
};

static void client_run(void **state)
{
	const struct client_case *row = *state;

	for (int bytewise = 0; bytewise < 2; bytewise++) {
		struct client *client = client_begin(row->required);

		for (int i = 0; i < 4 && row->replies[i]; i++)
			hear(client, row->replies[i], bytewise);
		assert_string_equal(client->wire, row->wire);
		assert_string_equal(client->ended, row->ended);
		assert_int_equal(client->handshakes, row->handshake);
		assert_int_equal(client->ready, row->ready);
		assert_int_equal(smtp_client_tls_trouble(client->smtp), row->trouble);
		client_end(client);
	}
}

static void replies_behind_220_end_it(void **state)
{
	static const char *const injected[] = { "250 evil\r\n", "2", "\r\n", "\x16\x03\x01" };

	(void)state;
	for (size_t i = 0; i < array_count(injected); i++) {
		struct client *client = client_begin(false);
		char text[64];

		hear(client, "220 b\r\n", false);
		hear(client, "250-b\r\n250 STARTTLS\r\n", false);
		snprintf(text, sizeof(text), "220 go\r\n%s", injected[i]);
		hear(client, text, false);
		assert_string_equal(client->ended, "bytes between STARTTLS and the handshake");
		assert_int_equal(client->handshakes, 0);
		assert_int_equal(smtp_client_tls_trouble(client->smtp), 40705);
		client_end(client);
	}
}

/* The kernel had not yet said that STARTTLS left when the reply was here. */
static void an_early_220_counts_once_it_is_due(void **state)
{
	(void)state;
	for (int more = 0; more < 2; more++) {
		struct client *client = client_begin(false);

		hear(client, "220 b\r\n", false);
		smtp_client_feed(client->smtp, span_text("250-b\r\n250 STARTTLS\r\n"));
		smtp_client_feed(client->smtp, span_text("220 go\r\n"));
		assert_int_equal(client->handshakes, 0);
		if (more)
			smtp_client_feed(client->smtp, span_text("250 evil\r\n"));
		pull(client);
		assert_int_equal(client->handshakes, !more);
		assert_string_equal(client->ended,
				    more ? "bytes between STARTTLS and the handshake" : "");
		client_end(client);
	}
}

static void what_was_offered_in_clear_is_forgotten(void **state)
{
	struct client *client = client_begin(true);

	(void)state;
	hear(client, "220 b\r\n", false);
	hear(client, "250-b\r\n250-CHUNKING\r\n250-SIZE 1\r\n250 STARTTLS\r\n", false);
	hear(client, "220 go\r\n", false);
	smtp_client_secured(client->smtp);
	pull(client);
	assert_string_equal(client->wire, "EHLO a\r\nSTARTTLS\r\nEHLO a\r\n");
	assert_int_equal(smtp_client_extensions(client->smtp), 0);
	hear(client, "250-b\r\n250-STARTTLS\r\n250 DSN\r\n", false);
	assert_true(client->ready);
	assert_int_equal(smtp_client_extensions(client->smtp), SMTP_HAS_STARTTLS | SMTP_HAS_DSN);
	assert_int_equal(client->handshakes, 1);
	client_end(client);
}

static void lost_in_the_handshake(void **state)
{
	struct client *client = client_begin(false);

	(void)state;
	hear(client, "220 b\r\n", false);
	hear(client, "250-b\r\n250 STARTTLS\r\n", false);
	hear(client, "220 go\r\n", false);
	smtp_client_lost(client->smtp, "gone");
	assert_string_equal(client->ended, "gone");
	assert_int_equal(smtp_client_tls_trouble(client->smtp), 40705);
	client_end(client);
}

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(under_tls_all_is_forgotten),
		cmocka_unit_test(tls_from_the_first_byte_on),
		cmocka_unit_test(replies_behind_220_end_it),
		cmocka_unit_test(an_early_220_counts_once_it_is_due),
		cmocka_unit_test(what_was_offered_in_clear_is_forgotten),
		cmocka_unit_test(lost_in_the_handshake),
	};
	struct CMUnitTest
		tests[array_count(served_cases) + array_count(client_cases) + array_count(others)];
	size_t n = 0;

	for (size_t i = 0; i < array_count(served_cases); i++)
		tests[n++] = (struct CMUnitTest){ served_cases[i].name, served_run, NULL, NULL,
						  (void *)&served_cases[i] };
	for (size_t i = 0; i < array_count(client_cases); i++)
		tests[n++] = (struct CMUnitTest){ client_cases[i].name, client_run, NULL, NULL,
						  (void *)&client_cases[i] };
	for (size_t i = 0; i < array_count(others); i++)
		tests[n++] = others[i];
	return cmocka_run_group_tests_name("smtp_starttls", tests, NULL, NULL);
}
