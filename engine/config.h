/*
 * config - what the operator wants, read once and never changed: a reload makes a new one.
 *
 * Promise: a struct config that config_load() returned is whole and consistent; every error
 * names file, line, what is wrong and what to do, and none is skipped.
 * Thread: immutable after loading; shared by all workers without locks.
 * Source: man/stafette.conf.5. Options and defaults are rows of config_table.c.
 */
#ifndef ENGINE_CONFIG_H
#define ENGINE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/smtp/client.h"
#include "os/os.h"

struct config_network {
	struct os_address address;
	uint8_t prefix; /* bits */
};

struct config_listener {
	char *text; /* as written */
	struct os_address address;
};

enum config_families { CONFIG_IPV4_ONLY, CONFIG_IPV6_ONLY, CONFIG_IPV4_FIRST, CONFIG_IPV6_FIRST };

/* How mail is delivered; the defaults, and each route's own. */
struct config_delivery {
	uint16_t port; /* 25 */
	enum config_families families;
	struct os_address source4, source6; /* AF_UNSPEC: the kernel chooses */
	bool private_hosts;		    /* an MX may point to loopback or private addresses */
	bool pipelining, chunking;
	uint32_t stream_depth;		  /* 32 */
	uint32_t connections_max;	  /* of a site, all workers; 20 */
	uint32_t connections_start;	  /* 2 */
	uint32_t connection_messages_max; /* 1000; 0: no limit */
	uint32_t connection_idle_ms;	  /* 5 s */
	uint32_t connect_ms;		  /* 30 s, each address */
	struct smtp_client_timeouts timeouts;
	uint32_t retry_first_ms; /* the quick first retry; 1 min */
	uint32_t retry_base_ms;	 /* 5 min */
	uint32_t retry_cap_ms;	 /* 4 h */
	uint32_t probe_ms; /* between tries of a site that is down, growing up to retry_cap_ms; 30 s
			    */
	uint64_t expire_ms;	   /* 5 d */
	uint64_t warn_ms;	   /* 4 h; 0: never */
	uint64_t report_expire_ms; /* of reports; 1 d */
};

enum config_route_action {
	CONFIG_ROUTE_MX,
	CONFIG_ROUTE_HOSTS,
	CONFIG_ROUTE_FAIL,
	CONFIG_ROUTE_DISCARD
};

struct config_host {
	char *name; /* a name or an address */
	uint16_t port;
};

struct config_route {
	char *pattern; /* "example.com", ".example.com" (below it) or "*" */
	enum config_route_action action;
	bool accept; /* ours: anyone may send to it */
	struct config_host *hosts;
	uint32_t host_count;
	char *text; /* of `fail`: "5.1.1 gone" */
	struct config_delivery delivery;
};

struct config {
	char *path;	/* NULL: built in */
	char *hostname; /* for the greeting, EHLO, Received: and reports */
	char *spool;
	char *group;	  /* may read the index; NULL: the process's own */
	uint32_t workers; /* 0: as measured best for this machine */
	uint8_t node;

	struct config_listener *listeners;
	uint32_t listener_count;
	struct config_network *trusted; /* may relay anywhere */
	uint32_t trusted_count;

	uint32_t sessions_max, sessions_per_address_max;
	uint32_t session_errors_max;
	uint32_t session_idle_ms, session_block_ms; /* 5 min, 3 min */
	uint32_t session_messages_ahead;	    /* accepted ahead of their commits; 100 */
	uint64_t message_bytes_max;
	uint32_t recipients_max;
	uint32_t received_max; /* Received: lines; 100 */
	bool normalise;	       /* bare CR and LF from trusted networks become CRLF */
	uint64_t memory_bytes; /* bodies in memory, all workers */

	struct config_route *routes; /* those of the file; "*" is there and last */
	uint32_t route_count;
	struct config_delivery delivery;
	/* Private to config_route(): a hash table of indexes into `routes`, plus one. */
	uint32_t *route_buckets, route_bucket_count;

	struct os_dns_options dns;
	uint32_t dns_ttl_max_s, dns_ttl_failed_s;

	char *postmaster;	  /* gets reports about reports; NULL: they are logged */
	char *delivery_log;	  /* NULL or "-": standard output */
	uint32_t drain_ms;	  /* at TERM */
	uint64_t space_low_bytes; /* 0: from the file sizes */
	uint32_t outcome_sync_ms, evacuate_after_s;
	uint32_t segment_bytes, journal_bytes; /* of a new spool; 0: from the free space */
};

/* NULL `path`: the built-in defaults. NULL with `error` filled (one or more lines). */
struct config *config_load(const char *path, char *error, size_t error_bytes);
void config_destroy(struct config *config); /* accepts NULL */

/* The most specific route: the domain itself, then ".parent" from the longest, then "*". Never
 * NULL; ASCII letters compare without case. Cheap enough for every recipient. */
const struct config_route *config_route(const struct config *config, struct span domain);
/* Clients of a UNIX socket are trusted: its folder's mode decides who they are. */
bool config_trusts(const struct config *config, const struct os_address *address);

#endif
