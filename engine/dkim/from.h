/*
 * from - whose domain answers for a message: that of the address in From:.
 *
 * Promise: comments, quoted strings, display names, groups and folding don't mislead it. Several
 * addresses of one domain are as good as one.
 * Thread: pure. Source: RFC 5322, 3.4.
 */
#ifndef ENGINE_DKIM_FROM_H
#define ENGINE_DKIM_FROM_H

#include "engine/idn.h"

/* The field's value. NULL, and the domain in lower case and A-labels; or why there is none. */
const char *dkim_from_domain(struct span value, char out[static IDN_DOMAIN_BYTES]);

#endif
