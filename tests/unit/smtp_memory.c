/*
 * Both sides without memory: each allocation of a conversation is refused in its turn, alone or
 * with all that follow. What is said must be what would have been said, up to a word of the want
 * of memory or to the end; and nobody is told more than what is so.
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
#include "tests/unit/memory_refuse.h"

/* ── the server's side ────────────────────────────────────────────────────────────── */

enum { TICKETS_MAX = 16 };

struct served {
	struct smtp_session *session;
	char out[8192];
	size_t out_len;
	uint32_t mails, ended, aborted, refused;
	bool open;
	struct {
		uint32_t ticket, mail;
	} due[TICKETS_MAX];
	uint32_t due_count;
};

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	struct served *served = context;

	(void)mail;
	assert_false(served->open);
	served->open = true;
	served->mails++;
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	assert_true(((struct served *)context)->open);
	(void)rcpt;
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	struct served *served = context;

	(void)greeting;
	assert_true(served->open);
	if (served->mails != 3)
		return (struct smtp_answer){ 354, NULL, "" };
	served->open = false;
	served->refused++;
	return (struct smtp_answer){ 452, "4.3.1", "no" };
}

static void on_body(void *context, struct span bytes)
{
	(void)bytes;
	assert_true(((struct served *)context)->open);
}

static void on_end(void *context, uint32_t ticket)
{
	struct served *served = context;

	assert_true(served->open && served->due_count < TICKETS_MAX);
	served->open = false;
	served->ended++;
	served->due[served->due_count].ticket = ticket;
	served->due[served->due_count++].mail = served->mails;
}

static void on_abort(void *context, const char *why)
{
	struct served *served = context;

	(void)why;
	assert_true(served->open);
	served->open = false;
	served->aborted++;
}

static struct smtp_answer on_starttls(void *context)
{
	(void)context;
	return (struct smtp_answer){ 220, "2.0.0", "Ready" };
}

static enum smtp_auth_verdict on_auth(void *context, const struct smtp_credentials *credentials)
{
	(void)context;
	assert_true(span_equal(credentials->user, span_text("name")));
	return SMTP_AUTH_OK;
}

static struct smtp_answer on_xclient(void *context, const struct xclient *client)
{
	(void)context;
	(void)client;
	return (struct smtp_answer){ 220, NULL, NULL };
}

static const struct smtp_session_host session_host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
	.starttls = on_starttls,
	.auth = on_auth,
	.xclient = on_xclient,
};

#define MAIL "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
#define BDAT MAIL "BDAT 2 LAST\r\nxx"
#define NOOP "NOOP\r\n"

static const char *const conversations[] = {
	"EHLO a\r\n" BDAT BDAT BDAT BDAT BDAT BDAT BDAT BDAT NOOP NOOP NOOP NOOP NOOP "QUIT\r\n",
	"EHLO a\r\n" MAIL "DATA\r\nhi\r\n.\r\n" MAIL "DATA\r\na\nb\r\n.\r\n" NOOP "EHLO b\r\n" MAIL
	"RSET\r\nQUIT\r\n",
	"EHLO a\r\n" BDAT BDAT "STARTTLS\r\n",
	"XCLIENT NAME=x HELO=y\r\n" BDAT "HELP\r\nVRFY me\r\nQUIT\r\n",
	"EHLO a\r\nAUTH PLAIN AG5hbWUAd29yZA==\r\n" BDAT "QUIT\r\n",
	"EHLO a\r\nAUTH LOGIN\r\nbmFtZQ==\r\nd29yZA==\r\n",
};

static void take_output(struct served *served)
{
	struct span out = smtp_session_output(served->session);

	assert_true(served->out_len + out.len < sizeof(served->out));
	memcpy(served->out + served->out_len, out.at, out.len);
	served->out_len += out.len;
	served->out[served->out_len] = '\0';
	smtp_session_sent(served->session, out.len);
}

/* The second before the first, and so on: verdicts have to be kept, too. */
static void give_verdicts(struct served *served)
{
	while (served->due_count > 0) {
		uint32_t at = served->due_count > 1 ? 1 : 0;
		char text[16];

		snprintf(text, sizeof(text), "of %u", served->due[at].mail);
		smtp_session_answer(served->session, served->due[at].ticket,
				    &(struct smtp_answer){ 250, "2.0.0", text });
		served->due_count--;
		memmove(&served->due[at], &served->due[at + 1],
			(served->due_count - at) * sizeof(served->due[0]));
	}
}

static void converse(struct served *served, const char *said, size_t piece)
{
	static const struct smtp_session_options options = {
		.name = "b",
		.recipients_max = 10,
		.pending_max = TICKETS_MAX,
		.pipelining = true,
		.chunking = true,
		.xclient = true,
		.starttls = true,
		.auth = SMTP_AUTH_ALWAYS,
	};
	struct span rest = span_text(said);

	*served =
		(struct served){ .session = smtp_session_create(&options, &session_host, served) };
	if (!served->session)
		return;
	smtp_session_greet(served->session, NULL);
	while (rest.len > 0) {
		size_t len = rest.len < piece ? rest.len : piece;
		size_t taken = smtp_session_feed(served->session, span_of(rest.at, len));

		rest = span_skip(rest, taken);
		if (taken < len)
			break;
	}
	give_verdicts(served);
	take_output(served);
}

static struct span next_line(struct span *rest)
{
	const char *lf = memchr(rest->at, '\n', rest->len);
	struct span line = span_of(rest->at, lf ? (size_t)(lf + 1 - rest->at) : rest->len);

	assert_true(!lf == (rest->len == 0));
	*rest = span_skip(*rest, line.len);
	return line;
}

/* What was said against what is said with memory. */
static void compare(const struct served *served, const char *whole)
{
	struct span is = span_of(served->out, served->out_len), should = span_text(whole);

	while (is.len > 0) {
		struct span line = next_line(&is), due = next_line(&should);

		if (span_equal(line, due))
			continue;
		if (span_starts_nocase(line, "454 4.7.0"))
			return; /* the rest of the exchange is no command */
		if (span_starts_nocase(line, "452 4.3.1"))
			continue;
		assert_true(span_starts_nocase(line, "421 4.3.2"));
		assert_int_equal(is.len, 0);
		assert_true(smtp_session_finished(served->session));
	}
	if (should.len > 0)
		assert_true(smtp_session_finished(served->session));
}

static void session_run(const char *said, size_t piece)
{
	static struct served served;
	static char whole[sizeof(served.out)];
	bool refused = true;

	converse(&served, said, piece);
	memcpy(whole, served.out, sizeof(whole));
	smtp_session_destroy(served.session);
	for (uint32_t after = 0; refused; after++) {
		refused = false;
		for (int lasting = 0; lasting < 2; lasting++) {
			memory_refuse(after, lasting);
			converse(&served, said, piece);
			refused |= memory_refuse_end();
			if (served.session)
				compare(&served, whole);
			assert_false(served.open);
			assert_int_equal(served.mails,
					 served.ended + served.aborted + served.refused);
			smtp_session_destroy(served.session);
		}
	}
	assert_string_equal(served.out, whole);
}

static void a_session_says_what_it_can_keep_and_nothing_behind(void **state)
{
	(void)state;
	for (size_t i = 0; i < array_count(conversations); i++)
		for (size_t piece = 1; piece <= 7; piece += 2)
			session_run(conversations[i], piece);
	for (size_t i = 0; i < array_count(conversations); i++)
		session_run(conversations[i], SIZE_MAX);
}

/* A message that was taken is told so before the end, if only its reply can be kept. */
static void a_verdict_is_said_although_what_follows_is_lost(void **state)
{
	static struct served served;

	(void)state;
	converse(&served, "EHLO a\r\n", SIZE_MAX);
	assert_int_equal(smtp_session_feed(served.session, span_text(BDAT)), strlen(BDAT));
	for (int i = 0; i < 30; i++)
		smtp_session_feed(served.session, span_text(NOOP));
	take_output(&served);
	served.out_len = 0;
	memory_refuse(0, true);
	give_verdicts(&served);
	assert_true(memory_refuse_end());
	take_output(&served);
	assert_string_equal(served.out, "250 2.0.0 of 1\r\n");
	assert_true(smtp_session_finished(served.session));
	smtp_session_destroy(served.session);
}

/* ── the client's side ────────────────────────────────────────────────────────────── */

enum { TRANSACTIONS = 6, RECIPIENTS = 3 };

struct sender {
	struct smtp_client *client;
	const char *ehlo;
	struct smtp_transaction transactions[TRANSACTIONS];
	struct smtp_client_recipient recipients[TRANSACTIONS][RECIPIENTS];
	uint32_t submitted, submitted_max, finished[TRANSACTIONS];
	bool ended;
	/* the peer */
	char wire[4096];
	size_t wire_len, read;
	bool in_data;
	uint32_t taken; /* messages */
	bool hasty;	/* answers in mid-body */
};

static void submit_all(struct sender *sender)
{
	while (sender->submitted < sender->submitted_max && smtp_client_room(sender->client) > 0)
		smtp_client_submit(sender->client, &sender->transactions[sender->submitted++]);
}

static void on_ready(void *context)
{
	submit_all(context);
}

static void on_recipient(void *context, struct smtp_transaction *transaction,
			 struct smtp_client_recipient *recipient, const struct smtp_reply *reply)
{
	(void)context;
	(void)transaction;
	(void)reply;
	assert_int_not_equal(recipient->verdict, SMTP_PENDING);
}

static void on_finished(void *context, struct smtp_transaction *transaction)
{
	struct sender *sender = context;

	sender->finished[transaction - sender->transactions]++;
	submit_all(sender);
}

static void on_ended(void *context, const char *why, const struct smtp_reply *reply)
{
	struct sender *sender = context;

	(void)why;
	(void)reply;
	assert_false(sender->ended);
	sender->ended = true;
}

static const struct smtp_client_host client_host = {
	.ready = on_ready,
	.recipient = on_recipient,
	.finished = on_finished,
	.ended = on_ended,
};

static size_t pull(struct sender *sender, size_t max)
{
	struct iovec vectors[4];
	int count = smtp_client_output(sender->client, vectors, 4);
	size_t moved = 0;

	for (int i = 0; i < count; i++) {
		size_t len = vectors[i].iov_len < max - moved ? vectors[i].iov_len : max - moved;

		assert_true(sender->wire_len + len < sizeof(sender->wire));
		memcpy(sender->wire + sender->wire_len, vectors[i].iov_base, len);
		sender->wire_len += len;
		moved += len;
	}
	if (moved > 0)
		smtp_client_sent(sender->client, moved);
	return moved;
}

static const char *peer_reply(struct sender *sender, struct span line)
{
	if (span_equal(line, span_text("hi\r\n"))) {
		if (sender->in_data)
			return NULL;
		sender->taken++;
		return "250 2.0.0 taken\r\n";
	}
	if (span_starts_nocase(line, "BDAT"))
		return NULL;
	if (span_starts_nocase(line, "EHLO"))
		return sender->ehlo;
	sender->in_data |= span_starts_nocase(line, "DATA");
	if (span_starts_nocase(line, "DATA"))
		return "354 go\r\n";
	sender->taken += line.at[0] == '.';
	sender->in_data &= line.at[0] != '.';
	return "250 2.0.0 ok\r\n";
}

/* Takes the next line that is here whole, and answers it. */
static bool peer_answer(struct sender *sender)
{
	struct span rest = span_of(sender->wire + sender->read, sender->wire_len - sender->read);
	const char *lf = rest.len > 0 ? memchr(rest.at, '\n', rest.len) : NULL, *reply;

	if (!lf)
		return false;
	sender->read += (size_t)(lf + 1 - rest.at);
	reply = peer_reply(sender, span_of(rest.at, (size_t)(lf + 1 - rest.at)));
	if (reply)
		smtp_client_feed(sender->client, span_text(reply));
	return true;
}

static void sender_init(struct sender *sender, const char *ehlo, bool hasty)
{
	static const struct smtp_client_options options = {
		.hello = "a", .pipelining = true, .chunking = true, .depth_max = 3
	};

	*sender = (struct sender){ .ehlo = ehlo, .hasty = hasty, .submitted_max = TRANSACTIONS };
	for (uint32_t i = 0; i < TRANSACTIONS; i++) {
		for (uint32_t k = 0; k < RECIPIENTS; k++)
			sender->recipients[i][k].address = span_text("a.recipient@d.example");
		sender->transactions[i] = (struct smtp_transaction){
			.sender = span_text("s@x"),
			.body = span_text("hi\r\n"),
			.body_bytes = 4,
			.recipients = sender->recipients[i],
			.recipient_count = RECIPIENTS,
		};
	}
	sender->client = smtp_client_create(&options, &client_host, sender);
}

/* The peer gets ahead of nobody: what it has not answered by the end is unknown. */
static void sender_run(struct sender *sender, size_t piece)
{
	smtp_client_feed(sender->client, span_text("220 b\r\n"));
	while (pull(sender, piece) > 0 || (!sender->ended && peer_answer(sender))) {
		if (sender->hasty && sender->wire_len > 3 &&
		    memcmp(sender->wire + sender->wire_len - 3, "\r\nh", 3) == 0) {
			smtp_client_feed(sender->client, span_text("550 no\r\n"));
			smtp_client_feed(sender->client, span_text("250"));
			smtp_client_feed(sender->client, span_text(" late\r\n"));
		}
		peer_answer(sender);
	}
	smtp_client_lost(sender->client, "test over");
	while (peer_answer(sender))
		continue;
}

/* Everybody has one outcome, and none that is not so. */
static void sender_check(const struct sender *sender)
{
	assert_true(sender->ended);
	for (uint32_t i = 0; i < sender->submitted; i++) {
		bool taken = i < sender->taken;

		assert_int_equal(sender->finished[i], 1);
		for (uint32_t k = 0; k < RECIPIENTS && !sender->hasty; k++) {
			uint8_t verdict = sender->recipients[i][k].verdict;

			if (taken)
				assert_true(verdict == SMTP_DELIVERED || verdict == SMTP_UNKNOWN);
			else
				assert_true(verdict == SMTP_NOT_SENT || verdict == SMTP_DEFERRED);
		}
	}
}

static void client_run(const char *ehlo, size_t piece, bool hasty)
{
	static struct sender sender;
	bool refused = true;

	for (uint32_t after = 0; refused; after++) {
		refused = false;
		for (int lasting = 0; lasting < 2; lasting++) {
			memory_refuse(after, lasting);
			sender_init(&sender, ehlo, hasty);
			if (sender.client)
				sender_run(&sender, piece);
			refused |= memory_refuse_end();
			if (sender.client)
				sender_check(&sender);
			smtp_client_destroy(sender.client);
		}
	}
	if (!hasty)
		assert_int_equal(sender.taken, TRANSACTIONS);
}

static void a_client_ends_as_after_a_loss(void **state)
{
	static const char *const peers[] = { "250-b\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
					     "250-b\r\n250 PIPELINING\r\n", "250 b\r\n" };

	(void)state;
	for (size_t i = 0; i < array_count(peers); i++) {
		client_run(peers[i], SIZE_MAX, false);
		client_run(peers[i], 1, false);
		client_run(peers[i], 1, true);
	}
}

static void what_was_sent_whole_is_unknown_and_what_follows_not_sent(void **state)
{
	static struct sender sender;
	static char long_name[32 << 10];

	(void)state;
	memset(long_name, 'x', sizeof(long_name));
	sender_init(&sender, "250-b\r\n250-PIPELINING\r\n250 CHUNKING\r\n", false);
	sender.submitted_max = 1;
	smtp_client_feed(sender.client, span_text("220 b\r\n"));
	while (pull(&sender, SIZE_MAX) > 0 || peer_answer(&sender))
		continue;
	assert_int_equal(sender.finished[0], 1);
	sender.submitted_max = 2;
	submit_all(&sender);
	assert_true(pull(&sender, SIZE_MAX) > 0);
	sender.submitted_max = 3;
	sender.transactions[2].sender = span_of(long_name, sizeof(long_name));
	memory_refuse(0, true);
	submit_all(&sender);
	assert_false(sender.ended);
	assert_int_equal(pull(&sender, SIZE_MAX), 0);
	assert_true(memory_refuse_end() && sender.ended);
	assert_int_equal(sender.recipients[0][0].verdict, SMTP_DELIVERED);
	assert_int_equal(sender.recipients[1][0].verdict, SMTP_UNKNOWN);
	assert_int_equal(sender.recipients[2][0].verdict, SMTP_NOT_SENT);
	smtp_client_destroy(sender.client);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_says_what_it_can_keep_and_nothing_behind),
		cmocka_unit_test(a_verdict_is_said_although_what_follows_is_lost),
		cmocka_unit_test(a_client_ends_as_after_a_loss),
		cmocka_unit_test(what_was_sent_whole_is_unknown_and_what_follows_not_sent),
	};

	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
