/* stafette reload: the daemon reads its configuration again; says what came of it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "engine/status.h"
#include "tools/command.h"

enum { WAIT_S = 30, LOOK_US = 10000 };

static const char help[] =
	"Usage: stafette reload [OPTIONS]\n"
	"Tells the daemon to read its configuration again, waits, and says what came of it.\n"
	"Exit status: 0: it works by the new configuration; 78: that has errors, and the old one\n"
	"stays in force; 69: no daemon runs, or it does not answer.\n\n"
	"  -S, --spool PATH   the daemon's spool\n"
	"  -c, --config FILE  the daemon's configuration, which names the spool\n"
	"                     (" COMMAND_CONFIG ")\n"
	"  -h, --help\n";

/* After a crash the number may be another program's. Where /proc hides what is not ours to look at
 * (ProtectProc=), only we and root could signal it. */
static bool is_daemon(uint32_t process_id)
{
	char path[64], name[16];
	FILE *file;
	bool is;

	snprintf(path, sizeof(path), "/proc/%u/comm", process_id);
	file = fopen(path, "r");
	if (!file)
		return kill((pid_t)process_id, 0) == 0;
	is = fgets(name, sizeof(name), file) && strcmp(name, "stafetted\n") == 0;
	fclose(file);
	return is;
}

static int no_daemon(const char *spool)
{
	return command_fail(EX_UNAVAILABLE,
			    "no daemon runs with the spool %s; start it, or name its "
			    "configuration with -c",
			    spool);
}

static int tell_result(const struct status *status)
{
	if (!status->good)
		return command_fail(EX_CONFIG, "%s\nthe old configuration stays in force",
				    status->text);
	if (status->text[0] != '\0')
		puts(status->text);
	puts("reloaded");
	return EX_OK;
}

/* The spool may be one where the configuration has moved it to, with nobody in it. */
static int reload(const char *spool)
{
	static struct status status;
	struct os_mono asked = os_mono_now();
	struct os_mono limit = os_mono_add_ms(asked, WAIT_S * 1000);
	int result = status_read(spool, &status);

	if (result == -ENOENT)
		return no_daemon(spool);
	if (result < 0)
		return command_fail(EX_NOPERM, "%s/" STATUS_FILE ": %s", spool, strerror(-result));
	if (!is_daemon(status.process_id))
		return no_daemon(spool);
	if (kill((pid_t)status.process_id, SIGHUP) != 0)
		return command_fail(EX_NOPERM, "process %u: %s; it takes the daemon's user or root",
				    status.process_id, strerror(errno));
	while (os_mono_now().ns < limit.ns) {
		uint32_t process_id = status.process_id;

		usleep(LOOK_US);
		result = status_read(spool, &status);
		if (result == 0 && status.began.ns >= asked.ns)
			return tell_result(&status);
		if (result < 0 || !is_daemon(process_id))
			return command_fail(EX_UNAVAILABLE, "the daemon has ended meanwhile");
	}
	return command_fail(EX_UNAVAILABLE, "the daemon does not answer; look at its log");
}

int command_reload(int argc, char **argv)
{
	return command_on_spool(argc, argv, help, reload);
}
