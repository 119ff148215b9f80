/*
 * downgrade - a message with 8-bit or binary text, made fit for a server that takes only 7-bit.
 *
 *   multipart/mixed            8bit ──► 7bit
 *   ├── text/plain             8bit ──► quoted-printable
 *   ├── image/png            binary ──► base64
 *   ├── application/pdf      base64 ──► untouched
 *   └── message/rfc822         8bit ──► 7bit
 *       └── text/plain         none ──► quoted-printable
 *
 * Promise: each leaf decodes to exactly what it was; a part that was 7-bit keeps every octet
 * (where its label said 8bit, it says 7bit). All that is written is 7-bit, and its lines end in
 * CRLF. What says nothing about its text says afterwards, as RFC 1428 has it, that its alphabet
 * is unknown.
 * Non-promise: not all can be converted. Refused are 8-bit text in a header, beside the parts, in
 * what is signed or encrypted, in what may not be encoded; a message with a DKIM or ARC signature,
 * which would not hold any more; a header that two readers could understand in two ways; and more
 * than DOWNGRADE_DEPTH_MAX levels.
 *
 * Memory: the message lies in memory, and so does the result, which is little more than three
 * times as long. Time grows with the levels: for long messages, os_compute().
 *
 * Thread: pure.
 * Source: RFC 6152, 3; RFC 2045, 6; RFC 2046; RFC 1428, 3; RFC 1847, 2.
 */
#ifndef ENGINE_SMTP_DOWNGRADE_H
#define ENGINE_SMTP_DOWNGRADE_H

#include "engine/smtp/mime_output.h"

enum { DOWNGRADE_DEPTH_MAX = 20 };

/* NULL: `output` has the whole message, for which `prefix` (whole header lines) stays as it is.
 * Or why it can't be converted, static and for people; `output` is then to be freed, too. */
const char *downgrade_message(struct span prefix, struct span message, struct mime_output *output);

#endif
