/*
 * mail_address - addresses as people write them in headers and on command lines.
 *
 *   "John Q. Public" <jqp@example.org> (at home), Team: a@b.example, <@old:c@d.example>;
 *
 * Promise: each mailbox of a list is told once, in order, as local@domain or as a bare local
 * part: comments, display names, groups, routes, and white space between the parts (folded
 * lines) are gone; quoted local parts keep their quotes.
 * Non-promise: nothing is known about the domain; SMTP's stricter syntax and limits are
 * smtp_address_parse()'s to check.
 *
 * Thread: pure.
 * Source: RFC 5322, 3.2.2, 3.4, 4.4; RFC 6532.
 */
#ifndef TOOLS_MAIL_ADDRESS_H
#define TOOLS_MAIL_ADDRESS_H

#include "os/span.h"

enum { MAIL_ADDRESS_BYTES = 512 };

/* `address` is valid during the call and ends in NUL. */
typedef void mail_address_found(void *context, const char *address);

/* The value of an address header, or an argument. False: some of it is no address; what came
 * before was told. An empty list is good. */
bool mail_addresses(struct span text, mail_address_found *found, void *context);

#endif
