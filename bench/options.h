/*
 * options - what the programs of bench/ share at their start and end: the words of the command
 * line, and the signal that ends them.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <stdatomic.h>
#include <stdnoreturn.h>

#include "os/os.h"

/* Prints one line and exits with 2. */
noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t option_number(const char *name, const char *text);
/* "127.0.0.1:25", "[::1]:25" or "/path". */
struct os_address option_address(const char *text);

/* Chooses the backend and raises the limits; exits with a reason if that fails. */
void bench_start(void);
/* os_loop_create() with the usual sizes, or the end. */
struct os_loop *bench_loop(void);

/* Set by TERM or INT, which also wake `loop` unless NULL; a second one ends the process. */
extern atomic_bool bench_stopping;
void bench_stop_on_signal(struct os_loop *loop);

#endif
