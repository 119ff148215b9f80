/*
 * value - readers of single values; see the header.
 */
#include "engine/config/value.h"

#include <stdlib.h>

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };
static const struct unit times[] = {
	{ "ms", 1 },	      { "s", 1000 },	     { "m", 60 * 1000 },
	{ "h", 3600 * 1000 }, { "d", 86400 * 1000 }, { NULL, 0 },
};
static const struct unit sizes[] = {
	{ "", 1 }, { "K", 1 << 10 }, { "M", 1 << 20 }, { "G", 1 << 30 }, { NULL, 0 },
};

/* Digits and one of `units`. */
static bool parse_scaled(const char *text, const struct unit *units, uint64_t *out)
{
	uint64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
			return false;
	if (at == text)
		return false;
	for (; units->name != NULL; units++)
		if (strcmp(at, units->name) == 0)
			return !__builtin_mul_overflow(value, units->factor, out);
	return false;
}

bool config_parse_count(const char *text, uint64_t *out)
{
	uint64_t value;

	if (!parse_scaled(text, no_units, &value))
		return false;
	*out = value;
	return true;
}

bool config_parse_duration(const char *text, uint64_t *ms_out)
{
	uint64_t value = 0;

	if (strcmp(text, "0") != 0 && !parse_scaled(text, times, &value))
		return false;
	*ms_out = value;
	return true;
}

bool config_parse_bytes(const char *text, uint64_t *out)
{
	uint64_t value;

	if (!parse_scaled(text, sizes, &value))
		return false;
	*out = value;
	return true;
}

bool config_parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = { "true", "yes", "on" };
	static const char *const no[] = { "false", "no", "off" };

	for (size_t i = 0; i < array_count(yes); i++) {
		if (strcasecmp(text, yes[i]) != 0 && strcasecmp(text, no[i]) != 0)
			continue;
		*out = strcasecmp(text, yes[i]) == 0;
		return true;
	}
	return false;
}

/* A port, 1 to 65535. */
static bool parse_port(const char *text, uint16_t *out)
{
	uint64_t port;

	if (!parse_scaled(text, no_units, &port) || port == 0 || port > UINT16_MAX)
		return false;
	*out = (uint16_t)port;
	return true;
}

/* Splits "name:port", "[name]:port", "[name]" or "name" (also an IPv6 address, which has more
 * than one colon). `port_out` points into `text`, or is NULL if there is none. */
static bool split_port(const char *text, char name[static 256], const char **port_out)
{
	const char *colon = strchr(text, ':');
	struct span host = span_text(text);
	const char *port = NULL;

	if (text[0] == '[') {
		const char *close = strchr(text, ']');

		if (close == NULL || (close[1] != '\0' && close[1] != ':'))
			return false;
		host = span_of(text + 1, (size_t)(close - text - 1));
		port = close[1] == ':' ? close + 2 : NULL;
	} else if (colon != NULL && strchr(colon + 1, ':') == NULL) {
		host.len = (size_t)(colon - text);
		port = colon + 1;
	}
	if (host.len == 0 || host.len > 255)
		return false;
	memcpy(name, host.at, host.len);
	name[host.len] = '\0';
	*port_out = port;
	return true;
}

static bool bit_set(const uint8_t *bytes, uint32_t index)
{
	return (bytes[index / 8] >> (7 - index % 8)) & 1;
}

bool config_parse_network(const char *text, struct config_network *out)
{
	const char *slash = strchr(text, '/');
	size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);
	struct config_network network = { 0 };
	uint64_t prefix;
	uint32_t bits;
	char host[OS_ADDRESS_TEXT_MAX];

	if (length == 0 || length >= sizeof(host))
		return false;
	memcpy(host, text, length);
	host[length] = '\0';
	if (!os_address_parse(host, 0, &network.address))
		return false;
	bits = network.address.family == AF_INET ? 32 : 128;
	prefix = bits;
	if (slash != NULL && (!config_parse_count(slash + 1, &prefix) || prefix > bits))
		return false;
	/* ::ffff:192.0.2.0/120 is 192.0.2.0/24: who comes by IPv4 is an IPv4 client here. */
	os_address_unmap(&network.address);
	if (bits == 128 && network.address.family == AF_INET) {
		if (prefix < 96)
			return false;
		bits = 32;
		prefix -= 96;
	}
	for (uint32_t i = (uint32_t)prefix; i < bits; i++)
		if (bit_set(network.address.ip, i))
			return false;
	network.prefix = (uint8_t)prefix;
	*out = network;
	return true;
}

bool config_parse_listener(const char *text, struct os_address *out)
{
	char name[256];
	const char *port_text;
	uint16_t port;

	if (text[0] == '/')
		return os_address_parse(text, 0, out);
	return split_port(text, name, &port_text) && port_text != NULL &&
	       parse_port(port_text, &port) && name[0] != '/' && os_address_parse(name, port, out);
}

/* Letters, digits, '-' and '_' in labels of at most 63, 253 in all; "localhost" will do. */
static bool is_domain(const char *text)
{
	size_t length = strlen(text), label = 0;
	bool digits = true; /* the last label: then it is a mistyped address */

	if (length == 0 || length > 253)
		return false;
	for (const char *at = text; *at != '\0'; at++) {
		bool digit = *at >= '0' && *at <= '9';
		bool letter =
			(*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || *at == '_';

		if (*at == '.' || *at == '-') {
			/* No empty label, and no hyphen at its start or end. */
			if (label == 0 || (*at == '.' && at[-1] == '-'))
				return false;
		} else if (!digit && !letter) {
			return false;
		}
		digits = *at == '.' || (digits && digit);
		label = *at == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label > 0 && text[length - 1] != '-' && !digits;
}

bool config_parse_domain(const char *text, char out[static IDN_DOMAIN_BYTES])
{
	char ascii[IDN_DOMAIN_BYTES];

	if (!idn_to_ascii(span_text(text), ascii) || !is_domain(ascii))
		return false;
	strcpy(out, ascii);
	return true;
}

bool config_parse_socket(const char *text, struct config_host *out)
{
	struct os_address address;
	char *name;

	if (text[0] != '/' || !os_address_parse(text, 0, &address))
		return false;
	name = strdup(text);
	if (name == NULL)
		return false;
	*out = (struct config_host){ .name = name };
	return true;
}

bool config_parse_host(const char *text, uint16_t port, struct config_host *out)
{
	struct config_host host = { .port = port };
	struct os_address address;
	const char *port_text;
	char name[256], domain[IDN_DOMAIN_BYTES];
	bool named;

	if (!split_port(text, name, &port_text) ||
	    (port_text != NULL && !parse_port(port_text, &host.port)))
		return false;
	named = config_parse_domain(name, domain);
	if (!named && (name[0] == '/' || !os_address_parse(name, 0, &address)))
		return false;
	host.name = strdup(named ? domain : name);
	if (host.name == NULL)
		return false;
	*out = host;
	return true;
}
