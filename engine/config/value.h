/*
 * value - how the values of the configuration are written: "30s", "50M", "[::]:25".
 *
 * Promise: a text is taken whole or not at all; outputs are written only on success.
 * Thread: pure functions.
 * Source: man/stafette.conf.5, VALUES.
 */
#ifndef ENGINE_CONFIG_VALUE_H
#define ENGINE_CONFIG_VALUE_H

#include "engine/config/config.h"
#include "engine/idn.h"

/* Digits alone. */
bool config_parse_count(const char *text, uint64_t *out);
/* "250ms", "30s", "5m", "4h", "5d"; a bare "0". */
bool config_parse_duration(const char *text, uint64_t *ms_out);
/* "4096", "64K", "50M", "2G". */
bool config_parse_bytes(const char *text, uint64_t *out);
bool config_parse_bool(const char *text, bool *out);
/* "127.0.0.0/8", "2001:db8::/32", "192.0.2.1"; no bit may be set behind the prefix. */
bool config_parse_network(const char *text, struct config_network *out);
/* "192.0.2.1:25", "[::]:25" or "/run/stafette.sock". */
bool config_parse_listener(const char *text, struct os_address *out);
/* "mx.example.net", "mx.example.net:2525", "192.0.2.1", "[2001:db8::1]:25"; without a port it is
 * `port`. `out->name` is allocated. */
bool config_parse_host(const char *text, uint16_t port, struct config_host *out);
/* "/run/dovecot/lmtp"; its port is 0. `out->name` is allocated. */
bool config_parse_socket(const char *text, struct config_host *out);
/* Letters, digits, '-' and '_' in labels of at most 63, 253 in all; "localhost" will do. Letters
 * of any alphabet: they become A-labels, in lower case. */
bool config_parse_domain(const char *text, char out[static IDN_DOMAIN_BYTES]);

#endif
