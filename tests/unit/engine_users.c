/* The users' file: what a line is, who is let in, and how it changes. */
/* Rows leave out what is 0. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#include "engine/auth/users.h"

#include <crypt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/check.h"
#include "tests/unit/memory_refuse.h"

static char path[] = "/tmp/stafette-users-XXXXXX";
static char hash[8][CRYPT_OUTPUT_SIZE]; /* of "word", one of each method */

static void file_set(const char *text, mode_t mode)
{
	FILE *file = fopen(path, "w");

	fputs(text, file);
	fclose(file);
	chmod(path, mode);
}

static const char *file_get(void)
{
	static char text[4096];
	FILE *file = fopen(path, "r");

	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	return text;
}

/* ── logging in ───────────────────────────────────────────────────────────────────── */

/* %0 is the hash of the first method, and so on. */
static const struct verify_case {
	const char *name, *file, *user, *password, *senders;
	enum users_status status;
	mode_t mode;
	bool broken; /* users_check() says so */
} verify_cases[] = {
	{ "yescrypt", "ann:%0\n", "ann", "word" },
	{ "bcrypt", "ann:%1\n", "ann", "word" },
	{ "SHA-512", "ann:%2\n", "ann", "word" },
	{ "SHA-256", "ann:%3\n", "ann", "word" },
	{ "another password", "ann:%2\n", "ann", "Word", NULL, USERS_WRONG },
	{ "no password", "ann:%2\n", "ann", "", NULL, USERS_WRONG },
	{ "another user", "ann:%2\n", "bob", "word", NULL, USERS_WRONG },
	{ "names have their case", "ann:%2\n", "Ann", "word", NULL, USERS_WRONG },
	{ "a name that begins as another", "anna:%2\n", "ann", "word", NULL, USERS_WRONG },
	{ "the second user", "ann:%1\nbob:%2\n", "bob", "word" },
	{ "the second with the first one's", "ann:%2\nbob:$6$x$y\n", "bob", "word", NULL,
	  USERS_WRONG },
	{ "the first line of a name counts", "ann:$6$x$y\nann:%2\n", "ann", "word", NULL,
	  USERS_WRONG },
	{ "senders", "ann:%2:a@x,@y\n", "ann", "word", "a@x,@y" },
	{ "no senders", "ann:%2:\n", "ann", "word", "" },
	{ "comments, blanks and CRLF", "# ann:x\n\n  ann:%2 \r\n", "ann", "word" },
	{ "no line end", "ann:%2", "ann", "word" },
	{ "an address", "ann@x.example:%2\n", "ann@x.example", "word" },
	{ "an empty file", "", "ann", "word", NULL, USERS_WRONG },
	{ "a comment is no user", "#ann:%2\n", "#ann", "word", NULL, USERS_WRONG },
	{ "a line of nonsense", "what\nann:%2\n", "ann", "word", .broken = true },
	{ "MD5 is no hash", "ann:%4\n", "ann", "word", NULL, USERS_WRONG, .broken = true },
	{ "DES is no hash", "ann:%5\n", "ann", "word", NULL, USERS_WRONG, .broken = true },
	{ "plain text is no hash", "ann:word\n", "ann", "word", NULL, USERS_WRONG, .broken = true },
	{ "a locked user", "ann:!%2\n", "ann", "word", NULL, USERS_WRONG, .broken = true },
	{ "no hash", "ann:\n", "ann", "", NULL, USERS_WRONG, .broken = true },
	{ "half a hash", "ann:$6$\n", "ann", "", NULL, USERS_WRONG, .broken = true },
	{ "the group may read", "ann:%2\n", "ann", "word", .mode = 0640 },
	{ "others may read", "ann:%2\n", "ann", "word", NULL, USERS_UNAVAILABLE, 0604, true },
	{ "the group may write", "ann:%2\n", "ann", "word", NULL, USERS_UNAVAILABLE, 0660, true },
};

/* Puts the hashes in place of %0 ... */
static const char *with_hashes(const char *text)
{
	static char out[4096];
	char *to = out;

	for (; *text != '\0'; text++) {
		if (*text == '%')
			to = stpcpy(to, hash[*++text - '0']);
		else
			*to++ = *text;
	}
	*to = '\0';
	return out;
}

static void verify_row(void **state)
{
	const struct verify_case *row = *state;
	char error[SECRET_FILE_ERROR_BYTES] = "", *senders = NULL;

	file_set(with_hashes(row->file), row->mode ? row->mode : 0600);
	assert_int_equal(users_verify(path, span_text(row->user), row->password, &senders, error),
			 row->status);
	if (row->senders)
		assert_string_equal(senders, row->senders);
	else
		assert_null(senders);
	assert_int_equal(users_check(path, error), !row->broken);
	free(senders);
}

/* Never taken for a wrong password, nor for a user who may send from any address. */
static void without_memory_nobody_can_tell(void **state)
{
	char error[SECRET_FILE_ERROR_BYTES], *senders;
	enum users_status status;
	uint32_t refused = 0;

	(void)state;
	file_set(with_hashes("ann:%2:a@x\n"), 0600);
	for (bool more = true; more; refused += more) {
		senders = NULL;
		memory_refuse(refused, false);
		status = users_verify(path, span_text("ann"), "word", &senders, error);
		more = memory_refuse_end();
		assert_int_equal(status, more ? USERS_UNAVAILABLE : USERS_OK);
		if (more)
			assert_non_null(strstr(error, "memory"));
		else
			assert_string_equal(senders, "a@x");
		free(senders);
	}
	assert_int_equal(refused, 3);
}

static void a_missing_file_is_told(void **state)
{
	char error[SECRET_FILE_ERROR_BYTES] = "", *senders;

	(void)state;
	assert_int_equal(users_verify("/none/such", span_text("a"), "b", &senders, error),
			 USERS_UNAVAILABLE);
	assert_string_equal(error, "/none/such cannot be read: No such file or directory");
}

static void a_password_is_never_too_long_for_the_hash(void **state)
{
	char error[SECRET_FILE_ERROR_BYTES] = "", *senders, word[1000];

	(void)state;
	file_set(with_hashes("ann:%2\n"), 0600);
	memset(word, 'x', sizeof(word));
	word[sizeof(word) - 1] = '\0';
	assert_int_equal(users_verify(path, span_text("ann"), word, &senders, error), USERS_WRONG);
}

/* ── changes ──────────────────────────────────────────────────────────────────────── */

static const struct change_case {
	const char *name, *before, *user, *hash, *after;
	int result;
} change_cases[] = {
	{ "added", "ann:1\n", "bob", "2", "ann:1\nbob:2\n" },
	{ "added to nothing", "", "bob", "2", "bob:2\n" },
	{ "changed", "ann:1\nbob:2\n", "ann", "3", "ann:3\nbob:2\n" },
	{ "senders stay", "ann:1:a@x,@y\n", "ann", "3", "ann:3:a@x,@y\n" },
	{ "comments stay", "# who\n\nann:1\n", "ann", "3", "# who\n\nann:3\n" },
	{ "nonsense stays", "what\nann:1\n", "ann", "3", "what\nann:3\n" },
	{ "a last line without end", "ann:1", "bob", "2", "ann:1\nbob:2\n" },
	{ "deleted", "ann:1\nbob:2\n", "ann", NULL, "bob:2\n" },
	{ "deleted wherever it stands", "ann:1\nbob:2\nann:3\n", "ann", NULL, "bob:2\n" },
	{ "one line of a name is left", "ann:1\nann:2\n", "ann", "3", "ann:3\n" },
	{ "nobody to delete", "ann:1\n", "bob", NULL, "ann:1\n", -2 },
};

static void change_row(void **state)
{
	const struct change_case *row = *state;
	struct stat info;

	file_set(row->before, 0640);
	assert_int_equal(users_change(path, span_text(row->user), row->hash), row->result);
	assert_string_equal(file_get(), row->after);
	stat(path, &info);
	assert_int_equal(info.st_mode & 07777, 0640);
}

/* ── all of them ──────────────────────────────────────────────────────────────────── */

static void hashes_make(void)
{
	static const char *const prefixes[] = { "$y$", "$2b$", "$6$", "$5$", "$1$", "" };
	struct crypt_data data = { 0 };

	for (size_t i = 0; i < array_count(prefixes); i++) {
		char setting[CRYPT_GENSALT_OUTPUT_SIZE];

		crypt_gensalt_rn(prefixes[i], 0, NULL, 0, setting, sizeof(setting));
		strcpy(hash[i], crypt_r("word", setting, &data));
	}
}

int main(void)
{
	enum { OTHERS = 3 };
	struct CMUnitTest tests[OTHERS + array_count(verify_cases) + array_count(change_cases)] = {
		cmocka_unit_test(a_missing_file_is_told),
		cmocka_unit_test(without_memory_nobody_can_tell),
		cmocka_unit_test(a_password_is_never_too_long_for_the_hash),
	};
	struct CMUnitTest *next = tests + OTHERS;
	int failed;

	close(mkstemp(path));
	hashes_make();
	for (size_t i = 0; i < array_count(verify_cases); i++)
		*next++ = (struct CMUnitTest){ .name = verify_cases[i].name,
					       .test_func = verify_row,
					       .initial_state = (void *)&verify_cases[i] };
	for (size_t i = 0; i < array_count(change_cases); i++)
		*next++ = (struct CMUnitTest){ .name = change_cases[i].name,
					       .test_func = change_row,
					       .initial_state = (void *)&change_cases[i] };
	failed = cmocka_run_group_tests_name("users", tests, NULL, NULL);
	remove(path);
	return failed;
}
