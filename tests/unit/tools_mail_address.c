/* Addresses as people write them in headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/check.h"
#include "tools/mail_address.h"

static const struct address_case {
	const char *name, *text;
	const char *found; /* each followed by '|'; NULL: no list of addresses */
} cases[] = {
	{ "plain", "a@b.example", "a@b.example|" },
	{ "bare local part", "root", "root|" },
	{ "several", "a@b.example, c@d.example,e", "a@b.example|c@d.example|e|" },
	{ "nothing", "", "" },
	{ "white space only", " \r\n\t ", "" },
	{ "empty elements", ",, a@b.example ,,", "a@b.example|" },
	{ "angle brackets", "<a@b.example>", "a@b.example|" },
	{ "display name", "Jane Doe <jane@b.example>", "jane@b.example|" },
	{ "display name with a dot", "John Q. Public <jqp@b.example>", "jqp@b.example|" },
	{ "quoted display name with comma", "\"Doe, Jane\" <jane@b.example>, x@y",
	  "jane@b.example|x@y|" },
	{ "quoted display name with angle", "\"<no@no>\" <yes@b>", "yes@b|" },
	{ "quoted display name with escaped quote", "\"a \\\" , b\" <c@d>", "c@d|" },
	{ "name right before the bracket", "Jane<jane@b>", "jane@b|" },
	{ "display name in UTF-8", "J\xc3\xbcrgen <j@b>", "j@b|" },
	{ "encoded words", "=?UTF-8?Q?J=C3=BCrgen?= =?UTF-8?B?eA==?= <j@b>", "j@b|" },
	{ "comment after", "a@b (at home)", "a@b|" },
	{ "comment before", "(the boss) a@b", "a@b|" },
	{ "comments everywhere", "a(1)@(2)b(3).(4)c(5)", "a@b.c|" },
	{ "nested comment with comma", "a@b (x (y, z) w), c@d", "a@b|c@d|" },
	{ "comment with escaped parenthesis", "a@b (x \\) y)", "a@b|" },
	{ "comment with quote", "a@b (it's \"), c@d", "a@b|c@d|" },
	{ "group", "Team: a@b, c@d;", "a@b|c@d|" },
	{ "group with names", "\"The Team\": Jo <a@b>, c@d; , e@f", "a@b|c@d|e@f|" },
	{ "empty group", "undisclosed-recipients:;", "" },
	{ "empty group with space", "Undisclosed recipients: ;", "" },
	{ "group without its end", "Team: a@b", "a@b|" },
	{ "group in a group", "a: b: c@d;;", NULL },
	{ "semicolons instead of commas", "a@b; c@d", "a@b|c@d|" },
	{ "route", "<@x.example,@y.example:a@b.example>", "a@b.example|" },
	{ "route without its end", "<@x.example a@b>", NULL },
	{ "folded line", "Jane\r\n Doe\r\n\t<jane\r\n @b>", "jane@b|" },
	{ "space round the parts", "a . b @ c . d", "a.b@c.d|" },
	{ "quoted local part", "\"a b\"@c", "\"a b\"@c|" },
	{ "quoted local part with at", "\"a@b\"@c.example", "\"a@b\"@c.example|" },
	{ "quoted and plain parts", "\"a\".b@c", "\"a\".b@c|" },
	{ "address literal", "a@[192.0.2.1]", "a@[192.0.2.1]|" },
	{ "IPv6 literal", "<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]|" },
	{ "odd characters", "a+b=c/d'e#f@g", "a+b=c/d'e#f@g|" },
	{ "percent and bang", "a%b!c@d", "a%b!c@d|" },
	{ "address in UTF-8",
	  "j\xc3\xb6rg@b\xc3\xbc"
	  "cher.example",
	  "j\xc3\xb6rg@b\xc3\xbc"
	  "cher.example|" },
	{ "comment after the bracket", "<a@b> (c)", "a@b|" },
	{ "two words and no brackets", "a b@c", NULL },
	{ "words after the bracket", "<a@b> c", NULL },
	{ "two brackets", "<a@b> <c@d>", NULL },
	{ "bracket in a bracket", "<a<b@c>>", NULL },
	{ "bracket without its end", "Jane <a@b", NULL },
	{ "bracket without its beginning", "a@b>", NULL },
	{ "empty brackets", "<>", NULL },
	{ "name and empty brackets", "Jane <>", NULL },
	{ "two words in brackets", "<a b@c>", NULL },
	{ "quote without its end", "\"a@b", NULL },
	{ "comment without its end", "a@b (c", NULL },
	{ "literal without its end", "a@[1.2.3.4", NULL },
	{ "no local part", "@b", NULL },
	{ "no local part behind a comment", "<(c)@b>", NULL },
	{ "no local part behind a blank", "< @b>", NULL },
	{ "no domain", "a@", NULL },
	{ "backslash outside of quotes", "a\\b@c", NULL },
	{ "a NUL ends nothing", NULL, NULL },
};

struct gathered {
	char text[1024];
	size_t len;
};

static void gather(void *context, const char *address)
{
	struct gathered *gathered = context;

	gathered->len += (size_t)snprintf(gathered->text + gathered->len,
					  sizeof(gathered->text) - gathered->len, "%s|", address);
}

static void address_row(void **state)
{
	const struct address_case *row = *state;
	struct gathered gathered = { 0 };
	struct span text = row->text ? span_text(row->text) : span_of("a\0b@c", 5);
	bool good = mail_addresses(text, gather, &gathered);

	assert_int_equal(good, row->found != NULL);
	if (good)
		assert_string_equal(gathered.text, row->found);
}

static void test_too_long(void **state)
{
	char text[2 * MAIL_ADDRESS_BYTES];
	struct gathered gathered = { 0 };

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_false(mail_addresses(span_of(text, sizeof(text)), gather, &gathered));
	assert_true(mail_addresses(span_of(text, MAIL_ADDRESS_BYTES - 1), gather, &gathered));
}

/* Cut anywhere, nothing is read beyond the end (the sanitizers look). */
static void test_cut_anywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < array_count(cases); i++) {
		const char *text = cases[i].text ? cases[i].text : "";

		for (size_t len = 0; len <= strlen(text); len++) {
			struct gathered gathered = { 0 };
			char *copy = malloc(len + 1);

			memcpy(copy, text, len);
			mail_addresses(span_of(copy, len), gather, &gathered);
			free(copy);
		}
	}
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases) + 2];
	size_t count = 0;

	for (size_t i = 0; i < array_count(cases); i++)
		tests[count++] = (struct CMUnitTest){ .name = cases[i].name,
						      .test_func = address_row,
						      .initial_state = (void *)&cases[i] };
	tests[count++] =
		(struct CMUnitTest){ "longer than any address", test_too_long, NULL, NULL, NULL };
	tests[count++] = (struct CMUnitTest){ "cut anywhere", test_cut_anywhere, NULL, NULL, NULL };
	return _cmocka_run_group_tests("tools_mail_address", tests, count, NULL, NULL);
}
