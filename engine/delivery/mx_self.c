/*
 * mx_self - see mx_self.h.
 */
#include "engine/delivery/mx_self.h"

#include <strings.h>

#include "os/check.h"

struct network {
	uint8_t ip[16];
	uint8_t bits;
};

static bool in_network(const uint8_t *ip, const struct network *network)
{
	uint32_t whole = network->bits / 8, rest = network->bits % 8;

	if (memcmp(ip, network->ip, whole) != 0)
		return false;
	return rest == 0 || ((ip[whole] ^ network->ip[whole]) >> (8 - rest)) == 0;
}

static bool ip4_public(const uint8_t *ip)
{
	static const struct network special[] = {
		{ { 0 }, 8 },	       /* this network */
		{ { 10 }, 8 },	       /* private */
		{ { 100, 64 }, 10 },   /* shared, of carriers */
		{ { 127 }, 8 },	       /* loopback */
		{ { 169, 254 }, 16 },  /* link-local */
		{ { 172, 16 }, 12 },   /* private */
		{ { 192, 0, 0 }, 24 }, /* protocol assignments */
		{ { 192, 168 }, 16 },  /* private */
		{ { 198, 18 }, 15 },   /* benchmarks */
		{ { 224 }, 3 },	       /* multicast, reserved, broadcast */
	};

	for (size_t i = 0; i < array_count(special); i++) {
		if (in_network(ip, &special[i]))
			return false;
	}
	return true;
}

static bool ip6_public(const uint8_t *ip)
{
	/* The IPv4 address inside is what the packet reaches. */
	static const struct {
		struct network network;
		uint8_t ip4_at;
	} embedding[] = {
		{ { { [10] = 0xff, [11] = 0xff }, 96 }, 12 }, /* mapped */
		{ { { 0, 0x64, 0xff, 0x9b }, 96 }, 12 },      /* NAT64 */
		{ { { 0x20, 0x02 }, 16 }, 2 },		      /* 6to4 */
	};
	static const struct network special[] = {
		{ { 0 }, 8 },		/* unspecified, loopback, and local forms of IPv4 */
		{ { 1 }, 64 },		/* discard */
		{ { 0xfc }, 7 },	/* private */
		{ { 0xfe, 0x80 }, 10 }, /* link-local */
		{ { 0xfe, 0xc0 }, 10 }, /* site-local */
		{ { 0xff }, 8 },	/* multicast */
	};

	for (size_t i = 0; i < array_count(embedding); i++) {
		if (in_network(ip, &embedding[i].network))
			return ip4_public(ip + embedding[i].ip4_at);
	}
	for (size_t i = 0; i < array_count(special); i++) {
		if (in_network(ip, &special[i]))
			return false;
	}
	return true;
}

bool mx_address_public(const struct os_address *address)
{
	assert(address->family == AF_INET || address->family == AF_INET6);
	return address->family == AF_INET ? ip4_public(address->ip) : ip6_public(address->ip);
}

/* ── ourselves ────────────────────────────────────────────────────────────────────── */

static size_t ip_bytes(const struct os_address *address)
{
	return address->family == AF_INET ? 4 : 16;
}

static bool same_ip(const struct os_address *a, const struct os_address *b)
{
	return a->family == b->family && memcmp(a->ip, b->ip, ip_bytes(a)) == 0;
}

static bool is_source(const struct config_delivery *delivery, const struct os_address *address)
{
	return same_ip(&delivery->source4, address) || same_ip(&delivery->source6, address);
}

/* Addresses of this machine that are known without asking it. */
static bool local_ip(const struct mx_self *self, const struct os_address *address)
{
	static const uint8_t loopback6[16] = { [15] = 1 };

	if (os_address_is_any(address))
		return true;
	if (address->family == AF_INET ? address->ip[0] == 127
				       : memcmp(address->ip, loopback6, 16) == 0)
		return true;
	if (is_source(&self->config->delivery, address))
		return true;
	for (uint32_t i = 0; i < self->config->route_count; i++) {
		if (is_source(&self->config->routes[i].delivery, address))
			return true;
	}
	return false;
}

bool mx_self_name(const struct mx_self *self, const char *name)
{
	return strcasecmp(self->config->hostname, name) == 0;
}

bool mx_self_address(const struct mx_self *self, const struct os_address *address)
{
	if (address->family != AF_INET && address->family != AF_INET6)
		return false;
	for (uint32_t i = 0; i < self->config->listener_count; i++) {
		const struct os_address *listener = &self->config->listeners[i].address;

		if (listener->port != address->port || listener->family != address->family)
			continue;
		if (same_ip(listener, address))
			return true;
		if (os_address_is_any(listener) && local_ip(self, address))
			return true;
	}
	return false;
}

bool mx_self_port(const struct mx_self *self, uint16_t port)
{
	for (uint32_t i = 0; i < self->config->listener_count; i++) {
		const struct os_address *listener = &self->config->listeners[i].address;

		if (listener->family != AF_UNIX && listener->port == port)
			return true;
	}
	return false;
}
