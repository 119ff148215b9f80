/* idn: domains and addresses as the DNS and the queue want them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/idn.h"
#include "os/check.h"

#define X10 "xxxxxxxxxx"
#define X60 X10 X10 X10 X10 X10 X10

/* NULL: refused. */
static const struct idn_case {
	const char *name, *text, *wanted;
} domains[] = {
	{ "ASCII keeps its form", "mail-1.example_x.com", "mail-1.example_x.com" },
	{ "ASCII in lower case", "MAIL.Example", "mail.example" },
	{ "nothing", "", "" },
	{ "empty ASCII labels stay", ".a..b.", ".a..b." },
	{ "literals stay", "[192.0.2.1]", "[192.0.2.1]" },
	{ "one letter beyond ASCII", "bücher.example", "xn--bcher-kva.example" },
	{ "its capital", "BÜCHER.Example", "xn--bcher-kva.example" },
	{ "its decomposed form", "bu\u0308cher.example", "xn--bcher-kva.example" },
	{ "the final dot stays", "bücher.example.", "xn--bcher-kva.example." },
	{ "only such letters", "ü.ü", "xn--tda.xn--tda" },
	{ "sharp s is kept", "straße.de", "xn--strae-oqa.de" },
	{ "final sigma of capitals", "ΣΊΣΥΦΟΣ.gr", "xn--kxa6akbbkh.gr" },
	{ "Greek capitals", "ΕΛΛΆΔΑ.gr", "xn--hxakic4aa.gr" },
	{ "Cyrillic capitals", "ПРИМЕР.рф", "xn--e1afmkfd.xn--p1ai" },
	{ "Georgian capitals", "Ა.ge", "xn--lod.ge" },
	{ "Chinese of RFC 3492, 7.1", "他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye" },
	{ "Japanese with its full stop", "日本語。ＪＰ", "xn--wgv71a119e.jp" },
	{ "full width is ASCII", "ＭＡＩＬ.example", "mail.example" },
	{ "A-label beside a U-label", "xn--bcher-kva.ü", "xn--bcher-kva.xn--tda" },
	{ "underscore beside a U-label", "a_b.bücher", "a_b.xn--bcher-kva" },
	{ "broken A-label beside a U-label", "xn--zzzzzz.ü", NULL },
	{ "a symbol", "📧.example", NULL },
	{ "a hyphen in front", "-ü.example", NULL },
	{ "two hyphens as of an A-label", "ab--ü.example", NULL },
	{ "a mark without a letter", "\u0308a.example", NULL },
	{ "a joiner between Latin letters", "a\u200db.example", NULL },
	{ "digits against the direction", "\u0661א.example", NULL },
	{ "an empty label", "bücher..example", NULL },
	{ "a label that vanishes", "bücher.\u00ad.example", NULL },
	{ "a space is not dropped", "a b.ü", NULL },
	{ "a fullwidth at sign", "ü＠far.example", NULL },
	{ "label of 63", X60 "abc.example", X60 "abc.example" },
	{ "label of 64", X60 "abcd.example", NULL },
	{ "label that is too long encoded", X60 "ü.example", NULL },
	{ "domain of 255", X60 "." X60 "." X60 "." X60 "." X10 "x",
	  X60 "." X60 "." X60 "." X60 "." X10 "x" },
	{ "domain of 256", X60 "." X60 "." X60 "." X60 "." X10 "xx", NULL },
	{ "domain that is too long encoded", X60 "." X60 "." X60 "." X60 ".üüüüü", NULL },
	{ "invalid UTF-8", "b\xc3.example", NULL },
}, addresses[] = {
	{ "an ASCII address stays", "User@mail.example", "User@mail.example" },
	{ "address with an ASCII local part", "User@BÜCHER.example", "User@xn--bcher-kva.example" },
	{ "the local part is untouched", "U\u0308ser@bücher.example",
	  "U\u0308ser@xn--bcher-kva.example" },
	{ "a UTF-8 local part at ASCII", "Üser@mail.example", "Üser@mail.example" },
	{ "a quoted local part", "\"a @ b\"@bücher.example", "\"a @ b\"@xn--bcher-kva.example" },
	{ "a literal", "u@[IPv6:2001:db8::1]", "u@[IPv6:2001:db8::1]" },
	{ "address with an invalid domain", "user@📧.example", NULL },
	{ "address with a final dot", "user@bücher。", NULL },
	{ "path that is too long encoded", X60 "@" X60 "." X60 "." X60 ".üaaaaa", NULL },
};

static void domain_row(void **state)
{
	const struct idn_case *row = *state;
	char out[IDN_DOMAIN_BYTES];

	assert_int_equal(idn_to_ascii(span_text(row->text), out), row->wanted != NULL);
	if (row->wanted != NULL)
		assert_string_equal(out, row->wanted);
}

static bool has_utf8(const char *text)
{
	while (*text != '\0' && (unsigned char)*text < 128)
		text++;
	return *text != '\0';
}

static void address_row(void **state)
{
	const struct idn_case *row = *state;
	struct smtp_address address, out;

	assert_int_equal(smtp_address_parse(span_text(row->text), true, &address), SMTP_ADDRESS_OK);
	assert_int_equal(idn_address(&address, &out), row->wanted != NULL);
	if (row->wanted == NULL)
		return;
	assert_int_equal(out.len, strlen(row->wanted));
	assert_memory_equal(out.text, row->wanted, out.len);
	assert_int_equal(out.domain_at, strrchr(row->wanted, '@') + 1 - row->wanted);
	assert_int_equal(out.utf8, has_utf8(row->wanted));
	assert_int_equal(out.literal, address.literal);
}

static void nul_is_refused(void **state)
{
	(void)state;
	char out[IDN_DOMAIN_BYTES];

	assert_false(idn_to_ascii(span_of("a\0b", 3), out));
}

int main(void)
{
	struct CMUnitTest tests[array_count(domains) + array_count(addresses) + 1], *test = tests;

	for (size_t i = 0; i < array_count(domains); i++)
		*test++ = (struct CMUnitTest){ .name = domains[i].name,
					       .test_func = domain_row,
					       .initial_state = (void *)&domains[i] };
	for (size_t i = 0; i < array_count(addresses); i++)
		*test++ = (struct CMUnitTest){ .name = addresses[i].name,
					       .test_func = address_row,
					       .initial_state = (void *)&addresses[i] };
	*test = (struct CMUnitTest)cmocka_unit_test(nul_is_refused);
	return cmocka_run_group_tests_name("idn", tests, NULL, NULL);
}
