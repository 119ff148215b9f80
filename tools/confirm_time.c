/* stafette confirm-time: tells the daemon that the wall clock is right after it has jumped. */
#include <errno.h>
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
	"                     (" COMMAND_CONFIG ")\n"
	"  -h, --help\n";

static int confirm(const char *spool)
{
	int folder = os_file_open(OS_CURRENT_FOLDER, spool, OS_READ | OS_FOLDER, 0);
	int super = folder < 0 ? folder : os_file_open(folder, "super", OS_READ, 0);
	int file = super < 0
			   ? super
			   : os_file_open(folder, TIME_CONFIRMED_FILE, OS_WRITE | OS_CREATE, 0600);

	if (folder >= 0)
		os_file_close(folder);
	if (super >= 0)
		os_file_close(super);
	if (super == -ENOENT || super == -ENOTDIR)
		return command_fail(
			EX_NOINPUT,
			"there is no spool at %s; name it with -S, or the configuration with -c",
			spool);
	if (file < 0)
		return command_fail(EX_NOPERM, "%s: %s; it takes the daemon's user or root", spool,
				    strerror(-file));
	os_file_close(file);
	puts("told: a daemon that runs knows within a second, another when it starts");
	return EX_OK;
}

int command_confirm_time(int argc, char **argv)
{
	return command_on_spool(argc, argv, help, confirm);
}
