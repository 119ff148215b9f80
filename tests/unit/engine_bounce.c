/* bounce: reports to senders, whole, and what hostile text does to them: nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/report/bounce.h"
#include "os/check.h"
#include "os/prng.h"
#include "queue/envelope.h"

/* ── a report in memory ───────────────────────────────────────────────────────────── */

static char report[1 << 20];
static size_t report_len;
static struct bounce_result result;

static void append(void *context, struct span bytes)
{
	(void)context;
	assert_true(report_len + bytes.len < sizeof(report));
	memcpy(report + report_len, bytes.at, bytes.len);
	report_len += bytes.len;
	report[report_len] = '\0';
}

static uint32_t count_text(const char *text)
{
	uint32_t count = 0;

	for (const char *at = report; (at = strstr(at, text)) != NULL; at++)
		count++;
	return count;
}

/* What holds for every report. */
static void check_report(void)
{
	bool eightbit = false, dots = false;
	size_t line = 0;

	assert_int_equal(result.bytes, report_len);
	assert_int_equal(strlen(report), report_len); /* no NUL */
	for (size_t i = 0; i < report_len; i++) {
		eightbit |= (unsigned char)report[i] > 127;
		dots |= i == line && report[i] == '.';
		if (report[i] == '\r')
			assert_int_equal(report[i + 1], '\n');
		if (report[i] != '\n')
			continue;
		assert_true(i > 0 && report[i - 1] == '\r');
		assert_true(i + 1 - line <= 1000);
		line = i + 1;
	}
	assert_int_equal(line, report_len);
	assert_int_equal(result.eightbit, eightbit);
	assert_int_equal(result.dot_lines, dots);
	assert_int_equal(count_text("\r\n--=_report_R1_0--\r\n"), 1);
}

static struct bounce_recipient recipient = {
	.enhanced = 50101,
	.reply = 550,
	.tried = { INT64_C(1795309475) * OS_US_PER_S },
};

static struct bounce sample(void)
{
	static const char message[] = "From: s@example.com\r\nSubject: hello\r\n\r\n.body\r\n";

	recipient.address = span_text("user@example.org");
	recipient.orcpt = span_text("rfc822;user+2Bx@example.org");
	recipient.host = span_text("mx1.example.org");
	recipient.text = span_text("5.1.1 <user@example.org>: no such user\n5.1.1 here");
	return (struct bounce){
		.hostname = "mx.example.com",
		.id = "R1",
		.now = { INT64_C(1795309480) * OS_US_PER_S },
		.original_id = "M1",
		.sender = span_text("s@example.com"),
		.envid = span_text("id+3D7"),
		.arrival = { INT64_C(1795309400) * OS_US_PER_S },
		.body = span_of(message, sizeof(message) - 1),
		.body_bytes = sizeof(message) - 1,
		.recipients = &recipient,
		.recipient_count = 1,
	};
}

static void compose(const struct bounce *bounce)
{
	report_len = 0;
	bounce_compose(bounce, append, NULL, &result);
}

/* ── golden ───────────────────────────────────────────────────────────────────────── */

#define HEAD(subject)                                                                              \
	"Date: Sun, 22 Nov 2026 01:04:40 +0000\r\n"                                                \
	"From: \"Mail Delivery System\" <MAILER-DAEMON@mx.example.com>\r\n"                        \
	"To: <s@example.com>\r\n"                                                                  \
	"Subject: " subject "\r\n"                                                                 \
	"Message-ID: <R1.report@mx.example.com>\r\n"                                               \
	"Auto-Submitted: auto-replied\r\n"                                                         \
	"MIME-Version: 1.0\r\n"                                                                    \
	"Content-Type: multipart/report; report-type=delivery-status;\r\n"                         \
	"\tboundary=\"=_report_R1_0\"\r\n"                                                         \
	"\r\n"                                                                                     \
	"This report is in MIME format.\r\n"                                                       \
	"\r\n"                                                                                     \
	"--=_report_R1_0\r\n"                                                                      \
	"Content-Type: text/plain; charset=us-ascii\r\n"                                           \
	"\r\n"                                                                                     \
	"This is the mail system at mx.example.com.\r\n"                                           \
	"\r\n"                                                                                     \
	"Your message of Sun, 22 Nov 2026 01:03:20 +0000\r\n"

#define STATUS                                                                                     \
	"\r\n"                                                                                     \
	"For questions, give your mail administrator this number: M1\r\n"                          \
	"\r\n"                                                                                     \
	"--=_report_R1_0\r\n"                                                                      \
	"Content-Type: message/delivery-status\r\n"                                                \
	"\r\n"                                                                                     \
	"Reporting-MTA: dns; mx.example.com\r\n"                                                   \
	"Original-Envelope-Id: id=7\r\n"                                                           \
	"Arrival-Date: Sun, 22 Nov 2026 01:03:20 +0000\r\n"                                        \
	"\r\n"                                                                                     \
	"Original-Recipient: rfc822;user+x@example.org\r\n"                                        \
	"Final-Recipient: rfc822; user@example.org\r\n"

#define HEADERS                                                                                    \
	"\r\n"                                                                                     \
	"--=_report_R1_0\r\n"                                                                      \
	"Content-Type: text/rfc822-headers\r\n"                                                    \
	"\r\n"                                                                                     \
	"From: s@example.com\r\n"                                                                  \
	"Subject: hello\r\n"                                                                       \
	"\r\n"                                                                                     \
	"--=_report_R1_0--\r\n"

static void failure_is_reported_whole(void **state)
{
	(void)state;
	struct bounce bounce = sample();

	bounce.ret = 'F';
	compose(&bounce);
	check_report();
	assert_true(result.dot_lines);
	assert_string_equal(
		report,
		HEAD("Your message could not be delivered") "could not be delivered to the "
							    "recipients below, and will not be "
							    "tried\r\n"
							    "again. The other recipients, if any, "
							    "are not concerned.\r\n"
							    "\r\n"
							    "<user@example.org>\r\n"
							    "    The server mx1.example.org "
							    "refused it, and said:\r\n"
							    "        550 5.1.1 <user@example.org>: "
							    "no such user\r\n"
							    "        550 5.1.1 here\r\n"
							    "    Check the address for a typing "
							    "error, or ask the recipient for the "
							    "right\r\n"
							    "    one.\r\n" STATUS
							    "Action: failed\r\n"
							    "Status: 5.1.1\r\n"
							    "Remote-MTA: dns; mx1.example.org\r\n"
							    "Diagnostic-Code: smtp; 550 5.1.1 "
							    "<user@example.org>: no such user "
							    "5.1.1 here\r\n"
							    "Last-Attempt-Date: Sun, 22 Nov 2026 "
							    "01:04:35 +0000\r\n"
							    "\r\n"
							    "--=_report_R1_0\r\n"
							    "Content-Type: message/rfc822\r\n"
							    "\r\n"
							    "From: s@example.com\r\n"
							    "Subject: hello\r\n"
							    "\r\n"
							    ".body\r\n"
							    "\r\n"
							    "--=_report_R1_0--\r\n");
}

static void delay_is_a_warning_with_headers_only(void **state)
{
	(void)state;
	struct bounce bounce = sample();
	struct bounce_recipient delayed = recipient;

	delayed.kind = BOUNCE_DELAYED;
	bounce.ret = 'F';
	bounce.recipients = &delayed;
	delayed.enhanced = 40200;
	delayed.reply = 451;
	delayed.text = span_text("4.2.0 try later");
	delayed.until.us = INT64_C(1795741400) * OS_US_PER_S;
	compose(&bounce);
	check_report();
	assert_string_equal(
		report,
		HEAD("Your message is delayed") "has not yet been delivered to the recipients "
						"below. THIS IS A WARNING\r\n"
						"ONLY: delivery goes on, and you need not send it "
						"again.\r\n"
						"\r\n"
						"<user@example.org>\r\n"
						"    The server mx1.example.org did not take it "
						"yet, and said:\r\n"
						"        451 4.2.0 try later\r\n"
						"    It will be tried until Fri, 27 Nov 2026 "
						"01:03:20 +0000.\r\n" STATUS "Action: delayed\r\n"
						"Status: 4.2.0\r\n"
						"Remote-MTA: dns; mx1.example.org\r\n"
						"Diagnostic-Code: smtp; 451 4.2.0 try later\r\n"
						"Last-Attempt-Date: Sun, 22 Nov 2026 01:04:35 "
						"+0000\r\n"
						"Will-Retry-Until: Fri, 27 Nov 2026 01:03:20 "
						"+0000\r\n" HEADERS);
}

static void success_is_reported_as_relayed(void **state)
{
	(void)state;
	struct bounce bounce = sample();
	struct bounce_recipient relayed = recipient;

	relayed.kind = BOUNCE_RELAYED;
	bounce.recipients = &relayed;
	relayed.enhanced = 0;
	relayed.reply = 250;
	relayed.text = span_text("ok");
	compose(&bounce);
	check_report();
	assert_string_equal(
		report,
		HEAD("Your message was handed on") "was handed on for the recipients below, to "
						   "servers that give no\r\n"
						   "confirmation of delivery. You will hear of it "
						   "again only if it fails.\r\n"
						   "\r\n"
						   "<user@example.org>\r\n"
						   "    The server mx1.example.org took the "
						   "message.\r\n" STATUS "Action: relayed\r\n"
						   "Status: 2.0.0\r\n"
						   "Remote-MTA: dns; mx1.example.org\r\n"
						   "Diagnostic-Code: smtp; 250 ok\r\n"
						   "Last-Attempt-Date: Sun, 22 Nov 2026 01:04:35 "
						   "+0000\r\n" HEADERS);
}

static void each_recipient_has_its_own_action(void **state)
{
	(void)state;
	struct bounce bounce = sample();
	struct bounce_recipient all[] = { recipient, recipient, recipient, recipient };

	all[0].kind = BOUNCE_DELIVERED;
	all[0].address = span_text("there@example.org");
	all[0].enhanced = 20000;
	all[1].kind = BOUNCE_DELAYED;
	all[1].address = span_text("later@example.org");
	all[1].enhanced = 40202;
	all[3].kind = BOUNCE_RELAYED;
	all[3].address = span_text("onward@example.org");
	bounce.recipients = all;
	bounce.recipient_count = 4;
	bounce.ret = 'F';
	compose(&bounce);
	check_report();
	assert_non_null(strstr(report, "Subject: Your message could not be delivered\r\n"));
	assert_non_null(strstr(report, "Your message of Sun, 22 Nov 2026 01:03:20 +0000\r\n"
				       "could not be delivered"));
	assert_non_null(strstr(report, "\r\nThe message\r\nhas not yet been delivered"));
	assert_non_null(strstr(report, "\r\nThe message\r\n"
				       "was delivered to the recipients below.\r\n\r\n"
				       "<there@example.org>\r\n    It is in the mailbox.\r\n"));
	assert_int_equal(count_text("Your message of"), 1);
	assert_non_null(strstr(report, "there@example.org\r\nAction: delivered\r\n"
				       "Status: 2.0.0\r\n"));
	assert_non_null(strstr(report, "later@example.org\r\nAction: delayed\r\n"
				       "Status: 4.2.2\r\n"));
	assert_non_null(strstr(report, "user@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"));
	assert_non_null(strstr(report, "onward@example.org\r\nAction: relayed\r\n"));
	assert_non_null(strstr(report, "\r\nContent-Type: message/rfc822\r\n"));
}

static const struct orcpt_case {
	const char *name, *address, *orcpt, *wanted;
} orcpts[] = {
	{ "ORCPT in xtext", "u@x.test", "rfc822;a+2Bb@x.test", "rfc822;a+b@x.test\r\n" },
	{ "ORCPT with UTF-8 in ASCII, where only ASCII may stand", "u@x.test",
	  "utf-8;\\x{fc}@x.test", "utf-8;\\x{fc}@x.test\r\n" },
	{ "ORCPT with UTF-8 in ASCII, where UTF-8 may stand", "ü@x.test",
	  "utf-8;\\x{FC}\\x{20AC}\\x{1F4E7}\\x{2B}@x.test", "utf-8;ü€📧+@x.test\r\n" },
	{ "ORCPT in UTF-8", "ü@x.test", "utf-8;ü+20@x.test", "utf-8;ü+20@x.test\r\n" },
	{ "ORCPT with broken escapes", "ü@x.test", "utf-8;\\x{}\\x{110000}\\x{12",
	  "utf-8;\\x{}\\x{110000}\\x{12\r\n" },
	{ "ORCPT that hides a line end", "ü@x.test", "utf-8;a\\x{0d}\\x{0A}b", "utf-8;a??b\r\n" },
};

static void orcpt_test(void **state)
{
	const struct orcpt_case *row = *state;
	struct bounce bounce = sample();
	struct bounce_recipient changed = recipient;
	const char *at;

	bounce.recipients = &changed;
	changed.address = span_text(row->address);
	changed.orcpt = span_text(row->orcpt);
	compose(&bounce);
	check_report();
	at = strstr(report, "Original-Recipient: ");
	assert_non_null(at);
	assert_memory_equal(at + 20, row->wanted, strlen(row->wanted));
}

static void our_own_reason_is_no_diagnostic_code(void **state)
{
	(void)state;
	struct bounce bounce = sample();
	struct bounce_recipient local = { .address = span_text("user@gone.example"),
					  .enhanced = 50102,
					  .text = span_text(
						  "the domain gone.example does not exist") };

	bounce.recipients = &local;
	bounce.envid.len = 0;
	compose(&bounce);
	check_report();
	assert_non_null(strstr(report, "    Reason: the domain gone.example does not exist\r\n"));
	assert_non_null(strstr(report, "Status: 5.1.2\r\n"));
	assert_null(strstr(report, "Diagnostic-Code"));
	assert_null(strstr(report, "Remote-MTA"));
	assert_null(strstr(report, "Original-"));
	assert_null(strstr(report, "Last-Attempt-Date"));
}

/* ── status ───────────────────────────────────────────────────────────────────────── */

static const struct status_case {
	const char *name;
	enum bounce_kind kind;
	uint16_t enhanced;
	bool expired;
	const char *wanted;
} statuses[] = {
	{ "failed without a code", BOUNCE_FAILED, 0, false, "Status: 5.0.0\r\n" },
	{ "expired without a code", BOUNCE_FAILED, 0, true, "Status: 4.4.7\r\n" },
	{ "expired keeps the last real error", BOUNCE_FAILED, 40401, true, "Status: 4.4.1\r\n" },
	{ "a code that says success is none", BOUNCE_FAILED, 20000, false, "Status: 5.0.0\r\n" },
	{ "delayed without a code", BOUNCE_DELAYED, 0, false, "Status: 4.0.0\r\n" },
	{ "relayed with its code", BOUNCE_RELAYED, 20105, false, "Status: 2.1.5\r\n" },
	{ "delivered with its code", BOUNCE_DELIVERED, 20000, false, "Status: 2.0.0\r\n" },
	{ "delivered with a code of no success", BOUNCE_DELIVERED, 50000, false,
	  "Status: 2.0.0\r\n" },
};

static void status_test(void **state)
{
	const struct status_case *row = *state;
	struct bounce bounce = sample();
	struct bounce_recipient changed = recipient;

	changed.kind = row->kind;
	bounce.recipients = &changed;
	changed.enhanced = row->enhanced;
	changed.expired = row->expired;
	compose(&bounce);
	check_report();
	assert_non_null(strstr(report, row->wanted));
	assert_int_equal(strstr(report, "in the time allowed") != NULL, row->expired);
}

/* ── wanted ───────────────────────────────────────────────────────────────────────── */

enum {
	NEVER = ENVELOPE_NOTIFY_NEVER,
	SUCCESS = ENVELOPE_NOTIFY_SUCCESS,
	FAILURE = ENVELOPE_NOTIFY_FAILURE,
	DELAY = ENVELOPE_NOTIFY_DELAY
};

static const struct wanted_case {
	const char *name;
	enum bounce_kind kind;
	const char *sender;
	uint8_t notify;
	bool wanted;
} wanteds[] = {
	{ "failure by default", BOUNCE_FAILED, "s@x", 0, true },
	{ "delay by default", BOUNCE_DELAYED, "s@x", 0, true },
	{ "no success by default", BOUNCE_RELAYED, "s@x", 0, false },
	{ "failure asked for", BOUNCE_FAILED, "s@x", FAILURE | DELAY, true },
	{ "failure not asked for", BOUNCE_FAILED, "s@x", SUCCESS, false },
	{ "delay asked for", BOUNCE_DELAYED, "s@x", DELAY, true },
	{ "delay not asked for", BOUNCE_DELAYED, "s@x", FAILURE | SUCCESS, false },
	{ "success asked for", BOUNCE_RELAYED, "s@x", SUCCESS, true },
	{ "success not asked for", BOUNCE_RELAYED, "s@x", FAILURE, false },
	{ "delivery by default", BOUNCE_DELIVERED, "s@x", 0, false },
	{ "delivery asked for", BOUNCE_DELIVERED, "s@x", SUCCESS, true },
	{ "delivery not asked for", BOUNCE_DELIVERED, "s@x", FAILURE | DELAY, false },
	{ "never a failure", BOUNCE_FAILED, "s@x", NEVER, false },
	{ "never a delay", BOUNCE_DELAYED, "s@x", NEVER, false },
	{ "never a success", BOUNCE_RELAYED, "s@x", NEVER, false },
	{ "no report of a report", BOUNCE_FAILED, "", 0, false },
	{ "no report of a report, whatever it asks", BOUNCE_FAILED, "", SUCCESS | FAILURE | DELAY,
	  false },
};

static void wanted_test(void **state)
{
	const struct wanted_case *row = *state;

	assert_int_equal(bounce_wanted(row->kind, span_text(row->sender), row->notify),
			 row->wanted);
}

/* ── what is shown of the message ─────────────────────────────────────────────────── */

static char long_header[40000], long_line[4000];

static const struct shown_case {
	const char *name;
	const char *body;
	uint64_t beyond; /* bytes that are not in memory */
	bool utf8;
	const char *with, *without; /* in the report */
} showns[] = {
	{ "a sound message is returned", "A: b\r\n\r\ntext\r\n", 0, false,
	  "Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\ntext\r\n\r\n--", "8bit" },
	{ "an unfinished last line is finished", "A: b\r\n\r\ntext", 0, false, "\r\ntext\r\n\r\n--",
	  "8bit" },
	{ "one that is not all in memory is not", "A: b\r\n\r\ntext\r\n", 1, false,
	  "Content-Type: text/rfc822-headers\r\n\r\nA: b\r\n\r\n--", "\r\ntext" },
	{ "bare LF: headers only", "A: b\nB: c\n\ntext\n", 0, false,
	  "headers\r\n\r\nA: b\r\nB: c\r\n\r\n--", "\r\ntext" },
	{ "bare CR: headers only, cleaned", "A: b\rB: c\r\n\r\ntext\r\n", 0, false,
	  "headers\r\n\r\nA: b?B: c\r\n\r\n--", "\r\ntext" },
	{ "a line of 4,000: headers only", long_line, 0, false, "headers\r\n\r\nA: bbb",
	  "message/rfc822" },
	{ "endless headers are cut at a line", long_header, 0, false, "headers\r\n\r\nA: bbb",
	  "message/rfc822" },
	{ "no headers at all", "\r\ntext\r\n", 1, false, "headers\r\n\r\n\r\n--", "\r\ntext" },
	{ "an empty message", "", 0, false, "message/rfc822\r\n\r\n", "8bit" },
	{ "octets above 127 are declared", "A: b\r\n\r\nt\xc3\xa9xt\r\n", 0, false,
	  "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nA: b\r\n",
	  "message/global" },
	{ "headers in UTF-8 make it global", "A: \xc3\xa9\r\n\r\ntext\r\n", 0, true,
	  "Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\nA: \xc3\xa9\r\n",
	  "message/rfc822" },
	{ "so do headers alone", "A: \xc3\xa9\r\n\r\ntext\r\n", 1, true,
	  "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n",
	  "message/rfc822" },
};

static void shown_test(void **state)
{
	const struct shown_case *row = *state;
	struct bounce bounce = sample();

	bounce.ret = 'F';
	bounce.body = span_text(row->body);
	bounce.body_bytes = bounce.body.len + row->beyond;
	bounce.utf8 = row->utf8;
	compose(&bounce);
	check_report();
	assert_false(result.utf8);
	assert_int_equal(count_text("\r\n--=_report_R1_0\r\n"), 3);
	if (strstr(report, row->with) == NULL || strstr(report, row->without) != NULL)
		fail_msg("%s", report);
}

static void headers_only_unless_full_was_asked_for(void **state)
{
	(void)state;
	struct bounce bounce = sample();

	for (const char *ret = "H"; ret != NULL; ret = *ret != '\0' ? "" : NULL) {
		bounce.ret = *ret;
		compose(&bounce);
		check_report();
		assert_non_null(strstr(report, "text/rfc822-headers"));
		assert_null(strstr(report, ".body"));
	}
}

static void lost_message_is_left_out(void **state)
{
	(void)state;
	struct bounce bounce = sample();

	bounce.ret = 'F';
	bounce.body = (struct span){ 0 };
	compose(&bounce);
	check_report();
	assert_int_equal(count_text("\r\n--=_report_R1_0\r\n"), 2);
}

static void message_cannot_end_its_part(void **state)
{
	(void)state;
	struct bounce bounce = sample();

	bounce.ret = 'F';
	bounce.body = span_text("A: b\r\n\r\n--=_report_R1_0--\r\n--=_report_R1_1\r\n");
	bounce.body_bytes = bounce.body.len;
	compose(&bounce);
	assert_int_equal(count_text("\r\n--=_report_R1_2\r\n"), 3);
	assert_int_equal(count_text("\r\n--=_report_R1_2--\r\n"), 1);
}

/* ── addresses that are not ASCII ─────────────────────────────────────────────────── */

static void utf8_recipient_makes_the_status_global(void **state)
{
	(void)state;
	struct bounce bounce = sample();
	struct bounce_recipient changed = recipient;

	bounce.recipients = &changed;
	changed.address = span_text("j\xc3\xbcrgen@example.org");
	changed.orcpt = span_text("utf-8;j\\x{FC}rgen@example.org");
	compose(&bounce);
	check_report();
	assert_true(result.eightbit && !result.utf8);
	assert_non_null(strstr(report, "Content-Type: text/plain; charset=utf-8\r\n"
				       "Content-Transfer-Encoding: 8bit\r\n"));
	assert_non_null(strstr(report, "Content-Type: message/global-delivery-status\r\n"
				       "Content-Transfer-Encoding: 8bit\r\n"));
	assert_non_null(strstr(report, "Final-Recipient: utf-8; j\xc3\xbcrgen@example.org\r\n"));
	assert_non_null(strstr(report, "Original-Recipient: utf-8;jürgen@example.org\r\n"));
}

static void utf8_sender_needs_smtputf8(void **state)
{
	(void)state;
	struct bounce bounce = sample();

	bounce.sender = span_text("j\xc3\xbcrgen@example.org");
	compose(&bounce);
	check_report();
	assert_true(result.eightbit && result.utf8);
	assert_non_null(strstr(report, "\r\nTo: <j\xc3\xbcrgen@example.org>\r\n"));
	assert_non_null(strstr(report, "Content-Type: message/delivery-status\r\n\r\n"));
}

/* ── hostile text ─────────────────────────────────────────────────────────────────── */

static void header_lines(const char *text, uint32_t *count)
{
	*count = 0;
	for (; strncmp(text, "\r\n", 2) != 0; text = strstr(text, "\r\n") + 2)
		++*count;
}

/* The same in every place that a peer or sender fills. */
static void hostile_text_adds_no_line(void **state)
{
	(void)state;
#define BYTES(literal)                                                                             \
	{                                                                                          \
		literal, sizeof(literal) - 1                                                       \
	}
	static const struct span hostiles[] = {
		BYTES("a\r\nX-Evil: 1\r\n\r\nboo"),
		BYTES("a\nX-Evil: 1"),
		BYTES("a\rX-Evil: 1"),
		BYTES("a\0X-Evil: 1"),
		BYTES("\r\n--=_report_R1_0--\r\n"),
		BYTES("\xff\xfe\x80 X-Evil: 1"),
	};
#undef BYTES
	struct bounce plain = sample();
	uint32_t lines_plain, lines;

	compose(&plain);
	header_lines(report, &lines_plain);
	for (size_t i = 0; i < array_count(hostiles); i++) {
		struct bounce bounce = plain;
		struct bounce_recipient changed = recipient;

		bounce.recipients = &changed;
		bounce.sender = bounce.envid = hostiles[i];
		changed.address = changed.orcpt = changed.host = changed.text = hostiles[i];
		compose(&bounce);
		check_report();
		assert_false(result.eightbit);
		assert_null(strstr(report, "\nX-Evil"));
		header_lines(report, &lines);
		assert_int_equal(lines, lines_plain);
		assert_int_equal(count_text("\r\n--=_report_R1_0\r\n"), 3);
	}
}

static void xtext_cannot_smuggle_a_line(void **state)
{
	(void)state;
	struct bounce bounce = sample();
	struct bounce_recipient changed = recipient;

	bounce.recipients = &changed;
	bounce.envid = span_text("a+0D+0AX-Evil:b+2");
	changed.orcpt = span_text("rfc822;a+0D+0AX-Evil:b+G0");
	compose(&bounce);
	check_report();
	assert_non_null(strstr(report, "Original-Envelope-Id: a??X-Evil:b+2\r\n"));
	assert_non_null(strstr(report, "Original-Recipient: rfc822;a??X-Evil:b+G0\r\n"));
}

static void over_long_text_is_folded_or_cut(void **state)
{
	(void)state;
	static char words[5000], word[5000];
	struct bounce bounce = sample();
	struct bounce_recipient changed = recipient;

	for (size_t i = 0; i < sizeof(words) - 1; i++) {
		words[i] = i % 10 == 9 ? ' ' : 'w';
		word[i] = 'x';
	}
	bounce.recipients = &changed;
	changed.text = span_text(words);
	compose(&bounce);
	check_report();
	assert_non_null(strstr(report, "wwwwwwwww\r\n    wwwwwwwww"));
	bounce.sender = bounce.envid = span_text(word);
	changed.address = changed.orcpt = changed.host = changed.text = span_text(word);
	compose(&bounce);
	check_report();
}

static void random_text_keeps_the_promise(void **state)
{
	(void)state;
	static char bytes[3000];
	struct prng prng = { 3 };

	for (int round = 0; round < 2000; round++) {
		struct bounce bounce = sample();
		struct bounce_recipient changed = recipient;
		size_t len = prng_below(&prng, round % 10 == 0 ? sizeof(bytes) : 200);

		for (size_t i = 0; i < len; i++)
			bytes[i] = prng_below(&prng, 4) == 0
					   ? "\r\n\0\xff. :+="[prng_below(&prng, 9)]
					   : (char)prng_next(&prng);
		changed.kind = (enum bounce_kind)prng_below(&prng, BOUNCE_KINDS);
		bounce.ret = 'F';
		bounce.recipients = &changed;
		bounce.body = changed.text = changed.address = changed.orcpt = span_of(bytes, len);
		bounce.body_bytes = len;
		bounce.utf8 = true;
		compose(&bounce);
		check_report();
	}
}

static size_t add_rows(struct CMUnitTest *tests, size_t at, const void *rows, size_t row_bytes,
		       size_t count, void (*run)(void **state))
{
	for (size_t i = 0; i < count; i++) {
		const void *row = (const char *)rows + i * row_bytes;

		/* A row begins with its name. */
		tests[at++] = (struct CMUnitTest){ .name = *(const char *const *)row,
						   .test_func = run,
						   .initial_state = (void *)row };
	}
	return at;
}

#define ADD_ROWS(at, rows, run) add_rows(tests, at, rows, sizeof((rows)[0]), array_count(rows), run)

int main(void)
{
	static const struct CMUnitTest others[] = {
		cmocka_unit_test(failure_is_reported_whole),
		cmocka_unit_test(delay_is_a_warning_with_headers_only),
		cmocka_unit_test(success_is_reported_as_relayed),
		cmocka_unit_test(each_recipient_has_its_own_action),
		cmocka_unit_test(our_own_reason_is_no_diagnostic_code),
		cmocka_unit_test(headers_only_unless_full_was_asked_for),
		cmocka_unit_test(lost_message_is_left_out),
		cmocka_unit_test(message_cannot_end_its_part),
		cmocka_unit_test(utf8_recipient_makes_the_status_global),
		cmocka_unit_test(utf8_sender_needs_smtputf8),
		cmocka_unit_test(hostile_text_adds_no_line),
		cmocka_unit_test(xtext_cannot_smuggle_a_line),
		cmocka_unit_test(over_long_text_is_folded_or_cut),
		cmocka_unit_test(random_text_keeps_the_promise),
	};
	struct CMUnitTest tests[array_count(statuses) + array_count(wanteds) + array_count(showns) +
				array_count(orcpts)];
	size_t count = 0;

	memset(long_line, 'b', sizeof(long_line) - 1);
	memcpy(long_line, "A: ", 3);
	for (size_t i = 0; i < sizeof(long_header) - 1; i++)
		long_header[i] = i % 40 < 38 ? 'b' : "\r\n"[i % 40 - 38];
	memcpy(long_header, "A: ", 3);
	count = ADD_ROWS(count, statuses, status_test);
	count = ADD_ROWS(count, wanteds, wanted_test);
	count = ADD_ROWS(count, showns, shown_test);
	count = ADD_ROWS(count, orcpts, orcpt_test);
	assert(count == array_count(tests));
	return cmocka_run_group_tests_name("bounce rows", tests, NULL, NULL) +
	       cmocka_run_group_tests_name("bounce", others, NULL, NULL);
}
