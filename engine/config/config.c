/*
 * config - reads the file with libconfuse, and builds a struct config from its tree.
 *
 * libconfuse splits the file into options and texts; every option is a text to it. What the
 * texts mean is decided here after reading, section by section, so that routes inherit from
 * `delivery` wherever that stands, and one run reports all wrong values. A text carries the
 * line that it stood on: "12:30s".
 */
#include "engine/config/config.h"

#include <confuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/auth/credentials.h"
#include "engine/config/change.h"
#include "engine/config/route.h"
#include "engine/config/table.h"
#include "engine/config/value.h"

#define FILE_BYTES_MAX	    (64u << 20)
#define SECTION_OPTIONS_MAX 48
#define END_OPTION	    "end-of-file"
#define SMTP_PORT	    25
#define LMTP_PORT	    24	      /* as mail stores have it: none is registered */
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
	struct section tls = { 0 }, certificate = { 0 }, listener = { 0 };
	struct section auth = { 0 };
	struct section dkim = { 0 }, dkim_domain = { 0 }, dkim_key = { 0 };
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
	section_text(&route, "lmtp");
	section_list(&route, "hosts");
	section_table(&dns, config_dns_options);
	section_list(&dns, "servers");
	section_table(&tls, config_tls_options);
	section_table(&auth, config_auth_options);
	section_table(&certificate, config_certificate_options);
	section_table(&listener, config_listener_options);
	section_list(&listener, "proxy_networks");
	section_list(&listener, "xclient_networks");
	section_table(&dkim_key, config_dkim_key_options);
	section_table(&dkim_domain, config_dkim_domain_options);
	section_nest(&dkim_domain, "key", &dkim_key, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	section_table(&dkim, config_dkim_options);
	section_nest(&dkim, "domain", &dkim_domain, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	section_table(&top, config_top_options);
	section_list(&top, "listen");
	section_list(&top, "trusted");
	section_text(&top, END_OPTION);
	section_nest(&top, "delivery", &delivery, CFGF_NONE);
	section_nest(&top, "dns", &dns, CFGF_NONE);
	section_nest(&top, "tls", &tls, CFGF_NONE);
	section_nest(&top, "auth", &auth, CFGF_NONE);
	section_nest(&top, "certificate", &certificate, CFGF_NONE);
	section_nest(&top, "listener", &listener, CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	section_nest(&top, "dkim", &dkim, CFGF_NONE);
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

/* RFC 2033, 5: LMTP on port 25 would be mail for a relay that does not know it. */
static void host_check(struct reader *reader, int line, const struct config_route *route,
		       const struct config_host *host)
{
	bool path = host->name[0] == '/';

	if (path && !route->lmtp)
		complain(reader, line,
			 "\"%s\" is a UNIX socket, where only LMTP is spoken. Set lmtp = true.",
			 host->name);
	else if (!path && route->lmtp && host->port == SMTP_PORT)
		complain(reader, line,
			 "\"%s\" has port 25, which is not for LMTP. Give the port on which it "
			 "takes LMTP.",
			 host->name);
}

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
		struct config_host *host = &route->hosts[route->host_count];

		if (config_parse_socket(text, host) ||
		    config_parse_host(text, route->delivery.port, host)) {
			host_check(reader, line, route, host);
			route->host_count++;
		} else {
			complain(reader, line,
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

static void route_lmtp_apply(struct reader *reader, cfg_t *section, struct config_route *route)
{
	route_bool_apply(reader, section, "lmtp", &route->lmtp);
	if (!route->lmtp)
		return;
	if (cfg_size(section, "port") == 0)
		route->delivery.port = LMTP_PORT;
	if (cfg_size(section, "hosts") == 0)
		complain(reader, section->line, "route \"%s\" has lmtp without hosts. Give them.",
			 cfg_title(section));
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
	route_lmtp_apply(reader, section, route);
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
	for (uint32_t i = 0; i < config->route_count; i++)
		config->routes[i].identity = config_route_identity(&config->routes[i]);
	if (!config_routes_index(config, &twice))
		return complain(reader, 0, "out of memory.");
	if (twice != UINT32_MAX)
		complain(reader, 0, "route \"%s\" is given twice. Remove one.",
			 config->routes[twice].pattern);
}

/* ── lists ────────────────────────────────────────────────────────────────────────── */

static bool networks_allocate(struct reader *reader, unsigned int count,
			      struct config_networks *networks)
{
	networks->list = calloc(count + 1, sizeof(*networks->list));
	if (networks->list == NULL)
		complain(reader, 0, "out of memory.");
	return networks->list != NULL;
}

static void network_add(struct reader *reader, int line, const char *text,
			struct config_networks *networks)
{
	if (!config_parse_network(text, &networks->list[networks->count++]))
		complain(reader, line,
			 "\"%s\" is not a network. Give one such as \"192.0.2.0/24\" or "
			 "\"2001:db8::/32\", with zeros behind the prefix.",
			 text);
}

static void networks_apply(struct reader *reader, cfg_t *section, const char *name,
			   struct config_networks *networks)
{
	unsigned int count = cfg_size(section, name);

	if (!networks_allocate(reader, count, networks))
		return;
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = value_of(section, name, i, &line);

		network_add(reader, line, text, networks);
	}
}

static void listener_add(struct reader *reader, int line, const char *text)
{
	struct config_listener *listener =
		&reader->config->listeners[reader->config->listener_count++];

	config_options_default(config_listener_options, listener);
	listener->text = strdup(text);
	listener->line = line;
	if (!config_parse_listener(text, &listener->address))
		complain(reader, line,
			 "\"%s\" cannot be listened on. Give an address and a port such as "
			 "\"0.0.0.0:25\" or \"[::]:25\", or the path of a socket.",
			 text);
}

/* What the auth options of a listener need. */
static void listener_auth_check(struct reader *reader, int line,
				const struct config_listener *listener)
{
	const struct config *config = reader->config;

	if (listener->auth_required && listener->auth == SMTP_AUTH_OFF)
		complain(reader, line,
			 "listener \"%s\" requires what it does not offer. Give auth as well.",
			 listener->text);
	if (listener->auth == SMTP_AUTH_OFF)
		return;
	if (config->auth.users == NULL && config->auth.dovecot == NULL)
		complain(reader, line,
			 "listener \"%s\" can check nobody. Give users or dovecot in a section "
			 "auth.",
			 listener->text);
	if (listener->auth == SMTP_AUTH_TLS &&
	    (listener->tls == CONFIG_LISTENER_NONE || config->certificate_count == 0))
		complain(reader, line,
			 "listener \"%s\" offers auth under TLS, and has no TLS. Give a section "
			 "certificate, or auth = \"always\".",
			 listener->text);
}

/* Who may speak for others there. */
static void listener_networks_apply(struct reader *reader, cfg_t *section,
				    struct config_listener *listener)
{
	bool proxies = cfg_size(section, "proxy_networks") > 0;

	networks_apply(reader, section, "proxy_networks", &listener->proxy_networks);
	networks_apply(reader, section, "xclient_networks", &listener->xclient_networks);
	if (listener->proxy_protocol && !proxies && listener->address.family != AF_UNIX)
		complain(
			reader, section->line,
			"listener \"%s\" would let nobody in. Give the addresses of the proxies in "
			"proxy_networks.",
			listener->text);
	if (!listener->proxy_protocol && proxies)
		complain(reader, section->line,
			 "listener \"%s\" has proxy_networks without a use. Set proxy_protocol = "
			 "true.",
			 listener->text);
}

static void listener_apply(struct reader *reader, cfg_t *section)
{
	struct config *config = reader->config;
	struct config_listener *listener = &config->listeners[config->listener_count];

	listener_add(reader, section->line, cfg_title(section));
	options_apply(reader, section, config_listener_options, listener);
	if (listener->tls >= CONFIG_LISTENER_REQUIRE && config->certificate_count == 0)
		complain(reader, section->line,
			 "listener \"%s\" needs a certificate. Give one in a section certificate.",
			 listener->text);
	listener_auth_check(reader, section->line, listener);
	listener_networks_apply(reader, section, listener);
}

/* `top` NULL: the built-in listener. A section, with options of its own, may stand in place of
 * the list, or beside it. */
static void listeners_apply(struct reader *reader, cfg_t *top)
{
	struct config *config = reader->config;
	bool listed = top != NULL && (cfg_getopt(top, "listen")->flags & CFGF_MODIFIED) != 0;
	unsigned int count = listed ? cfg_size(top, "listen") : 0;
	unsigned int sections = top != NULL ? cfg_size(top, "listener") : 0;

	config->listeners = calloc(count + sections + 1, sizeof(*config->listeners));
	if (config->listeners == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = value_of(top, "listen", i, &line);

		listener_add(reader, line, text);
	}
	for (unsigned int i = 0; i < sections; i++)
		listener_apply(reader, cfg_getnsec(top, "listener", i));
	if (!listed && sections == 0)
		listener_add(reader, 0, "127.0.0.1:2525");
}

static void auth_apply(struct reader *reader, cfg_t *section)
{
	struct config_auth *auth = &reader->config->auth;
	struct os_address address;

	options_apply(reader, section, config_auth_options, auth);
	if (auth->users != NULL && auth->dovecot != NULL)
		complain(reader, section->line, "auth has both users and dovecot. Keep one.");
	if (auth->dovecot != NULL &&
	    (auth->dovecot[0] != '/' || !os_address_parse(auth->dovecot, 0, &address)))
		complain(reader, section->line,
			 "dovecot = \"%s\" is not the path of a socket. Give one of at most 107 "
			 "octets, such as \"/run/dovecot/auth-client\".",
			 auth->dovecot);
}

static void certificates_apply(struct reader *reader, cfg_t *top)
{
	struct config *config = reader->config;
	unsigned int count = top != NULL ? cfg_size(top, "certificate") : 0;

	config->certificates = calloc(count + 1, sizeof(*config->certificates));
	if (config->certificates == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		struct config_certificate *certificate =
			&config->certificates[config->certificate_count++];
		cfg_t *section = cfg_getnsec(top, "certificate", i);

		options_apply(reader, section, config_certificate_options, certificate);
		if (certificate->chain == NULL || certificate->key == NULL)
			complain(reader, section->line,
				 "the certificate lacks a file. Give both chain and key.");
	}
}

/* ── DKIM ─────────────────────────────────────────────────────────────────────────── */

/* Selectors stand in the DNS before "._domainkey." and the domain: labels, like a domain. */
static void dkim_key_apply(struct reader *reader, cfg_t *section, struct config_dkim_key *key)
{
	char selector[IDN_DOMAIN_BYTES] = "";

	if (!config_parse_domain(cfg_title(section), selector) || strlen(selector) > 63)
		complain(reader, section->line,
			 "key \"%s\" is not a selector. Give letters, digits and hyphens, such as "
			 "\"s1\".",
			 cfg_title(section));
	key->selector = strdup(selector);
	options_apply(reader, section, config_dkim_key_options, key);
	if (key->file == NULL)
		complain(reader, section->line,
			 "key \"%s\" lacks its file. Give file = \"/path/of/the/key.pem\".",
			 cfg_title(section));
}

static void dkim_domain_apply(struct reader *reader, cfg_t *section,
			      struct config_dkim_domain *domain)
{
	unsigned int count = cfg_size(section, "key");
	char name[IDN_DOMAIN_BYTES] = "";

	config_options_default(config_dkim_domain_options, domain);
	options_apply(reader, section, config_dkim_domain_options, domain);
	if (!config_parse_domain(cfg_title(section), name))
		complain(reader, section->line,
			 "domain \"%s\" is not a domain. Give one such as \"example.com\".",
			 cfg_title(section));
	if (count == 0 || count > CONFIG_DKIM_KEYS_MAX)
		complain(reader, section->line,
			 "domain \"%s\" has %u keys. Give 1 to %d, each as key \"selector\" { file "
			 "= "
			 "... }.",
			 cfg_title(section), count, CONFIG_DKIM_KEYS_MAX);
	domain->name = strdup(name);
	domain->keys = calloc(count + 1, sizeof(*domain->keys));
	if (domain->name == NULL || domain->keys == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++)
		dkim_key_apply(reader, cfg_getnsec(section, "key", i),
			       &domain->keys[domain->key_count++]);
}

static bool dkim_has_domain(const struct config_dkim *dkim, const char *name)
{
	for (uint32_t i = 0; i < dkim->domain_count; i++)
		if (dkim->domains[i].name && strcmp(dkim->domains[i].name, name) == 0)
			return true;
	return false;
}

static void dkim_apply(struct reader *reader, cfg_t *section)
{
	struct config_dkim *dkim = &reader->config->dkim;
	unsigned int count = cfg_size(section, "domain");

	options_apply(reader, section, config_dkim_options, dkim);
	dkim->domains = calloc(count + 1, sizeof(*dkim->domains));
	if (dkim->domains == NULL)
		return complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++)
		dkim_domain_apply(reader, cfg_getnsec(section, "domain", i),
				  &dkim->domains[dkim->domain_count++]);
	if (dkim->domain_default[0] != '\0' && !dkim_has_domain(dkim, dkim->domain_default))
		complain(reader, section->line,
			 "default = \"%s\" has no keys. Give the name of one of the domains.",
			 dkim->domain_default);
}

static void dkim_free(struct config_dkim *dkim)
{
	for (uint32_t i = 0; i < dkim->domain_count; i++) {
		struct config_dkim_domain *domain = &dkim->domains[i];

		for (uint32_t k = 0; k < domain->key_count; k++) {
			free(domain->keys[k].selector);
			config_options_free(config_dkim_key_options, &domain->keys[k]);
		}
		free(domain->keys);
		free(domain->name);
	}
	free(dkim->domains);
}

static void trusted_apply(struct reader *reader, cfg_t *top)
{
	static const char *const built_in[] = { "127.0.0.0/8", "::1/128" };
	struct config_networks *trusted = &reader->config->trusted;

	if (top != NULL && (cfg_getopt(top, "trusted")->flags & CFGF_MODIFIED) != 0) {
		networks_apply(reader, top, "trusted", trusted);
		return;
	}
	if (!networks_allocate(reader, array_count(built_in), trusted))
		return;
	for (unsigned int i = 0; i < array_count(built_in); i++)
		network_add(reader, 0, built_in[i], trusted);
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
	config_options_default(config_tls_options, config);
	config_options_default(config_auth_options, &config->auth);
	config_options_default(config_dkim_options, &config->dkim);
	config_options_default(config_delivery_options, &config->delivery);
	config_options_default(config_timeouts_options, &config->delivery.timeouts);
	if (top != NULL) {
		cfg_t *delivery = section_only(reader, top, "delivery");
		cfg_t *dns = section_only(reader, top, "dns");
		cfg_t *tls = section_only(reader, top, "tls");
		cfg_t *dkim = section_only(reader, top, "dkim");
		cfg_t *auth = section_only(reader, top, "auth");

		options_apply(reader, top, config_top_options, config);
		if (delivery != NULL)
			delivery_apply(reader, delivery, &config->delivery);
		if (dns != NULL)
			dns_apply(reader, dns);
		if (tls != NULL)
			options_apply(reader, tls, config_tls_options, config);
		if (dkim != NULL)
			dkim_apply(reader, dkim);
		if (auth != NULL)
			auth_apply(reader, auth);
	}
	text_default(reader, &config->hostname, os_host_name());
	text_default(reader, &config->spool, geteuid() == 0 ? "/var/spool/stafette" : "spool");
	certificates_apply(reader, top);
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
	if (config != NULL)
		atomic_store_explicit(&config->references, 1, memory_order_relaxed);
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

const struct config *config_ref(const struct config *config)
{
	/* Relaxed: who takes a reference holds one. Counting is no change of the configuration. */
	uint32_t before = atomic_fetch_add_explicit(&((struct config *)config)->references, 1,
						    memory_order_relaxed);

	assert(before > 0);
	return config;
}

void config_unref(const struct config *config)
{
	struct config *own = (struct config *)config;

	if (config == NULL)
		return;
	/* The last one frees, after every other thread's reads of it. */
	uint32_t before = atomic_fetch_sub_explicit(&own->references, 1, memory_order_acq_rel);

	assert(before > 0);
	if (before == 1)
		config_destroy(own);
}

void config_destroy(struct config *config)
{
	if (config == NULL)
		return;
	config_routes_free(config);
	for (uint32_t i = 0; i < config->listener_count; i++) {
		free(config->listeners[i].text);
		free(config->listeners[i].proxy_networks.list);
		free(config->listeners[i].xclient_networks.list);
	}
	free(config->listeners);
	free(config->trusted.list);
	free((char *)config->dns.servers);
	for (uint32_t i = 0; i < config->certificate_count; i++)
		config_options_free(config_certificate_options, &config->certificates[i]);
	free(config->certificates);
	dkim_free(&config->dkim);
	config_options_free(config_tls_options, config);
	config_options_free(config_auth_options, &config->auth);
	credentials_destroy(config->credentials);
	config_options_free(config_top_options, config);
	free(config->path);
	free(config);
}
