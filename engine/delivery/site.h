/*
 * site - the hosts that share a set of MX records: one pool of connections, one set of limits,
 * one memory of what they last said.
 *
 *   feeds ──feed_pull()──► lane (which worker?) ──► waiting ──► connections with room
 *
 *           success                     connect failed, 421, "slow down", ever slower answers
 *   window: 1 more each, up to max      halved, at most once a second
 *
 *   UP ── every address refused ──► DOWN until t ── a delivery comes after t ──► PROBING
 *    ▲                               ▲  (t grows)                                  │
 *    └──────── greeted ──────────────┴───────── refused again ─────────────────────┘
 *
 * Promise: at most connections_max connections of all workers together, fewer where a host takes
 * fewer, none of which starves a worker that wants its share; a site that is down costs a worker
 * one connection attempt per probe time, however much mail waits for it.
 *
 * Here are the connections and the window; site_health.h has the states and which host is
 * next, lane.h which worker delivers, sites.h the table of them all.
 *
 * Thread: a site is its worker's; `shared` has atomics of all.
 * Source: design.md, 9.
 */
#ifndef ENGINE_SITE_H
#define ENGINE_SITE_H

#include "engine/delivery/delivery.h"
#include "engine/delivery/mx.h"
#include "engine/delivery/site_limits.h"

enum site_state { SITE_UP, SITE_DOWN, SITE_PROBING };

enum { SITE_WINDOW_ONE = 1024, SITE_REASON_BYTES = 640 };

struct host_health {
	struct os_address address;
	uint32_t failures;	    /* in a row */
	struct os_mono avoid_until; /* in the past: not avoided */
	bool takes_no_mail;	    /* it said 521: RFC 7504 */
};

struct site {
	struct list link, bucket_link; /* of struct sites */
	struct list starving_link;     /* wants a connection, and can't have one now */
	struct list dirty_link;	       /* wants site_dispatch() at the end of the turn */
	struct sites *sites;
	struct worker *worker;
	uint64_t key;
	const struct config *config; /* a reference: `route` is in it */
	const struct config_route *route;
	bool retired; /* a reload has ended its route: nothing is sent on, and it goes */
	struct mx_answer *answer; /* the newest that led here */
	struct site_limit *shared;
	struct os_mono yields_until;  /* the last connection that it gave up is another worker's */
	struct os_mono refused_until; /* the host took none beside another worker's */
	uint32_t refusals;	      /* of that kind, in a row */
	uint32_t home;		      /* the worker that delivers while the site is quiet */

	struct list waiting;	 /* deliveries without a connection */
	struct list elsewhere;	 /* those for which not every connection will do */
	struct list connections; /* struct outbound.link */
	struct list feeds;	 /* struct feed.site_link: may have jobs */
	uint32_t waiting_count, connection_count, connecting_count;
	uint32_t outstanding; /* deliveries of this worker's feeds, not concluded */
	uint32_t foreign;     /* deliveries of other workers, in this lane */
	bool streams;	      /* a connection of it took several messages at once */

	/* window */
	uint32_t window; /* connections, in 1 / SITE_WINDOW_ONE */
	bool slow_start;
	struct os_mono narrowed_at, grow_after;
	uint64_t service_us;	  /* of its answers, smoothed */
	uint64_t service_best_us; /* the quickest of that since best_at */
	struct os_mono best_at;

	/* lane */
	bool local;		      /* busy enough for a lane here */
	uint32_t taken, taken_before; /* deliveries in this second, and in the one before */
	uint64_t second;

	/* health */
	enum site_state state;
	struct os_mono down_until, used_at;
	char reason[SITE_REASON_BYTES]; /* why it is down */
	uint16_t reason_code, reason_enhanced;
	bool takes_no_mail; /* it is down because every address said so: mail for it fails */
	struct host_health *health;
	uint32_t health_count, health_size;
	bool login_told; /* that a smarthost does not let us in; until it does */
};

/* Looks at it at the end of the turn. */
void site_touch(struct site *site);
void site_dispatch(struct site *site);
/* A delivery of this worker's is concluded. */
void site_returned(struct site *site);
/* Connections that this worker may always have. 0: only the home of the site delivers. */
uint32_t site_share(const struct site *site);

/* ── what its connections report ──────────────────────────────────────────────────── */

/* A transaction was answered, `service_us` after its turn had come on its connection. */
void site_answered(struct site *site, uint64_t service_us);
/* It asks for less: narrows the window. */
void site_slow_down(struct site *site);
/* Its connection had taken its fill of messages: it goes to another one at once. */
void site_renew(struct site *site, struct delivery *delivery);
/* MAIL was deferred by that host, or its SIZE is too small: true if another one gets the delivery
 * at once. Its verdicts, if it has any, stay for the case that none can be reached. */
bool site_try_elsewhere(struct site *site, struct delivery *delivery,
			const struct os_address *refused_by);
/* Hosts have refused it, and no other can be asked now. What one has said of it stays; else it was
 * too big for them, and fails if it is for all. */
void site_end_refused(struct site *site, struct delivery *delivery);
/* It is past EHLO. */
void site_connection_ready(struct site *site);
/* It is gone, for whatever reason. */
void site_connection_gone(struct site *site, bool was_connecting);

#endif
