/* stafette - the operator's tool: looks at the queue, needs no daemon for it. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "os/check.h"
#include "tools/command.h"

static const struct {
	const char *name, *what;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "queue", "list, count or summarize what is queued (as mailq)", command_queue },
	{ "show", "one message: envelope, state, history, content", command_show },
	{ "check-config", "read a configuration and say what is wrong", command_check_config },
	{ "passwd", "add, change or delete a user who may log in", command_passwd },
	{ "reload", "the daemon reads its configuration again", command_reload },
	{ "check-dkim", "compare keys with the DNS, and say what to publish", command_check_dkim },
	{ "dkim-key", "make a key for DKIM", command_dkim_key },
	{ "confirm-time", "the wall clock is right again: mail may expire", command_confirm_time },
	{ "sendmail", "submit a message, as every mail program can", command_sendmail },
};

static void usage(FILE *to)
{
	fputs("Usage: stafette COMMAND [OPTIONS]\n"
	      "       mailq [OPTIONS]\n"
	      "       sendmail [OPTIONS] [RECIPIENT ...]\n\n"
	      "Commands:\n",
	      to);
	for (size_t i = 0; i < array_count(commands); i++)
		fprintf(to, "  %-14s %s\n", commands[i].name, commands[i].what);
	fputs("\n`stafette COMMAND --help` lists the options of a command; stafette(1) tells "
	      "all.\n",
	      to);
}

static int run(const char *name, int argc, char **argv)
{
	for (size_t i = 0; i < array_count(commands); i++)
		if (strcmp(name, commands[i].name) == 0)
			return commands[i].run(argc, argv);
	usage(stderr);
	return command_fail(EX_USAGE, "%s: no such command", name);
}

static int by_first_word(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return EX_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		usage(stdout);
		return EX_OK;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts("stafette " STAFETTE_VERSION);
		return EX_OK;
	}
	return run(argv[1], argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];
	int code;

	if (strcmp(name, "mailq") == 0)
		code = command_queue(argc, argv);
	else if (strcmp(name, "sendmail") == 0)
		code = command_sendmail(argc, argv);
	else if (strcmp(name, "newaliases") == 0) /* routes have no aliases: nothing to build */
		code = EX_OK;
	else
		code = by_first_word(argc, argv);
	if (fflush(stdout) != 0 && code == EX_OK)
		code = command_fail(EX_IOERR, "standard output can't be written");
	return code;
}
