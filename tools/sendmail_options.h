/*
 * sendmail_options - what programs ask of "sendmail", in the letters they have used for decades.
 *
 * Promise: every option that a program is known to give is understood, or ignored where it means
 * nothing here; one that asks for something that won't happen is refused.
 *
 * Thread: uses getopt(3), so one at a time. Texts borrow from argv.
 * Source: man/stafette-sendmail.1; the options of sendmail 8 and Postfix.
 */
#ifndef TOOLS_SENDMAIL_OPTIONS_H
#define TOOLS_SENDMAIL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum sendmail_mode {
	SENDMAIL_SEND,	  /* a message from standard input */
	SENDMAIL_SMTP,	  /* -bs */
	SENDMAIL_LIST,	  /* -bp */
	SENDMAIL_NOTHING, /* -bi, -I, -q: aliases are not kept, and the queue runs by itself */
	SENDMAIL_HELP,
	SENDMAIL_VERSION,
};

struct sendmail_options {
	enum sendmail_mode mode;
	bool from_header;	/* -t */
	bool dot_ends;		/* a line of one dot ends the message; -i: it does not */
	const char *sender;	/* -f; NULL: the user; "": the null sender */
	const char *full_name;	/* -F; NULL: the user's */
	const char *config;	/* -C; NULL: as built in */
	uint8_t notify;		/* -N: enum envelope_notify; 0: not given */
	char ret;		/* -R: 'F', 'H' or 0 */
	const char *envid;	/* -V; NULL: none */
	char *const *arguments; /* recipients */
	int argument_count;
};

enum { SENDMAIL_ERROR_BYTES = 256 };

/* EX_OK, or EX_USAGE with `error` filled. */
int sendmail_options_parse(int argc, char **argv, struct sendmail_options *out,
			   char error[static SENDMAIL_ERROR_BYTES]);

#endif
