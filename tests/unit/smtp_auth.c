/*
 * AUTH on the server's side: every state with every kind of answer, the order of commands, and
 * what the host gets to check. Each row is fed whole and octet by octet.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/base64.h"
#include "engine/smtp/session.h"
#include "os/check.h"

struct world {
	struct smtp_session *session;
	enum smtp_auth_verdict verdict;
	bool later, due;
	char log[512]; /* M mail, A abort, [authorize|user|password] */
	char out[8192];
};

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	(void)mail;
	strcat(((struct world *)context)->log, "M");
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static void on_abort(void *context, const char *why)
{
	(void)why;
	strcat(((struct world *)context)->log, "A");
}

static struct smtp_answer on_starttls(void *context)
{
	(void)context;
	return (struct smtp_answer){ 220, "2.0.0", "Go" };
}

static enum smtp_auth_verdict on_auth(void *context, const struct smtp_credentials *credentials)
{
	struct world *world = context;
	size_t len = strlen(world->log);

	snprintf(world->log + len, sizeof(world->log) - len, "[%.*s|%.*s|%.*s]",
		 SPAN_ARG(credentials->authorize), SPAN_ARG(credentials->user),
		 SPAN_ARG(credentials->password));
	world->due = world->later;
	return world->later ? SMTP_AUTH_LATER : world->verdict;
}

static const struct smtp_session_host host = {
	.mail = on_mail,
	.abort = on_abort,
	.starttls = on_starttls,
	.auth = on_auth,
};

#define EHLO "EHLO a\r\n"
#define EHLOED                                                                                     \
	"250-b\r\n250-SIZE\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n250 ENHANCEDSTATUSCODES\r\n"
#define HIDDEN	"250-b\r\n250-SIZE\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES\r\n"
#define SECURED "250-b\r\n250-SIZE\r\n250-AUTH PLAIN LOGIN\r\n250 ENHANCEDSTATUSCODES\r\n"
#define PLAIN	"AUTH PLAIN\r\n"
#define LOGIN	"AUTH LOGIN\r\n"
#define ASK	"334 \r\n"
#define ASK_1	"334 VXNlcm5hbWU6\r\n"
#define ASK_2	"334 UGFzc3dvcmQ6\r\n"
#define ANN_X	"AGFubgB4" /* NUL ann NUL x */
#define IN	"235 2.7.0 Authenticated\r\n"
#define WRONG	"535 5.7.8 Wrong user name or password\r\n"
#define STAR	"501 5.7.0 Authentication cancelled\r\n"
#define NOT_64	"501 5.5.2 Not base64\r\n"
#define MALFORM "501 5.5.2 Malformed response\r\n"
#define MAIL	"MAIL FROM:<s@x>\r\n"
#define OK_M	"250 2.1.0 Ok\r\n"
#define OK	"250 2.0.0 Ok\r\n"
#define NOOP	"NOOP\r\n"
#define STRANGE "530 5.7.0 Authentication required\r\n"
#define LONG	"500 5.5.6 Line too long\r\n"

static const struct auth_case {
	const char *name, *in, *out, *log;
	enum smtp_auth_verdict verdict;
	enum smtp_auth_offer offer; /* OFF stands for ALWAYS: most rows want that */
	bool closed, required, off;
} cases[] = {
	/* the two mechanisms */
	{ "PLAIN with an initial response", EHLO "AUTH PLAIN " ANN_X "\r\n", EHLOED IN,
	  "[|ann|x]" },
	{ "PLAIN asked for", EHLO PLAIN ANN_X "\r\n", EHLOED ASK IN, "[|ann|x]" },
	{ "PLAIN with an authorization", EHLO "auth plain YW5uAGFubgB4\r\n", EHLOED IN,
	  "[ann|ann|x]" },
	{ "LOGIN", EHLO LOGIN "YW5u\r\neA==\r\n", EHLOED ASK_1 ASK_2 IN, "[|ann|x]" },
	{ "LOGIN with an initial response", EHLO "AUTH LOGIN YW5u\r\neA==\r\n", EHLOED ASK_2 IN,
	  "[|ann|x]" },
	{ "LOGIN: = is an empty initial response", EHLO "AUTH LOGIN =\r\neA==\r\n", EHLOED ASK_2 IN,
	  "[||x]" },
	{ "PLAIN: = is an empty initial response", EHLO "AUTH PLAIN =\r\n" NOOP, EHLOED MALFORM OK,
	  "" },
	{ "HELO will do", "HELO a\r\nAUTH PLAIN " ANN_X "\r\n", "250 b\r\n" IN, "[|ann|x]" },
	{ "mail goes on after it", EHLO "AUTH PLAIN " ANN_X "\r\n" MAIL, EHLOED IN OK_M,
	  "[|ann|x]M" },
	/* each state, each other answer */
	{ "PLAIN: cancelled", EHLO PLAIN "*\r\n" NOOP, EHLOED ASK STAR OK, "" },
	{ "PLAIN: no base64", EHLO PLAIN "AGF\r\n" NOOP, EHLOED ASK NOT_64 OK, "" },
	{ "PLAIN: = within the exchange is no base64", EHLO PLAIN "=\r\n" NOOP,
	  EHLOED ASK NOT_64 OK, "" },
	{ "PLAIN: empty", EHLO PLAIN "\r\n" NOOP, EHLOED ASK MALFORM OK, "" },
	{ "PLAIN: a command is no answer", EHLO PLAIN MAIL NOOP, EHLOED ASK NOT_64 OK, "" },
	{ "PLAIN: one NUL", EHLO "AUTH PLAIN YW5uAHg=\r\n" NOOP, EHLOED MALFORM OK, "" },
	{ "PLAIN: three NULs", EHLO "AUTH PLAIN AGFubgB4AHk=\r\n" NOOP, EHLOED MALFORM OK, "" },
	{ "PLAIN: bits left over", EHLO "AUTH PLAIN AGFubgB5eR==\r\n" NOOP, EHLOED NOT_64 OK, "" },
	{ "PLAIN: two words", EHLO "AUTH PLAIN " ANN_X " x\r\n" NOOP, EHLOED NOT_64 OK, "" },
	{ "PLAIN: cancelled at once", EHLO "AUTH PLAIN *\r\n" NOOP, EHLOED NOT_64 OK, "" },
	{ "PLAIN: LF within", EHLO PLAIN "AGFu\nbgB4\r\n" NOOP, EHLOED ASK NOT_64 OK, "" },
	{ "PLAIN: foreign octets", EHLO PLAIN "\xff\xfe\x16\r\n" NOOP, EHLOED ASK NOT_64 OK, "" },
	{ "LOGIN: name cancelled", EHLO LOGIN "*\r\n" NOOP, EHLOED ASK_1 STAR OK, "" },
	{ "LOGIN: name is no base64", EHLO LOGIN "ann\r\n" NOOP, EHLOED ASK_1 NOT_64 OK, "" },
	{ "LOGIN: name empty", EHLO LOGIN "\r\neA==\r\n", EHLOED ASK_1 ASK_2 IN, "[||x]" },
	{ "LOGIN: NUL in the name", EHLO LOGIN "YQBu\r\n" NOOP, EHLOED ASK_1 MALFORM OK, "" },
	{ "LOGIN: password cancelled", EHLO LOGIN "YW5u\r\n*\r\n" NOOP, EHLOED ASK_1 ASK_2 STAR OK,
	  "" },
	{ "LOGIN: password is no base64", EHLO LOGIN "YW5u\r\nx\r\n" NOOP,
	  EHLOED ASK_1 ASK_2 NOT_64 OK, "" },
	{ "LOGIN: password empty", EHLO LOGIN "YW5u\r\n\r\n", EHLOED ASK_1 ASK_2 IN, "[|ann|]" },
	{ "LOGIN: NUL in the password", EHLO LOGIN "YW5u\r\nYQBu\r\n" NOOP,
	  EHLOED ASK_1 ASK_2 MALFORM OK, "" },
	{ "LOGIN: what was cancelled is forgotten", EHLO LOGIN "YW5u\r\n*\r\n" LOGIN "\r\neA==\r\n",
	  EHLOED ASK_1 ASK_2 STAR ASK_1 ASK_2 IN, "[||x]" },
	/* verdicts */
	{ "wrong", EHLO "AUTH PLAIN " ANN_X "\r\n" NOOP, EHLOED WRONG OK, "[|ann|x]",
	  SMTP_AUTH_WRONG },
	{ "wrong, and again", EHLO "AUTH PLAIN " ANN_X "\r\nAUTH PLAIN " ANN_X "\r\n",
	  EHLOED WRONG WRONG, "[|ann|x][|ann|x]", SMTP_AUTH_WRONG },
	{ "the backend is down", EHLO "AUTH PLAIN " ANN_X "\r\n" NOOP,
	  EHLOED "454 4.7.0 Authentication is not possible now, try again later\r\n" OK, "[|ann|x]",
	  SMTP_AUTH_UNAVAILABLE },
	{ "blocked", EHLO "AUTH PLAIN " ANN_X "\r\n" NOOP,
	  EHLOED "421 4.7.0 Too many failures, try again later\r\n", "[|ann|x]", SMTP_AUTH_BLOCKED,
	  .closed = true },
	{ "five wrong ones end it",
	  EHLO "AUTH PLAIN " ANN_X "\r\nAUTH PLAIN " ANN_X "\r\nAUTH PLAIN " ANN_X
	       "\r\nAUTH PLAIN " ANN_X "\r\nAUTH PLAIN " ANN_X "\r\n" NOOP,
	  EHLOED WRONG WRONG WRONG WRONG WRONG "421 4.7.0 Too many failures\r\n",
	  "[|ann|x][|ann|x][|ann|x][|ann|x][|ann|x]", SMTP_AUTH_WRONG, .closed = true },
	/* what is in order when */
	{ "EHLO comes first", "AUTH PLAIN " ANN_X "\r\n", "503 5.5.1 EHLO first\r\n", "" },
	{ "not a second time", EHLO "AUTH PLAIN " ANN_X "\r\nAUTH PLAIN " ANN_X "\r\n",
	  EHLOED IN "503 5.5.1 Authenticated already\r\n", "[|ann|x]" },
	{ "not even after RSET or EHLO",
	  EHLO "AUTH PLAIN " ANN_X "\r\nRSET\r\n" EHLO "AUTH PLAIN " ANN_X "\r\n",
	  EHLOED IN OK EHLOED "503 5.5.1 Authenticated already\r\n", "[|ann|x]" },
	{ "not within a transaction", EHLO MAIL "AUTH PLAIN " ANN_X "\r\n",
	  EHLOED OK_M "503 5.5.1 Not within a transaction\r\n", "M" },
	{ "after a wrong one it may be right", EHLO "AUTH PLAIN =\r\nAUTH PLAIN " ANN_X "\r\n",
	  EHLOED MALFORM IN, "[|ann|x]" },
	{ "without a mechanism", EHLO "AUTH\r\n", EHLOED "501 5.5.4 Argument needed\r\n", "" },
	{ "unknown mechanism", EHLO "AUTH SCRAM-SHA-256 eA==\r\n",
	  EHLOED "504 5.5.4 Mechanism not known\r\n", "" },
	{ "weak mechanism", EHLO "AUTH CRAM-MD5\r\n", EHLOED "534 5.7.9 Mechanism too weak\r\n",
	  "" },
	/* where it is offered */
	{ "not offered", EHLO "AUTH PLAIN " ANN_X "\r\n", HIDDEN "502 5.5.1 Not offered\r\n", "",
	  .off = true },
	{ "only under TLS", EHLO "AUTH PLAIN " ANN_X "\r\n", HIDDEN "538 5.7.11 Only under TLS\r\n",
	  "", .offer = SMTP_AUTH_TLS },
	{ "under TLS", EHLO "STARTTLS\r\n" EHLO "AUTH PLAIN " ANN_X "\r\n",
	  HIDDEN "220 2.0.0 Go\r\n" SECURED IN, "[|ann|x]", .offer = SMTP_AUTH_TLS },
	{ "EHLO comes first under TLS, too", EHLO "STARTTLS\r\nAUTH PLAIN " ANN_X "\r\n" MAIL,
	  HIDDEN "220 2.0.0 Go\r\n503 5.5.1 EHLO first\r\n503 5.5.1 EHLO first\r\n", "",
	  .offer = SMTP_AUTH_TLS },
	{ "TLS begins a new session: it is forgotten",
	  EHLO "AUTH PLAIN " ANN_X "\r\nSTARTTLS\r\n" EHLO MAIL "RSET\r\nAUTH PLAIN " ANN_X "\r\n",
	  EHLOED IN "220 2.0.0 Go\r\n" SECURED STRANGE OK IN, "[|ann|x][|ann|x]",
	  .required = true },
	/* where it is required */
	{ "required for mail",
	  EHLO MAIL "RCPT TO:<r@x>\r\nDATA\r\nRSET\r\nVRFY x\r\nNOOP\r\nHELP\r\n",
	  EHLOED STRANGE
	  "503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n" OK STRANGE OK
	  "214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP STARTTLS AUTH\r\n",
	  "", .required = true },
	{ "required and done", EHLO "AUTH PLAIN " ANN_X "\r\n" MAIL, EHLOED IN OK_M, "[|ann|x]M",
	  .required = true },
	{ "required and wrong", EHLO "AUTH PLAIN " ANN_X "\r\n" MAIL, EHLOED WRONG STRANGE,
	  "[|ann|x]", SMTP_AUTH_WRONG, .required = true },
};

static void output_take(struct world *world)
{
	struct span output = smtp_session_output(world->session);
	size_t len = strlen(world->out);

	assert_true(len + output.len < sizeof(world->out));
	memcpy(world->out + len, output.at, output.len);
	world->out[len + output.len] = '\0';
	smtp_session_sent(world->session, output.len);
}

/* Gives all of it, and does what an owner does in between. */
static void feed(struct world *world, struct span in, size_t step)
{
	while (in.len > 0 && !smtp_session_finished(world->session)) {
		size_t took = smtp_session_feed(world->session,
						span_of(in.at, step < in.len ? step : in.len));

		in = span_skip(in, took);
		if (smtp_session_expects_tls(world->session)) {
			smtp_session_secured(world->session);
		} else if (world->due) {
			assert_int_equal(smtp_session_feed(world->session, in), 0);
			world->due = false;
			smtp_session_authenticated(world->session, world->verdict);
		}
		output_take(world);
	}
}

static struct world *world_new(enum smtp_auth_offer offer, bool required)
{
	struct world *world = calloc(1, sizeof(*world));
	struct smtp_session_options options = {
		.name = "b",
		.recipients_max = 2,
		.pending_max = 8,
		.starttls = true,
		.auth = offer,
		.auth_required = required,
	};

	world->session = smtp_session_create(&options, &host, world);
	return world;
}

static void world_free(struct world *world)
{
	smtp_session_destroy(world->session);
	free(world);
}

/* Whole or bytewise; the host knows at once or later. */
static void auth_run(void **state)
{
	const struct auth_case *row = *state;

	for (int way = 0; way < 4; way++) {
		struct world *world = world_new(row->off     ? SMTP_AUTH_OFF
						: row->offer ? row->offer
							     : SMTP_AUTH_ALWAYS,
						row->required);

		world->verdict = row->verdict;
		world->later = way & 2;
		feed(world, span_text(row->in), way & 1 ? 1 : SIZE_MAX);
		assert_string_equal(world->out, row->out);
		assert_string_equal(world->log, row->log);
		assert_int_equal(smtp_session_finished(world->session), row->closed);
		world_free(world);
	}
}

/* A line of `len` octets with its CRLF, after `start`, of base64. */
static char *long_line(const char *start, size_t len)
{
	char *line = malloc(len + 1);

	memset(line, 'A', len);
	memcpy(line, start, strlen(start));
	memcpy(line + len - 2, "\r\n", 3);
	return line;
}

static void lines_up_to_12288_octets_are_read(void **state)
{
	static const struct {
		const char *before, *start, *said;
		size_t len;
	} rows[] = {
		{ "", "AUTH PLAIN ", MALFORM, 12287 - 2 }, /* 4n octets of base64 */
		{ "", "AUTH PLAIN ", LONG, 12289 },
		{ "", "AUTH PLAIN ", LONG, 50000 },
		{ PLAIN, "", MALFORM, 12286 },
		{ PLAIN, "", NOT_64, 12288 },
		{ PLAIN, "", LONG, 12289 },
		{ LOGIN, "", LONG, 20000 },
		{ "", "AUTHX ", "500 5.5.2 Line too long\r\n", 4097 },
		{ "", "NOOP ", "500 5.5.2 Line too long\r\n", 4097 },
	};

	(void)state;
	for (size_t i = 0; i < array_count(rows); i++) {
		for (size_t step = 1; step < 20000; step = step * 7 + 1) {
			struct world *world = world_new(SMTP_AUTH_ALWAYS, false);
			char *line = long_line(rows[i].start, rows[i].len);

			feed(world, span_text(EHLO), SIZE_MAX);
			feed(world, span_text(rows[i].before), SIZE_MAX);
			world->out[0] = '\0';
			feed(world, span_text(line), step);
			feed(world, span_text(NOOP), SIZE_MAX);
			if (strncmp(world->out, rows[i].said, strlen(rows[i].said)) != 0 ||
			    strcmp(world->out + strlen(rows[i].said), OK) != 0)
				fail_msg("row %zu, step %zu: %s", i, step, world->out);
			free(line);
			world_free(world);
		}
	}
}

static void a_shutdown_while_the_host_checks_is_the_end(void **state)
{
	struct world *world = world_new(SMTP_AUTH_ALWAYS, false);

	(void)state;
	world->later = true;
	smtp_session_feed(world->session, span_text(EHLO "AUTH PLAIN " ANN_X "\r\n"));
	smtp_session_shutdown(world->session, "4.3.2", "Bye");
	smtp_session_authenticated(world->session, SMTP_AUTH_OK);
	output_take(world);
	assert_string_equal(world->out, EHLOED "421 4.3.2 Bye\r\n");
	assert_true(smtp_session_finished(world->session));
	world_free(world);
}

static void who_fed_a_secret_is_told(void **state)
{
	static const struct {
		const char *in;
		bool secret;
	} rows[] = {
		{ EHLO, false },       { MAIL, false },	   { "RSET\r\nAUTH PL", true },
		{ "AIN AG", true },    { "\r\n", true },   { LOGIN, true },
		{ "YW", true },	       { "5u\r\n", true }, { "*\r\n", true },
		{ "NOOP\r\n", false },
	};
	struct world *world = world_new(SMTP_AUTH_ALWAYS, false);

	(void)state;
	for (size_t i = 0; i < array_count(rows); i++) {
		smtp_session_feed(world->session, span_text(rows[i].in));
		assert_int_equal(smtp_session_heard_secret(world->session), rows[i].secret);
		assert_false(smtp_session_heard_secret(world->session));
	}
	world_free(world);
}

static void base64_is_read_as_it_is_written(void **state)
{
	char bytes[64], text[BASE64_TEXT_BYTES(64)], back[64 + 3];

	(void)state;
	for (size_t len = 0; len <= sizeof(bytes); len++) {
		size_t got;

		for (size_t i = 0; i < len; i++)
			bytes[i] = (char)(i * 37 + len);
		base64_encode(span_of(bytes, len), text);
		assert_true(base64_decode(span_of(text, BASE64_TEXT_BYTES(len)), back, &got));
		assert_int_equal(got, len);
		assert_memory_equal(back, bytes, len);
	}
}

int main(void)
{
	enum { OTHERS = 4 };
	struct CMUnitTest tests[array_count(cases) + OTHERS] = {
		cmocka_unit_test(lines_up_to_12288_octets_are_read),
		cmocka_unit_test(a_shutdown_while_the_host_checks_is_the_end),
		cmocka_unit_test(who_fed_a_secret_is_told),
		cmocka_unit_test(base64_is_read_as_it_is_written),
	};

	for (size_t i = 0; i < array_count(cases); i++)
		tests[OTHERS + i] = (struct CMUnitTest){ .name = cases[i].name,
							 .test_func = auth_run,
							 .initial_state = (void *)&cases[i] };
	return cmocka_run_group_tests_name("smtp_auth", tests, NULL, NULL);
}
