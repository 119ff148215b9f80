/*
 * table - every option: its name, what it takes, its limits and its default.
 *
 * Thread: constant tables; config_option_set() belongs to loading.
 * Source: man/stafette.conf.5 describes the same rows; tests/unit/engine_config.c compares.
 */
#ifndef ENGINE_CONFIG_TABLE_H
#define ENGINE_CONFIG_TABLE_H

#include "engine/config/config.h"

enum config_kind {
	CONFIG_COUNT,
	CONFIG_BYTES,
	CONFIG_MS,	/* a duration, kept in ms */
	CONFIG_SECONDS, /* a duration, kept in s */
	CONFIG_BOOL,
	CONFIG_TEXT,	    /* char *, allocated; "" is NULL */
	CONFIG_FAMILIES,    /* enum config_families */
	CONFIG_LONG_LINES,  /* enum config_long_lines */
	CONFIG_IO,	    /* const char *, static; "auto" is NULL */
	CONFIG_SOURCE4,	    /* an IPv4 address */
	CONFIG_SOURCE6,	    /* an IPv6 address */
	CONFIG_DOMAIN,	    /* char[IDN_DOMAIN_BYTES] */
	CONFIG_NAME,	    /* char[256] */
	CONFIG_TLS_LEVEL,   /* enum tls_level */
	CONFIG_TLS_VERSION, /* enum config_tls_version */
	CONFIG_TLS_LISTEN,  /* enum config_listener_tls */
	CONFIG_AUTH_LISTEN, /* enum smtp_auth_offer */
	CONFIG_DKIM_CANON,  /* enum dkim_canon */
};

struct config_option {
	const char *name;
	enum config_kind kind;
	uint16_t offset; /* of the field in the section's struct */
	uint16_t bytes;	 /* of a number's field: 1, 2, 4 or 8 */
	uint64_t min, max;
	const char *value; /* default, as the file would have it; NULL: none */
};

/* The options of a section; a row without name ends each. */
extern const struct config_option config_top_options[];		/* struct config */
extern const struct config_option config_dns_options[];		/* struct config */
extern const struct config_option config_tls_options[];		/* struct config */
extern const struct config_option config_auth_options[];	/* struct config_auth */
extern const struct config_option config_certificate_options[]; /* struct config_certificate */
extern const struct config_option config_listener_options[];	/* struct config_listener */
extern const struct config_option config_dkim_options[];	/* struct config_dkim */
extern const struct config_option config_dkim_domain_options[]; /* struct config_dkim_domain */
extern const struct config_option config_dkim_key_options[];	/* struct config_dkim_key */
extern const struct config_option config_delivery_options[];	/* struct config_delivery */
extern const struct config_option config_timeouts_options[];	/* struct smtp_client_timeouts */

/* Reads `text` into the field. NULL, or what was expected instead ("a duration between ..."),
 * in static storage until the next call, and nothing is changed. */
const char *config_option_set(const struct config_option *option, void *section, const char *text);

/* Gives every field of a section its default. False: there is no memory for some. */
__attribute__((warn_unused_result)) bool config_options_default(const struct config_option *options,
								void *section);

/* Frees the texts of a section. */
void config_options_free(const struct config_option *options, void *section);

#endif
