/*
 * config - builds a struct config from the sections of a file. Those that are about the whole
 * daemon stand here; where mail comes in and goes out: listener_section.c, route_section.c.
 */
#include "engine/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/auth/credentials.h"
#include "engine/config/listener_section.h"
#include "engine/config/reader.h"
#include "engine/config/route.h"
#include "engine/config/route_section.h"
#include "engine/config/value.h"

/* ── users and certificates ───────────────────────────────────────────────────────── */

static void auth_apply(struct config_reader *reader, struct config_section *section)
{
	struct config_auth *auth = &reader->config->auth;
	struct os_address address;

	config_section_apply(reader, section, config_auth_options, auth);
	if (auth->users != NULL && auth->dovecot != NULL)
		config_complain(reader, config_section_line(section),
				"auth has both users and dovecot. Keep one.");
	if (auth->dovecot != NULL &&
	    (auth->dovecot[0] != '/' || !os_address_parse(auth->dovecot, 0, &address)))
		config_complain(
			reader, config_section_line(section),
			"dovecot = \"%s\" is not the path of a socket. Give one of at most 107 "
			"octets, such as \"/run/dovecot/auth-client\".",
			auth->dovecot);
}

static void certificates_apply(struct config_reader *reader, struct config_section *top)
{
	struct config *config = reader->config;
	unsigned int count = top != NULL ? config_section_count(top, "certificate") : 0;

	config->certificates = calloc(count + 1, sizeof(*config->certificates));
	if (config->certificates == NULL)
		return config_complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		struct config_certificate *certificate =
			&config->certificates[config->certificate_count++];
		struct config_section *section = config_section_nth(top, "certificate", i);

		config_section_apply(reader, section, config_certificate_options, certificate);
		if (certificate->chain == NULL || certificate->key == NULL)
			config_complain(reader, config_section_line(section),
					"the certificate lacks a file. Give both chain and key.");
	}
}

/* ── DKIM ─────────────────────────────────────────────────────────────────────────── */

/* Selectors stand in the DNS before "._domainkey." and the domain: labels, like a domain. */
static void dkim_key_apply(struct config_reader *reader, struct config_section *section,
			   struct config_dkim_key *key)
{
	char selector[IDN_DOMAIN_BYTES] = "";

	if (!config_parse_domain(config_section_title(section), selector) || strlen(selector) > 63)
		config_complain(
			reader, config_section_line(section),
			"key \"%s\" is not a selector. Give letters, digits and hyphens, such as "
			"\"s1\".",
			config_section_title(section));
	key->selector = config_text_copy(reader, selector);
	config_section_apply(reader, section, config_dkim_key_options, key);
	if (key->file == NULL)
		config_complain(reader, config_section_line(section),
				"key \"%s\" lacks its file. Give file = \"/path/of/the/key.pem\".",
				config_section_title(section));
}

static void dkim_domain_apply(struct config_reader *reader, struct config_section *section,
			      struct config_dkim_domain *domain)
{
	unsigned int count = config_section_count(section, "key");
	char name[IDN_DOMAIN_BYTES] = "";

	config_section_default(reader, config_dkim_domain_options, domain);
	config_section_apply(reader, section, config_dkim_domain_options, domain);
	if (!config_parse_domain(config_section_title(section), name))
		config_complain(reader, config_section_line(section),
				"domain \"%s\" is not a domain. Give one such as \"example.com\".",
				config_section_title(section));
	if (count == 0 || count > CONFIG_DKIM_KEYS_MAX)
		config_complain(
			reader, config_section_line(section),
			"domain \"%s\" has %u keys. Give 1 to %d, each as key \"selector\" { file "
			"= "
			"... }.",
			config_section_title(section), count, CONFIG_DKIM_KEYS_MAX);
	domain->name = strdup(name);
	domain->keys = calloc(count + 1, sizeof(*domain->keys));
	if (domain->name == NULL || domain->keys == NULL)
		return config_complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++)
		dkim_key_apply(reader, config_section_nth(section, "key", i),
			       &domain->keys[domain->key_count++]);
}

static bool dkim_has_domain(const struct config_dkim *dkim, const char *name)
{
	for (uint32_t i = 0; i < dkim->domain_count; i++)
		if (dkim->domains[i].name && strcmp(dkim->domains[i].name, name) == 0)
			return true;
	return false;
}

static void dkim_apply(struct config_reader *reader, struct config_section *section)
{
	struct config_dkim *dkim = &reader->config->dkim;
	unsigned int count = config_section_count(section, "domain");

	config_section_apply(reader, section, config_dkim_options, dkim);
	dkim->domains = calloc(count + 1, sizeof(*dkim->domains));
	if (dkim->domains == NULL)
		return config_complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++)
		dkim_domain_apply(reader, config_section_nth(section, "domain", i),
				  &dkim->domains[dkim->domain_count++]);
	if (dkim->domain_default[0] != '\0' && !dkim_has_domain(dkim, dkim->domain_default))
		config_complain(
			reader, config_section_line(section),
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

/* ── DNS ──────────────────────────────────────────────────────────────────────────── */

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
static void dns_apply(struct config_reader *reader, struct config_section *section)
{
	struct config *config = reader->config;
	char *servers = NULL;

	config_section_apply(reader, section, config_dns_options, config);
	for (unsigned int i = 0; i < config_section_count(section, "servers"); i++) {
		int line = 0;
		const char *text = config_section_text(section, "servers", i, &line);
		char *joined;

		if (!is_name_server(text))
			config_complain(reader, line,
					"\"%s\" is not a name server. Give an address such as "
					"\"127.0.0.1:53\" or \"[::1]:53\".",
					text);
		if (asprintf(&joined, "%s%s%s", i > 0 ? servers : "", i > 0 ? ", " : "", text) < 0)
			return config_complain(reader, 0, "out of memory.");
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
	struct smtp_address parsed;

	return sign != NULL && sign > *address &&
	       domain_rewrite(address, (size_t)(sign + 1 - *address)) &&
	       smtp_address_parse(span_text(*address), true, &parsed) == SMTP_ADDRESS_OK;
}

/* 0: it isn't given. */
static int line_of(struct config_section *top, const char *name)
{
	int line = 0;

	if (top != NULL)
		config_section_text(top, name, 0, &line);
	return line;
}

/* What no table can say. */
static void top_check(struct config_reader *reader, struct config_section *top)
{
	struct config *config = reader->config;
	const struct {
		const char *name;
		uint32_t bytes;
	} files[] = { { "segment_bytes", config->segment_bytes },
		      { "journal_bytes", config->journal_bytes } };

	if (config->hostname != NULL && !domain_rewrite(&config->hostname, 0))
		config_complain(
			reader, line_of(top, "hostname"),
			"hostname \"%s\" is not a domain name. Set hostname to this machine's "
			"full name in DNS.",
			config->hostname);
	if (config->postmaster != NULL && !postmaster_rewrite(&config->postmaster))
		config_complain(reader, line_of(top, "postmaster"),
				"postmaster \"%s\" is not an address. Give one such as "
				"\"postmaster@example.com\".",
				config->postmaster);
	for (size_t i = 0; i < array_count(files); i++)
		if (files[i].bytes != 0 &&
		    (files[i].bytes < (1u << 20) || (files[i].bytes & (files[i].bytes - 1)) != 0))
			config_complain(
				reader, line_of(top, files[i].name),
				"%s = %u is not possible. Give 1M, 2M, 4M and so on to 256M.",
				files[i].name, files[i].bytes);
}

static void text_default(struct config_reader *reader, char **text, const char *value)
{
	if (*text == NULL)
		*text = config_text_copy(reader, value);
}

/* `top` NULL: the built-in configuration. */
static void top_apply(struct config_reader *reader, struct config_section *top)
{
	struct config *config = reader->config;

	config_section_default(reader, config_top_options, config);
	config_section_default(reader, config_dns_options, config);
	config_section_default(reader, config_tls_options, config);
	config_section_default(reader, config_auth_options, &config->auth);
	config_section_default(reader, config_dkim_options, &config->dkim);
	config_section_default(reader, config_delivery_options, &config->delivery);
	config_section_default(reader, config_timeouts_options, &config->delivery.timeouts);
	if (top != NULL) {
		struct config_section *delivery = config_section_only(reader, top, "delivery");
		struct config_section *dns = config_section_only(reader, top, "dns");
		struct config_section *tls = config_section_only(reader, top, "tls");
		struct config_section *dkim = config_section_only(reader, top, "dkim");
		struct config_section *auth = config_section_only(reader, top, "auth");

		config_section_apply(reader, top, config_top_options, config);
		if (delivery != NULL)
			config_delivery_apply(reader, delivery, &config->delivery);
		if (dns != NULL)
			dns_apply(reader, dns);
		if (tls != NULL)
			config_section_apply(reader, tls, config_tls_options, config);
		if (dkim != NULL)
			dkim_apply(reader, dkim);
		if (auth != NULL)
			auth_apply(reader, auth);
	}
	text_default(reader, &config->hostname, os_host_name());
	text_default(reader, &config->spool, geteuid() == 0 ? "/var/spool/stafette" : "spool");
	certificates_apply(reader, top);
	config_listeners_apply(reader, top);
	config_trusted_apply(reader, top);
	config_routes_apply(reader, top);
	top_check(reader, top);
}

static void file_apply(struct config_reader *reader)
{
	struct config_section *top = config_reader_open(reader);

	if (top != NULL)
		top_apply(reader, top);
	config_reader_close(reader);
}

struct config *config_load(const char *path, char *error, size_t error_bytes)
{
	struct config *config = calloc(1, sizeof(*config));
	struct config_reader reader = {
		.path = path != NULL ? path : "(built in)",
		.error = error,
		.error_bytes = error_bytes,
		.config = config,
	};

	assert(error_bytes > 0);
	error[0] = '\0';
	if (config != NULL)
		edition_init(&config->edition);
	if (config == NULL)
		config_complain(&reader, 0, "out of memory.");
	else if (path != NULL && (config->path = strdup(path)) == NULL)
		config_complain(&reader, 0, "out of memory.");
	else if (path != NULL)
		file_apply(&reader);
	else
		top_apply(&reader, NULL);
	if (!reader.failed)
		return config;
	config_destroy(config);
	return NULL;
}

/* Counting is no change of the configuration. */
static struct edition *edition_of(const struct config *config)
{
	return &((struct config *)config)->edition;
}

const struct config *config_ref(const struct config *config)
{
	edition_hold(edition_of(config));
	return config;
}

void config_unref(const struct config *config)
{
	if (config != NULL && edition_let_go(edition_of(config)))
		config_destroy((struct config *)config);
}

void config_favour(const struct config *config)
{
	edition_favour(config != NULL ? edition_of(config) : NULL);
}

void config_destroy(struct config *config)
{
	if (config == NULL)
		return;
	config_routes_free(config);
	config_listeners_free(config);
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
