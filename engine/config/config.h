/*
 * config - what the operator wants, read once and never changed: a reload makes a new one.
 *
 * Promise: a struct config that config_load() returned is whole and consistent; every error
 * names file, line, what is wrong and what to do, and none is skipped.
 * Thread: immutable after loading; shared by all workers without locks. Whoever keeps a pointer
 * into it beyond the turn holds a reference (config_ref()).
 * Source: man/stafette.conf.5. Options and defaults are rows of table.c.
 */
#ifndef ENGINE_CONFIG_H
#define ENGINE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/config/edition.h"
#include "engine/dkim/canon.h"
#include "engine/smtp/client.h"
#include "engine/smtp/session.h"
#include "engine/tls/policy.h"
#include "os/os.h"

struct config_network {
	struct os_address address;
	uint8_t prefix; /* bits */
};

struct config_networks {
	struct config_network *list; /* owned */
	uint32_t count;
};

enum config_listener_tls {
	CONFIG_LISTENER_MAY, /* STARTTLS, where there is a certificate */
	CONFIG_LISTENER_NONE,
	CONFIG_LISTENER_REQUIRE,  /* STARTTLS before anything else */
	CONFIG_LISTENER_IMPLICIT, /* TLS from the first byte on */
};

struct config_listener {
	char *text; /* as written */
	int line;   /* where; 0: built in */
	struct os_address address;
	enum config_listener_tls tls;
	enum smtp_auth_offer auth;
	bool auth_required;
	bool proxy_protocol;			 /* each connection begins with a PROXY header */
	uint32_t proxy_header_ms;		 /* how long that may take; 10 s */
	struct config_networks proxy_networks;	 /* who may connect, with proxy_protocol */
	struct config_networks xclient_networks; /* who is offered XCLIENT */
	bool submission; /* mends the header of what trusted and authenticated clients bring */
};

/* Who checks logins, and what follows from them. */
struct config_auth {
	char *users;	   /* users.h; NULL: not that */
	char *dovecot;	   /* the path of its auth socket; NULL: not that */
	bool own_senders;  /* a login may send as itself only, where the file names no senders */
	bool in_received;  /* its name is shown in Received: */
	uint32_t pause_ms; /* after a failure, for each of late; 1 s */
	uint32_t failures_max;	 /* of an address, then 421; 10 */
	uint32_t failure_kept_s; /* one is forgotten in each of these; 1 min */
};

/* A certificate with its chain, and its key: files in PEM format. */
struct config_certificate {
	char *chain, *key;
};

enum config_tls_version { CONFIG_TLS_1_2, CONFIG_TLS_1_3 };

enum { CONFIG_DKIM_KEYS_MAX = 8 }; /* of a domain: each is a signature */

struct config_dkim_key {
	char *selector;
	char *file; /* PEM */
};

struct config_dkim_domain {
	char *name;	 /* A-labels, lower case */
	bool subdomains; /* signs for the domains below it as well */
	enum dkim_canon header, body;
	struct config_dkim_key *keys;
	uint32_t key_count;
};

struct config_dkim {
	bool sign_relayed; /* also what clients bring that are not trusted */
	char domain_default[256];
	struct config_dkim_domain *domains;
	uint32_t domain_count;
};

enum config_long_lines { CONFIG_LONG_LINES_SEND, CONFIG_LONG_LINES_REFUSE };
enum config_families { CONFIG_IPV4_ONLY, CONFIG_IPV6_ONLY, CONFIG_IPV4_FIRST, CONFIG_IPV6_FIRST };

/* How mail is delivered; the defaults, and each route's own. */
struct config_delivery {
	uint16_t port; /* 25 */
	enum config_families families;
	struct os_address source4, source6; /* AF_UNSPEC: the kernel chooses */
	bool private_hosts;		    /* an MX may point to loopback or private addresses */
	enum tls_level tls;		    /* of every connection; tls_policy_decide() */
	bool tls_implicit;
	char tls_name[256];  /* in the host's certificate; "": the host's own */
	char auth_user[256]; /* to log in as; "": not */
	bool auth_in_clear;  /* also without TLS */
	bool pipelining, chunking;
	enum config_long_lines long_lines; /* of over 998 octets */
	uint32_t stream_depth;		   /* 32 */
	uint32_t connections_max;	   /* of a site, all workers; 20 */
	uint32_t connections_start;	   /* 2 */
	uint32_t connection_messages_max;  /* 1000; 0: no limit */
	uint32_t connection_idle_ms;	   /* 5 s */
	uint32_t connect_ms;		   /* 30 s, each address */
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
	char *name; /* a name or an address; in LMTP also the path of a UNIX socket */
	uint16_t port;
};

struct config_route {
	char *pattern; /* "example.com", ".example.com" (below it) or "*" */
	int line;      /* where its section ends; 0: built in */
	enum config_route_action action;
	bool accept; /* ours: anyone may send to it */
	bool lmtp;   /* its hosts speak LMTP (RFC 2033), and deliver to mailboxes */
	struct config_host *hosts;
	uint32_t host_count;
	char *text; /* of `fail`: "5.1.1 gone" */
	struct config_delivery delivery;
	uint64_t identity; /* of all that says where and how it delivers; change.h */
};

struct config {
	struct edition edition; /* config_ref() */
	uint64_t generation;	/* 0, then one more with each reload */
	char *path;		/* NULL: built in */
	char *hostname;		/* for the greeting, EHLO, Received: and reports */
	char *spool;
	char *drop;	  /* where sendmail keeps mail while nobody listens; NULL: SPOOL/drop */
	char *user;	  /* runs as this one if started as root; NULL: stafette */
	bool sandbox;	  /* Landlock and seccomp */
	char *group;	  /* may read the index; NULL: the process's own */
	uint32_t workers; /* 0: as measured best for this machine */
	uint8_t node;
	const char *io; /* "io_uring" or "epoll", static; NULL: io_uring if it is allowed */

	struct config_listener *listeners;
	uint32_t listener_count;
	struct config_networks trusted; /* may relay anywhere */

	struct config_certificate *certificates; /* the first is for who names none */
	uint32_t certificate_count;
	struct config_auth auth;
	char *credentials_file;		 /* passwords for smarthosts; NULL: none */
	struct credentials *credentials; /* what it says; credentials_read() */
	char *tls_ca_file;
	enum config_tls_version tls_version_min;
	uint32_t tls_handshake_ms; /* 30 s */
	uint32_t tls_failed_ms;	   /* how long a failed handshake is remembered; 1 h */

	struct config_dkim dkim;

	uint32_t sessions_max, sessions_per_address_max;
	uint32_t session_errors_max;
	uint32_t session_idle_ms, session_block_ms; /* 5 min, 3 min */
	uint32_t session_messages_max;		    /* of a session; 0: no limit */
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
void config_destroy(struct config *config); /* accepts NULL; nobody has a reference */

/* A configuration is loaded with one reference; the last one frees it. Any thread. */
const struct config *config_ref(const struct config *config); /* returns it */
void config_unref(const struct config *config);		      /* accepts NULL */
/* For the thread of a worker: edition_favour(). */
void config_favour(const struct config *config);

/* The most specific route: the domain itself, then ".parent" from the longest, then "*". Never
 * NULL; ASCII letters compare without case. Cheap enough for every recipient. */
const struct config_route *config_route(const struct config *config, struct span domain);
/* Clients of a UNIX socket are in all networks: its folder's mode decides who they are. */
bool config_networks_have(const struct config_networks *networks, const struct os_address *address);
bool config_trusts(const struct config *config, const struct os_address *address);

#endif
