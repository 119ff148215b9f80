/*
 * address - mailbox addresses as SMTP commands carry them.
 *
 * Promise: a parsed address has a sound local part (kept as it was, quoting reduced where it
 * was needless: "abc"@x is abc@x) and a domain in lower case, or an address literal; both
 * within RFC 5321's limits (64, 255, path 256). Source routes are read and dropped.
 * Non-promise: nothing is known about the domain's existence. U-labels stay UTF-8 here
 * (`utf8` says so). `text` has no terminator, and beyond `len` it is not set.
 *
 * Thread: pure.
 * Source: RFC 5321, 4.1.2, 4.1.3, 4.5.3.1; RFC 6531, 3.3.
 */
#ifndef ENGINE_SMTP_ADDRESS_H
#define ENGINE_SMTP_ADDRESS_H

#include "os/span.h"

#define SMTP_ADDRESS_MAX 512

struct smtp_address {
	char text[SMTP_ADDRESS_MAX]; /* "local@domain", "local" (postmaster) or "" (null sender) */
	uint16_t len;
	uint16_t domain_at; /* where the domain begins; len if there is none */
	bool utf8;	    /* has octets above 127 */
	bool literal;	    /* [192.0.2.1], [IPv6:2001:db8::1] */
};

enum smtp_address_status {
	SMTP_ADDRESS_OK = 0,
	SMTP_ADDRESS_SYNTAX,   /* not a path at all */
	SMTP_ADDRESS_LOCAL,    /* local part too long */
	SMTP_ADDRESS_DOMAIN,   /* domain malformed or too long */
	SMTP_ADDRESS_TOO_LONG, /* path over 256 */
	SMTP_ADDRESS_UTF8,     /* not valid UTF-8, or not allowed here */
};

/* Parses "<...>" at the start of `text`; `rest_out` gets what follows it. `utf8` allows
 * non-ASCII (SMTPUTF8). Only "postmaster" (any case) may be without a domain. After a failure
 * `out` is not to be read. */
enum smtp_address_status smtp_path_parse(struct span text, bool utf8, struct smtp_address *out,
					 struct span *rest_out);
/* "local@domain" without brackets, whole; as the configuration has it. */
enum smtp_address_status smtp_address_parse(struct span text, bool utf8, struct smtp_address *out);

static inline struct span smtp_address_span(const struct smtp_address *address)
{
	return (struct span){ address->text, address->len };
}

static inline struct span smtp_address_domain(const struct smtp_address *address)
{
	return (struct span){ address->text + address->domain_at,
			      (size_t)(address->len - address->domain_at) };
}

#endif
