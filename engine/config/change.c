/*
 * change - compares by the rows of config_table, so that a new option is never forgotten.
 */
#include "engine/config/change.h"

#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/config/table.h"

/* Known before the first worker starts, or said to the kernel once. */
static const char *const fixed[] = { "spool",	      "node", "workers",       "io",	  "group",
				     "segment_bytes", "user", "journal_bytes", "sandbox", "drop" };

/* ── identity ─────────────────────────────────────────────────────────────────────── */

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
	return XXH3_64bits_withSeed(bytes, count, hash + count);
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
	return text == NULL ? mix(hash, "", 0) : mix(hash, text, strlen(text) + 1);
}

static uint64_t mix_address(uint64_t hash, const struct os_address *address)
{
	hash = mix(hash, &address->family, sizeof(address->family));
	hash = mix(hash, &address->port, sizeof(address->port));
	hash = mix(hash, address->ip, sizeof(address->ip));
	return mix(hash, &address->scope_id, sizeof(address->scope_id));
}

/* The bytes behind the end of a text, or between fields, mean nothing. */
static uint64_t mix_options(uint64_t hash, const struct config_option *option, const void *section)
{
	for (; option->name != NULL; option++) {
		const void *field = (const char *)section + option->offset;

		switch (option->kind) {
		case CONFIG_TEXT:
		case CONFIG_IO:
			hash = mix_text(hash, *(const char *const *)field);
			break;
		case CONFIG_DOMAIN:
		case CONFIG_NAME:
			hash = mix_text(hash, field);
			break;
		case CONFIG_SOURCE4:
		case CONFIG_SOURCE6:
			hash = mix_address(hash, field);
			break;
		default:
			hash = mix(hash, field, option->bytes);
		}
	}
	return hash;
}

uint64_t config_route_identity(const struct config_route *route)
{
	uint64_t hash = mix_text(0, route->pattern);

	hash = mix(hash, &route->action, sizeof(route->action));
	hash = mix(hash, &route->lmtp, sizeof(route->lmtp));
	hash = mix_text(hash, route->text);
	for (uint32_t i = 0; i < route->host_count; i++) {
		hash = mix_text(hash, route->hosts[i].name);
		hash = mix(hash, &route->hosts[i].port, sizeof(route->hosts[i].port));
	}
	hash = mix_options(hash, config_delivery_options, &route->delivery);
	return mix_options(hash, config_timeouts_options, &route->delivery.timeouts);
}

/* ── what stays ───────────────────────────────────────────────────────────────────── */

static const struct config_option *top_option(const char *name)
{
	for (const struct config_option *option = config_top_options; option->name; option++)
		if (strcmp(option->name, name) == 0)
			return option;
	return NULL;
}

static bool option_copy(const struct config_option *option, struct config *to,
			const struct config *from)
{
	void *own = (char *)to + option->offset;
	const void *other = (const char *)from + option->offset;

	if (option->kind == CONFIG_TEXT) {
		const char *text = *(const char *const *)other;
		char *copy = text == NULL ? NULL : strdup(text);

		if (text != NULL && copy == NULL)
			return false;
		free(*(char **)own);
		*(char **)own = copy;
		return true;
	}
	memcpy(own, other, option->bytes);
	return true;
}

bool config_keep_fixed(struct config *next, const struct config *now, char *names_out,
		       size_t names_bytes)
{
	size_t used = 0;

	names_out[0] = '\0';
	for (size_t i = 0; i < array_count(fixed); i++) {
		const struct config_option *option = top_option(fixed[i]);
		struct config_option one[2] = { { 0 } };

		assert(option != NULL);
		one[0] = *option;
		if (mix_options(0, one, next) == mix_options(0, one, now))
			continue;
		used += (size_t)snprintf(names_out + used, names_bytes - used, "%s%s",
					 used > 0 ? ", " : "", option->name);
		assert(used < names_bytes);
		if (!option_copy(option, next, now))
			return false;
	}
	return true;
}

const struct config_listener *config_listener_same(const struct config *config,
						   const struct config_listener *listener)
{
	for (uint32_t i = 0; i < config->listener_count; i++)
		if (os_address_equal(&config->listeners[i].address, &listener->address))
			return &config->listeners[i];
	return NULL;
}

static bool addresses_meet(const struct os_address *a, const struct os_address *b)
{
	if (os_address_equal(a, b))
		return true;
	return a->family == b->family && a->port == b->port &&
	       (os_address_is_any(a) || os_address_is_any(b));
}

bool config_listener_meets(const struct config *config, const struct config_listener *listener)
{
	for (uint32_t i = 0; i < config->listener_count; i++)
		if (addresses_meet(&config->listeners[i].address, &listener->address))
			return true;
	return false;
}
