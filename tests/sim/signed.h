/*
 * signed - the keys of the world, and whether what arrives carries signatures that fit it.
 *
 * It reads DKIM (RFC 6376, RFC 8463) by itself and knows nothing of the engine's code. The keys
 * are those of RFC 8463, appendix A; both canonicalizations are `simple`, so that an octet more
 * or less in the header or the body of a copy is found.
 *
 * Thread: there is one.
 */
#ifndef SIM_SIGNED_H
#define SIM_SIGNED_H

#include <stddef.h>
#include <stdint.h>

enum { SIGNED_KEYS_MAX = 2 };

/* What OpenSSL looks up once for a process, before there are lives: they inherit it. */
void signed_prepare(void);

/* Puts the files of `keys` keys where the configuration names them: Ed25519, then RSA. Writes the
 * section that has mail from `domains` signed with each; how many bytes. 0 keys: nothing. */
int signed_configure(uint32_t keys, const char *const *domains, uint32_t count, char *text,
		     size_t size);

/* Behind the signatures on top of a copy: there must be `keys` of them, one with each, and they
 * must fit all that follows. A finding names it as `what`. */
const char *signed_check(uint32_t keys, const char *what, const char *text, size_t bytes);

#endif
