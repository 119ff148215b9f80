/*
 * world - what is around the daemon: its configuration, its clients, the domains and their hosts.
 *
 * world_draw() makes the plan of a run, in the arena, before the first life; world_start()
 * sets it up in each life, before the daemon's main runs.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

struct peer; /* peer.h */

enum world_domain_kind {
	WORLD_GOOD,    /* hosts of its own */
	WORLD_SHARED,  /* the hosts of domain 0 */
	WORLD_LMTP,    /* a route to hosts of its own, which keep its mailboxes */
	WORLD_DEAD,    /* hosts that nobody reaches: its mail expires */
	WORLD_NULL_MX, /* takes no mail, and says so */
	WORLD_MISSING, /* NXDOMAIN */
};

/* What the DNS says at times instead of a domain's hosts; its mail may fail for that. */
enum world_vanishing {
	WORLD_STAYS,
	WORLD_VANISHES,	    /* NXDOMAIN */
	WORLD_LOSES_MX,	    /* NODATA, and it has no address */
	WORLD_GETS_NULL_MX, /* takes no mail */
	WORLD_VANISHING_COUNT
};

enum {
	WORLD_DOMAINS_MAX = 8,
	WORLD_NAME_BYTES = 32,
	WORLD_HOSTS_MAX = 3,
	WORLD_SEGMENT_BYTES = 1 << 20,
	/* What the spool of an empty queue may take. */
	WORLD_SPOOL_FILES_MAX = 100,
};

struct world_domain {
	char name[WORLD_NAME_BYTES];
	enum world_domain_kind kind;
	enum world_vanishing vanishing;
	uint64_t vanished_ns; /* since then the daemon may know of it; 0: never */
	uint32_t host_count;
	struct peer *hosts[WORLD_HOSTS_MAX]; /* of a GOOD or LMTP one */
};

struct world_plan {
	uint32_t domain_count;
	struct world_domain domains[WORLD_DOMAINS_MAX];
	struct world_domain senders;
	uint32_t expire_s, warn_s;
	uint32_t outcome_sync_ms;
	uint32_t evacuate_after_s;
	uint32_t retry_cap_s;
	uint32_t stream_depth;
	uint32_t connections_max;
	uint32_t key_count; /* with which the daemon signs: signed.h */
};

/* Where senders get their reports. Always good. */
#define WORLD_SENDER_DOMAIN "sender.test"
/* The daemon, from where they come. */
#define WORLD_RELAY "relay.test"

const struct world_plan *world_plan(void);
/* Called by ledger_create(); weather, disk and DNS are there. */
void world_draw(void);
/* Writes a configuration that delivers in another way; who gets a HUP then reads it. */
void world_reconfigure(void);
/* Writes the configuration and starts hosts, names and clients of this life. */
void world_start(void);

#endif
