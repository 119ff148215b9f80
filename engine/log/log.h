/*
 * log - the delivery log: one JSON object a line and an event, and the daemon's own words.
 *
 * Promise: a line is whole, and text from a peer is escaped, so that nobody outside can forge
 * one. A worker never waits for the log's disk: lines go through a ring per channel to one
 * writer thread; what does not fit is counted and the loss is logged.
 * What a killed daemon has begun to write stays a line of its own, not whole, when the next opens
 * the file.
 * Non-promise: nothing is synced.
 *
 * Thread: a channel belongs to one thread. log_notice() may be called by any.
 */
#ifndef ENGINE_LOG_H
#define ENGINE_LOG_H

#include "os/os.h"
#include "os/span.h"

struct log;
struct log_channel;
struct log_target; /* opaque: where its lines go */

/* `path` NULL or "-": standard output. 0 or -errno. */
int log_open(const char *path, uint32_t channels, struct log **out);
/* Writes what is in the rings, then ends. */
void log_close(struct log *log);
/* Any thread: opens the file by its name again (USR1). */
void log_reopen(struct log *log);
/* Opens another file (as log_open() has it), for log_move(); it may be the one in use, opened
 * again. 0 or -errno. */
int log_target_open(const char *path, struct log_target **out);
void log_target_close(struct log_target *target); /* accepts NULL */
/* Any thread: goes on in that file, which is the log's from now on. */
void log_move(struct log *log, struct log_target *target);
struct log_channel *log_channel(struct log *log, uint32_t index);

/* A line: begin, fields, end; no other line of this channel in between. Adds "time". */
void log_begin(struct log_channel *channel, struct os_wall when, const char *event);
void log_text(struct log_channel *channel, const char *key, struct span text);
void log_number(struct log_channel *channel, const char *key, int64_t number);
void log_end(struct log_channel *channel);

/* The daemon's own words, to standard error: "stafetted: level: text" in one line, control
 * characters escaped. */
enum log_level { LOG_ERROR, LOG_WARNING, LOG_NOTICE };
void log_notice(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#endif
