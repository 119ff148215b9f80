/*
 * dkim_zone - the line of a zone file that publishes a key.
 */
#ifndef TOOLS_DKIM_ZONE_H
#define TOOLS_DKIM_ZONE_H

#include "engine/dkim/crypto.h"

/* On standard output: SELECTOR._domainkey.DOMAIN. TXT "..." "...", in strings of at most 255. */
void dkim_zone_print(const char *domain, const char *selector, const struct dkim_key *key);

#endif
