/*
 * mx_names - questions to the DNS, each asked once and its answer kept for its TTL.
 *
 * Promise: whoever asks for a name and type that is being asked already waits for the same
 * query. Answers are kept small, sorted and bounded.
 * Non-promise: no rules of mail here; see mx.h.
 *
 * Thread: the worker's of its loop.
 */
#ifndef ENGINE_MX_NAMES_H
#define ENGINE_MX_NAMES_H

#include "engine/delivery/mx_cache.h"
#include "os/os.h"

enum {
	MX_NAMES_RECORDS_MAX = 64, /* kept of an answer: the best */
	MX_NAMES_NAME_BYTES = 256,
};

struct mx_names_target {
	uint16_t preference;
	const char *name; /* "": the root */
};

/* A question, and once `known` its answer, which does not change any more. */
struct mx_lookup {
	bool known;
	enum os_dns_type type;
	enum os_dns_status status;
	struct os_mono until;
	uint32_t count;
	struct mx_names_target *targets; /* MX: by preference, then name; no name twice */
	struct os_address *addresses;	 /* A, AAAA; port 0 */
	/* private: */
	struct mx_cache_node node;
	struct mx_names *names;
	uint32_t users;
	struct list waiters;
	char name[];
};

/* Embedded in who waits. Zero it once. */
struct mx_waiter {
	void (*known)(struct mx_waiter *waiter);
	struct list link;
};

struct mx_names {
	struct os_loop *loop;
	struct mx_cache cache;
	uint32_t ttl_max_s, ttl_failed_s;
	uint64_t seed; /* of the hashes: nobody outside can choose names that collide */
	uint32_t in_flight;
	struct mx_lookup *unasked; /* owned; in place of a question for which there is no memory */
	struct mx_answer *no_memory; /* owned; in place of an answer */
};

/* False: no memory; mx_names_deinit() is due all the same. */
bool mx_names_init(struct mx_names *names, struct os_loop *loop, uint32_t count_max);
/* Nothing may be in flight or in use. */
void mx_names_deinit(struct mx_names *names);

/* The lookup of a name (lower case, ASCII, shorter than 256) and type; the caller uses it until
 * mx_names_put(). If it is not known yet, waiter->known is called when it is, from the loop. */
struct mx_lookup *mx_names_get(struct mx_names *names, const char *name, enum os_dns_type type,
			       struct mx_waiter *waiter);
/* Not waiting any more. Accepts NULL. */
void mx_names_put(struct mx_lookup *lookup);

/* A deferral for some seconds: there is no memory to find out more. A reference for the caller. */
struct mx_answer *mx_names_no_memory(struct mx_names *names);

#endif
