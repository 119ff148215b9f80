/*
 * credentials - the passwords with which we log in to smarthosts, from a file.
 *
 *   # host              user             password, to the end of the line
 *   relay.example.net   ours@a.example   correct horse
 *   *                   others           battery staple
 *
 * Promise: a host's own line comes before that of "*". All of it is wiped when it is let go.
 *
 * Thread: immutable after loading; credentials_load() and credentials_read() block: start-up,
 * reload and tools.
 * Source: man/stafette.conf.5, "credentials".
 */
#ifndef ENGINE_CREDENTIALS_H
#define ENGINE_CREDENTIALS_H

#include "engine/auth/secret_file.h"

enum { CREDENTIALS_WORD_MAX = 255 };

struct config;
struct credentials; /* opaque */

/* NULL with `error` filled. */
struct credentials *credentials_load(const char *path, char error[static SECRET_FILE_ERROR_BYTES]);
void credentials_destroy(struct credentials *credentials); /* accepts NULL */

/* Borrowed; NULL: there is none. `credentials` may be NULL. */
const char *credentials_find(const struct credentials *credentials, const char *host,
			     const char *user);

/* Reads the file that the configuration names into it, and sees that every smarthost's password
 * is there. False with `error` filled. The configuration is nobody else's yet. */
bool credentials_read(struct config *config, char error[static SECRET_FILE_ERROR_BYTES]);

#endif
