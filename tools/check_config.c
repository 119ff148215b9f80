/* stafette check-config: says what is wrong with a configuration, and changes nothing. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "engine/auth/credentials.h"
#include "engine/auth/users.h"
#include "engine/config/config.h"
#include "engine/confine.h"
#include "engine/dkim/keys.h"
#include "engine/tls/tls.h"
#include "tools/command.h"

static const char help[] =
	"Usage: stafette check-config [FILE]\n"
	"Reads a configuration as the daemon would, with the certificates, keys and passwords\n"
	"that it names (root: as the daemon's user), and says what is wrong.\n\n"
	"  -c, --config FILE  the same as FILE; without any, " COMMAND_CONFIG "\n"
	"                     or, where that is missing, the built-in defaults\n"
	"  -h, --help\n";

enum { NAME_BYTES = 64 };

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

/* Root reads as the daemon's user, who has to be able to: "" in `name` if it stays who it is. */
static int become_user(const struct config *config, char name[static NAME_BYTES])
{
	const char *wanted = config->user ? config->user : CONFINE_USER;
	struct os_user user;
	int result;

	name[0] = '\0';
	if (!os_is_root())
		return EX_OK;
	result = os_user_find(wanted, config->group, &user);
	if (result < 0 && (config->user || config->group))
		return command_fail(EX_CONFIG,
				    "there is no user %s, or no group %s; make it, or "
				    "change user or group",
				    wanted, config->group ? config->group : wanted);
	if (result < 0 || user.uid == 0) /* the user is still to be made */
		return EX_OK;
	snprintf(name, NAME_BYTES, "%s", wanted);
	result = os_drop_privileges(&user);
	return result == 0 ? EX_OK
			   : command_fail(EX_OSERR, "cannot become the user %s: %s", name,
					  strerror(-result));
}

/* Warns of those whose time it is not; false: they cannot be used. */
static bool certificates_good(const struct config *config, char *error, size_t error_bytes)
{
	struct tls_set *set = tls_set_read(config, error, error_bytes);
	const char *chain;
	bool expired;

	if (!set)
		return false;
	chain = tls_set_out_of_date(set, config, &expired);
	if (chain)
		command_fail(EX_OK, "warning: the certificate in %s %s", chain,
			     expired ? "has expired" : "is not valid yet");
	tls_set_unref(set);
	return true;
}

/* What the files that it names hold. False: `error` says what is wrong with the first that is. */
static bool files_good(struct config *config, char *error, size_t error_bytes)
{
	char secrets_error[SECRET_FILE_ERROR_BYTES] = "";

	if (!credentials_read(config, secrets_error)) {
		snprintf(error, error_bytes, "%s", secrets_error);
		return false;
	}
	if (!certificates_good(config, error, error_bytes) ||
	    !dkim_good(config, error, error_bytes))
		return false;
	if (!config->auth.users || users_check(config->auth.users, secrets_error))
		return true;
	snprintf(error, error_bytes, "%s", secrets_error);
	return false;
}

static int check(const char *path)
{
	char error[8192] = "", user[NAME_BYTES];
	struct config *config = config_load(path, error, sizeof(error));
	int code;

	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	code = become_user(config, user);
	if (code == EX_OK && !files_good(config, error, sizeof(error)))
		code = command_fail(EX_CONFIG, "%s%s%s%s", error,
				    user[0] ? " (for the daemon's user, " : "", user,
				    user[0] ? ")" : "");
	config_destroy(config);
	if (code == EX_OK)
		printf("%s: good\n", path ? path : "built-in defaults");
	return code;
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
	return check(command_config_path(path));
}
