/*
 * dns_answer - reads a DNS response: packet in, verdict and records out.
 *
 * Promise: any bytes at all are answered with a verdict; a response that is broken, truncated
 * or a referral is OS_DNS_FAILED, never "no such name".
 *
 * Thread: any; no state, no I/O.
 * Source: RFC 1035 (format), RFC 2308 (negative answers), RFC 2181, 8 (TTL).
 */
#ifndef OS_DNS_ANSWER_H
#define OS_DNS_ANSWER_H

#include "os/os.h"

/* Sets status, secure (the AD bit as it stands), ttl_s, record_count and records. */
void dns_answer_read(struct os_dns_query *query, const unsigned char *packet, size_t bytes);

/* Makes `query` an answer without records. */
void dns_answer_set(struct os_dns_query *query, enum os_dns_status status, uint32_t ttl_s);

#endif
