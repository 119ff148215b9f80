/*
 * The server's side: what a client sends, and what it gets. Each row is fed whole, octet by
 * octet, and split at every place; replies and the host's log must always be the same.
 *
 * The host's log: M mail, R rcpt, B begin, (body), E end, A abort. Each message is answered
 * 250 2.0.0 Queued when feed() has returned.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/session.h"
#include "os/check.h"

struct world {
	struct smtp_session *session;
	char log[1 << 13];
	size_t log_len;
	char out[1 << 14];
	size_t out_len;
	uint32_t tickets[64], ticket_count;
	bool pause, paused;
};

static void log_add(struct world *world, struct span text)
{
	assert_true(world->log_len + text.len < sizeof(world->log));
	memcpy(world->log + world->log_len, text.at, text.len);
	world->log_len += text.len;
	world->log[world->log_len] = 0;
}

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	log_add(context, span_text("M"));
	if (span_starts_nocase(smtp_address_span(&mail->sender), "bad"))
		return (struct smtp_answer){ 550, "5.7.1", "no" };
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	struct world *world = context;

	log_add(context, span_text("R"));
	if (span_starts_nocase(smtp_address_span(&rcpt->recipient), "relay")) {
		smtp_session_suspect(world->session);
		return (struct smtp_answer){ 550, "5.7.1", "no" };
	}
	if (span_starts_nocase(smtp_address_span(&rcpt->recipient), "bad"))
		return (struct smtp_answer){ 550, "5.1.1", "no" };
	if (span_starts_nocase(smtp_address_span(&rcpt->recipient), "full"))
		return (struct smtp_answer){ 250, "2.1.5", "full" };
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	log_add(context, span_text("B"));
	if (span_equal(greeting->name, span_text("full")))
		return (struct smtp_answer){ 452, "4.3.1", "no space" };
	return (struct smtp_answer){ 354, NULL, "" };
}

static void on_body(void *context, struct span bytes)
{
	struct world *world = context;

	assert_true(bytes.len > 0);
	/* Pieces are not part of the promise: "(ab)" and "(a)(b)" are the same. */
	if (world->log_len > 0 && world->log[world->log_len - 1] == ')')
		world->log_len--;
	else
		log_add(context, span_text("("));
	log_add(context, bytes);
	log_add(context, span_text(")"));
	world->paused = world->pause;
	if (world->pause)
		smtp_session_pause(world->session);
}

static void on_end(void *context, uint32_t ticket)
{
	struct world *world = context;

	log_add(context, span_text("E"));
	world->tickets[world->ticket_count++] = ticket;
}

static void on_abort(void *context, const char *why)
{
	struct world *world = context;

	(void)why;
	/* How much of a refused body was passed on depends on how it came. */
	if (world->log_len > 0 && world->log[world->log_len - 1] == ')')
		world->log_len = (size_t)(strrchr(world->log, '(') - world->log);
	log_add(context, span_text("A"));
}

static const struct smtp_session_host host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
};

static const struct smtp_session_options usual = {
	.name = "b",
	.size_max = 40,
	.recipients_max = 2,
	.errors_max = 4,
	.pending_max = 8,
	.pipelining = true,
	.chunking = true,
	.smtputf8 = true,
	.eightbit = true,
	.dsn = true,
	.binarymime = true,
}, mending = {
	.name = "b", .recipients_max = 2, .pending_max = 8, .chunking = true, .normalise = true,
}, limited = {
	.name = "b", .recipients_max = 2, .messages_max = 2, .pending_max = 8, .limits = true,
}, half_limited = {
	.name = "b", .recipients_max = 2, .pending_max = 8, .limits = true,
}, plain = {
	.name = "b", .size_max = 40, .recipients_max = 2, .pending_max = 8,
};

#define EHLO "EHLO a\r\n"
#define EHLOED                                                                                     \
	"250-b\r\n250-PIPELINING\r\n250-SIZE 40\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"    \
	"250-CHUNKING\r\n250-BINARYMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
#define MAIL   "MAIL FROM:<s@x>\r\n"
#define RCPT   "RCPT TO:<r@x>\r\n"
#define OK_M   "250 2.1.0 Ok\r\n"
#define OK_R   "250 2.1.5 Ok\r\n"
#define GO     "354 End data with <CR><LF>.<CR><LF>\r\n"
#define QUEUED "250 2.0.0 Queued\r\n"
#define OK     "250 2.0.0 Ok\r\n"
#define BYE    "221 2.0.0 Bye\r\n"
#define BARE   "550 5.6.0 Bare CR or LF in the message\r\n"
#define BIG    "552 5.3.4 Message too big\r\n"

/* After EHLO (which the runner sends), `in` is answered by `out`. */
static const struct session_case {
	const char *name, *in, *out, *log;
	bool closed;
	const struct smtp_session_options *options; /* NULL: usual */
} cases[] = {
	{ "a message", MAIL RCPT "DATA\r\nhi\r\n.\r\nQUIT\r\n", OK_M OK_R GO QUEUED BYE,
	  "MRB(hi\r\n)E", true },
	{ "two messages pipelined", MAIL RCPT "DATA\r\nhi\r\n.\r\n" MAIL RCPT "DATA\r\n.\r\n",
	  OK_M OK_R GO QUEUED OK_M OK_R GO QUEUED, "MRB(hi\r\n)EMRBE" },
	{ "dots undone", MAIL RCPT "DATA\r\n..\r\n.\r\n", OK_M OK_R GO QUEUED, "MRB(.\r\n)E" },
	{ "verbs in any case", "mail from:<s@x>\r\nRcPt tO:<r@x>\r\ndata\r\n.\r\n",
	  OK_M OK_R GO QUEUED, "MRBE" },
	{ "blanks around arguments", "MAIL  FROM: <s@x> \t\r\nRCPT TO: <r@x>\r\n", OK_M OK_R,
	  "MR" },
	{ "null sender", "MAIL FROM:<>\r\n", OK_M, "M" },
	{ "null recipient", MAIL "RCPT TO:<>\r\n", OK_M "501 5.1.3 Not an address\r\n", "M" },
	{ "postmaster is a recipient", MAIL "RCPT TO:<PostMaster>\r\n", OK_M OK_R, "MR" },
	{ "postmaster is no sender", "MAIL FROM:<postmaster>\r\n", "501 5.1.7 Not an address\r\n",
	  "" },
	{ "bad sender", "MAIL FROM:<a b@x>\r\n", "501 5.1.7 Not an address\r\n", "" },
	{ "MAIL without FROM", "MAIL <s@x>\r\n", "501 5.5.4 Syntax: MAIL FROM:<address>\r\n", "" },
	{ "MAIL alone", "MAIL\r\n", "501 5.5.4 Argument needed\r\n", "" },
	{ "nested MAIL", MAIL MAIL, OK_M "503 5.5.1 Transaction in progress\r\n", "M" },
	{ "RCPT before MAIL", RCPT, "503 5.5.1 MAIL first\r\n", "" },
	{ "DATA before MAIL", "DATA\r\n", "503 5.5.1 MAIL first\r\n", "" },
	{ "DATA without a recipient", MAIL "DATA\r\n", OK_M "554 5.5.1 No valid recipients\r\n",
	  "M" },
	{ "DATA with an argument", MAIL RCPT "DATA now\r\n",
	  OK_M OK_R "501 5.5.4 No argument allowed\r\n", "MR" },
	{ "refused recipient does not stop the other",
	  MAIL "RCPT TO:<bad@x>\r\n" RCPT "DATA\r\n.\r\n", OK_M "550 5.1.1 no\r\n" OK_R GO QUEUED,
	  "MRRBE" },
	{ "too many recipients", MAIL RCPT RCPT RCPT "DATA\r\n.\r\n",
	  OK_M OK_R OK_R "452 4.5.3 Too many recipients\r\n" GO QUEUED, "MRRBE" },
	{ "refused MAIL: what is pipelined after it is no mistake",
	  "MAIL FROM:<bad@x>\r\n" RCPT RCPT RCPT RCPT RCPT "DATA\r\n" MAIL,
	  "550 5.7.1 no\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n"
	  "503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n" OK_M,
	  "MM" },
	{ "RSET", MAIL RCPT "RSET\r\n" MAIL, OK_M OK_R OK OK_M, "MRAM" },
	{ "a new EHLO acts as RSET", MAIL EHLO MAIL, OK_M EHLOED OK_M, "MAM" },
	{ "QUIT in a transaction", MAIL "QUIT\r\nNOOP\r\n", OK_M BYE, "MA", true },
	{ "the small verbs", "NOOP x\r\nVRFY x\r\nHELP\r\nRSET\r\n",
	  OK "252 2.0.0 Not verified; send and see\r\n"
	     "214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP BDAT\r\n" OK,
	  "" },
	{ "HELO", "HELO a\r\n", "250 b\r\n", "" },
	{ "EHLO without a name", "EHLO\r\n", "501 5.5.4 Argument needed\r\n", "" },
	{ "EHLO with a strange name", "EHLO (x)\r\n", "501 5.5.4 Not a host name\r\n", "" },
	{ "EHLO with a literal", "EHLO [IPv6:2001:db8::1]\r\n", EHLOED, "" },
	{ "VRFY and EXPN without a name", "VRFY\r\nEXPN\r\n",
	  "501 5.5.4 Argument needed\r\n502 5.5.1 Not offered\r\n", "" },
	{ "VRFY says the same of everyone", "VRFY root\r\nVRFY <no one@x>\r\nVRFY x SMTPUTF8\r\n",
	  "252 2.0.0 Not verified; send and see\r\n252 2.0.0 Not verified; send and see\r\n"
	  "252 2.0.0 Not verified; send and see\r\n",
	  "" },
	{ "VRFY and HELP within a transaction leave it alone",
	  MAIL "VRFY x\r\nHELP MAIL\r\n" RCPT "DATA\r\n.\r\n",
	  OK_M
	  "252 2.0.0 Not verified; send and see\r\n"
	  "214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP BDAT\r\n" OK_R GO QUEUED,
	  "MRBE" },
	{ "HELP names what is offered", "HELP\r\n",
	  "214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP\r\n", "", false, &plain },
	{ "ETRN is for servers that hold mail", "ETRN x.test\r\nETRN @x.test\r\nETRN #q\r\n",
	  "502 5.5.1 Not offered\r\n502 5.5.1 Not offered\r\n502 5.5.1 Not offered\r\n", "" },
	{ "XCLIENT by nobody in particular", "XCLIENT ADDR=192.0.2.1\r\n",
	  "550 5.7.0 Not authorized\r\n", "" },
	{ "limits are told", "EHLO a\r\n",
	  "250-b\r\n250-SIZE\r\n250-LIMITS RCPTMAX=2 MAILMAX=2\r\n250 ENHANCEDSTATUSCODES\r\n", "",
	  false, &limited },
	{ "a limit that there isn't is not told", "EHLO a\r\n",
	  "250-b\r\n250-SIZE\r\n250-LIMITS RCPTMAX=2\r\n250 ENHANCEDSTATUSCODES\r\n", "", false,
	  &half_limited },
	{ "a message more than may be in a session", MAIL "RSET\r\n" MAIL "RSET\r\n" MAIL RCPT,
	  OK_M OK OK_M OK "421 4.7.0 Too many messages in one session\r\n", "MAMA", true,
	  &limited },
	{ "known and not offered", "EXPN x\r\nTURN\r\nSTARTTLS\r\n",
	  "502 5.5.1 Not offered\r\n502 5.5.1 Not offered\r\n502 5.5.1 Not offered\r\n", "" },
	{ "unknown verb", "FOO\r\n", "500 5.5.1 Command not known\r\n", "" },
	{ "empty line", "\r\n", "500 5.5.1 Command not known\r\n", "" },
	{ "too many errors", "FOO\r\nFOO\r\nFOO\r\nFOO\r\nNOOP\r\n",
	  "500 5.5.1 Command not known\r\n500 5.5.1 Command not known\r\n"
	  "500 5.5.1 Command not known\r\n500 5.5.1 Command not known\r\n"
	  "421 4.7.0 Too many errors\r\n",
	  "", true },
	{ "HTTP is sent away", "GET / HTTP/1.1\r\nHost: x\r\n", "500 5.5.1 This is SMTP\r\n", "",
	  true },
	{ "TLS out of place is sent away", "\x16\x03\x01", "500 5.5.1 This is SMTP\r\n", "", true },
	{ "LF ends no command", "NOOP\nNOOP\r\n", "500 5.5.2 CR, LF or NUL within a command\r\n",
	  "" },
	{ "CR ends no command", "NOOP\rNOOP\r\n", "500 5.5.2 CR, LF or NUL within a command\r\n",
	  "" },
	{ "LF alone is waited on", "NOOP\n", "", "" },
	/* parameters */
	{ "all parameters",
	  "MAIL FROM:<s@x> SIZE=40 BODY=8BITMIME RET=FULL ENVID=e\r\n"
	  "RCPT TO:<r@x> NOTIFY=NEVER ORCPT=rfc822;r@x\r\n",
	  OK_M OK_R, "MR" },
	{ "unknown parameter", "MAIL FROM:<s@x> FOO=1\r\n", "555 5.5.4 Parameter not known\r\n",
	  "" },
	{ "unknown RCPT parameter", MAIL "RCPT TO:<r@x> FOO\r\n",
	  OK_M "555 5.5.4 Parameter not known\r\n", "M" },
	{ "bad parameter", "MAIL FROM:<s@x> BODY=x\r\n", "501 5.5.4 Bad parameter value\r\n", "" },
	{ "parameter that is not offered", "MAIL FROM:<s@x> RET=FULL\r\n",
	  "555 5.5.4 Parameter not known\r\n", "", false, &plain },
	{ "declared too big", "MAIL FROM:<s@x> SIZE=41\r\n", BIG, "" },
	{ "non-ASCII needs SMTPUTF8", "MAIL FROM:<\xc3\xa4@x>\r\n",
	  "553 5.6.7 Address needs SMTPUTF8\r\n", "" },
	{ "non-ASCII recipient needs SMTPUTF8", MAIL "RCPT TO:<\xc3\xa4@x>\r\n",
	  OK_M "553 5.6.7 Address needs SMTPUTF8\r\n", "M" },
	{ "SMTPUTF8", "MAIL FROM:<\xc3\xa4@x> SMTPUTF8\r\nRCPT TO:<r@\xc3\xa4>\r\n", OK_M OK_R,
	  "MR" },
	{ "malformed UTF-8", "MAIL FROM:<\xc3@x> SMTPUTF8\r\n",
	  "553 5.6.7 Not well-formed UTF-8\r\n", "" },
	/* the data */
	{ "LF dot LF is no end", MAIL RCPT "DATA\r\na\n.\nMAIL FROM:<z@x>\r\n.\r\nNOOP\r\n",
	  OK_M OK_R GO BARE OK, "MRBA", .closed = false },
	{ "LF dot CRLF is no end", MAIL RCPT "DATA\r\n\n.\r\nQUIT\r\n.\r\nNOOP\r\n",
	  OK_M OK_R GO BARE OK, "MRBA" },
	{ "CR dot CR is no end", MAIL RCPT "DATA\r\n\r.\rQUIT\r\n.\r\nNOOP\r\n",
	  OK_M OK_R GO BARE OK, "MRBA" },
	{ "mended line ends", MAIL RCPT "DATA\r\na\nb\rc\r\n.\r\n", OK_M OK_R GO QUEUED,
	  "MRB(a\r\nb\r\nc\r\n)E", false, &mending },
	{ "as big as may be",
	  MAIL RCPT "DATA\r\n....................................x\r\n\r\n.\r\n",
	  OK_M OK_R GO QUEUED, "MRB(...................................x\r\n\r\n)E" },
	{ "too big and with a bare LF is too big",
	  MAIL RCPT "DATA\r\na\n......................................x\r\n.\r\nNOOP\r\n",
	  OK_M OK_R GO BIG OK, "MRBA" },
	{ "no space", "EHLO full\r\n" MAIL RCPT "DATA\r\n" MAIL,
	  EHLOED OK_M OK_R "452 4.3.1 no space\r\n" OK_M, "MRBM" },
	{ "BINARYMIME needs BDAT", "MAIL FROM:<s@x> BODY=BINARYMIME\r\n" RCPT "DATA\r\n",
	  OK_M OK_R "503 5.5.1 BINARYMIME needs BDAT\r\n", "MR" },
	/* BDAT */
	{ "one chunk", MAIL RCPT "BDAT 4 LAST\r\nhi\r\n" MAIL, OK_M OK_R QUEUED OK_M,
	  "MRB(hi\r\n)EM" },
	{ "chunks that split CRLF", MAIL RCPT "BDAT 3\r\nhi\rBDAT 0\r\nBDAT 1 last\r\n\n",
	  OK_M OK_R "250 2.0.0 3 octets received\r\n250 2.0.0 0 octets received\r\n" QUEUED,
	  "MRB(hi\r\n)E" },
	{ "BDAT 0 LAST ends it", MAIL RCPT "BDAT 2\r\n.\nBDAT 0 LAST\r\n",
	  OK_M OK_R BARE "503 5.5.1 An earlier chunk was refused: RSET first\r\n", "MRBA" },
	{ "an empty message", MAIL RCPT "BDAT 0 LAST\r\n", OK_M OK_R QUEUED, "MRBE" },
	{ "dots are not special", MAIL RCPT "BDAT 7 LAST\r\n.\r\n..\r\n", OK_M OK_R QUEUED,
	  "MRB(.\r\n..\r\n)E" },
	{ "CR at the end is bare", MAIL RCPT "BDAT 3 LAST\r\nhi\r" MAIL, OK_M OK_R BARE OK_M,
	  "MRBAM" },
	{ "mended CR at the end", MAIL RCPT "BDAT 3 LAST\r\nhi\r" MAIL, OK_M OK_R QUEUED OK_M,
	  "MRB(hi\r\n)EM", false, &mending },
	{ "binary is as it is",
	  "MAIL FROM:<s@x> BODY=BINARYMIME\r\n" RCPT "BDAT 4 LAST\r\n\n.\r\r" MAIL,
	  OK_M OK_R QUEUED OK_M, "MRB(\n.\r\r)EM" },
	{ "BDAT before MAIL is eaten", "BDAT 6 LAST\r\nQUIT\r\n" MAIL,
	  "503 5.5.1 MAIL first\r\n" OK_M, "M" },
	{ "BDAT without a recipient is eaten", MAIL "BDAT 6 LAST\r\nQUIT\r\n" MAIL,
	  OK_M "503 5.5.1 No valid recipients\r\n" OK_M, "MAM" },
	{ "after a failed chunk more are eaten until RSET",
	  MAIL "BDAT 6\r\nQUIT\r\nBDAT 6\r\nQUIT\r\n" RCPT "RSET\r\n" MAIL,
	  OK_M "503 5.5.1 No valid recipients\r\n"
	       "503 5.5.1 An earlier chunk was refused: RSET first\r\n"
	       "503 5.5.1 Not within BDAT\r\n" OK OK_M,
	  "MAM" },
	{ "who looks for an open relay makes mistakes",
	  MAIL RCPT "RCPT TO:<relay@x>\r\nRCPT TO:<bad@x>\r\nRCPT TO:<relay@x>\r\n"
		    "RCPT TO:<relay@x>\r\nRCPT TO:<relay@x>\r\nNOOP\r\n",
	  OK_M OK_R "550 5.7.1 no\r\n550 5.1.1 no\r\n550 5.7.1 no\r\n"
		    "550 5.7.1 no\r\n550 5.7.1 no\r\n421 4.7.0 Too many errors\r\n",
	  "MRRRRRRA", true },
	{ "BDAT without MAIL is a mistake", "BDAT 0\r\nBDAT 0\r\nBDAT 0\r\nBDAT 9\r\nx",
	  "503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n503 5.5.1 MAIL first\r\n"
	  "503 5.5.1 MAIL first\r\n421 4.7.0 Too many errors\r\n",
	  "", true },
	{ "DATA within BDAT", MAIL RCPT "BDAT 1\r\nxDATA\r\n",
	  OK_M OK_R "250 2.0.0 1 octets received\r\n503 5.5.1 Not within BDAT\r\n", "MRB(x)" },
	{ "MAIL within BDAT", MAIL RCPT "BDAT 1\r\nx" MAIL,
	  OK_M OK_R "250 2.0.0 1 octets received\r\n503 5.5.1 Transaction in progress\r\n",
	  "MRB(x)" },
	{ "chunk too big",
	  MAIL RCPT "BDAT 41 LAST\r\n.........................................NOOP\r\n",
	  OK_M OK_R BIG OK, "MRBA" },
	{ "chunks too big together",
	  MAIL RCPT "BDAT 30\r\n..............................BDAT 11 LAST\r\n...........NOOP\r\n",
	  OK_M OK_R "250 2.0.0 30 octets received\r\n" BIG OK, "MRBA" },
	{ "no space for a chunk", "EHLO full\r\n" MAIL RCPT "BDAT 4 LAST\r\nhi\r\n" MAIL,
	  EHLOED OK_M OK_R "452 4.3.1 no space\r\n" OK_M, "MRBM" },
	{ "a size of no use closes", MAIL RCPT "BDAT x LAST\r\nhi\r\n",
	  OK_M OK_R "501 5.5.4 Syntax: BDAT size [LAST]\r\n", "MRA", true },
	{ "a size beyond 64 bits closes", MAIL RCPT "BDAT 99999999999999999999 LAST\r\n",
	  OK_M OK_R "501 5.5.4 Syntax: BDAT size [LAST]\r\n", "MRA", true },
	{ "an absurd size closes", MAIL RCPT "BDAT 9999999999999999 LAST\r\nx", OK_M OK_R BIG,
	  "MRBA", true },
	{ "BDAT that is not offered", "BDAT 4 LAST\r\n", "502 5.5.1 Not offered\r\n", "", true,
	  &plain },
};

static void output_take(struct world *world)
{
	struct span out = smtp_session_output(world->session);

	assert_true(world->out_len + out.len < sizeof(world->out));
	memcpy(world->out + world->out_len, out.at, out.len);
	world->out_len += out.len;
	world->out[world->out_len] = 0;
	smtp_session_sent(world->session, out.len);
}

static void answer_all(struct world *world)
{
	static const struct smtp_answer queued = { 250, "2.0.0", "Queued" };

	/* Last first: the replies must be in order all the same. */
	while (world->ticket_count > 0)
		smtp_session_answer(world->session, world->tickets[--world->ticket_count], &queued);
}

static void world_feed(struct world *world, struct span bytes)
{
	while (bytes.len > 0 && !smtp_session_finished(world->session)) {
		size_t taken = smtp_session_feed(world->session, bytes);

		smtp_session_resume(world->session);
		bytes = span_skip(bytes, taken);
		answer_all(world);
		if (taken == 0 && !world->paused)
			return;
		world->paused = false;
	}
}

static struct world *world_create(const struct smtp_session_options *options)
{
	struct world *world = calloc(1, sizeof(*world));

	world->session = smtp_session_create(options, &host, world);
	smtp_session_greet(world->session, NULL);
	world_feed(world, span_text(EHLO));
	output_take(world);
	assert_true(
		span_starts_nocase(span_of(world->out, world->out_len), "220 b ESMTP\r\n250-b"));
	world->out_len = 0;
	return world;
}

static void world_destroy(struct world *world)
{
	smtp_session_destroy(world->session);
	free(world);
}

static void case_check(const struct session_case *row, size_t split, bool bytewise, bool pause)
{
	struct world *world = world_create(row->options ? row->options : &usual);
	struct span in = span_text(row->in);

	world->pause = pause;
	world_feed(world, span_of(in.at, split));
	if (bytewise) {
		for (size_t i = 0; i < in.len; i++)
			world_feed(world, span_of(in.at + i, 1));
	} else {
		world_feed(world, span_skip(in, split));
	}
	answer_all(world);
	output_take(world);
	assert_string_equal(world->out, row->out);
	assert_string_equal(world->log, row->log);
	assert_int_equal(smtp_session_finished(world->session), row->closed);
	world_destroy(world);
}

static void case_run(void **state)
{
	const struct session_case *row = *state;

	for (size_t split = 0; split <= strlen(row->in); split++)
		case_check(row, split, false, false);
	case_check(row, 0, false, true);
	case_check(row, 0, true, false);
}

static void ehlo_is_first(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	(void)state;
	world->session = smtp_session_create(&usual, &host, world);
	world_feed(world, span_text(MAIL "BDAT 2 LAST\r\nxx" RCPT));
	output_take(world);
	assert_string_equal(world->out, "503 5.5.1 EHLO first\r\n503 5.5.1 EHLO first\r\n"
					"503 5.5.1 MAIL first\r\n");
	world_destroy(world);
}

static void a_line_of_4096_and_one_more(void **state)
{
	char line[4097];

	(void)state;
	for (int more = 0; more < 2; more++) {
		for (int bytewise = 0; bytewise < 2; bytewise++) {
			struct world *world = world_create(&usual);
			size_t len = 4096 + (size_t)more;

			memset(line, 'x', sizeof(line));
			memcpy(line, "NOOP ", 5);
			memcpy(line + len - 2, "\r\n", 2);
			for (size_t i = 0; bytewise && i < len; i++)
				world_feed(world, span_of(line + i, 1));
			if (!bytewise)
				world_feed(world, span_of(line, len));
			world_feed(world, span_text("RSET\r\n"));
			output_take(world);
			assert_string_equal(world->out,
					    more ? "500 5.5.2 Line too long\r\n" OK : OK OK);
			world_destroy(world);
		}
	}
}

static void verdicts_hold_back_what_follows(void **state)
{
	static const struct smtp_answer one = { 250, "2.0.0", "one" },
					two = { 451, "4.3.0", "two" };
	struct world *world = world_create(&usual);
	struct span in =
		span_text(MAIL RCPT "BDAT 1 LAST\r\nx" MAIL RCPT "BDAT 1 LAST\r\nyQUIT\r\n");

	(void)state;
	assert_int_equal(smtp_session_feed(world->session, in), in.len);
	output_take(world);
	assert_string_equal(world->out, OK_M OK_R);
	assert_int_equal(smtp_session_pending(world->session), 2);
	smtp_session_answer(world->session, world->tickets[1], &two);
	assert_int_equal(smtp_session_output(world->session).len, 0);
	assert_false(smtp_session_finished(world->session));
	smtp_session_answer(world->session, world->tickets[0], &one);
	output_take(world);
	assert_string_equal(world->out,
			    OK_M OK_R "250 2.0.0 one\r\n" OK_M OK_R "451 4.3.0 two\r\n" BYE);
	assert_true(smtp_session_finished(world->session));
	world_destroy(world);
}

static void feed_stops_at_pending_max(void **state)
{
	struct smtp_session_options options = usual;

	(void)state;
	options.pending_max = 1;
	struct world *world = world_create(&options);
	struct span first = span_text(MAIL RCPT "BDAT 1 LAST\r\nx");
	struct span in = span_text(MAIL RCPT "BDAT 1 LAST\r\nxNOOP\r\n");

	assert_int_equal(smtp_session_feed(world->session, in), first.len);
	assert_int_equal(smtp_session_feed(world->session, span_skip(in, first.len)), 0);
	answer_all(world);
	assert_int_equal(smtp_session_feed(world->session, span_skip(in, first.len)), 6);
	world_destroy(world);
}

/* What it did not take. */
static struct span burst_feed(struct world *world, struct span bytes)
{
	return span_skip(bytes, smtp_session_feed(world->session, bytes));
}

static void a_burst_is_bounded_while_a_verdict_is_due(void **state)
{
	struct world *world = world_create(&usual);
	size_t expected = strlen(QUEUED);
	size_t len = 1 << 20;
	char *burst = malloc(len);

	(void)state;
	for (size_t i = 0; i < len; i++)
		burst[i] = EHLO[i % strlen(EHLO)];
	world_feed(world, span_text(MAIL RCPT "BDAT 1 LAST\r\n"));
	smtp_session_feed(world->session, span_text("x"));
	output_take(world);
	struct span rest = burst_feed(world, span_of(burst, len));

	assert_true(rest.len > 0);
	assert_int_equal(burst_feed(world, rest).len, rest.len);
	assert_true(smtp_session_memory(world->session) < 256 << 10);
	expected += (len - rest.len) / strlen(EHLO) * strlen(EHLOED);
	answer_all(world);
	assert_int_equal(smtp_session_output(world->session).len, expected);
	assert_true(smtp_session_memory(world->session) < 512 << 10);
	smtp_session_sent(world->session, expected);
	assert_true(smtp_session_memory(world->session) < 2048);
	assert_true(burst_feed(world, rest).len < rest.len);
	free(burst);
	world_destroy(world);
}

static void a_burst_is_answered_as_it_is_read(void **state)
{
	static const char commands[] = "NOOP\r\nVRFY x\r\n";
	static const char replies[] = OK "252 2.0.0 Not verified; send and see\r\n";
	struct world *world = world_create(&usual);
	size_t count = 20000, len = count * strlen(commands), said = 0;
	char *burst = malloc(len);

	(void)state;
	for (size_t i = 0; i < len; i++)
		burst[i] = commands[i % strlen(commands)];
	struct span rest = span_of(burst, len);

	while (said < count * strlen(replies)) {
		rest = burst_feed(world, rest);
		assert_true(smtp_session_memory(world->session) < 256 << 10);
		struct span out = smtp_session_output(world->session);

		assert_true(out.len > 0);
		if (out.len > 1000)
			out.len = 1000;
		for (size_t i = 0; i < out.len; i++, said++)
			assert_int_equal(out.at[i], replies[said % strlen(replies)]);
		smtp_session_sent(world->session, out.len);
	}
	assert_int_equal(rest.len, 0);
	assert_int_equal(smtp_session_output(world->session).len, 0);
	free(burst);
	world_destroy(world);
}

static void refusing_greeting(void **state)
{
	static const struct smtp_answer full = { 421, NULL, "b too busy" };
	struct world *world = calloc(1, sizeof(*world));

	(void)state;
	world->session = smtp_session_create(&usual, &host, world);
	smtp_session_greet(world->session, &full);
	assert_true(smtp_session_finished(world->session));
	assert_int_equal(smtp_session_feed(world->session, span_text(EHLO)), 0);
	output_take(world);
	assert_string_equal(world->out, "421 b too busy\r\n");
	world_destroy(world);
}

static void shutdown_in_the_data(void **state)
{
	struct world *world = world_create(&usual);

	(void)state;
	world_feed(world, span_text(MAIL RCPT "DATA\r\nhi"));
	assert_true(smtp_session_in_data(world->session));
	smtp_session_shutdown(world->session, "4.4.2", "Timeout");
	output_take(world);
	assert_string_equal(world->out, OK_M OK_R GO "421 4.4.2 Timeout\r\n");
	assert_string_equal(world->log, "MRBA");
	assert_true(smtp_session_finished(world->session));
	world_destroy(world);
}

static void oversize_data_is_read_to_its_end(void **state)
{
	struct world *world = world_create(&usual);
	char *much = malloc(1 << 20);

	(void)state;
	memset(much, 'x', 1 << 20);
	world_feed(world, span_text(MAIL RCPT "DATA\r\n"));
	for (int i = 0; i < 10; i++)
		world_feed(world, span_of(much, 1 << 20));
	world_feed(world, span_text("\r\n.\r\nNOOP\r\n" MAIL RCPT "DATA\r\n"));
	for (int i = 0; i < 20; i++)
		world_feed(world, span_of(much, 1 << 20));
	output_take(world);
	assert_string_equal(world->out, OK_M OK_R GO BIG OK OK_M OK_R GO BIG);
	assert_true(smtp_session_finished(world->session));
	assert_string_equal(world->log, "MRBAMRBA");
	free(much);
	world_destroy(world);
}

static void idle_sessions_are_small(void **state)
{
	struct world *world = world_create(&usual);

	(void)state;
	assert_true(smtp_session_memory(world->session) < 2048);
	for (int i = 0; i < 30; i++)
		smtp_session_feed(world->session,
				  span_text("VRFY x\r\n" MAIL RCPT "BDAT 1 LAST\r\nx"));
	answer_all(world);
	output_take(world);
	assert_true(smtp_session_memory(world->session) < 2048);
	world_destroy(world);
}

int main(void)
{
	static const struct CMUnitTest scenarios[] = {
		cmocka_unit_test(ehlo_is_first),
		cmocka_unit_test(a_line_of_4096_and_one_more),
		cmocka_unit_test(verdicts_hold_back_what_follows),
		cmocka_unit_test(feed_stops_at_pending_max),
		cmocka_unit_test(a_burst_is_bounded_while_a_verdict_is_due),
		cmocka_unit_test(a_burst_is_answered_as_it_is_read),
		cmocka_unit_test(refusing_greeting),
		cmocka_unit_test(shutdown_in_the_data),
		cmocka_unit_test(oversize_data_is_read_to_its_end),
		cmocka_unit_test(idle_sessions_are_small),
	};
	struct CMUnitTest tests[array_count(cases) + array_count(scenarios)];
	size_t n = 0;

	for (size_t i = 0; i < array_count(cases); i++)
		tests[n++] = (struct CMUnitTest){ cases[i].name, case_run, NULL, NULL,
						  (void *)&cases[i] };
	for (size_t i = 0; i < array_count(scenarios); i++)
		tests[n++] = scenarios[i];
	return cmocka_run_group_tests_name("smtp_session", tests, NULL, NULL);
}
