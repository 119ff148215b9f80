#include "engine/config/route_section.h"

#include <stdlib.h>

#include "engine/config/change.h"
#include "engine/config/route.h"
#include "engine/config/value.h"

#define SMTP_PORT 25
#define LMTP_PORT 24 /* as mail stores have it: none is registered */

void config_delivery_apply(struct config_reader *reader, struct config_section *section,
			   struct config_delivery *delivery)
{
	struct config_section *timeouts = config_section_only(reader, section, "timeouts");

	config_section_apply(reader, section, config_delivery_options, delivery);
	if (timeouts != NULL)
		config_section_apply(reader, timeouts, config_timeouts_options,
				     &delivery->timeouts);
	if (delivery->connections_start > delivery->connections_max)
		delivery->connections_start = delivery->connections_max;
}

/* RFC 2033, 5: LMTP on port 25 would be mail for a relay that does not know it. */
static void host_check(struct config_reader *reader, int line, const struct config_route *route,
		       const struct config_host *host)
{
	bool path = host->name[0] == '/';

	if (path && !route->lmtp)
		config_complain(
			reader, line,
			"\"%s\" is a UNIX socket, where only LMTP is spoken. Set lmtp = true.",
			host->name);
	else if (!path && route->lmtp && host->port == SMTP_PORT)
		config_complain(
			reader, line,
			"\"%s\" has port 25, which is not for LMTP. Give the port on which it "
			"takes LMTP.",
			host->name);
}

static void route_hosts_apply(struct config_reader *reader, struct config_section *section,
			      struct config_route *route)
{
	unsigned int count = config_section_count(section, "hosts");

	if (count == 0 && config_section_gives(section, "hosts"))
		config_complain(
			reader, config_section_line(section),
			"route \"%s\" has hosts = {}, which names none. Give one at least, or "
			"to = \"mx\" in its place.",
			config_section_title(section));
	if (count == 0)
		return;
	route->hosts = calloc(count, sizeof(*route->hosts));
	if (route->hosts == NULL)
		return config_complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = config_section_text(section, "hosts", i, &line);
		struct config_host *host = &route->hosts[route->host_count];

		if (config_parse_socket(text, host) ||
		    config_parse_host(text, route->delivery.port, host)) {
			host_check(reader, line, route, host);
			route->host_count++;
		} else {
			config_complain(
				reader, line,
				"\"%s\" is not a host. Give a name or an address, with ':' and a "
				"port if it isn't %u.",
				text, route->delivery.port);
		}
	}
	route->action = CONFIG_ROUTE_HOSTS;
}

/* Past one to three digits and `end`, or NULL. */
static const char *digits_skip(const char *at, char end)
{
	size_t count = strspn(at, "0123456789");

	return count >= 1 && count <= 3 && at[count] == end ? at + count + 1 : NULL;
}

/* "5.1.1 gone": what a reply and a report need. */
static bool is_failure_text(const char *text)
{
	const char *at = strncmp(text, "5.", 2) == 0 ? digits_skip(text + 2, '.') : NULL;

	if (at != NULL)
		at = digits_skip(at, ' ');
	if (at == NULL || *at == '\0')
		return false;
	for (; *at != '\0'; at++)
		if (*at < ' ' || *at > '~')
			return false;
	return true;
}

static void route_fail_apply(struct config_reader *reader, struct config_section *section,
			     struct config_route *route)
{
	int line;
	const char *text = config_section_text(section, "fail", 0, &line);

	if (text == NULL)
		return;
	route->action = CONFIG_ROUTE_FAIL;
	if (!is_failure_text(text))
		config_complain(reader, line,
				"fail = \"%s\" has no code and text in ASCII. Give one like "
				"\"5.1.1 nobody here\".",
				text);
	route->text = config_text_copy(reader, text);
}

static void route_bool_apply(struct config_reader *reader, struct config_section *section,
			     const char *name, bool *field)
{
	int line;
	const char *text = config_section_text(section, name, 0, &line);

	if (text != NULL && !config_parse_bool(text, field))
		config_complain(reader, line, "%s = \"%s\" is not possible. Give true or false.",
				name, text);
}

static void route_lmtp_apply(struct config_reader *reader, struct config_section *section,
			     struct config_route *route)
{
	route_bool_apply(reader, section, "lmtp", &route->lmtp);
	if (!route->lmtp)
		return;
	if (config_section_count(section, "port") == 0)
		route->delivery.port = LMTP_PORT;
	if (!config_section_gives(section, "hosts"))
		config_complain(reader, config_section_line(section),
				"route \"%s\" has lmtp without hosts. Give them.",
				config_section_title(section));
}

static void route_action_apply(struct config_reader *reader, struct config_section *section,
			       struct config_route *route)
{
	bool discard = false;
	int line, actions;
	const char *to = config_section_text(section, "to", 0, &line);

	if (to != NULL && strcmp(to, "mx") != 0)
		config_complain(reader, line,
				"to = \"%s\" is not possible. Give \"mx\", or use hosts.", to);
	route_hosts_apply(reader, section, route);
	route_fail_apply(reader, section, route);
	route_bool_apply(reader, section, "discard", &discard);
	if (discard)
		route->action = CONFIG_ROUTE_DISCARD;
	actions = (to != NULL) + (config_section_count(section, "hosts") > 0) +
		  (route->text != NULL) + discard;
	if (actions > 1)
		config_complain(
			reader, config_section_line(section),
			"route \"%s\" has more than one of to, hosts, fail and discard. Keep one.",
			config_section_title(section));
}

/* The pattern of a route's title, allocated; NULL: it is none. */
static char *pattern_of(const char *title)
{
	char pattern[1 + IDN_DOMAIN_BYTES] = ".";
	size_t dot = title[0] == '.';

	if (strcmp(title, "*") == 0)
		return strdup(title);
	return config_parse_domain(title + dot, pattern + dot) ? strdup(pattern) : NULL;
}

static void route_apply(struct config_reader *reader, struct config_section *section,
			struct config_route *route)
{
	const char *title = config_section_title(section);

	route->delivery = reader->config->delivery;
	route->action = CONFIG_ROUTE_MX;
	route->line = config_section_line(section);
	route->pattern = pattern_of(title);
	if (route->pattern == NULL)
		config_complain(
			reader, config_section_line(section),
			"route \"%s\" is not a domain. Give \"example.com\", \".example.com\" for "
			"all below it, or \"*\".",
			title);
	config_delivery_apply(reader, section, &route->delivery);
	route_lmtp_apply(reader, section, route);
	route_action_apply(reader, section, route);
	route_bool_apply(reader, section, "accept", &route->accept);
}

/* The reader has refused equal titles; these are one domain in other letters or labels. */
static void routes_check_twice(struct config_reader *reader)
{
	const struct config *config = reader->config;

	for (uint32_t i = 0; i < config->route_count; i++) {
		const struct config_route *route = &config->routes[i];
		const struct config_route *first = config_routes_first(config, route);

		if (first != route)
			config_complain(reader, route->line,
					"route \"%s\" is given twice; the first one ends in line "
					"%d. Remove one.",
					route->pattern, first->line);
	}
}

void config_routes_apply(struct config_reader *reader, struct config_section *top)
{
	struct config *config = reader->config;
	unsigned int count = top == NULL ? 0 : config_section_count(top, "route");

	config->routes = calloc(count + 1, sizeof(*config->routes));
	if (config->routes == NULL)
		return config_complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++)
		route_apply(reader, config_section_nth(top, "route", i),
			    &config->routes[config->route_count++]);
	if (reader->failed)
		return;
	config_routes_default(config);
	for (uint32_t i = 0; i < config->route_count; i++)
		config->routes[i].identity = config_route_identity(&config->routes[i]);
	if (!config_routes_index(config))
		return config_complain(reader, 0, "out of memory.");
	routes_check_twice(reader);
}
