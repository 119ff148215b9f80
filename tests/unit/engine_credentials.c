/* The file with our passwords for smarthosts: what a line is, and which one counts. */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include "engine/auth/credentials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/check.h"

static char path[] = "/tmp/stafette-credentials-XXXXXX";

static const struct find_case {
	const char *name, *file, *host, *user;
	const char *password; /* NULL: none */
	const char *wrong;    /* what the file is told; NULL: nothing */
} cases[] = {
	{ "a line", "h.x u p\n", "h.x", "u", "p" },
	{ "blanks of any kind", "\th.x  u\t p \r\n", "h.x", "u", "p" },
	{ "a password goes to the end of the line", "h.x u two words\n", "h.x", "u", "two words" },
	{ "hosts have no case", "H.x u p\n", "h.X", "u", "p" },
	{ "users have", "h.x U p\n", "h.x", "u" },
	{ "another host", "h.x u p\n", "i.x", "u" },
	{ "any host", "* u p\n", "i.x", "u", "p" },
	{ "its own line comes before any", "* u p\nh.x u q\n", "h.x", "u", "q" },
	{ "also behind it", "h.x u q\n* u p\n", "h.x", "u", "q" },
	{ "any is for one user", "* u p\n* v q\n", "h.x", "v", "q" },
	{ "comments and empty lines", "# h.x u n\n\n \nh.x u p", "h.x", "u", "p" },
	{ "an empty file", "", "h.x", "u" },
	{ "an address of IPv6", "2001:db8::1 u p\n", "2001:db8::1", "u", "p" },
	{ "no password", "h.x u p\nh.x u\n", .wrong = ":2: not a line" },
	{ "only a host", "h.x\n", .wrong = ":1: not a line" },
};

static void find_row(void **state)
{
	const struct find_case *row = *state;
	char error[SECRET_FILE_ERROR_BYTES] = "";
	FILE *file = fopen(path, "w");
	struct credentials *credentials;
	const char *password;

	fputs(row->file, file);
	fclose(file);
	chmod(path, 0640);
	credentials = credentials_load(path, error);
	if (row->wrong) {
		assert_null(credentials);
		assert_non_null(strstr(error, row->wrong));
		return;
	}
	password = credentials_find(credentials, row->host, row->user);
	if (row->password)
		assert_string_equal(password, row->password);
	else
		assert_null(password);
	credentials_destroy(credentials);
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases)];
	int failed;

	close(mkstemp(path));
	for (size_t i = 0; i < array_count(cases); i++)
		tests[i] = (struct CMUnitTest){ .name = cases[i].name,
						.test_func = find_row,
						.initial_state = (void *)&cases[i] };
	failed = cmocka_run_group_tests_name("credentials", tests, NULL, NULL);
	remove(path);
	return failed;
}
