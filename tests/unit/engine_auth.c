/* Dovecot's lines, and how failures are counted. */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/auth/dovecot_protocol.h"
#include "engine/auth/failures.h"
#include "os/check.h"

/* ── what Dovecot says ────────────────────────────────────────────────────────────── */

static const struct reply_case {
	const char *name, *line;
	enum dovecot_line means;
	uint32_t id;
	const char *user;
} reply_cases[] = {
	{ "its version", "VERSION\t1\t2", DOVECOT_NOTHING },
	{ "another version", "VERSION\t2\t0", DOVECOT_FOREIGN },
	{ "a version like ours", "VERSION\t11\t0", DOVECOT_FOREIGN },
	{ "no version", "VERSION", DOVECOT_FOREIGN },
	{ "a mechanism", "MECH\tPLAIN\tplaintext", DOVECOT_NOTHING },
	{ "its process", "SPID\t42", DOVECOT_NOTHING },
	{ "what may come", "NEWS\t1", DOVECOT_NOTHING },
	{ "an empty line", "", DOVECOT_NOTHING },
	{ "the end of its greeting", "DONE", DOVECOT_DONE },
	{ "a user", "OK\t7\tuser=ann", DOVECOT_OK, 7, "ann" },
	{ "a user among others", "OK\t7\ta=b\tuser=ann@x\tnologin", DOVECOT_OK, 7, "ann@x" },
	{ "no user named", "OK\t7", DOVECOT_OK, 7, "" },
	{ "a user with control characters", "OK\t7\tuser=a\1b", DOVECOT_OK, 7, "" },
	{ "no such field", "OK\t7\toriginal_user=bob", DOVECOT_OK, 7, "" },
	{ "a failure", "FAIL\t8\tuser=ann", DOVECOT_FAIL, 8 },
	{ "a failure of its own", "FAIL\t8\tuser=ann\ttemp", DOVECOT_FAIL_TEMPORARY, 8 },
	{ "the same in later versions", "FAIL\t8\tcode=temp_fail", DOVECOT_FAIL_TEMPORARY, 8 },
	{ "a user called temp", "FAIL\t8\tuser=temp", DOVECOT_FAIL, 8 },
	{ "it wants to go on", "CONT\t9\teA==", DOVECOT_FAIL, 9 },
	{ "no number", "OK\tx\tuser=ann", DOVECOT_FOREIGN },
	{ "no number at all", "OK", DOVECOT_FOREIGN },
	{ "a number beyond 32 bits", "FAIL\t4294967296", DOVECOT_FOREIGN },
};

static void reply_row(void **state)
{
	const struct reply_case *row = *state;
	struct dovecot_reply reply;

	dovecot_reply_parse(span_text(row->line), &reply);
	assert_int_equal(reply.line, row->means);
	assert_int_equal(reply.id, row->id);
	assert_string_equal(reply.user, row->user ? row->user : "");
}

static void a_user_of_any_length_is_taken_or_not(void **state)
{
	char line[600] = "OK\t1\tuser=";
	struct dovecot_reply reply;

	(void)state;
	for (size_t len = 1; len < 500; len++) {
		memset(line + 10, 'u', len);
		dovecot_reply_parse(span_of(line, 10 + len), &reply);
		assert_int_equal(strlen(reply.user), len <= DOVECOT_USER_MAX ? len : 0);
	}
}

/* ── what we say ──────────────────────────────────────────────────────────────────── */

static void a_login_is_one_line(void **state)
{
	struct smtp_credentials credentials = { span_text("a"), span_text("b"), span_text("c\td") };
	struct os_address client;
	char out[DOVECOT_LINE_MAX];
	size_t len;

	(void)state;
	os_address_parse("192.0.2.1", 0, &client);
	len = dovecot_ask_write(7, &credentials, &client, true, out);
	out[len] = '\0';
	assert_string_equal(out, "AUTH\t7\tPLAIN\tservice=smtp\tnologin\tsecured\trip=192.0.2.1\t"
				 "resp=YQBiAGMJZA==\n");
	client = (struct os_address){ .family = AF_UNIX };
	len = dovecot_ask_write(8, &credentials, &client, false, out);
	out[len] = '\0';
	assert_string_equal(out, "AUTH\t8\tPLAIN\tservice=smtp\tnologin\tresp=YQBiAGMJZA==\n");
}

static void what_is_too_long_is_not_asked(void **state)
{
	static char text[DOVECOT_SECRET_MAX + 1];
	struct span whole = span_of(text, DOVECOT_SECRET_MAX);
	struct smtp_credentials most = { whole, whole, whole }, more = most;
	struct os_address client = { .family = AF_INET6 };
	char out[DOVECOT_LINE_MAX];

	(void)state;
	assert_true(dovecot_ask_write(UINT32_MAX, &most, &client, true, out) > 0);
	more.password.len++;
	assert_int_equal(dovecot_ask_write(1, &more, &client, true, out), 0);
}

/* ── failures ─────────────────────────────────────────────────────────────────────── */

static void failures_are_forgotten_one_by_one(void **state)
{
	struct auth_failures *failures = calloc(1, sizeof(*failures));

	(void)state;
	assert_int_equal(auth_failures_count(failures, 5, 1000, 60), 0);
	for (uint32_t i = 1; i <= 4; i++)
		assert_int_equal(auth_failures_add(failures, 5, 1000, 60), i);
	assert_int_equal(auth_failures_count(failures, 5, 1059, 60), 4);
	assert_int_equal(auth_failures_count(failures, 5, 1060, 60), 3);
	assert_int_equal(auth_failures_add(failures, 5, 1090, 60),
			 4); /* 30 s of the next are over */
	assert_int_equal(auth_failures_count(failures, 5, 1120, 60), 3);
	assert_int_equal(auth_failures_count(failures, 5, 1240, 60), 1);
	assert_int_equal(auth_failures_count(failures, 5, 1300, 60), 0);
	assert_int_equal(auth_failures_add(failures, 5, 9000, 60), 1);
	assert_int_equal(auth_failures_count(failures, 5, 8000, 60), 1); /* no clock goes back */
	free(failures);
}

static void addresses_have_their_own_count(void **state)
{
	struct auth_failures *failures = calloc(1, sizeof(*failures));

	(void)state;
	auth_failures_add(failures, 5, 10, 60);
	assert_int_equal(auth_failures_count(failures, 6, 10, 60), 0);
	assert_int_equal(auth_failures_count(failures, 5 + AUTH_FAILURES_SLOTS, 10, 60), 1);
	free(failures);
}

int main(void)
{
	enum { OTHERS = 5 };
	struct CMUnitTest tests[OTHERS + array_count(reply_cases)] = {
		cmocka_unit_test(a_user_of_any_length_is_taken_or_not),
		cmocka_unit_test(a_login_is_one_line),
		cmocka_unit_test(what_is_too_long_is_not_asked),
		cmocka_unit_test(failures_are_forgotten_one_by_one),
		cmocka_unit_test(addresses_have_their_own_count),
	};

	for (size_t i = 0; i < array_count(reply_cases); i++)
		tests[OTHERS + i] = (struct CMUnitTest){ .name = reply_cases[i].name,
							 .test_func = reply_row,
							 .initial_state = (void *)&reply_cases[i] };
	return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
