/*
 * Addresses, paths and the parameters behind them.
 */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/smtp/address.h"
#include "engine/smtp/params.h"
#include "os/check.h"

#define A10  "aaaaaaaaaa"
#define A60  A10 A10 A10 A10 A10 A10
#define L63  A60 "aaa"
#define D250 L63 "." L63 "." L63 "." A10 A10 A10 A10 A10 "aaaaaaaa"

static const struct path_case {
	const char *name, *text;
	enum smtp_address_status status;
	const char *expected, *rest;
} paths[] = {
	{ "plain", "<a@b.example>", SMTP_ADDRESS_OK, "a@b.example", "" },
	{ "the local part keeps its case, the domain does not", "<Ab@C.Example>", SMTP_ADDRESS_OK,
	  "Ab@c.example", "" },
	{ "rest follows", "<a@b> SIZE=1", SMTP_ADDRESS_OK, "a@b", " SIZE=1" },
	{ "null sender", "<>", SMTP_ADDRESS_OK, "", "" },
	{ "postmaster without a domain", "<PostMaster>", SMTP_ADDRESS_OK, "PostMaster", "" },
	{ "others need a domain", "<root>", SMTP_ADDRESS_SYNTAX },
	{ "source route is dropped", "<@x.example,@y:a@b>", SMTP_ADDRESS_OK, "a@b", "" },
	{ "route without a mailbox", "<@x:>", SMTP_ADDRESS_SYNTAX },
	{ "route without a colon", "<@x>", SMTP_ADDRESS_SYNTAX },
	{ "needless quotes go", "<\"abc\"@x>", SMTP_ADDRESS_OK, "abc@x", "" },
	{ "needless escapes go", "<\"a\\b.c\"@x>", SMTP_ADDRESS_OK, "ab.c@x", "" },
	{ "quoted blank stays", "<\"a b\"@x>", SMTP_ADDRESS_OK, "\"a b\"@x", "" },
	{ "quoted at sign stays", "<\"a@b\"@x>", SMTP_ADDRESS_OK, "\"a@b\"@x", "" },
	{ "quoted quote stays", "<\"a\\\"b\"@x>", SMTP_ADDRESS_OK, "\"a\\\"b\"@x", "" },
	{ "quoted bracket stays", "<\"a>b\"@x>", SMTP_ADDRESS_OK, "\"a>b\"@x", "" },
	{ "empty quotes stay", "<\"\"@x>", SMTP_ADDRESS_OK, "\"\"@x", "" },
	{ "quotes never end", "<\"a@x>", SMTP_ADDRESS_SYNTAX },
	{ "escape at the end", "<\"a\\", SMTP_ADDRESS_SYNTAX },
	{ "control character in quotes", "<\"a\tb\"@x>", SMTP_ADDRESS_SYNTAX },
	{ "all of atext", "<a!#$%&'*+-/=?^_`{|}~@x>", SMTP_ADDRESS_OK, "a!#$%&'*+-/=?^_`{|}~@x",
	  "" },
	{ "dot at the start", "<.a@x>", SMTP_ADDRESS_SYNTAX },
	{ "dot at the end", "<a.@x>", SMTP_ADDRESS_SYNTAX },
	{ "two dots", "<a..b@x>", SMTP_ADDRESS_SYNTAX },
	{ "blank", "<a b@x>", SMTP_ADDRESS_SYNTAX },
	{ "empty local part", "<@x>", SMTP_ADDRESS_SYNTAX },
	{ "no brackets", "a@x", SMTP_ADDRESS_SYNTAX },
	{ "bracket never closes", "<a@x", SMTP_ADDRESS_SYNTAX },
	{ "nothing", "", SMTP_ADDRESS_SYNTAX },
	{ "two at signs", "<a@b@c>", SMTP_ADDRESS_SYNTAX },
	{ "empty domain", "<a@>", SMTP_ADDRESS_DOMAIN },
	{ "trailing dot", "<a@x.>", SMTP_ADDRESS_DOMAIN },
	{ "hyphen at the start of a label", "<a@-x>", SMTP_ADDRESS_DOMAIN },
	{ "hyphen at the end of a label", "<a@x-.y>", SMTP_ADDRESS_DOMAIN },
	{ "underscore in a domain", "<a@x_y>", SMTP_ADDRESS_SYNTAX },
	{ "IPv4 literal", "<a@[192.0.2.1]>", SMTP_ADDRESS_OK, "a@[192.0.2.1]", "" },
	{ "IPv6 literal in one form", "<a@[ipv6:2001:DB8::1]>", SMTP_ADDRESS_OK,
	  "a@[IPv6:2001:db8::1]", "" },
	{ "bad IPv4 literal", "<a@[192.0.2.256]>", SMTP_ADDRESS_DOMAIN },
	{ "bad IPv6 literal", "<a@[IPv6:1:2]>", SMTP_ADDRESS_DOMAIN },
	{ "literal never closes", "<a@[192.0.2.1>", SMTP_ADDRESS_DOMAIN },
	{ "unknown literal", "<a@[x:y]>", SMTP_ADDRESS_DOMAIN },
	{ "local part of 64", "<" A60 "aaaa@x>", SMTP_ADDRESS_OK, A60 "aaaa@x", "" },
	{ "local part of 65", "<" A60 "aaaaa@x>", SMTP_ADDRESS_LOCAL },
	{ "quoted local part of 65", "<\"" A60 " aa\\\"\"@x>", SMTP_ADDRESS_LOCAL },
	{ "endless quoted local part", "<\"" A60 A60 "\"@x>", SMTP_ADDRESS_LOCAL },
	{ "label of 63", "<a@" L63 ">", SMTP_ADDRESS_OK, "a@" L63, "" },
	{ "label of 64", "<a@a" L63 ">", SMTP_ADDRESS_DOMAIN },
	{ "path of 256", "<aa@" D250 "a>", SMTP_ADDRESS_OK, "aa@" D250 "a", "" },
	{ "path of 257", "<aaa@" D250 "a>", SMTP_ADDRESS_TOO_LONG },
	{ "domain of 256", "<a@" D250 "aaaaaa>", SMTP_ADDRESS_DOMAIN },
	{ "UTF-8", "<\xc3\xa4@\xc3\xb6.example>", SMTP_ADDRESS_OK, "\xc3\xa4@\xc3\xb6.example",
	  "" },
	{ "overlong UTF-8", "<\xc0\xaf@x>", SMTP_ADDRESS_UTF8 },
	{ "surrogate", "<\xed\xa0\x80@x>", SMTP_ADDRESS_UTF8 },
	{ "cut UTF-8", "<a@\xe2\x82>", SMTP_ADDRESS_UTF8 },
	{ "beyond Unicode", "<\"\xf4\x90\x80\x80\"@x>", SMTP_ADDRESS_UTF8 },
};

static void path_run(void **state)
{
	const struct path_case *row = *state;
	struct smtp_address address;
	struct span rest;

	assert_int_equal(smtp_path_parse(span_text(row->text), true, &address, &rest), row->status);
	if (row->status != SMTP_ADDRESS_OK)
		return;
	assert_true(span_equal(smtp_address_span(&address), span_text(row->expected)));
	assert_true(span_equal(rest, span_text(row->rest)));
	const char *at = strrchr(row->expected, '@');
	struct span domain = span_text(at ? at + 1 : "");

	assert_true(span_equal(smtp_address_domain(&address), domain));
	assert_int_equal(address.literal, domain.len > 0 && *domain.at == '[');
	bool high = false;

	for (const char *c = row->expected; *c; c++)
		high |= (uint8_t)*c >= 128;
	assert_int_equal(address.utf8, high);
	if (high)
		assert_int_equal(smtp_path_parse(span_text(row->text), false, &address, &rest),
				 SMTP_ADDRESS_UTF8);
	/* What was parsed parses to itself. */
	struct smtp_address again;

	if (domain.len > 0) {
		assert_int_equal(smtp_address_parse(span_text(row->expected), true, &again),
				 SMTP_ADDRESS_OK);
		assert_true(span_equal(smtp_address_span(&again), span_text(row->expected)));
	}
}

static void address_is_whole(void **state)
{
	static const char *const bad[] = { "", "a", "postmaster", "<a@b>", "a@b ", "a@b>", "@b" };
	struct smtp_address address;

	(void)state;
	for (size_t i = 0; i < array_count(bad); i++)
		assert_int_not_equal(smtp_address_parse(span_text(bad[i]), false, &address),
				     SMTP_ADDRESS_OK);
}

static const struct params_case {
	const char *name, *text;
	enum smtp_params_status status;
} mail_params[] = {
	{ "MAIL: none", "", SMTP_PARAMS_OK },
	{ "MAIL: all of them", " SIZE=7 BODY=8bitmime smtputf8 RET=hdrs ENVID=a+20b AUTH=<>",
	  SMTP_PARAMS_OK },
	{ "MAIL: no blank before", "SIZE=7", SMTP_PARAMS_BAD },
	{ "MAIL: unknown", " FOO=7", SMTP_PARAMS_UNKNOWN },
	{ "MAIL: NOTIFY is RCPT's", " NOTIFY=NEVER", SMTP_PARAMS_UNKNOWN },
	{ "MAIL: SIZE twice", " SIZE=7 SIZE=7", SMTP_PARAMS_BAD },
	{ "MAIL: SIZE without a value", " SIZE", SMTP_PARAMS_BAD },
	{ "MAIL: SIZE empty", " SIZE=", SMTP_PARAMS_BAD },
	{ "MAIL: SIZE negative", " SIZE=-1", SMTP_PARAMS_BAD },
	{ "MAIL: BODY unknown", " BODY=9BIT", SMTP_PARAMS_BAD },
	{ "MAIL: BODY empty", " BODY", SMTP_PARAMS_BAD },
	{ "MAIL: BINARYMIME", " BODY=BINARYMIME", SMTP_PARAMS_OK },
	{ "MAIL: SMTPUTF8 with a value", " SMTPUTF8=yes", SMTP_PARAMS_BAD },
	{ "MAIL: RET bad", " RET=BOTH", SMTP_PARAMS_BAD },
	{ "MAIL: ENVID empty", " ENVID=", SMTP_PARAMS_BAD },
	{ "MAIL: ENVID of 100", " ENVID=" A60 A10 A10 A10 A10, SMTP_PARAMS_OK },
	{ "MAIL: ENVID of 101", " ENVID=a" A60 A10 A10 A10 A10, SMTP_PARAMS_BAD },
	{ "MAIL: ENVID with an equals sign", " ENVID=a=b", SMTP_PARAMS_BAD },
	{ "MAIL: lower-case hex", " ENVID=a+2b", SMTP_PARAMS_BAD },
	{ "MAIL: hidden line end", " ENVID=a+0A", SMTP_PARAMS_BAD },
	{ "MAIL: cut hex", " ENVID=a+2", SMTP_PARAMS_BAD },
	{ "MAIL: AUTH with an address", " AUTH=a+3Db@x", SMTP_PARAMS_OK },
	{ "MAIL: AUTH empty", " AUTH=", SMTP_PARAMS_BAD },
}, rcpt_params[] = {
	{ "RCPT: none", "", SMTP_PARAMS_OK },
	{ "RCPT: both", " NOTIFY=success,FAILURE,DELAY ORCPT=rfc822;a+2Bb@x", SMTP_PARAMS_OK },
	{ "RCPT: NEVER", " NOTIFY=NEVER", SMTP_PARAMS_OK },
	{ "RCPT: NEVER stands alone", " NOTIFY=NEVER,DELAY", SMTP_PARAMS_BAD },
	{ "RCPT: NOTIFY twice the same", " NOTIFY=DELAY,DELAY", SMTP_PARAMS_BAD },
	{ "RCPT: NOTIFY with a comma too many", " NOTIFY=DELAY,", SMTP_PARAMS_BAD },
	{ "RCPT: NOTIFY empty", " NOTIFY=", SMTP_PARAMS_BAD },
	{ "RCPT: NOTIFY without a value", " NOTIFY", SMTP_PARAMS_BAD },
	{ "RCPT: ORCPT without a type", " ORCPT=a@x", SMTP_PARAMS_BAD },
	{ "RCPT: ORCPT with an empty type", " ORCPT=;a@x", SMTP_PARAMS_BAD },
	{ "RCPT: ORCPT with an empty address", " ORCPT=rfc822;", SMTP_PARAMS_BAD },
	{ "RCPT: ORCPT raw UTF-8", " ORCPT=utf-8;\xc3\xa4@x", SMTP_PARAMS_OK },
	{ "RCPT: ORCPT raw UTF-8 as rfc822", " ORCPT=rfc822;\xc3\xa4@x", SMTP_PARAMS_BAD },
	{ "RCPT: ORCPT bad UTF-8", " ORCPT=utf-8;\xc3@x", SMTP_PARAMS_BAD },
	{ "RCPT: SIZE is MAIL's", " SIZE=7", SMTP_PARAMS_UNKNOWN },
};

static const struct smtp_session_options all = {
	.chunking = true,
	.smtputf8 = true,
	.eightbit = true,
	.dsn = true,
	.binarymime = true,
};

static void mail_params_run(void **state)
{
	const struct params_case *row = *state;
	struct smtp_mail mail;

	assert_int_equal(smtp_params_mail(span_text(row->text), &all, &mail), row->status);
}

static void rcpt_params_run(void **state)
{
	const struct params_case *row = *state;
	struct smtp_rcpt rcpt;

	assert_int_equal(smtp_params_rcpt(span_text(row->text), &all, true, &rcpt), row->status);
}

static void params_values(void **state)
{
	static const struct smtp_session_options none = { .errors_max = 1 };
	struct smtp_mail mail;
	struct smtp_rcpt rcpt;

	(void)state;
	assert_int_equal(smtp_params_mail(span_text(mail_params[1].text), &all, &mail), 0);
	assert_int_equal(mail.size, 7);
	assert_int_equal(mail.body, SMTP_BODY_8BITMIME);
	assert_true(mail.utf8);
	assert_int_equal(mail.ret, 'H');
	assert_true(span_equal(mail.envid, span_text("a+20b")));
	assert_true(span_equal(mail.auth, span_text("<>")));
	assert_int_equal(smtp_params_mail(span_text(" SIZE=99999999999999999999"), &all, &mail), 0);
	assert_true(mail.size == UINT64_MAX);

	assert_int_equal(smtp_params_rcpt(span_text(rcpt_params[1].text), &all, false, &rcpt), 0);
	assert_int_equal(rcpt.notify, 2 | 4 | 8);
	assert_true(span_equal(rcpt.orcpt, span_text("rfc822;a+2Bb@x")));

	static const char *const not_offered[] = { " BODY=7BIT", " SMTPUTF8", " RET=FULL",
						   " ENVID=a" };
	for (size_t i = 0; i < array_count(not_offered); i++)
		assert_int_equal(smtp_params_mail(span_text(not_offered[i]), &none, &mail),
				 SMTP_PARAMS_UNKNOWN);
	assert_int_equal(smtp_params_rcpt(span_text(" NOTIFY=NEVER"), &none, false, &rcpt),
			 SMTP_PARAMS_UNKNOWN);
}

#define ROWS array_count

int main(void)
{
	struct CMUnitTest tests[ROWS(paths) + ROWS(mail_params) + ROWS(rcpt_params) + 2];
	size_t n = 0;

	for (size_t i = 0; i < ROWS(paths); i++)
		tests[n++] = (struct CMUnitTest){ paths[i].name, path_run, NULL, NULL,
						  (void *)&paths[i] };
	for (size_t i = 0; i < ROWS(mail_params); i++)
		tests[n++] = (struct CMUnitTest){ mail_params[i].name, mail_params_run, NULL, NULL,
						  (void *)&mail_params[i] };
	for (size_t i = 0; i < ROWS(rcpt_params); i++)
		tests[n++] = (struct CMUnitTest){ rcpt_params[i].name, rcpt_params_run, NULL, NULL,
						  (void *)&rcpt_params[i] };
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(address_is_whole);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(params_values);
	return cmocka_run_group_tests_name("smtp_address", tests, NULL, NULL);
}
