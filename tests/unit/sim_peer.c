/* What the model hosts answer, what they take, and what they find wrong. */
#include "tests/unit/sim_stage.h"

#include <errno.h>

#include "tests/sim/ledger.h"
#include "tests/sim/peer.h"

/* ── stand-ins ── */

static char taken[4096], refused[4096]; /* what the ledger was told, a line each */
static char taken_text[4096];

struct ledger_reply {
	char recipient[64]; /* its first */
};

static struct ledger_reply replies[64]; /* the last ones */
static size_t reply_count;
static char outcomes[4096]; /* what became of them, a word each */

static void told(const struct ledger_reply *reply, const char *what)
{
	size_t at = strlen(outcomes);

	snprintf(outcomes + at, sizeof(outcomes) - at, "%s %s\n", reply->recipient, what);
}

void ledger_heard(struct ledger_reply *reply)
{
	told(reply, "heard");
}

void ledger_concluded(struct ledger_reply *reply)
{
	told(reply, "concluded");
}

struct ledger_reply *ledger_taken(const char *sender, const char *const *recipients, uint32_t count,
				  const char *text, size_t bytes, bool sure)
{
	size_t at = strlen(taken);
	struct ledger_reply *reply;

	at += (size_t)snprintf(taken + at, sizeof(taken) - at, "%s:", sender);
	for (uint32_t i = 0; i < count; i++)
		at += (size_t)snprintf(taken + at, sizeof(taken) - at, " %s", recipients[i]);
	snprintf(taken + at, sizeof(taken) - at, " %s\n", sure ? "surely" : "perhaps");
	snprintf(taken_text, sizeof(taken_text), "%.*s", (int)bytes, text);
	reply = &replies[reply_count++ % array_count(replies)];
	snprintf(reply->recipient, sizeof(reply->recipient), "%s", recipients[0]);
	return reply;
}

void ledger_handed_on(const char *recipient)
{
	(void)recipient;
}

void ledger_refused(const char *recipient)
{
	snprintf(refused + strlen(refused), sizeof(refused) - strlen(refused), "%s\n", recipient);
}

void sim_loop_kick(struct os_loop *loop)
{
	(void)loop;
}

/* ── a client ── */

/* Each line is sent ("> ...") or is how the next reply's last line has to begin ("< ..."). */
struct script {
	struct peer_traits traits;
	const char *const *lines;
};

static struct os_address host;
static uint8_t host_count;

static int setup(void **state)
{
	char text[OS_ADDRESS_TEXT_MAX];

	taken[0] = refused[0] = taken_text[0] = outcomes[0] = 0;
	reply_count = 0;
	snprintf(text, sizeof(text), "10.0.0.%u", ++host_count);
	host = stage_address(text, 25);
	return stage_setup(state);
}

static void reply_expect(struct sock *sock, const char *begin)
{
	char line[1024];
	int len;

	do {
		len = net_read_line(sock, line, sizeof(line), 1000 * SIM_S);
		assert_true(len > 3);
	} while (line[3] == '-');
	if (strncmp(line, begin, strlen(begin)) != 0)
		fail_msg("\"%s\" where \"%s\" was expected", line, begin);
}

static void script_run(struct sock *sock, const char *const *lines)
{
	char rest[8];

	for (; *lines; lines++) {
		if (**lines == '<')
			reply_expect(sock, *lines + 2);
		else if (**lines == '>')
			net_printf(sock, "%s\r\n", *lines + 2);
		else
			net_printf(sock, "%s", *lines + 2); /* as it is */
	}
	while (net_read(sock, rest, sizeof(rest), SIM_S) > 0)
		;
	net_close(sock, false);
}

static void play(void *context)
{
	const struct script *script = context;
	struct sock *sock = net_connect(NULL, &host);

	assert_non_null(sock);
	script_run(sock, script->lines);
}

static void play_later(void *context)
{
	fiber_sleep(2 * SIM_S);
	play(context);
}

static void open_and_play(void *context)
{
	const struct script *script = context;

	peer_open(peer_create(&script->traits), &host);
	play(context);
}

static void perform(const struct peer_traits *traits, const char *const *lines)
{
	struct script script = { *traits, lines };

	stage_run(open_and_play, &script);
}

static const struct peer_traits plain = { .name = "mx.test" };
static const struct peer_traits modern = { .name = "mx.test", .offers = 127 };

/* ── what it takes ── */

static void a_message_is_taken_without_its_dots(void **state)
{
	static const char *const lines[] = { "< 220",	"> EHLO relay",
					     "< 250",	"> MAIL FROM:<m1@s>",
					     "< 250",	"> RCPT TO:<ok1>",
					     "< 250",	"> RCPT TO:<bad1>",
					     "< 550",	"> DATA",
					     "< 354",	"> one",
					     "> ..two", "> .",
					     "< 250",	"> QUIT",
					     "< 221",	NULL };

	(void)state;
	perform(&plain, lines);
	assert_string_equal(taken, "m1@s: ok1 surely\n");
	assert_string_equal(outcomes, "ok1 heard\nok1 concluded\n");
	assert_string_equal(refused, "bad1\n");
	assert_string_equal(taken_text, "one\r\n.two\r\n");
}

static void streamed_chunks_are_taken_each_for_its_own(void **state)
{
	static const char *const lines[] = { "< 220",
					     "> EHLO relay",
					     "< 250",
					     "> MAIL FROM:<m1@s> SIZE=5",
					     "> RCPT TO:<ok1>",
					     "> BDAT 5 LAST",
					     "= one\r\n",
					     "> RSET",
					     "> MAIL FROM:<m2@s> SIZE=5",
					     "> RCPT TO:<bad2>",
					     "> BDAT 5 LAST",
					     "= two\r\n",
					     "> RSET",
					     "> MAIL FROM:<m3@s> SIZE=4",
					     "> RCPT TO:<ok3>",
					     "> BDAT 4 LAST",
					     "= .a\r\n",
					     "< 250 2.1.0",
					     "< 250 2.1.5",
					     "< 250 2.0.0",
					     "< 250 2.0.0",
					     "< 250 2.1.0",
					     "< 550 5.1.1",
					     "< 503 5.5.1",
					     "< 250 2.0.0",
					     "< 250 2.1.0",
					     "< 250 2.1.5",
					     "< 250 2.0.0",
					     NULL };

	(void)state;
	perform(&modern, lines);
	assert_string_equal(taken, "m1@s: ok1 surely\nm3@s: ok3 surely\n");
	assert_string_equal(refused, "bad2\n");
	assert_string_equal(taken_text, ".a\r\n");
}

static void a_mail_store_answers_for_each_recipient(void **state)
{
	static const char *const lines[] = { "< 220",
					     "> LHLO relay",
					     "< 250",
					     "> MAIL FROM:<m1@s>",
					     "> RCPT TO:<ok1>",
					     "> RCPT TO:<bad2>",
					     "> RCPT TO:<ok3>",
					     "> BDAT 5 LAST",
					     "= one\r\n",
					     "> QUIT",
					     "< 250 2.1.0",
					     "< 250 2.1.5",
					     "< 250 2.1.5",
					     "< 250 2.1.5",
					     "< 250 2.0.0",
					     "< 550 5.1.1",
					     "< 250 2.0.0",
					     "< 221",
					     NULL };
	struct peer_traits store = modern;

	(void)state;
	store.lmtp = store.judges_late = true;
	perform(&store, lines);
	assert_string_equal(taken, "m1@s: ok1 surely\nm1@s: ok3 surely\n");
	assert_string_equal(outcomes, "ok1 heard\nok3 heard\nok1 concluded\nok3 concluded\n");
	assert_string_equal(refused, "bad2\n");
	assert_string_equal(taken_text, "one\r\n");
}

static void a_refusal_as_last_reply_concludes(void **state)
{
	static const char *const lines[] = { "< 220", "> LHLO relay",
					     "< 250", "> MAIL FROM:<m1@s>",
					     "< 250", "> RCPT TO:<ok1>",
					     "< 250", "> RCPT TO:<bad2>",
					     "< 250", "> DATA",
					     "< 354", "> one",
					     "> .",   "< 250",
					     "< 550", "> QUIT",
					     "< 221", NULL };
	struct peer_traits store = plain;

	(void)state;
	store.lmtp = store.judges_late = true;
	perform(&store, lines);
	assert_string_equal(taken, "m1@s: ok1 surely\n");
	assert_string_equal(outcomes, "ok1 heard\nok1 concluded\n");
}

static void a_mail_store_that_judges_early_answers_only_for_whom_it_took(void **state)
{
	static const char *const lines[] = { "< 220",  "> LHLO relay",
					     "< 250",  "> MAIL FROM:<m1@s>",
					     "< 250",  "> RCPT TO:<bad1>",
					     "< 550",  "> RCPT TO:<ok2>",
					     "< 250",  "> DATA",
					     "< 354",  "> one",
					     "> .",    "< 250",
					     "> QUIT", "< 221",
					     NULL };
	struct peer_traits store = plain;

	(void)state;
	store.lmtp = true;
	perform(&store, lines);
	assert_string_equal(taken, "m1@s: ok2 surely\n");
	assert_string_equal(refused, "bad1\n");
}

static void a_client_that_does_not_wait_has_not_heard(void **state)
{
	static const char *const lines[] = {
		"< 220", "> EHLO relay",    "< 250", "> MAIL FROM:<m1@s>",
		"< 250", "> RCPT TO:<ok1>", "< 250", "> DATA",
		"< 354", "> one",	    "> .",   NULL
	};
	struct script script = { modern, lines };

	(void)state;
	script.traits.reply_ms = 100000; /* longer than the client waits at the end */
	stage_run(open_and_play, &script);
	assert_true(strcmp(taken, "m1@s: ok1 perhaps\n") == 0 ||
		    strcmp(taken, "m1@s: ok1 surely\n") == 0);
}

static void a_lie_about_chunking_refuses_everybody(void **state)
{
	static const char *const lines[] = { "< 220",
					     "> EHLO relay",
					     "< 250",
					     "> MAIL FROM:<m1@s>",
					     "> RCPT TO:<ok1>",
					     "> BDAT 5 LAST",
					     "= one\r\n",
					     "< 250",
					     "< 250",
					     "< 502",
					     "> QUIT",
					     "< 221",
					     NULL };
	struct peer_traits liar = modern;

	(void)state;
	liar.chunking_lie = true;
	perform(&liar, lines);
	assert_string_equal(taken, "");
	assert_string_equal(refused, "ok1\n");
}

/* ── what it remembers ── */

static const char *const one_rcpt[] = {
	"< 220",	   "> HELO relay", "< 250",  "> MAIL FROM:<>", "< 250",
	"> RCPT TO:<ok1>", "< 451",	   "> QUIT", "< 221",	       NULL
};
static const char *const one_taken[] = {
	"< 220",	   "> HELO relay", "< 250",  "> MAIL FROM:<>", "< 250",
	"> RCPT TO:<ok1>", "< 250",	   "> QUIT", "< 221",	       NULL
};

static void a_greylist_forgives_in_time(void **state)
{
	struct script first = { plain, one_rcpt }, second = { plain, one_taken };
	struct peer *peer;

	(void)state;
	first.traits.greylists = true;
	first.traits.greylist_s = 1;
	peer = peer_create(&first.traits);
	peer_open(peer, &host);
	stage_run(play, &first);
	stage_run(play_later, &second);
}

static void a_host_without_ehlo_says_so(void **state)
{
	static const char *const lines[] = { "< 220", "> EHLO relay", "< 502", "> HELO relay",
					     "< 250", "> QUIT",	      "< 221", NULL };
	struct peer_traits old = modern;

	(void)state;
	old.helo_only = true;
	perform(&old, lines);
}

static void it_has_enough_after_some_messages(void **state)
{
	static const char *const lines[] = { "< 220",
					     "> EHLO relay",
					     "< 250",
					     "> MAIL FROM:<m1@s>",
					     "< 250",
					     "> RCPT TO:<ok1>",
					     "< 250",
					     "> DATA",
					     "< 354",
					     "> one",
					     "> .",
					     "< 250",
					     "> MAIL FROM:<m2@s>",
					     "< 4",
					     NULL };
	struct peer_traits tired = plain;

	(void)state;
	tired.messages_max = 1;
	perform(&tired, lines);
}

/* ── what it finds ── */

#define HELLO "< 220", "> EHLO relay", "< 250"
#define BEGUN HELLO, "> MAIL FROM:<m1@s>", "< 250", "> RCPT TO:<ok1>", "< 250"

static const struct breach {
	const char *name;
	const char *lines[20];
	uint32_t offers;
} breaches[] = {
	{ "MAIL before EHLO", { "< 220", "> MAIL FROM:<>" }, 0 },
	{ "RCPT before MAIL", { HELLO, "> RCPT TO:<ok1>" }, 0 },
	{ "DATA before RCPT", { HELLO, "> MAIL FROM:<>", "< 250", "> DATA" }, 0 },
	{ "MAIL within a transaction", { BEGUN, "> MAIL FROM:<>" }, 0 },
	{ "DATA for nobody, without pipelining",
	  { HELLO, "> MAIL FROM:<>", "< 250", "> RCPT TO:<bad1>", "< 550", "> DATA" },
	  0 },
	{ "a command with a bare LF", { "< 220", "= EHLO relay\n" }, 0 },
	{ "a command with a bare CR", { "< 220", "= EHLO re\rlay\r\n" }, 0 },
	{ "pipelining that was not offered", { HELLO, "= MAIL FROM:<>\r\nRCPT TO:<ok1>\r\n" }, 0 },
	{ "text behind DATA", { BEGUN, "= DATA\r\nx\r\n" }, PEER_PIPELINING },
	{ "SIZE that was not offered", { HELLO, "> MAIL FROM:<> SIZE=1" }, 0 },
	{ "a parameter that nobody knows", { HELLO, "> MAIL FROM:<> COLOUR=red" }, 127 },
	{ "NOTIFY that was not offered",
	  { HELLO, "> MAIL FROM:<>", "< 250", "> RCPT TO:<ok1> NOTIFY=NEVER" },
	  0 },
	{ "BDAT that was not offered", { BEGUN, "> BDAT 0 LAST" }, 0 },
	{ "a SIZE that is not the size",
	  { HELLO, "> MAIL FROM:<m1@s> SIZE=9", "< 250", "> RCPT TO:<ok1>", "< 250", "> DATA",
	    "< 354", "> one", "> ." },
	  PEER_SIZE },
	{ "a bare LF in the data", { BEGUN, "> DATA", "< 354", "= a\nb\r\n" }, 0 },
	{ "a bare CR in the data", { BEGUN, "> DATA", "< 354", "= a\rb\r\n.\r\n" }, 0 },
	{ "a bare CR in a chunk", { BEGUN, "> BDAT 4 LAST", "= a\rb\n" }, 127 },
	{ "a dot that is not doubled", { BEGUN, "> DATA", "< 354", "> .a", "> ." }, 0 },
	{ "8-bit text that was not offered", { BEGUN, "> DATA", "< 354", "> \xe9", "> ." }, 0 },
	{ "a command from nowhere", { HELLO, "> XYZZY" }, 0 },
};

static void a_breach_is_a_finding(void **state)
{
	for (size_t i = 0; i < array_count(breaches); i++) {
		struct script script = { plain, breaches[i].lines };

		setup(state);
		script.traits.offers = breaches[i].offers;
		if (!stage_finds(open_and_play, &script))
			fail_msg("not found: %s", breaches[i].name);
	}
}

/* ── in bad weather ── */

static const char *const whole_message[] = {
	"> EHLO relay", "> MAIL FROM:<m1@s>", "> RCPT TO:<ok1>", "> DATA", "> one", "> .", NULL
};

/* Goes on as long as it is answered well. */
static void hopeful_play(void *context)
{
	struct sock *sock = net_connect(NULL, &host);
	char line[4096];

	(void)context;
	if (sock == NULL)
		return;
	for (const char *const *command = whole_message;; command++) {
		int len;

		if (*command == NULL || strcmp(*command, "> .") != 0) {
			do
				len = net_read_line(sock, line, sizeof(line), 1000 * SIM_S);
			while (len > 3 && line[3] == '-');
			if (len < 3 || (line[0] != '2' && line[0] != '3'))
				break;
		}
		if (*command == NULL || net_printf(sock, "%s\r\n", *command + 2) != 0)
			break;
		if (strcmp(*command, "> .") == 0 && sim_below(4) == 0)
			break;
	}
	net_close(sock, sim_below(2) == 0);
}

/* Faults strike at every step, and neither side hangs or is found guilty. */
static void faults_end_in_order(void **state)
{
	uint32_t ends = 0;

	(void)state;
	sky = (struct weather){ .net_us = 100,
				.peer_faults = 100000,
				.drop_at_dot = 100000,
				.resets = 10000,
				.split_permille = 50 };
	peer_open(peer_create(&plain), &host);
	for (int i = 0; i < 500; i++) {
		taken[0] = 0;
		stage_run(hopeful_play, NULL);
		ends |= strcmp(taken, "m1@s: ok1 surely\n") == 0 ? 1 : 0;
		ends |= strcmp(taken, "m1@s: ok1 perhaps\n") == 0 ? 2 : 0;
		ends |= taken[0] == 0 ? 4 : 0;
	}
	assert_int_equal(ends, 7);
}

#define ROW(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		ROW(a_message_is_taken_without_its_dots),
		ROW(streamed_chunks_are_taken_each_for_its_own),
		ROW(a_mail_store_answers_for_each_recipient),
		ROW(a_refusal_as_last_reply_concludes),
		ROW(a_mail_store_that_judges_early_answers_only_for_whom_it_took),
		ROW(a_client_that_does_not_wait_has_not_heard),
		ROW(a_lie_about_chunking_refuses_everybody),
		ROW(a_greylist_forgives_in_time),
		ROW(a_host_without_ehlo_says_so),
		ROW(it_has_enough_after_some_messages),
		ROW(a_breach_is_a_finding),
		ROW(faults_end_in_order),
	};

	return cmocka_run_group_tests_name("sim_peer", tests, NULL, NULL);
}
