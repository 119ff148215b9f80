/* stafette passwd: adds, changes and deletes users of the file that the listener checks. */
#include <crypt.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "engine/auth/users.h"
#include "engine/config/config.h"
#include "os/check.h"
#include "tools/command.h"

static const char help[] =
	"Usage: stafette passwd [OPTIONS] USER\n"
	"Sets a user's password; adds the user if need be. Asks for it, or reads one line of\n"
	"standard input.\n\n"
	"  -f, --file FILE      the users' file; else that of the configuration (auth, users)\n"
	"  -c, --config FILE    the configuration (" COMMAND_CONFIG ")\n"
	"  -m, --method METHOD  yescrypt (the default), bcrypt or sha512\n"
	"  -d, --delete         takes the user out\n"
	"  -h, --help\n";

static const struct option options[] = {
	{ "file", required_argument, NULL, 'f' },   { "config", required_argument, NULL, 'c' },
	{ "method", required_argument, NULL, 'm' }, { "delete", no_argument, NULL, 'd' },
	{ "help", no_argument, NULL, 'h' },	    { 0 },
};

/* One run. */
struct passwd {
	const char *file, *config, *method, *user;
	bool delete;
};

enum { LINE_BYTES = USERS_PASSWORD_MAX + 2 };

/* ── asking ───────────────────────────────────────────────────────────────────────── */

/* A line of `from`, without its end. False: there is none, or it is too long. */
static bool line_read(FILE *from, char out[static LINE_BYTES])
{
	size_t len;

	if (!fgets(out, LINE_BYTES, from))
		return false;
	len = strcspn(out, "\r\n");
	if (out[len] == '\0' && len == LINE_BYTES - 1)
		return false;
	out[len] = '\0';
	return true;
}

static bool ask(const char *what, char out[static LINE_BYTES])
{
	struct termios before, silent;
	bool read;

	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return false;
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	fprintf(stderr, "%s: ", what);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
	read = line_read(stdin, out);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	fputc('\n', stderr);
	return read;
}

/* 0, or an exit code after saying why. */
static int password_get(char out[static LINE_BYTES])
{
	char again[LINE_BYTES] = "";
	bool read, same = true;

	setvbuf(stdin, NULL, _IONBF, 0); /* no copy of it in a buffer of libc's */
	if (isatty(STDIN_FILENO)) {
		read = ask("New password", out) && ask("Again", again);
		same = strcmp(out, again) == 0;
		explicit_bzero(again, sizeof(again));
	} else {
		read = line_read(stdin, out);
	}
	if (!read)
		return command_fail(EX_DATAERR, "passwd: no password, or one above %d octets",
				    USERS_PASSWORD_MAX);
	if (!same)
		return command_fail(EX_DATAERR, "passwd: these are two passwords; try again");
	if (out[0] == '\0')
		return command_fail(EX_DATAERR, "passwd: an empty password is none");
	return EX_OK;
}

/* ── the hash ─────────────────────────────────────────────────────────────────────── */

static const char *prefix_of(const char *method)
{
	static const struct {
		const char *method, *prefix;
	} methods[] = { { "yescrypt", "$y$" }, { "bcrypt", "$2b$" }, { "sha512", "$6$" } };

	for (size_t i = 0; i < array_count(methods); i++)
		if (strcmp(method, methods[i].method) == 0)
			return methods[i].prefix;
	return NULL;
}

/* The library draws the salt, and chooses the cost. */
static int hash_make(const char *prefix, const char *password, char out[static CRYPT_OUTPUT_SIZE])
{
	char setting[CRYPT_GENSALT_OUTPUT_SIZE];
	struct crypt_data data = { 0 };
	const char *hash = NULL;

	if (crypt_gensalt_rn(prefix, 0, NULL, 0, setting, sizeof(setting)))
		hash = crypt_r(password, setting, &data);
	if (hash && hash[0] != '*')
		snprintf(out, CRYPT_OUTPUT_SIZE, "%s", hash);
	else
		hash = NULL;
	explicit_bzero(&data, sizeof(data));
	return hash ? EX_OK
		    : command_fail(EX_SOFTWARE, "passwd: no hash to be had: %s", strerror(errno));
}

/* ── the file ─────────────────────────────────────────────────────────────────────── */

static int file_change(const struct passwd *passwd, const char *file)
{
	char password[LINE_BYTES] = "", hash[CRYPT_OUTPUT_SIZE];
	int code = EX_OK, result;
	bool made;

	if (!passwd->delete) {
		code = password_get(password);
		if (code == EX_OK)
			code = hash_make(prefix_of(passwd->method), password, hash);
		explicit_bzero(password, sizeof(password));
		if (code != EX_OK)
			return code;
	}
	made = access(file, F_OK) < 0 && errno == ENOENT;
	result = users_change(file, span_text(passwd->user), passwd->delete ? NULL : hash);
	if (result == -ENOENT && passwd->delete)
		return command_fail(EX_NOUSER, "passwd: %s: no such user in %s", passwd->user,
				    file);
	if (result < 0)
		return command_fail(EX_CANTCREAT, "passwd: %s cannot be changed: %s", file,
				    strerror(-result));
	if (made)
		command_tell_readers(file);
	return EX_OK;
}

static int change(const struct passwd *passwd)
{
	char error[8192] = "";
	struct config *config;
	int code;

	if (!users_name_valid(span_text(passwd->user)))
		return command_fail(EX_USAGE, "passwd: '%s' cannot be a user's name", passwd->user);
	if (!prefix_of(passwd->method))
		return command_fail(EX_USAGE,
				    "passwd: %s: no such method; yescrypt, bcrypt or "
				    "sha512",
				    passwd->method);
	if (passwd->file)
		return file_change(passwd, passwd->file);
	config = config_load(command_config_path(passwd->config), error, sizeof(error));
	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	if (config->auth.users)
		code = file_change(passwd, config->auth.users);
	else
		code = command_fail(EX_USAGE, "passwd: no users' file: name it with -f, or the "
					      "configuration that has one with -c");
	config_unref(config);
	return code;
}

int command_passwd(int argc, char **argv)
{
	struct passwd passwd = { .method = "yescrypt" };
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":f:c:m:dh", options, NULL)) != -1) {
		switch (option) {
		case 'f':
			passwd.file = optarg;
			break;
		case 'c':
			passwd.config = optarg;
			break;
		case 'm':
			passwd.method = optarg;
			break;
		case 'd':
			passwd.delete = true;
			break;
		case 'h':
			fputs(help, stdout);
			return EX_OK;
		default:
			return command_bad_option(option, argv, "passwd");
		}
	}
	if (optind + 1 != argc)
		return command_fail(EX_USAGE, "passwd: one user at a time");
	passwd.user = argv[optind];
	return change(&passwd);
}
