/* stafette confirm-time: tells the daemon that the wall clock is right after it has jumped. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "engine/time_watch.h"
#include "tools/command.h"

static const char help[] =
	"Usage: stafette confirm-time [OPTIONS]\n"
	"Says that the wall clock is right, so that mail may be given up for its age again:\n"
	"after the clock has jumped, the daemon waits for this, or for time synchronisation.\n\n"
	"  -S, --spool PATH   the spool\n"
	"  -c, --config FILE  the daemon's configuration, which names the spool\n"
	"  -h, --help\n";

static const struct option options[] = { COMMAND_LONG, { 0 } };

static int confirm(const char *spool)
{
	int folder = os_file_open(OS_CURRENT_FOLDER, spool, OS_READ | OS_FOLDER, 0);
	int file = folder < 0
			   ? folder
			   : os_file_open(folder, TIME_CONFIRMED_FILE, OS_WRITE | OS_CREATE, 0600);

	if (folder >= 0)
		os_file_close(folder);
	if (file < 0)
		return command_fail(EX_NOPERM, "%s: %s; it takes the daemon's user or root", spool,
				    strerror(-file));
	os_file_close(file);
	puts("told: a daemon that runs knows within a second, another when it starts");
	return EX_OK;
}

int command_confirm_time(int argc, char **argv)
{
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
			return command_bad_option(option, argv, "confirm-time");
		}
	}
	if (optind < argc)
		return command_fail(EX_USAGE, "%s: what is this for?", argv[optind]);
	code = command_place_find(&place, spool, config);
	if (code != EX_OK)
		return code;
	code = confirm(place.spool);
	command_place_release(&place);
	return code;
}
