/*
 * command - the commands of the program `stafette`, and what they share.
 *
 * Exit codes are those of sysexits.h. What goes wrong is said in one line on standard error:
 * what, and what to do.
 */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include <stdbool.h>

/* argv[0] is the command's name. */
int command_queue(int argc, char **argv);
int command_show(int argc, char **argv);
int command_check_config(int argc, char **argv);
int command_reload(int argc, char **argv);
int command_confirm_time(int argc, char **argv);
int command_check_dkim(int argc, char **argv);
int command_dkim_key(int argc, char **argv);
int command_sendmail(int argc, char **argv);
int command_passwd(int argc, char **argv);

/* "stafette: text" on standard error; returns `code`. */
int command_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Root has made a file with a secret: who else has to read it, on standard error. */
void command_tell_readers(const char *path);
/* After getopt_long() returned '?' or ':' (with opterr 0 and a leading ':'): what is wrong. */
int command_bad_option(int found, char **argv, const char *command);

/* Where the daemon's configuration is if nobody says so. */
#define COMMAND_CONFIG "/etc/stafette/stafette.conf"

/* The configuration to read: `given`, else that of the environment's STAFETTE_CONFIG, else
 * COMMAND_CONFIG, if it is there. NULL: the built-in defaults. Borrowed. */
const char *command_config_path(const char *given);

/* Which spool, and which delivery log: by -S and -c, else by that configuration. */
struct command_place {
	char *spool, *log; /* owned; log NULL: standard output of the daemon */
};

/* 0, or an exit code after saying why. */
int command_place_find(struct command_place *place, const char *spool, const char *config);
void command_place_release(struct command_place *place);
/* A command that needs to know the spool and nothing else: its options, then `run`. The exit code.
 */
int command_on_spool(int argc, char **argv, const char *help, int (*run)(const char *spool));

/* The options that every command has, for getopt_long(). */
#define COMMAND_SHORT "S:c:h"
#define COMMAND_LONG                                                                               \
	{ "spool", required_argument, NULL, 'S' }, { "config", required_argument, NULL, 'c' },     \
	{                                                                                          \
		"help", no_argument, NULL, 'h'                                                     \
	}

#endif
