/*
 * memory - the heap of a life, and allocations of the daemon that fail.
 *
 * The queue, SMTP, the connections, logins, the deliveries, the inbound side and the reports are
 * linked against these in place of libc's (Makefile): what peers and messages make them allocate
 * may be refused, once the daemon is ready. What a start allocates is not: it may end for want
 * of memory.
 *
 * Thread: there is one.
 */
#ifndef SIM_MEMORY_H
#define SIM_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Before there are lives: the heap that they inherit is of huge pages. Each life touches tens of
 * megabytes and ends soon, so that page faults would be a fifth of what it costs. */
void memory_prepare(void);

/* The daemon of this life is ready. */
void memory_open(void);
/* How much more of the heap is in use than it was then, the index's share of it apart. */
int64_t memory_grown_bytes(void);

void *daemon_malloc(size_t bytes);
void *daemon_calloc(size_t count, size_t bytes);
void *daemon_realloc(void *at, size_t bytes);
void *daemon_aligned_alloc(size_t alignment, size_t bytes);
char *daemon_strdup(const char *text);
char *daemon_strndup(const char *text, size_t bytes);

#endif
