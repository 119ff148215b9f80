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
/* After getopt_long() returned '?' or ':' (with opterr 0 and a leading ':'): what is wrong. */
int command_bad_option(int found, char **argv, const char *command);

/* Which spool, and which delivery log: -S and -c, else what the daemon would take. */
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
