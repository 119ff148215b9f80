/*
 * base64 - how SMTP's AUTH writes what it says.
 *
 * Promise: decoding is strict: whole groups of four, padding only at the end, no other octets,
 * no bits left over; so each text has one meaning.
 *
 * Thread: pure.
 * Source: RFC 4648, 4.
 */
#ifndef ENGINE_SMTP_BASE64_H
#define ENGINE_SMTP_BASE64_H

#include "os/span.h"

/* What `count` octets become. */
#define BASE64_TEXT_BYTES(count) (((count) + 2) / 3 * 4)

/* Writes BASE64_TEXT_BYTES(bytes.len) octets, without NUL. */
void base64_encode(struct span bytes, char *out);

/* Writes at most text.len / 4 * 3 octets. False: it is no base64; `out` is then undefined. */
bool base64_decode(struct span text, char *out, size_t *len_out);

#endif
