/*
 * arena - the memory of the world, which outlives the daemon.
 *
 * One simulated run is a process that forks a child for each life of the daemon. The arena is
 * mapped shared at one address, so what a child writes here (the disk, the ledger, the clock)
 * is there for the next one; everything else (the daemon's memory and statics, sockets,
 * descriptors) goes with the child, as it does in a crash.
 *
 * Promise: zeroed memory, or the run ends as a finding ("the arena is full").
 * Thread: there is one.
 */
#ifndef SIM_ARENA_H
#define SIM_ARENA_H

#include <stddef.h>

/* Maps it; once, before the first fork. */
void arena_create(size_t bytes_max);
/* Forgets everything: for the next run of this process. */
void arena_reset(void);
/* 16-aligned. */
void *arena_alloc(size_t bytes);
/* `bytes` as it was asked for; NULL is accepted. Freed memory is reused by size class. */
void arena_free(void *at, size_t bytes);
char *arena_strdup(const char *text);

#endif
