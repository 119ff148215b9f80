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

#endif
