/*
 * address - the addresses of os.h and their text.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "os/os.h"

/* "fe80::1%eth0" */
static bool address_parse_scoped(const char *text, struct os_address *out)
{
	const char *percent = strchr(text, '%');
	char plain[INET6_ADDRSTRLEN];
	size_t length = percent != NULL ? (size_t)(percent - text) : strlen(text);

	if (length >= sizeof(plain))
		return false;
	memcpy(plain, text, length);
	plain[length] = '\0';
	if (inet_pton(AF_INET6, plain, out->ip) != 1)
		return false;
	out->family = AF_INET6;
	if (percent != NULL)
		out->scope_id = if_nametoindex(percent + 1);
	return percent == NULL || out->scope_id != 0;
}

bool os_address_parse(const char *text, uint16_t port, struct os_address *out)
{
	struct os_address address = { .port = port };

	if (text[0] == '/') {
		if (strlen(text) >= sizeof(address.path))
			return false;
		address.family = AF_UNIX;
		address.port = 0;
		strcpy(address.path, text);
	} else if (inet_pton(AF_INET, text, address.ip) == 1) {
		address.family = AF_INET;
	} else if (!address_parse_scoped(text, &address)) {
		return false;
	}
	*out = address;
	return true;
}

/* On the path of every message: several times faster than inet_ntop(). */
static void address_text4(const uint8_t ip[4], char *out)
{
	for (int i = 0; i < 4; i++) {
		if (ip[i] >= 100)
			*out++ = (char)('0' + ip[i] / 100);
		if (ip[i] >= 10)
			*out++ = (char)('0' + ip[i] / 10 % 10);
		*out++ = (char)('0' + ip[i] % 10);
		*out++ = i < 3 ? '.' : '\0';
	}
}

const char *os_address_text(const struct os_address *address, char out[static OS_ADDRESS_TEXT_MAX])
{
	char scope[IF_NAMESIZE];
	size_t length;

	switch (address->family) {
	case AF_UNIX:
		snprintf(out, OS_ADDRESS_TEXT_MAX, "%s", address->path);
		break;
	case AF_INET:
		address_text4(address->ip, out);
		break;
	case AF_INET6:
		inet_ntop(address->family, address->ip, out, OS_ADDRESS_TEXT_MAX);
		length = strlen(out);
		if (address->scope_id != 0 && if_indextoname(address->scope_id, scope) != NULL)
			snprintf(out + length, OS_ADDRESS_TEXT_MAX - length, "%%%s", scope);
		break;
	default:
		snprintf(out, OS_ADDRESS_TEXT_MAX, "none");
	}
	return out;
}

void os_address_unmap(struct os_address *address)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (address->family != AF_INET6 || memcmp(address->ip, mapped, sizeof(mapped)) != 0)
		return;
	memmove(address->ip, address->ip + sizeof(mapped), 4);
	memset(address->ip + 4, 0, sizeof(mapped));
	address->family = AF_INET;
}

bool os_address_equal(const struct os_address *a, const struct os_address *b)
{
	if (a->family != b->family)
		return false;
	switch (a->family) {
	case AF_UNIX:
		return strcmp(a->path, b->path) == 0;
	case AF_INET:
		return a->port == b->port && memcmp(a->ip, b->ip, 4) == 0;
	case AF_INET6:
		return a->port == b->port && a->scope_id == b->scope_id &&
		       memcmp(a->ip, b->ip, 16) == 0;
	default:
		return true;
	}
}

bool os_address_is_any(const struct os_address *address)
{
	static const uint8_t zeros[sizeof(address->ip)];

	switch (address->family) {
	case AF_INET:
		return memcmp(address->ip, zeros, 4) == 0;
	case AF_INET6:
		return memcmp(address->ip, zeros, 16) == 0;
	default:
		return false;
	}
}

uint64_t os_address_hash(const struct os_address *address)
{
	uint64_t seed =
		(uint64_t)address->scope_id << 32 | (uint64_t)address->port << 16 | address->family;

	if (address->family == AF_UNIX)
		return XXH3_64bits_withSeed(address->path, strlen(address->path), AF_UNIX);
	return XXH3_64bits_withSeed(address->ip, address->family == AF_INET ? 4 : 16, seed);
}
