/*
 * utf8 - is this text well-formed UTF-8?
 *
 * Promise: overlong forms, surrogates and anything above U+10FFFF are refused.
 *
 * Thread: pure.
 * Source: RFC 3629, 4.
 */
#ifndef ENGINE_SMTP_UTF8_H
#define ENGINE_SMTP_UTF8_H

#include "os/span.h"

bool smtp_utf8_valid(struct span text);

/* How many ASCII octets it begins with. */
size_t smtp_utf8_ascii(struct span text);
/* The first character, of at least one octet, and how long it is; U+FFFD, of one octet, where it
 * is malformed. */
size_t smtp_utf8_decode(struct span text, uint32_t *code_out);

#endif
