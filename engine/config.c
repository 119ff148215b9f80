/*
 * config - reads the file with libconfuse, and builds a struct config from its tree.
 *
 * libconfuse splits the file into options and texts; every option is a text to it. What the
 * texts mean is decided here after reading, section by section, so that routes inherit from
 * `delivery` wherever that stands, and one run reports all wrong values. A text carries the
 * line that it stood on: "12:30s".
 */
#include "engine/config.h"

#include <confuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/config_route.h"
#include "engine/config_table.h"
#include "engine/config_value.h"

#define FILE_BYTES_MAX	    (64u << 20)
#define SECTION_OPTIONS_MAX 48
#define END_OPTION	    "end-of-file"
#define FLAG_GIVEN	    (1 << 30) /* ours, beside libconfuse's flags of an option */

/* One config_load(). */
struct reader {
	const char *path;
	char *error; /* the caller's buffer: a line for each complaint */
	size_t error_bytes, error_used;
	bool failed;
	char *text; /* of the last on_value(), which libconfuse copies */
	struct config *config;
};

/* libconfuse's callbacks have no context. */
static _Thread_local struct reader *reading;

__attribute__((format(printf, 3, 4))) static void complain(struct reader *reader, int line,
							   const char *format, ...)
{
	size_t room = reader->error_bytes - reader->error_used;
	char text[1024];
	va_list list;
	int length;

	reader->failed = true;
	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	if (line > 0)
		length = snprintf(reader->error + reader->error_used, room, "%s%s:%d: %s",
				  reader->error_used > 0 ? "\n" : "", reader->path, line, text);
	else
		length = snprintf(reader->error + reader->error_used, room, "%s%s: %s",
				  reader->error_used > 0 ? "\n" : "", reader->path, text);
	reader->error_used += (size_t)length < room ? (size_t)length : room > 0 ? room - 1 : 0;
}

/* ── libconfuse's side ────────────────────────────────────────────────────────────── */

static void on_error(cfg_t *cfg, const char *format, va_list list)
{
	char text[512];

	vsnprintf(text, sizeof(text), format, list);
	if (strstr(text, END_OPTION) != NULL)
		return complain(reading, cfg->line, "a '{' is not closed. Add the '}'.");
	complain(reading, cfg->line,
		 "%s. Correct it as stafette.conf(5) says; what follows was not read.", text);
}

static int on_value(cfg_t *cfg, cfg_opt_t *option, const char *value, void *result)
{
	if (option->nvalues == 1) { /* the first value behind a '=' */
		if ((option->flags & FLAG_GIVEN) != 0)
			complain(reading, cfg->line, "%s is given twice. Remove one.",
				 option->name);
		option->flags |= FLAG_GIVEN;
	}
	free(reading->text);
	if (asprintf(&reading->text, "%d:%s", cfg->line, value) < 0) {
		reading->text = NULL;
		return -1;
	}
	*(const char **)result = reading->text;
	return 0;
}

/* The options of one section, as libconfuse wants them; it copies them. */
struct section {
	cfg_opt_t options[SECTION_OPTIONS_MAX];
	size_t count;
};

static void section_add(struct section *section, cfg_opt_t option)
{
	assert(section->count + 1 < SECTION_OPTIONS_MAX);
	section->options[section->count++] = option;
	section->options[section->count] = (cfg_opt_t)CFG_END();
}

static void section_text(struct section *section, const char *name)
{
	section_add(section, (cfg_opt_t)CFG_STR_CB(name, NULL, CFGF_NODEFAULT, on_value));
}

static void section_list(struct section *section, const char *name)
{
	section_add(section, (cfg_opt_t)CFG_STR_LIST_CB(name, NULL, CFGF_NODEFAULT, on_value));
}

/* MULTI also where only one is allowed: libconfuse would drop the first without a word. */
static void section_nest(struct section *section, const char *name, struct section *inner,
			 cfg_flag_t flags)
{
	section_add(section, (cfg_opt_t)CFG_SEC(name, inner->options, CFGF_MULTI | flags));
}

static void section_table(struct section *section, const struct config_option *table)
{
	for (; table->name != NULL; table++)
		section_text(section, table->name);
}

static cfg_t *grammar_create(void)
{
	struct section timeouts = { 0 }, delivery = { 0 }, route = { 0 }, dns = { 0 }, top = { 0 };
	cfg_t *cfg;

	section_table(&timeouts, config_timeouts_options);
	section_table(&delivery, config_delivery_options);
	section_nest(&delivery, "timeouts", &timeouts, CFGF_NONE);
	section_table(&route, config_delivery_options);
	section_nest(&route, "timeouts", &timeouts, CFGF_NONE);
	section_text(&route, "to");
	section_text(&route, "fail");
	section_text(&route, "discard");
	section_text(&route, "accept");
	section_list(&route, "hosts");
	section_table(&dns, config_dns_options);
	section_list(&dns, "servers");
	section_table(&top, config_top_options);
	section_list(&top, "listen");
	section_list(&top, "trusted");
	section_text(&top, END_OPTION);
	section_nest(&top, "delivery", &delivery, CFGF_NONE);
	section_nest(&top, "dns", &dns, CFGF_NONE);
	section_nest(&top, "route", &route, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	cfg = cfg_init(top.options, CFGF_NONE);
	if (cfg != NULL)
		cfg_set_error_function(cfg, on_error);
	return cfg;
}

/* ── values ───────────────────────────────────────────────────────────────────────── */

/* The text of an option's value, borrowed from the tree, and its line; NULL if it isn't given. */
static const char *value_of(cfg_t *section, const char *name, unsigned int index, int *line_out)
{
	cfg_opt_t *option = cfg_getopt(section, name);
	char *text;

	if (option == NULL || index >= cfg_opt_size(option))
		return NULL;
	*line_out = (int)strtol(cfg_opt_getnstr(option, index), &text, 10);
	assert(*text == ':');
	return text + 1;
}

static void options_apply(struct reader *reader, cfg_t *section, const struct config_option *option,
			  void *target)
{
	for (; option->name != NULL; option++) {
		int line;
		const char *text = value_of(section, option->name, 0, &line);
		const char *expected =
			text == NULL ? NULL : config_option_set(option, target, text);

		if (expected != NULL)
			complain(reader, line, "%s = \"%s\" is not possible. Give %s.",
				 option->name, text, expected);
	}
}

/* The only section of that name; NULL if there is none. */
static cfg_t *section_only(struct reader *reader, cfg_t *parent, const char *name)
{
	unsigned int count = cfg_size(parent, name);

	if (count > 1)
		complain(reader, cfg_getnsec(parent, name, 1)->line,
			 "section %s is given twice. Put all of it into one.", name);
	return count > 0 ? cfg_getnsec(parent, name, 0) : NULL;
}

static void delivery_apply(struct reader *reader, cfg_t *section, struct config_delivery *delivery)
{
	cfg_t *timeouts = section_only(reader, section, "timeouts");

	options_apply(reader, section, config_delivery_options, delivery);
	if (timeouts != NULL)
		options_apply(reader, timeouts, config_timeouts_options, &delivery->timeouts);
	if (delivery->connections_start > delivery->connections_max)
		delivery->connections_start = delivery->connections_max;
}

/* ── routes ───────────────────────────────────────────────────────────────────────── */

static void route_hosts_apply(struct reader *reader, cfg_t *section, struct config_route *route)
{
	unsigned int count = cfg_size(section, "hosts");

	if (count == 0)
		return;
	route->hosts = calloc(count, sizeof(*route->hosts));
	if (route->hosts == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = value_of(section, "hosts", i, &line);

		if (config_parse_host(text, route->delivery.port, &route->hosts[route->host_count]))
			route->host_count++;
		else
			complain(reader, line,
				 "\"%s\" is not a host. Give a name or an address, with ':' and a "
				 "port if it isn't %u.",
				 text, route->delivery.port);
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

static void route_fail_apply(struct reader *reader, cfg_t *section, struct config_route *route)
{
	int line;
	const char *text = value_of(section, "fail", 0, &line);

	if (text == NULL)
		return;
	route->action = CONFIG_ROUTE_FAIL;
	if (!is_failure_text(text))
		complain(reader, line,
			 "fail = \"%s\" has no code and text in ASCII. Give one like "
			 "\"5.1.1 nobody here\".",
			 text);
	route->text = strdup(text);
}

static void route_bool_apply(struct reader *reader, cfg_t *section, const char *name, bool *field)
{
	int line;
	const char *text = value_of(section, name, 0, &line);

	if (text != NULL && !config_parse_bool(text, field))
		complain(reader, line, "%s = \"%s\" is not possible. Give true or false.", name,
			 text);
}

static void route_action_apply(struct reader *reader, cfg_t *section, struct config_route *route)
{
	bool discard = false;
	int line, actions;
	const char *to = value_of(section, "to", 0, &line);

	if (to != NULL && strcmp(to, "mx") != 0)
		complain(reader, line, "to = \"%s\" is not possible. Give \"mx\", or use hosts.",
			 to);
	route_hosts_apply(reader, section, route);
	route_fail_apply(reader, section, route);
	route_bool_apply(reader, section, "discard", &discard);
	if (discard)
		route->action = CONFIG_ROUTE_DISCARD;
	actions = (to != NULL) + (cfg_size(section, "hosts") > 0) + (route->text != NULL) + discard;
	if (actions > 1)
		complain(reader, section->line,
			 "route \"%s\" has more than one of to, hosts, fail and discard. Keep one.",
			 cfg_title(section));
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

static void route_apply(struct reader *reader, cfg_t *section, struct config_route *route)
{
	const char *title = cfg_title(section);

	route->delivery = reader->config->delivery;
	route->action = CONFIG_ROUTE_MX;
	route->pattern = pattern_of(title);
	if (route->pattern == NULL)
		complain(reader, section->line,
			 "route \"%s\" is not a domain. Give \"example.com\", \".example.com\" for "
			 "all below it, or \"*\".",
			 title);
	delivery_apply(reader, section, &route->delivery);
	route_action_apply(reader, section, route);
	route_bool_apply(reader, section, "accept", &route->accept);
}

static void routes_apply(struct reader *reader, cfg_t *top)
{
	struct config *config = reader->config;
	unsigned int count = top == NULL ? 0 : cfg_size(top, "route");
	uint32_t twice;

	config->routes = calloc(count + 1, sizeof(*config->routes));
	if (config->routes == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++)
		route_apply(reader, cfg_getnsec(top, "route", i),
			    &config->routes[config->route_count++]);
	if (reader->failed)
		return;
	config_routes_default(config);
	if (!config_routes_index(config, &twice))
		return complain(reader, 0, "out of memory.");
	if (twice != UINT32_MAX)
		complain(reader, 0, "route \"%s\" is given twice. Remove one.",
			 config->routes[twice].pattern);
}

/* ── lists ────────────────────────────────────────────────────────────────────────── */

/* `top` NULL: the built-in listener. */
static void listeners_apply(struct reader *reader, cfg_t *top)
{
	struct config *config = reader->config;
	bool given = top != NULL && (cfg_getopt(top, "listen")->flags & CFGF_MODIFIED) != 0;
	unsigned int count = given ? cfg_size(top, "listen") : 1;

	config->listeners = calloc(count, sizeof(*config->listeners));
	if (config->listeners == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		struct config_listener *listener = &config->listeners[config->listener_count];
		int line = 0;
		const char *text = given ? value_of(top, "listen", i, &line) : "127.0.0.1:2525";

		listener->text = strdup(text);
		config->listener_count++;
		if (!config_parse_listener(text, &listener->address))
			complain(reader, line,
				 "\"%s\" cannot be listened on. Give an address and a port such as "
				 "\"0.0.0.0:25\" or \"[::]:25\", or the path of a socket.",
				 text);
	}
}

static void trusted_apply(struct reader *reader, cfg_t *top)
{
	static const char *const built_in[] = { "127.0.0.0/8", "::1/128" };
	struct config *config = reader->config;
	bool given = top != NULL && (cfg_getopt(top, "trusted")->flags & CFGF_MODIFIED) != 0;
	unsigned int count = given ? cfg_size(top, "trusted") : array_count(built_in);

	config->trusted = calloc(count, sizeof(*config->trusted));
	if (config->trusted == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = given ? value_of(top, "trusted", i, &line) : built_in[i];

		if (!config_parse_network(text, &config->trusted[config->trusted_count++]))
			complain(reader, line,
				 "\"%s\" is not a network. Give one such as \"192.0.2.0/24\" or "
				 "\"2001:db8::/32\", with zeros behind the prefix.",
				 text);
	}
}

static bool is_name_server(const char *text)
{
	struct config_host host;
	struct os_address address;
	bool fine;

	if (!config_parse_host(text, 53, &host))
		return false;
	fine = os_address_parse(host.name, host.port, &address);
	free(host.name);
	return fine;
}

/* Joins the list into what os_dns_start() reads. */
static void dns_apply(struct reader *reader, cfg_t *section)
{
	struct config *config = reader->config;
	char *servers = NULL;

	options_apply(reader, section, config_dns_options, config);
	for (unsigned int i = 0; i < cfg_size(section, "servers"); i++) {
		int line = 0;
		const char *text = value_of(section, "servers", i, &line);
		char *joined;

		if (!is_name_server(text))
			complain(reader, line,
				 "\"%s\" is not a name server. Give an address such as "
				 "\"127.0.0.1:53\" or \"[::1]:53\".",
				 text);
		if (asprintf(&joined, "%s%s%s", i > 0 ? servers : "", i > 0 ? ", " : "", text) < 0)
			return complain(reader, 0, "out of memory.");
		free(servers);
		servers = joined;
	}
	config->dns.servers = servers;
}

/* ── the whole ────────────────────────────────────────────────────────────────────── */

/* Makes A-labels of the domain that begins at `at`. False: it is none. */
static bool domain_rewrite(char **text, size_t at)
{
	char domain[IDN_DOMAIN_BYTES], *rewritten;

	if (!config_parse_domain(*text + at, domain) ||
	    asprintf(&rewritten, "%.*s%s", (int)at, *text, domain) < 0)
		return false;
	free(*text);
	*text = rewritten;
	return true;
}

static bool postmaster_rewrite(char **address)
{
	const char *sign = strrchr(*address, '@');

	return sign != NULL && sign > *address &&
	       domain_rewrite(address, (size_t)(sign + 1 - *address));
}

/* What no table can say. */
static void top_check(struct reader *reader)
{
	struct config *config = reader->config;
	const struct {
		const char *name;
		uint32_t bytes;
	} files[] = { { "segment_bytes", config->segment_bytes },
		      { "journal_bytes", config->journal_bytes } };

	if (!domain_rewrite(&config->hostname, 0))
		complain(reader, 0,
			 "hostname \"%s\" is not a domain name. Set hostname to this machine's "
			 "full name in DNS.",
			 config->hostname);
	if (config->postmaster != NULL && !postmaster_rewrite(&config->postmaster))
		complain(reader, 0,
			 "postmaster \"%s\" is not an address. Give one such as "
			 "\"postmaster@example.com\".",
			 config->postmaster);
	for (size_t i = 0; i < array_count(files); i++)
		if (files[i].bytes != 0 &&
		    (files[i].bytes < (1u << 20) || (files[i].bytes & (files[i].bytes - 1)) != 0))
			complain(reader, 0,
				 "%s = %u is not possible. Give 1M, 2M, 4M and so on to 256M.",
				 files[i].name, files[i].bytes);
}

static void text_default(struct reader *reader, char **text, const char *value)
{
	if (*text == NULL)
		*text = strdup(value);
	if (*text == NULL)
		complain(reader, 0, "out of memory.");
}

/* `top` NULL: the built-in configuration. */
static void top_apply(struct reader *reader, cfg_t *top)
{
	struct config *config = reader->config;

	config_options_default(config_top_options, config);
	config_options_default(config_dns_options, config);
	config_options_default(config_delivery_options, &config->delivery);
	config_options_default(config_timeouts_options, &config->delivery.timeouts);
	if (top != NULL) {
		cfg_t *delivery = section_only(reader, top, "delivery");
		cfg_t *dns = section_only(reader, top, "dns");

		options_apply(reader, top, config_top_options, config);
		if (delivery != NULL)
			delivery_apply(reader, delivery, &config->delivery);
		if (dns != NULL)
			dns_apply(reader, dns);
	}
	text_default(reader, &config->hostname, os_host_name());
	text_default(reader, &config->spool, geteuid() == 0 ? "/var/spool/stafette" : "spool");
	listeners_apply(reader, top);
	trusted_apply(reader, top);
	routes_apply(reader, top);
	top_check(reader);
}

/* To libconfuse the end of the file closes every section. An option behind the end, which only
 * the top level knows, finds out what is still open. */
static bool parse(cfg_t *cfg, const char *bytes, size_t count)
{
	const char *line_end = count > 0 && bytes[count - 1] != '\n' ? "\n" : "";
	char *whole;
	int result;

	if (asprintf(&whole, "%s%s" END_OPTION " = here\n", bytes, line_end) < 0)
		return false;
	result = cfg_parse_buf(cfg, whole);
	free(whole);
	return result == CFG_SUCCESS;
}

static void file_apply(struct reader *reader)
{
	cfg_t *cfg;
	char *bytes;
	size_t count;
	int failed = os_file_load(OS_CURRENT_FOLDER, reader->path, FILE_BYTES_MAX, &bytes, &count);

	if (failed < 0)
		return complain(reader, 0, "cannot be read: %s. Give a readable file.",
				strerror(-failed));
	cfg = grammar_create();
	reading = reader;
	if (cfg == NULL)
		complain(reader, 0, "out of memory.");
	else if (strlen(bytes) != count)
		complain(reader, 0, "contains a zero byte. Write it as plain text.");
	else if (!parse(cfg, bytes, count) && !reader->failed)
		complain(reader, cfg->line, "cannot be understood. See stafette.conf(5).");
	if (cfg != NULL) {
		top_apply(reader, cfg);
		cfg_free(cfg);
	}
	reading = NULL;
	free(reader->text);
	free(bytes);
}

struct config *config_load(const char *path, char *error, size_t error_bytes)
{
	struct config *config = calloc(1, sizeof(*config));
	struct reader reader = {
		.path = path != NULL ? path : "(built in)",
		.error = error,
		.error_bytes = error_bytes,
		.config = config,
	};

	assert(error_bytes > 0);
	error[0] = '\0';
	if (config == NULL)
		complain(&reader, 0, "out of memory.");
	else if (path != NULL && (config->path = strdup(path)) == NULL)
		complain(&reader, 0, "out of memory.");
	else if (path != NULL)
		file_apply(&reader);
	else
		top_apply(&reader, NULL);
	if (!reader.failed)
		return config;
	config_destroy(config);
	return NULL;
}

void config_destroy(struct config *config)
{
	if (config == NULL)
		return;
	config_routes_free(config);
	for (uint32_t i = 0; i < config->listener_count; i++)
		free(config->listeners[i].text);
	free(config->listeners);
	free(config->trusted);
	free((char *)config->dns.servers);
	config_options_free(config_top_options, config);
	free(config->path);
	free(config);
}
