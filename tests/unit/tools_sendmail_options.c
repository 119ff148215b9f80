/* What programs ask of sendmail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include <cmocka.h>

#include "os/check.h"
#include "tools/sendmail_options.h"

enum { ARGUMENTS_MAX = 16 };

static const struct options_case {
	const char *name, *arguments; /* between blanks; "''": an empty one */
	int code;
	const char *result; /* as show() has it */
} cases[] = {
	{ "nothing", "", EX_OK, "send dot" },
	{ "a recipient", "a@b", EX_OK, "send dot [a@b]" },
	{ "php", "-t -i", EX_OK, "send header" },
	{ "php with a sender", "-t -i -fs@b", EX_OK, "send header from=s@b" },
	{ "cron of Debian", "-i -FCronDaemon -B8BITMIME -oem root", EX_OK,
	  "send name=CronDaemon [root]" },
	{ "old cron", "-FCronDaemon -odi -oem -oi -t -f root", EX_OK,
	  "send header from=root name=CronDaemon" },
	{ "mutt", "-oem -oi -f s@b -- a@b c@d", EX_OK, "send from=s@b [a@b] [c@d]" },
	{ "git send-email", "-i a@b", EX_OK, "send [a@b]" },
	{ "s-nail", "-i -r s@b -- a@b", EX_OK, "send from=s@b [a@b]" },
	{ "-oi apart", "-o i a", EX_OK, "send [a]" },
	{ "-O IgnoreDots", "-O IgnoreDots=true a", EX_OK, "send [a]" },
	{ "other -O", "-O DeliveryMode=b a", EX_OK, "send dot [a]" },
	{ "null sender in brackets", "-f <> a", EX_OK, "send dot from= [a]" },
	{ "empty sender", "-f '' a", EX_OK, "send dot from= [a]" },
	{ "ignored ones", "-A m -G -U -v -n -m -x -h 7 -L tag -X log -p SMTP -em -d0.1 a", EX_OK,
	  "send dot [a]" },
	{ "notify", "-N success,failure,delay a", EX_OK, "send dot notify=14 [a]" },
	{ "notify never", "-Nnever a", EX_OK, "send dot notify=1 [a]" },
	{ "notify without regard to case", "-N FAILURE a", EX_OK, "send dot notify=4 [a]" },
	{ "never and more", "-N never,delay a", EX_USAGE, "never stands alone" },
	{ "notify of no such thing", "-N often a", EX_USAGE, "-N often" },
	{ "notify of nothing", "-N '' a", EX_USAGE, "-N" },
	{ "return", "-R hdrs a", EX_OK, "send dot ret=H [a]" },
	{ "return all", "-RFull a", EX_OK, "send dot ret=F [a]" },
	{ "return of no such thing", "-R body a", EX_USAGE, "full or hdrs" },
	{ "envelope id", "-V x a", EX_OK, "send dot envid=x [a]" },
	{ "smtp", "-bs", EX_OK, "smtp dot" },
	{ "queue", "-bp", EX_OK, "list dot" },
	{ "message", "-bm a", EX_OK, "send dot [a]" },
	{ "aliases", "-bi", EX_OK, "nothing dot" },
	{ "run the queue", "-q", EX_OK, "nothing dot" },
	{ "run the queue at times", "-q30m", EX_OK, "nothing dot" },
	{ "daemon", "-bd -q30m", EX_USAGE, "stafetted(8)" },
	{ "test mode", "-bt", EX_USAGE, "-bt" },
	{ "verify", "-bv a", EX_USAGE, "-bv" },
	{ "unknown letter", "-k a", EX_USAGE, "-k" },
	{ "unknown letter among others", "-tki a", EX_USAGE, "-k" },
	{ "unknown word", "--force a", EX_USAGE, "--force" },
	{ "value missing", "-f", EX_USAGE, "-f: a value must follow" },
	{ "configuration", "-C /x.conf a", EX_OK, "send dot config=/x.conf [a]" },
	{ "help", "--help", EX_OK, "help dot" },
	{ "version", "--version", EX_OK, "version dot" },
	{ "a recipient ends the options", "a -t", EX_OK, "send dot [a] [-t]" },
};

static void show(const struct sendmail_options *options, char *out, size_t bytes)
{
	static const char *const modes[] = { "send", "smtp", "list", "nothing", "help", "version" };
	FILE *to = fmemopen(out, bytes, "w");

	assert_non_null(to);
	fputs(modes[options->mode], to);
	fputs(options->dot_ends ? " dot" : "", to);
	fputs(options->from_header ? " header" : "", to);
	if (options->sender)
		fprintf(to, " from=%s", options->sender);
	if (options->full_name)
		fprintf(to, " name=%s", options->full_name);
	if (options->notify)
		fprintf(to, " notify=%u", options->notify);
	if (options->ret)
		fprintf(to, " ret=%c", options->ret);
	if (options->envid)
		fprintf(to, " envid=%s", options->envid);
	if (options->config)
		fprintf(to, " config=%s", options->config);
	for (int i = 0; i < options->argument_count; i++)
		fprintf(to, " [%s]", options->arguments[i]);
	fclose(to);
}

static void options_row(void **state)
{
	const struct options_case *row = *state;
	char text[256], error[SENDMAIL_ERROR_BYTES] = "", shown[512] = "";
	char *arguments[ARGUMENTS_MAX * 2] = { "sendmail" };
	struct sendmail_options options;
	int count = 1;

	snprintf(text, sizeof(text), "%s", row->arguments);
	for (char *at = strtok(text, " "); at; at = strtok(NULL, " "))
		arguments[count++] = strcmp(at, "''") == 0 ? "" : at;
	assert_int_equal(sendmail_options_parse(count, arguments, &options, error), row->code);
	if (row->code == EX_OK) {
		show(&options, shown, sizeof(shown));
		assert_string_equal(shown, row->result);
	} else {
		assert_non_null(strstr(error, row->result));
	}
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		tests[i] = (struct CMUnitTest){ .name = cases[i].name,
						.test_func = options_row,
						.initial_state = (void *)&cases[i] };
	return _cmocka_run_group_tests("tools_sendmail_options", tests, array_count(cases), NULL,
				       NULL);
}
