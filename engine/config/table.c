/*
 * table - the tables of options, and how a row takes its value.
 */
#include "engine/config/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/config/value.h"

#define SECOND_MS UINT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS	  (60 * MINUTE_MS)
#define DAY_MS	  (24 * HOUR_MS)
#define KIB	  (UINT64_C(1) << 10)
#define MIB	  (UINT64_C(1) << 20)
#define GIB	  (UINT64_C(1) << 30)

#define FIELD(type, field) offsetof(type, field), sizeof(((type *)NULL)->field)
#define IN_TOP(field)	   FIELD(struct config, field)
#define IN_DELIVERY(field) FIELD(struct config_delivery, field)
#define IN_TIMEOUTS(field) FIELD(struct smtp_client_timeouts, field)

/* clang-format off */
const struct config_option config_top_options[] = {
	/* name                    kind            field                            min        max          default */
	{ "hostname",              CONFIG_TEXT,    IN_TOP(hostname),                0,         0,           NULL },
	{ "spool",                 CONFIG_TEXT,    IN_TOP(spool),                   0,         0,           NULL },
	{ "drop",                  CONFIG_TEXT,    IN_TOP(drop),                    0,         0,           NULL },
	{ "user",                  CONFIG_TEXT,    IN_TOP(user),                    0,         0,           NULL },
	{ "sandbox",               CONFIG_BOOL,    IN_TOP(sandbox),                 0,         0,           "true" },
	{ "group",                 CONFIG_TEXT,    IN_TOP(group),                   0,         0,           NULL },
	{ "workers",               CONFIG_COUNT,   IN_TOP(workers),                 0,         256,         "0" },
	{ "node",                  CONFIG_COUNT,   IN_TOP(node),                    0,         255,         "0" },
	{ "io",                    CONFIG_IO,      IN_TOP(io),                      0,         0,           "auto" },
	{ "sessions_max",          CONFIG_COUNT,   IN_TOP(sessions_max),            1,         1000000,     "10000" },
	{ "sessions_per_address_max", CONFIG_COUNT, IN_TOP(sessions_per_address_max), 1,       1000000,     "1000" },
	{ "session_errors_max",    CONFIG_COUNT,   IN_TOP(session_errors_max),      1,         100000,      "20" },
	{ "session_idle",          CONFIG_MS,      IN_TOP(session_idle_ms),         SECOND_MS, DAY_MS,      "5m" },
	{ "session_block",         CONFIG_MS,      IN_TOP(session_block_ms),        SECOND_MS, DAY_MS,      "3m" },
	{ "session_messages_max",  CONFIG_COUNT,    IN_TOP(session_messages_max),   0,         999999,      "0" },
	{ "session_messages_ahead", CONFIG_COUNT,  IN_TOP(session_messages_ahead),  1,         10000,       "100" },
	{ "message_bytes_max",     CONFIG_BYTES,   IN_TOP(message_bytes_max),       64 * KIB,  2 * GIB,     "50M" },
	{ "recipients_max",        CONFIG_COUNT,   IN_TOP(recipients_max),          100,       50000,       "1000" },
	{ "received_max",          CONFIG_COUNT,   IN_TOP(received_max),            10,        1000,        "100" },
	{ "normalise",             CONFIG_BOOL,    IN_TOP(normalise),               0,         0,           "false" },
	{ "memory_bytes",          CONFIG_BYTES,   IN_TOP(memory_bytes),            16 * MIB,  1024 * GIB,  "512M" },
	{ "postmaster",            CONFIG_TEXT,    IN_TOP(postmaster),              0,         0,           NULL },
	{ "credentials",           CONFIG_TEXT,    IN_TOP(credentials_file),        0,         0,           NULL },
	{ "delivery_log",          CONFIG_TEXT,    IN_TOP(delivery_log),            0,         0,           "-" },
	{ "drain",                 CONFIG_MS,      IN_TOP(drain_ms),                0,         HOUR_MS,     "30s" },
	{ "space_low_bytes",       CONFIG_BYTES,   IN_TOP(space_low_bytes),         0,         1024 * GIB,  "0" },
	{ "outcome_sync",          CONFIG_MS,      IN_TOP(outcome_sync_ms),         1,         SECOND_MS,   "5ms" },
	{ "evacuate_after",        CONFIG_SECONDS, IN_TOP(evacuate_after_s),        SECOND_MS, 30 * DAY_MS, "15m" },
	{ "segment_bytes",         CONFIG_BYTES,   IN_TOP(segment_bytes),           0,         256 * MIB,   "0" },
	{ "journal_bytes",         CONFIG_BYTES,   IN_TOP(journal_bytes),           0,         256 * MIB,   "0" },
	{ 0 },
};

const struct config_option config_dns_options[] = {
	{ "timeout",    CONFIG_MS,      IN_TOP(dns.timeout_ms),   100,       MINUTE_MS,  "5s" },
	{ "tries",      CONFIG_COUNT,   IN_TOP(dns.tries),        1,         10,         "3" },
	{ "ttl_max",    CONFIG_SECONDS, IN_TOP(dns_ttl_max_s),    SECOND_MS, 7 * DAY_MS, "1d" },
	{ "ttl_failed", CONFIG_SECONDS, IN_TOP(dns_ttl_failed_s), SECOND_MS, HOUR_MS,    "1m" },
	{ 0 },
};

const struct config_option config_tls_options[] = {
	{ "ca_file",      CONFIG_TEXT,        IN_TOP(tls_ca_file),      0,      0,            "/etc/ssl/certs/ca-certificates.crt" },
	{ "version_min",  CONFIG_TLS_VERSION, IN_TOP(tls_version_min),  0,      0,            "1.2" },
	{ "handshake",    CONFIG_MS,          IN_TOP(tls_handshake_ms), 100,    10 * MINUTE_MS, "30s" },
	{ "failed_kept",  CONFIG_MS,          IN_TOP(tls_failed_ms),    SECOND_MS, 7 * DAY_MS, "1h" },
	{ 0 },
};

const struct config_option config_auth_options[] = {
	{ "users",        CONFIG_TEXT,    FIELD(struct config_auth, users),          0,         0,          NULL },
	{ "dovecot",      CONFIG_TEXT,    FIELD(struct config_auth, dovecot),        0,         0,          NULL },
	{ "own_senders",  CONFIG_BOOL,    FIELD(struct config_auth, own_senders),    0,         0,          "false" },
	{ "in_received",  CONFIG_BOOL,    FIELD(struct config_auth, in_received),    0,         0,          "false" },
	{ "pause",        CONFIG_MS,      FIELD(struct config_auth, pause_ms),       0,         MINUTE_MS,  "1s" },
	{ "failures_max", CONFIG_COUNT,   FIELD(struct config_auth, failures_max),   1,         1000000,    "10" },
	{ "failure_kept", CONFIG_SECONDS, FIELD(struct config_auth, failure_kept_s), SECOND_MS, DAY_MS,     "1m" },
	{ 0 },
};

const struct config_option config_certificate_options[] = {
	{ "chain", CONFIG_TEXT, FIELD(struct config_certificate, chain), 0, 0, NULL },
	{ "key",   CONFIG_TEXT, FIELD(struct config_certificate, key),   0, 0, NULL },
	{ 0 },
};

const struct config_option config_listener_options[] = {
	{ "tls",           CONFIG_TLS_LISTEN,  FIELD(struct config_listener, tls),           0, 0, "may" },
	{ "auth",          CONFIG_AUTH_LISTEN, FIELD(struct config_listener, auth),          0, 0, "off" },
	{ "auth_required", CONFIG_BOOL,        FIELD(struct config_listener, auth_required), 0, 0, "false" },
	{ "proxy_protocol", CONFIG_BOOL,       FIELD(struct config_listener, proxy_protocol), 0, 0, "false" },
	{ "proxy_header",  CONFIG_MS,          FIELD(struct config_listener, proxy_header_ms), 100, MINUTE_MS, "10s" },
	{ "submission",    CONFIG_BOOL,        FIELD(struct config_listener, submission),    0, 0, "false" },
	{ 0 },
};

const struct config_option config_dkim_options[] = {
	{ "sign_relayed", CONFIG_BOOL,   FIELD(struct config_dkim, sign_relayed),   0, 0, "false" },
	{ "default",      CONFIG_DOMAIN, FIELD(struct config_dkim, domain_default), 0, 0, NULL },
	{ 0 },
};

const struct config_option config_dkim_domain_options[] = {
	{ "subdomains", CONFIG_BOOL,       FIELD(struct config_dkim_domain, subdomains), 0, 0, "false" },
	{ "header",     CONFIG_DKIM_CANON, FIELD(struct config_dkim_domain, header),     0, 0, "relaxed" },
	{ "body",       CONFIG_DKIM_CANON, FIELD(struct config_dkim_domain, body),       0, 0, "relaxed" },
	{ 0 },
};

const struct config_option config_dkim_key_options[] = {
	{ "file", CONFIG_TEXT, FIELD(struct config_dkim_key, file), 0, 0, NULL },
	{ 0 },
};

const struct config_option config_delivery_options[] = {
	{ "port",                    CONFIG_COUNT,    IN_DELIVERY(port),                    1,         65535,        "25" },
	{ "families",                CONFIG_FAMILIES, IN_DELIVERY(families),                0,         0,            "ipv4-first" },
	{ "source4",                 CONFIG_SOURCE4,  IN_DELIVERY(source4),                 0,         0,            NULL },
	{ "source6",                 CONFIG_SOURCE6,  IN_DELIVERY(source6),                 0,         0,            NULL },
	{ "private_hosts",           CONFIG_BOOL,     IN_DELIVERY(private_hosts),           0,         0,            "false" },
	{ "tls",                     CONFIG_TLS_LEVEL, IN_DELIVERY(tls),                    0,         0,            "may" },
	{ "tls_implicit",            CONFIG_BOOL,     IN_DELIVERY(tls_implicit),            0,         0,            "false" },
	{ "tls_name",                CONFIG_DOMAIN,   IN_DELIVERY(tls_name),                0,         0,            NULL },
	{ "auth_user",               CONFIG_NAME,     IN_DELIVERY(auth_user),               0,         0,            NULL },
	{ "auth_in_clear",           CONFIG_BOOL,     IN_DELIVERY(auth_in_clear),           0,         0,            "false" },
	{ "pipelining",              CONFIG_BOOL,     IN_DELIVERY(pipelining),              0,         0,            "true" },
	{ "chunking",                CONFIG_BOOL,     IN_DELIVERY(chunking),                0,         0,            "true" },
	{ "long_lines",              CONFIG_LONG_LINES, IN_DELIVERY(long_lines),            0,         0,            "send" },
	{ "stream_depth",            CONFIG_COUNT,    IN_DELIVERY(stream_depth),            1,         1000,         "32" },
	{ "connections_max",         CONFIG_COUNT,    IN_DELIVERY(connections_max),         1,         10000,        "20" },
	{ "connections_start",       CONFIG_COUNT,    IN_DELIVERY(connections_start),       1,         10000,        "2" },
	{ "connection_messages_max", CONFIG_COUNT,    IN_DELIVERY(connection_messages_max), 0,         UINT32_MAX,   "1000" },
	{ "connection_idle",         CONFIG_MS,       IN_DELIVERY(connection_idle_ms),      0,         10 * MINUTE_MS, "5s" },
	{ "connect",                 CONFIG_MS,       IN_DELIVERY(connect_ms),              100,       10 * MINUTE_MS, "30s" },
	{ "retry_first",             CONFIG_MS,       IN_DELIVERY(retry_first_ms),          100,       DAY_MS,       "1m" },
	{ "retry_base",              CONFIG_MS,       IN_DELIVERY(retry_base_ms),           100,       DAY_MS,       "5m" },
	{ "retry_cap",               CONFIG_MS,       IN_DELIVERY(retry_cap_ms),            100,       7 * DAY_MS,   "4h" },
	{ "probe",                   CONFIG_MS,       IN_DELIVERY(probe_ms),                100,       DAY_MS,       "30s" },
	{ "expire",                  CONFIG_MS,       IN_DELIVERY(expire_ms),               SECOND_MS, 365 * DAY_MS, "5d" },
	{ "warn",                    CONFIG_MS,       IN_DELIVERY(warn_ms),                 0,         365 * DAY_MS, "4h" },
	{ "report_expire",           CONFIG_MS,       IN_DELIVERY(report_expire_ms),        SECOND_MS, 365 * DAY_MS, "1d" },
	{ 0 },
};

/* RFC 5321, 4.5.3.2. */
const struct config_option config_timeouts_options[] = {
	{ "greeting", CONFIG_MS, IN_TIMEOUTS(greeting_ms), 100, HOUR_MS, "5m" },
	{ "hello",    CONFIG_MS, IN_TIMEOUTS(hello_ms),    100, HOUR_MS, "5m" },
	{ "mail",     CONFIG_MS, IN_TIMEOUTS(mail_ms),     100, HOUR_MS, "5m" },
	{ "rcpt",     CONFIG_MS, IN_TIMEOUTS(rcpt_ms),     100, HOUR_MS, "5m" },
	{ "data",     CONFIG_MS, IN_TIMEOUTS(data_ms),     100, HOUR_MS, "2m" },
	{ "block",    CONFIG_MS, IN_TIMEOUTS(block_ms),    100, HOUR_MS, "3m" },
	{ "final",    CONFIG_MS, IN_TIMEOUTS(final_ms),    100, HOUR_MS, "10m" },
	{ "quit",     CONFIG_MS, IN_TIMEOUTS(quit_ms),     100, HOUR_MS, "10s" },
	{ 0 },
};
/* clang-format on */

/* By enum config_long_lines, config_families. */
static const char *const long_lines_names[] = { "send", "refuse" };
static const char *const family_names[] = { "ipv4-only", "ipv6-only", "ipv4-first", "ipv6-first" };

/* By enum tls_level, config_tls_version, config_listener_tls. */
static const char *const level_names[] = { "none", "may", "encrypt", "verify" };
static const char *const version_names[] = { "1.2", "1.3" };
static const char *const listen_names[] = { "may", "none", "require", "implicit" };

static void *field_of(const struct config_option *option, void *section)
{
	return (char *)section + option->offset;
}

static void number_store(const struct config_option *option, void *section, uint64_t value)
{
	void *field = field_of(option, section);

	switch (option->bytes) {
	case 1:
		*(uint8_t *)field = (uint8_t)value;
		break;
	case 2:
		*(uint16_t *)field = (uint16_t)value;
		break;
	case 4:
		*(uint32_t *)field = (uint32_t)value;
		break;
	default:
		assert(option->bytes == 8);
		*(uint64_t *)field = value;
	}
}

/* A duration or size as the file would have it: the largest unit that needs no fraction. */
static void scaled_text(const struct config_option *option, uint64_t value, char out[static 32])
{
	static const struct {
		enum config_kind kind;
		uint64_t factor;
		const char *name;
	} units[] = {
		{ CONFIG_MS, DAY_MS, "d" },    { CONFIG_MS, HOUR_MS, "h" },
		{ CONFIG_MS, MINUTE_MS, "m" }, { CONFIG_MS, SECOND_MS, "s" },
		{ CONFIG_MS, 1, "ms" },	       { CONFIG_BYTES, GIB, "G" },
		{ CONFIG_BYTES, MIB, "M" },    { CONFIG_BYTES, KIB, "K" },
	};
	enum config_kind kind = option->kind == CONFIG_SECONDS ? CONFIG_MS : option->kind;

	snprintf(out, 32, "%" PRIu64, value);
	for (size_t i = 0; i < array_count(units); i++)
		if (units[i].kind == kind && value > 0 && value % units[i].factor == 0) {
			snprintf(out, 32, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
			return;
		}
}

static const char *number_expected(const struct config_option *option)
{
	static char text[160]; /* loading is one thread's */
	const char *what = option->kind == CONFIG_COUNT	  ? "a whole number"
			   : option->kind == CONFIG_BYTES ? "a size such as \"50M\""
							  : "a duration such as \"30s\"";
	char min[32], max[32];

	scaled_text(option, option->min, min);
	scaled_text(option, option->max, max);
	snprintf(text, sizeof(text), "%s from %s to %s", what, min, max);
	return text;
}

static const char *number_set(const struct config_option *option, void *section, const char *text)
{
	uint64_t value;
	bool read = option->kind == CONFIG_COUNT   ? config_parse_count(text, &value)
		    : option->kind == CONFIG_BYTES ? config_parse_bytes(text, &value)
						   : config_parse_duration(text, &value);

	if (!read || value < option->min || value > option->max)
		return number_expected(option);
	number_store(option, section, option->kind == CONFIG_SECONDS ? value / SECOND_MS : value);
	return NULL;
}

/* The index of the word that `text` is; -1: none of them. */
static int word_find(const char *const *words, size_t count, const char *text)
{
	for (size_t i = 0; i < count; i++)
		if (strcasecmp(text, words[i]) == 0)
			return (int)i;
	return -1;
}

static const char *long_lines_set(enum config_long_lines *field, const char *text)
{
	int found = word_find(long_lines_names, array_count(long_lines_names), text);

	if (found < 0)
		return "\"send\" or \"refuse\"";
	*field = (enum config_long_lines)found;
	return NULL;
}

static const char *families_set(enum config_families *field, const char *text)
{
	int found = word_find(family_names, array_count(family_names), text);

	if (found < 0)
		return "\"ipv4-only\", \"ipv6-only\", \"ipv4-first\" or \"ipv6-first\"";
	*field = (enum config_families)found;
	return NULL;
}

static const char *tls_level_set(enum tls_level *field, const char *text)
{
	int found = word_find(level_names, array_count(level_names), text);

	if (found < 0)
		return "\"none\", \"may\", \"encrypt\" or \"verify\"";
	*field = (enum tls_level)found;
	return NULL;
}

static const char *tls_version_set(enum config_tls_version *field, const char *text)
{
	int found = word_find(version_names, array_count(version_names), text);

	if (found < 0)
		return "\"1.2\" or \"1.3\"";
	*field = (enum config_tls_version)found;
	return NULL;
}

static const char *tls_listen_set(enum config_listener_tls *field, const char *text)
{
	int found = word_find(listen_names, array_count(listen_names), text);

	if (found < 0)
		return "\"none\", \"may\", \"require\" or \"implicit\"";
	*field = (enum config_listener_tls)found;
	return NULL;
}

static const char *dkim_canon_set(enum dkim_canon *field, const char *text)
{
	for (enum dkim_canon canon = DKIM_RELAXED; canon <= DKIM_SIMPLE; canon++)
		if (strcasecmp(text, dkim_canon_name(canon)) == 0) {
			*field = canon;
			return NULL;
		}
	return "\"relaxed\" or \"simple\"";
}

/* By enum smtp_auth_offer. */
static const char *const offer_names[] = { "off", "tls", "always" };

static const char *auth_listen_set(enum smtp_auth_offer *field, const char *text)
{
	int found = word_find(offer_names, array_count(offer_names), text);

	if (found < 0)
		return "\"off\", \"tls\" or \"always\"";
	*field = (enum smtp_auth_offer)found;
	return NULL;
}

static const char *io_set(const char **field, const char *text)
{
	static const char *const names[] = { "auto", "io_uring", "epoll" };

	for (size_t i = 0; i < array_count(names); i++)
		if (strcasecmp(text, names[i]) == 0) {
			*field = i == 0 ? NULL : names[i];
			return NULL;
		}
	return "\"auto\", \"io_uring\" or \"epoll\"";
}

static const char *source_set(sa_family_t family, struct os_address *field, const char *text)
{
	struct os_address address;

	if (!os_address_parse(text, 0, &address) || address.family != family)
		return family == AF_INET ? "an IPv4 address" : "an IPv6 address";
	*field = address;
	return NULL;
}

/* A word that can stand in a command and in a line of the credentials. */
static const char *name_set(char field[static 256], const char *text)
{
	for (const char *at = text; *at != '\0'; at++)
		if ((unsigned char)*at <= ' ' || *at == 0x7f)
			return "a name without blanks";
	if (strlen(text) > 255)
		return "a name of at most 255 octets";
	strcpy(field, text);
	return NULL;
}

static const char *text_set(char **field, const char *text)
{
	char *copy = NULL;

	for (const char *at = text; *at != '\0'; at++)
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			return "text without control characters";
	if (text[0] != '\0') {
		copy = strdup(text);
		if (copy == NULL)
			return "more memory than there is";
	}
	free(*field);
	*field = copy;
	return NULL;
}

const char *config_option_set(const struct config_option *option, void *section, const char *text)
{
	void *field = field_of(option, section);

	switch (option->kind) {
	case CONFIG_COUNT:
	case CONFIG_BYTES:
	case CONFIG_MS:
	case CONFIG_SECONDS:
		return number_set(option, section, text);
	case CONFIG_BOOL:
		return config_parse_bool(text, field) ? NULL : "true or false";
	case CONFIG_TEXT:
		return text_set(field, text);
	case CONFIG_LONG_LINES:
		return long_lines_set(field, text);
	case CONFIG_FAMILIES:
		return families_set(field, text);
	case CONFIG_IO:
		return io_set(field, text);
	case CONFIG_SOURCE4:
		return source_set(AF_INET, field, text);
	case CONFIG_SOURCE6:
		return source_set(AF_INET6, field, text);
	case CONFIG_DOMAIN:
		return config_parse_domain(text, field) ? NULL : "a domain name";
	case CONFIG_NAME:
		return name_set(field, text);
	case CONFIG_TLS_LEVEL:
		return tls_level_set(field, text);
	case CONFIG_TLS_VERSION:
		return tls_version_set(field, text);
	case CONFIG_TLS_LISTEN:
		return tls_listen_set(field, text);
	case CONFIG_AUTH_LISTEN:
		return auth_listen_set(field, text);
	case CONFIG_DKIM_CANON:
		return dkim_canon_set(field, text);
	}
	assert(false);
	return NULL;
}

bool config_options_default(const struct config_option *options, void *section)
{
	bool whole = true;

	for (; options->name != NULL; options++) {
		const char *complaint = options->value == NULL ? NULL
							       : config_option_set(options, section,
										   options->value);

		/* Only a text needs memory; else the table contradicts itself. */
		assert(complaint == NULL || options->kind == CONFIG_TEXT);
		whole = whole && complaint == NULL;
	}
	return whole;
}

void config_options_free(const struct config_option *options, void *section)
{
	for (; options->name != NULL; options++)
		if (options->kind == CONFIG_TEXT) {
			free(*(char **)field_of(options, section));
			*(char **)field_of(options, section) = NULL;
		}
}
