/*
 * mx - where the mail of a domain goes: its hosts in order, with their addresses.
 *
 *   domain ──► route MX:     MX records (or the domain itself) ──► A/AAAA of each host
 *              route HOSTS:  the hosts as configured           ──► A/AAAA of each host
 *          ──► struct mx_answer, kept until the first TTL in it ends
 *
 * Promise: RFC 5321's rules for hosts: the domain itself only if it exists without MX; a lone
 * null MX refuses mail; ourselves are cut off together with all that is not better; an answer
 * is final (MX_FAIL) only if every DNS answer behind it was definitive. Questions for one name
 * share one query in flight. The caches are bounded: the longest unused entry goes first.
 * Non-promise: an address in an answer need not be reachable. An address that is ours only by
 * a wildcard listener on an interface of the machine is not known here.
 *
 * Thread: a struct mx belongs to the worker of its loop. An answer never changes, and its
 * references are atomic: it may be handed to other workers.
 * Source: RFC 5321, 5.1; RFC 7505 (null MX); RFC 3463 and 7504 (codes).
 */
#ifndef ENGINE_MX_H
#define ENGINE_MX_H

#include "engine/config/config.h"
#include "os/os.h"
#include "os/prng.h"
#include "os/span.h"

struct mx; /* opaque */

enum {
	MX_HOSTS_MAX = 20,     /* of an answer: the best */
	MX_ADDRESSES_MAX = 16, /* of a host */
	MX_ATTEMPTS_MAX = 64,  /* of an order, see mx_order() */
	MX_TEXT_MAX = 400,     /* bytes of a failure's text, with NUL */
	MX_TTL_MIN_S = 5,      /* no answer is kept for less */
};

enum mx_status {
	MX_OK = 0, /* there are hosts */
	MX_DEFER,  /* not known now (4.4.3), or configured hosts that cannot be used (4.3.5) */
	MX_FAIL,   /* definitive: no mail can be delivered there */
};

struct mx_host {
	const char *name; /* lower case, no final dot; or an address or path as configured; owned by
			     the answer */
	uint16_t port;
	uint16_t preference; /* lower is better; equal ones share the load */
	uint16_t address_count;
	const struct os_address *addresses; /* with the port; preferred family first */
};

/* Immutable, reference counted. */
struct mx_answer {
	enum mx_status status;
	struct os_mono until; /* a fresh one should be asked for after it */
	/* The same for all domains with the same set of hosts, preferences and ports, whatever
	 * their addresses are now; the same on every worker. 0 unless MX_OK. Knows
	 * nothing of the route's other settings. */
	uint64_t fingerprint;
	/* MX_OK: sorted by preference, each host with at least one address. */
	uint32_t host_count;
	const struct mx_host *hosts;
	/* MX_DEFER, MX_FAIL: for the report and the log. */
	uint16_t enhanced; /* as smtp_reply has it: 5.1.2 is 50102 */
	const char *text;  /* one line of ASCII, names the domain */
	/* private: */
	_Atomic uint32_t references;
};

/* Waits for one answer; embedded in its owner. Zero it once. */
struct mx_request {
	/* Passes one reference to the answer. Called once, from the loop, never from inside
	 * mx_resolve(). May resolve again. */
	void (*done)(struct mx_request *request, struct mx_answer *answer);
	/* private: */
	struct list link;
};

/* `config` is borrowed until mx_configure() replaces it, or mx_destroy(). NULL: no memory. */
struct mx *mx_create(struct os_loop *loop, const struct config *config);
/* No question may be in flight (mx_idle()), and no request waiting. Accepts NULL. */
void mx_destroy(struct mx *mx);
/* Nothing is in flight. At the end: cancel the requests, then turn the loop until it is true, which
 * os_dns_give_up() makes soon. */
bool mx_idle(const struct mx *mx);
/* After a reload: forgets every answer, since routes, resolvers and our own names may have
 * changed. What waits now is still answered by the old routes. Never fails. */
void mx_configure(struct mx *mx, const struct config *config);

/* The answer if it is known now: a new reference for the caller, and `request` is untouched.
 * NULL: request->done will be called. `domain` (U-labels are asked for as A-labels) and `route`
 * (action MX or HOSTS, as config_route() gave it for this domain) are not needed after the call. */
struct mx_answer *mx_resolve(struct mx *mx, struct mx_request *request, struct span domain,
			     const struct config_route *route);
/* The same without asking: NULL if it is not known. */
struct mx_answer *mx_cached(struct mx *mx, struct span domain, const struct config_route *route);
/* `done` will not be called. Accepts a request that is not waiting. */
void mx_cancel(struct mx_request *request);

/* Any thread. */
struct mx_answer *mx_answer_ref(struct mx_answer *answer); /* returns `answer` */
void mx_answer_unref(struct mx_answer *answer);		   /* accepts NULL */

/* One address to try. */
struct mx_attempt {
	uint8_t host, address; /* indices into the answer */
};

/* Fills the order of attempts, at most MX_ATTEMPTS_MAX: hosts by preference, shuffled among
 * equals (never configured hosts, whose preferences differ); all addresses of a host, shuffled
 * within their family. Returns how many; at least 1. The answer is MX_OK. */
uint32_t mx_order(const struct mx_answer *answer, struct prng *prng,
		  struct mx_attempt out[static MX_ATTEMPTS_MAX]);

#endif
