#include "tools/command.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "engine/config/config.h"

int command_fail(int code, const char *format, ...)
{
	va_list arguments;

	fflush(stdout);
	fputs("stafette: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return code;
}

void command_tell_readers(const char *path)
{
	if (geteuid() == 0)
		fprintf(stderr,
			"stafette: %s is root's alone. For a daemon that runs as the user "
			"stafette:\n"
			"chgrp stafette %s && chmod 0640 %s\n",
			path, path, path);
}

int command_bad_option(int found, char **argv, const char *command)
{
	const char *given = argv[optind - 1];
	char letter[3] = { '-', (char)optopt, 0 };

	/* A letter is named by itself: it may stand among others. */
	if (strncmp(given, "--", 2) != 0 && optopt != 0)
		given = letter;
	return command_fail(EX_USAGE, "%s: %s. Usage: `stafette %s --help` lists the options",
			    given, found == ':' ? "a value must follow" : "no such option here",
			    command);
}

const char *command_config_path(const char *given)
{
	const char *named = getenv("STAFETTE_CONFIG");

	if (given)
		return given;
	if (named && *named)
		return named;
	return access(COMMAND_CONFIG, F_OK) == 0 ? COMMAND_CONFIG : NULL;
}

int command_place_find(struct command_place *place, const char *spool, const char *config_path)
{
	char error[2048] = "";
	struct config *config;

	*place = (struct command_place){ 0 };
	if (spool && !config_path) {
		place->spool = strdup(spool);
		return 0;
	}
	config = config_load(command_config_path(config_path), error, sizeof(error));
	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	place->spool = strdup(spool ? spool : config->spool);
	if (config->delivery_log && strcmp(config->delivery_log, "-") != 0)
		place->log = strdup(config->delivery_log);
	config_destroy(config);
	return 0;
}

void command_place_release(struct command_place *place)
{
	free(place->spool);
	free(place->log);
}

int command_on_spool(int argc, char **argv, const char *help, int (*run)(const char *spool))
{
	static const struct option options[] = { COMMAND_LONG, { 0 } };
	const char *spool = NULL, *config = NULL;
	struct command_place place;
	int option, code;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":" COMMAND_SHORT, options, NULL)) != -1) {
		if (option == 'S') {
			spool = optarg;
		} else if (option == 'c') {
			config = optarg;
		} else if (option == 'h') {
			fputs(help, stdout);
			return EX_OK;
		} else {
			return command_bad_option(option, argv, argv[0]);
		}
	}
	if (optind < argc)
		return command_fail(EX_USAGE, "%s: what is this for?", argv[optind]);
	code = command_place_find(&place, spool, config);
	if (code != EX_OK)
		return code;
	code = run(place.spool);
	command_place_release(&place);
	return code;
}
