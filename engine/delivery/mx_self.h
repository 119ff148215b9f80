/*
 * mx_self - who we are, and which addresses mail is not sent to.
 *
 * Thread: a struct mx_self is its owner's; the rest is pure.
 * Source: RFC 5321, 5.1; RFC 6890 (special addresses); RFC 6052 (NAT64).
 */
#ifndef ENGINE_MX_SELF_H
#define ENGINE_MX_SELF_H

#include "engine/config/config.h"
#include "os/os.h"

/* What a search holds while the configuration below it may change. */
struct mx_self {
	const struct config *config; /* borrowed */
};

/* Whether `name`, without a final dot, is our host name. */
bool mx_self_name(const struct mx_self *self, const char *name);
/* Whether a connection to it would reach one of our own listeners. */
bool mx_self_address(const struct mx_self *self, const struct os_address *address);
/* Whether one of our listeners has this port. */
bool mx_self_port(const struct mx_self *self, uint16_t port);

/* False: unspecified, loopback, private, shared, link-local, multicast or reserved; also behind
 * an IPv6 form of an IPv4 address (mapped, NAT64, 6to4). */
bool mx_address_public(const struct os_address *address);

#endif
