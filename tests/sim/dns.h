/*
 * dns - the name servers of the world: a table of answers in the arena, behind os_dns_ask().
 *
 * A name and type may have several answers; the weather changes from one to another. A name
 * without any answer does not exist; one with answers of other types has no data.
 */
#ifndef SIM_DNS_H
#define SIM_DNS_H

#include "os/os.h"

/* For os_dns_record: a null MX is one record of preference 0 with the name "". */
struct sim_dns_answer {
	enum os_dns_status status;
	bool secure;
	uint32_t ttl_s;
	uint32_t record_count;
	const struct os_dns_record *records; /* copied */
	uint64_t *first_ns; /* if not NULL, in the arena: when it is first given; 0: never */
};

/* Before the first life. */
void sim_dns_create(void);
/* The answer from now on; what was set for it before is forgotten. */
void sim_dns_set(const char *name, enum os_dns_type type, const struct sim_dns_answer *answer);
/* One more that the weather may change to. */
void sim_dns_also(const char *name, enum os_dns_type type, const struct sim_dns_answer *answer);

#endif
