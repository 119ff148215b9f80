#include "engine/config/listener_section.h"

#include <stdlib.h>

#include "engine/config/value.h"

/* ── networks ─────────────────────────────────────────────────────────────────────── */

static bool networks_allocate(struct config_reader *reader, unsigned int count,
			      struct config_networks *networks)
{
	networks->list = calloc(count + 1, sizeof(*networks->list));
	if (networks->list == NULL)
		config_complain(reader, 0, "out of memory.");
	return networks->list != NULL;
}

static void network_add(struct config_reader *reader, int line, const char *text,
			struct config_networks *networks)
{
	if (!config_parse_network(text, &networks->list[networks->count++]))
		config_complain(reader, line,
				"\"%s\" is not a network. Give one such as \"192.0.2.0/24\" or "
				"\"2001:db8::/32\", with zeros behind the prefix.",
				text);
}

static void networks_apply(struct config_reader *reader, struct config_section *section,
			   const char *name, struct config_networks *networks)
{
	unsigned int count = config_section_count(section, name);

	if (!networks_allocate(reader, count, networks))
		return;
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = config_section_text(section, name, i, &line);

		network_add(reader, line, text, networks);
	}
}

void config_trusted_apply(struct config_reader *reader, struct config_section *top)
{
	static const char *const built_in[] = { "127.0.0.0/8", "::1/128" };
	struct config_networks *trusted = &reader->config->trusted;

	if (top != NULL && config_section_gives(top, "trusted")) {
		networks_apply(reader, top, "trusted", trusted);
		return;
	}
	if (!networks_allocate(reader, array_count(built_in), trusted))
		return;
	for (unsigned int i = 0; i < array_count(built_in); i++)
		network_add(reader, 0, built_in[i], trusted);
}

/* ── listeners ────────────────────────────────────────────────────────────────────── */

static void listener_add(struct config_reader *reader, int line, const char *text)
{
	struct config_listener *listener =
		&reader->config->listeners[reader->config->listener_count++];

	config_section_default(reader, config_listener_options, listener);
	listener->text = config_text_copy(reader, text);
	listener->line = line;
	if (!config_parse_listener(text, &listener->address))
		config_complain(reader, line,
				"\"%s\" cannot be listened on. Give an address and a port such as "
				"\"0.0.0.0:25\" or \"[::]:25\", or the path of a socket.",
				text);
	/* The kernel would deal connections out to both, each with options of its own. */
	for (const struct config_listener *other = reader->config->listeners; other < listener;
	     other++)
		if (listener->address.family != AF_UNSPEC &&
		    os_address_equal(&other->address, &listener->address)) {
			config_complain(reader, line, "\"%s\" is listened on twice. Remove one.",
					text);
			break;
		}
}

/* What the auth options of a listener need. */
static void listener_auth_check(struct config_reader *reader, int line,
				const struct config_listener *listener)
{
	const struct config *config = reader->config;

	if (listener->auth_required && listener->auth == SMTP_AUTH_OFF)
		config_complain(
			reader, line,
			"listener \"%s\" requires what it does not offer. Give auth as well.",
			listener->text);
	if (listener->auth == SMTP_AUTH_OFF)
		return;
	if (config->auth.users == NULL && config->auth.dovecot == NULL)
		config_complain(
			reader, line,
			"listener \"%s\" can check nobody. Give users or dovecot in a section "
			"auth.",
			listener->text);
	if (listener->auth == SMTP_AUTH_TLS &&
	    (listener->tls == CONFIG_LISTENER_NONE || config->certificate_count == 0))
		config_complain(
			reader, line,
			"listener \"%s\" offers auth under TLS, and has no TLS. Give a section "
			"certificate, or auth = \"always\".",
			listener->text);
}

/* Who may speak for others there. */
static void listener_networks_apply(struct config_reader *reader, struct config_section *section,
				    struct config_listener *listener)
{
	bool proxies = config_section_count(section, "proxy_networks") > 0;

	networks_apply(reader, section, "proxy_networks", &listener->proxy_networks);
	networks_apply(reader, section, "xclient_networks", &listener->xclient_networks);
	if (listener->proxy_protocol && !proxies && listener->address.family != AF_UNIX)
		config_complain(
			reader, config_section_line(section),
			"listener \"%s\" would let nobody in. Give the addresses of the proxies in "
			"proxy_networks.",
			listener->text);
	if (!listener->proxy_protocol && proxies)
		config_complain(
			reader, config_section_line(section),
			"listener \"%s\" has proxy_networks without a use. Set proxy_protocol = "
			"true.",
			listener->text);
}

static void listener_apply(struct config_reader *reader, struct config_section *section)
{
	struct config *config = reader->config;
	struct config_listener *listener = &config->listeners[config->listener_count];

	listener_add(reader, config_section_line(section), config_section_title(section));
	config_section_apply(reader, section, config_listener_options, listener);
	if (listener->tls >= CONFIG_LISTENER_REQUIRE && config->certificate_count == 0)
		config_complain(
			reader, config_section_line(section),
			"listener \"%s\" needs a certificate. Give one in a section certificate.",
			listener->text);
	listener_auth_check(reader, config_section_line(section), listener);
	listener_networks_apply(reader, section, listener);
}

void config_listeners_apply(struct config_reader *reader, struct config_section *top)
{
	struct config *config = reader->config;
	bool listed = top != NULL && config_section_gives(top, "listen");
	unsigned int count = listed ? config_section_count(top, "listen") : 0;
	unsigned int sections = top != NULL ? config_section_count(top, "listener") : 0;

	config->listeners = calloc(count + sections + 1, sizeof(*config->listeners));
	if (config->listeners == NULL)
		return config_complain(reader, 0, "out of memory.");
	for (unsigned int i = 0; i < count; i++) {
		int line = 0;
		const char *text = config_section_text(top, "listen", i, &line);

		listener_add(reader, line, text);
	}
	for (unsigned int i = 0; i < sections; i++)
		listener_apply(reader, config_section_nth(top, "listener", i));
	if (!listed && sections == 0)
		listener_add(reader, 0, "127.0.0.1:2525");
}

void config_listeners_free(struct config *config)
{
	for (uint32_t i = 0; i < config->listener_count; i++) {
		free(config->listeners[i].text);
		free(config->listeners[i].proxy_networks.list);
		free(config->listeners[i].xclient_networks.list);
	}
	free(config->listeners);
}
