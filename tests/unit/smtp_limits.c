/* What a peer's LIMITS says: RFC 9422. */
#include "engine/smtp/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "os/check.h"

static const struct limits_case {
	const char *name, *text;
	uint32_t mail_max, rcpt_max;
} cases[] = {
	{ "nothing", "", 0, 0 },
	{ "both", " RCPTMAX=100 MAILMAX=20", 20, 100 },
	{ "names in any case", " rcptMax=100 mailmax=20", 20, 100 },
	{ "six digits", " RCPTMAX=999999", 0, 999999 },
	{ "seven digits", " RCPTMAX=1000000", 0, 0 },
	{ "zero", " RCPTMAX=0 MAILMAX=00", 0, 0 },
	{ "a zero before it", " RCPTMAX=010", 0, 0 },
	{ "not a number", " RCPTMAX=many MAILMAX=-1", 0, 0 },
	{ "no value", " RCPTMAX= MAILMAX", 0, 0 },
	{ "names that are not known", " RCPTDOMAINMAX=1 X=y RCPTMAXX=3 MAILMAX=5", 5, 0 },
	{ "blanks", "   MAILMAX=5   RCPTMAX=6 ", 5, 6 },
	{ "told twice", " MAILMAX=5 MAILMAX=3 MAILMAX=4", 3, 0 },
	{ "no name", " =5 = MAILMAX=5", 5, 0 },
};

static void limits_row(void **state)
{
	const struct limits_case *row = *state;
	struct smtp_limits limits = smtp_limits_parse(span_text(row->text));

	assert_int_equal(limits.mail_max, row->mail_max);
	assert_int_equal(limits.rcpt_max, row->rcpt_max);
}

int main(void)
{
	struct CMUnitTest rows[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		rows[i] = (struct CMUnitTest){ .name = cases[i].name,
					       .test_func = limits_row,
					       .initial_state = (void *)&cases[i] };
	return cmocka_run_group_tests_name("limits", rows, NULL, NULL);
}
