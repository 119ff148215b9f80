/*
 * command - a command line: which verb, and what follows it.
 *
 * Thread: pure.
 * Source: RFC 5321, 4.1.1, 2.4.
 */
#ifndef ENGINE_SMTP_COMMAND_H
#define ENGINE_SMTP_COMMAND_H

#include "os/span.h"

enum smtp_verb {
	SMTP_VERB_UNKNOWN,
	SMTP_VERB_HELO,
	SMTP_VERB_EHLO,
	SMTP_VERB_MAIL,
	SMTP_VERB_RCPT,
	SMTP_VERB_DATA,
	SMTP_VERB_BDAT,
	SMTP_VERB_RSET,
	SMTP_VERB_NOOP,
	SMTP_VERB_QUIT,
	SMTP_VERB_VRFY,
	SMTP_VERB_HELP,
	SMTP_VERB_STARTTLS,
	SMTP_VERB_AUTH,
	SMTP_VERB_XCLIENT,
	SMTP_VERB_NOT_OFFERED, /* EXPN, TURN, ETRN ... */
	SMTP_VERB_FOREIGN,     /* another protocol's: HTTP */
	SMTP_VERB_COUNT,
};

struct smtp_command {
	enum smtp_verb verb;
	struct span argument; /* without blanks around it; within the line */
};

/* `line` without its CRLF. */
struct smtp_command smtp_command_parse(struct span line);

/* "n" or "n LAST" of BDAT. False: the size cannot be used, and the stream is out of step. */
bool smtp_bdat_parse(struct span argument, uint64_t *size_out, bool *last_out);

/* "FROM:" or "TO:" at the front of MAIL's and RCPT's argument, and blanks behind it, cut off. */
bool smtp_keyword_skip(struct span *argument, const char *keyword);

/* Decimal digits, all of the text; a number beyond 64 bits is UINT64_MAX. */
bool smtp_number_parse(struct span text, uint64_t *out);

#endif
