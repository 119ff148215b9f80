/*
 * dovecot_protocol - the lines of Dovecot's auth-client protocol, 1.1 and later.
 *
 *   us      VERSION 1 1, CPID        AUTH 1 PLAIN service=smtp nologin resp=...
 *   Dovecot VERSION, MECH ..., DONE                     OK 1 user=ann   or   FAIL 1 ...
 *
 * Thread: pure.
 * Source: Dovecot's design documents, "Authentication Protocol".
 */
#ifndef ENGINE_DOVECOT_PROTOCOL_H
#define ENGINE_DOVECOT_PROTOCOL_H

#include <stdint.h>

#include "engine/smtp/session.h"
#include "os/os.h"

enum { DOVECOT_LINE_MAX = 8192, DOVECOT_USER_MAX = 255, DOVECOT_SECRET_MAX = 1024 };

enum dovecot_line {
	DOVECOT_NOTHING, /* of no use to us */
	DOVECOT_FOREIGN, /* it is not this protocol, or another major version of it */
	DOVECOT_DONE,	 /* logins may be asked for */
	DOVECOT_OK,
	DOVECOT_FAIL,
	DOVECOT_FAIL_TEMPORARY,
};

struct dovecot_reply {
	enum dovecot_line line;
	uint32_t id;			 /* OK, FAIL */
	char user[DOVECOT_USER_MAX + 1]; /* OK: as Dovecot calls it; "": it does not say */
};

/* A line without its end. */
void dovecot_reply_parse(struct span line, struct dovecot_reply *out);

/* What begins a connection; returns its length. */
size_t dovecot_hello_write(uint32_t client_id, char out[static 64]);

/* Asks for a login: the length of the line, or 0 if it is too long. Holds the password. */
size_t dovecot_ask_write(uint32_t id, const struct smtp_credentials *credentials,
			 const struct os_address *client, bool secured,
			 char out[static DOVECOT_LINE_MAX]);

#endif
