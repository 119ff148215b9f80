/* stafette check-config: says what is wrong with a configuration, and changes nothing. */
#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>

#include "engine/config.h"
#include "tools/command.h"

static const char help[] =
	"Usage: stafette check-config [FILE]\n"
	"Reads a configuration as the daemon would, and says what is wrong.\n\n"
	"  -c, --config FILE  the same as FILE; without any, the built-in defaults\n"
	"  -h, --help\n";

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int check(const char *path)
{
	char error[8192] = "";
	struct config *config = config_load(path, error, sizeof(error));

	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	printf("%s: good\n", path ? path : "built-in defaults");
	config_destroy(config);
	return EX_OK;
}

int command_check_config(int argc, char **argv)
{
	const char *path = NULL;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":c:h", options, NULL)) != -1) {
		if (option == 'c') {
			path = optarg;
		} else if (option == 'h') {
			fputs(help, stdout);
			return EX_OK;
		} else {
			return command_bad_option(option, argv, "check-config");
		}
	}
	if (optind < argc && !path)
		path = argv[optind++];
	if (optind < argc)
		return command_fail(EX_USAGE, "%s: one configuration at a time", argv[optind]);
	return check(path);
}
