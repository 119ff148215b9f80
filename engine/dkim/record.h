/*
 * record - the TXT record with the public key, at SELECTOR._domainkey.DOMAIN.
 *
 * Thread: pure. Source: RFC 6376, 3.6.1.
 */
#ifndef ENGINE_DKIM_RECORD_H
#define ENGINE_DKIM_RECORD_H

#include "engine/dkim/crypto.h"

/* Adds what is to be published: "v=DKIM1; k=rsa; p=...". */
void dkim_record_write(const struct dkim_key *key, struct dkim_text *out);
/* NULL: receivers will accept what this key signs; else what is wrong with the record. */
const char *dkim_record_check(struct span record, const struct dkim_key *key);
/* The owner asks receivers to be lenient: t=y. */
bool dkim_record_is_test(struct span record);

#endif
