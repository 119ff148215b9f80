/*
 * route - finds the route of a domain, and the trust of an address.
 *
 * An open hash table, at most half full; a domain costs one look-up for itself and one for each
 * of its dots.
 */
#include "engine/config/route.h"
#include "engine/config/change.h"

#include <stdlib.h>
#include <xxhash.h>

#define DOMAIN_MAX 255

/* The bucket that holds `pattern`, or the empty one where it belongs. */
static uint32_t *bucket_of(const struct config *config, struct span pattern)
{
	uint32_t mask = config->route_bucket_count - 1;
	uint32_t at = (uint32_t)XXH3_64bits(pattern.at, pattern.len) & mask;

	for (;; at = (at + 1) & mask) {
		uint32_t *bucket = &config->route_buckets[at];

		if (*bucket == 0 ||
		    span_equal(span_text(config->routes[*bucket - 1].pattern), pattern))
			return bucket;
	}
}

void config_routes_default(struct config *config)
{
	uint32_t last = config->route_count;

	for (uint32_t i = 0; i < config->route_count; i++) {
		struct config_route route = config->routes[i];

		if (strcmp(route.pattern, "*") != 0)
			continue;
		memmove(&config->routes[i], &config->routes[i + 1],
			(config->route_count - i - 1) * sizeof(route));
		config->routes[config->route_count - 1] = route;
		return;
	}
	config->routes[last] = (struct config_route){
		.pattern = strdup("*"),
		.action = CONFIG_ROUTE_MX,
		.delivery = config->delivery,
	};
	config->route_count++;
}

bool config_routes_index(struct config *config)
{
	config->route_bucket_count = 4;
	while (config->route_bucket_count < 2 * config->route_count)
		config->route_bucket_count *= 2;
	config->route_buckets = calloc(config->route_bucket_count, sizeof(uint32_t));
	if (config->route_buckets == NULL ||
	    config->routes[config->route_count - 1].pattern == NULL)
		return false;
	for (uint32_t i = 0; i < config->route_count; i++) {
		uint32_t *bucket = bucket_of(config, span_text(config->routes[i].pattern));

		if (*bucket == 0)
			*bucket = i + 1;
	}
	return true;
}

const struct config_route *config_routes_first(const struct config *config,
					       const struct config_route *route)
{
	return &config->routes[*bucket_of(config, span_text(route->pattern)) - 1];
}

void config_routes_free(struct config *config)
{
	for (uint32_t i = 0; i < config->route_count; i++) {
		struct config_route *route = &config->routes[i];

		for (uint32_t j = 0; j < route->host_count; j++)
			free(route->hosts[j].name);
		free(route->hosts);
		free(route->text);
		free(route->pattern);
	}
	free(config->routes);
	free(config->route_buckets);
}

const struct config_route *config_route_same(const struct config *config,
					     const struct config_route *route)
{
	uint32_t found = *bucket_of(config, span_text(route->pattern));

	if (found == 0 || config->routes[found - 1].identity != route->identity)
		return NULL;
	return &config->routes[found - 1];
}

const struct config_route *config_route(const struct config *config, struct span domain)
{
	char lower[DOMAIN_MAX];
	const struct config_route *last = &config->routes[config->route_count - 1];

	if (config->route_count == 1 || domain.len > sizeof(lower))
		return last;
	for (size_t i = 0; i < domain.len; i++) {
		char c = domain.at[i];

		lower[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
	}
	/* The domain itself, then from each of its dots on, but for a dot at its start. */
	for (size_t i = 0; i < domain.len; i++) {
		uint32_t found;

		if (i > 0 && lower[i] != '.')
			continue;
		found = *bucket_of(config, span_of(lower + i, domain.len - i));
		if (found != 0 && (i > 0 || lower[0] != '.'))
			return &config->routes[found - 1];
	}
	return last;
}

static bool network_has(const struct config_network *network, const struct os_address *address)
{
	uint32_t whole = network->prefix / 8, rest = network->prefix % 8;
	uint8_t mask = (uint8_t)(0xff00 >> rest);

	if (network->address.family != address->family ||
	    memcmp(network->address.ip, address->ip, whole) != 0)
		return false;
	return rest == 0 || ((network->address.ip[whole] ^ address->ip[whole]) & mask) == 0;
}

bool config_networks_have(const struct config_networks *networks, const struct os_address *address)
{
	if (address->family == AF_UNIX)
		return true;
	for (uint32_t i = 0; i < networks->count; i++)
		if (network_has(&networks->list[i], address))
			return true;
	return false;
}

bool config_trusts(const struct config *config, const struct os_address *address)
{
	return config_networks_have(&config->trusted, address);
}
