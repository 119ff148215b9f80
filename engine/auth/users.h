/*
 * users - who may log in, from a file.
 *
 *   ann:$y$j9T$...            her hash, as crypt(3) makes it; she may send from any address
 *   bob:$6$...:bob@b.example,@b2.example    he from these: an address, or all of a domain
 *   # a comment
 *
 * Promise: the file is read for each look, so what it says now counts; that costs little beside
 * the hash. An unknown user takes as long as a known one. Only hashes that are worth something
 * are taken: yescrypt, scrypt, bcrypt, SHA-512, SHA-256.
 *
 * Thread: pure, but for users_verify(), users_check() and users_change(), which block:
 * start-up, tools and os_compute() only.
 * Source: crypt(5); man/stafette.conf.5, "auth".
 */
#ifndef ENGINE_USERS_H
#define ENGINE_USERS_H

#include "engine/auth/secret_file.h"

enum { USERS_NAME_MAX = 255, USERS_PASSWORD_MAX = 511 };

enum users_status {
	USERS_OK,
	USERS_WRONG,	   /* no such user, or another password */
	USERS_UNAVAILABLE, /* the file can't be read, or no memory: `error` tells */
};

/* `senders_out` gets what the file allows, owned by the caller; NULL: any sender. */
enum users_status users_verify(const char *path, struct span name, const char *password,
			       char **senders_out, char error[static SECRET_FILE_ERROR_BYTES]);

/* Reads the file as users_verify() would; the first thing that is wrong with it in `error`. */
bool users_check(const char *path, char error[static SECRET_FILE_ERROR_BYTES]);

/* A name that the file can hold. */
bool users_name_valid(struct span name);

/* Whether the list (as the file has it) allows the address; the null sender always is. */
bool users_sender_allowed(const char *senders, struct span address);

/* Sets the user's hash, and leaves the senders; adds the user; or takes the line out (`hash`
 * NULL). The new file takes the place of the old one at once, with its mode; a new one has
 * 0600. 0, -ENOENT (to take out: no such user), or -errno. */
int users_change(const char *path, struct span name, const char *hash);

#endif
