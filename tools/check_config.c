/* stafette check-config: says what is wrong with a configuration, and changes nothing. */
#include <getopt.h>
#include <stdio.h>
#include <sysexits.h>

#include "engine/auth/credentials.h"
#include "engine/auth/users.h"
#include "engine/config/config.h"
#include "engine/dkim/keys.h"
#include "engine/tls/tls.h"
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

static bool dkim_good(const struct config *config, char *error, size_t error_bytes)
{
	struct dkim_store *store = dkim_store_create(config, error, error_bytes);

	dkim_store_destroy(store);
	return store;
}

static int check(const char *path)
{
	char error[8192] = "";
	struct config *config = config_load(path, error, sizeof(error));
	char secrets_error[SECRET_FILE_ERROR_BYTES];
	struct tls_contexts *tls;
	bool users_good, keys_good;

	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	if (!credentials_read(config, secrets_error)) {
		config_unref(config);
		return command_fail(EX_CONFIG, "%s", secrets_error);
	}
	tls = tls_contexts_create(config, error, sizeof(error));
	users_good = !config->auth.users || users_check(config->auth.users, secrets_error);
	keys_good = tls && dkim_good(config, error, sizeof(error));
	config_destroy(config);
	if (!tls)
		return command_fail(EX_CONFIG, "%s", error);
	tls_contexts_destroy(tls);
	if (!keys_good)
		return command_fail(EX_CONFIG, "%s", error);
	if (!users_good)
		return command_fail(EX_CONFIG, "%s", secrets_error);
	printf("%s: good\n", path ? path : "built-in defaults");
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
