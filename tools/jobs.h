/*
 * jobs - the queued jobs of a spool: from the running daemon's index, or, where none runs, from
 * the read-only half of recovery.
 *
 * Promise: takes no lock and writes nothing. A job read is one that was there at some moment.
 */
#ifndef TOOLS_JOBS_H
#define TOOLS_JOBS_H

#include "queue/reader.h"
#include "queue/recover.h"

struct jobs; /* opaque */

#define JOBS_ERROR_BYTES 1024

/* NULL with `error` filled, and the code to exit with. */
struct jobs *jobs_open(const char *path, char error[static JOBS_ERROR_BYTES], int *code_out);
void jobs_close(struct jobs *jobs); /* accepts NULL */

/* A daemon is at work on them. */
bool jobs_live(const struct jobs *jobs);
struct reader *jobs_reader(struct jobs *jobs);
/* Lines of recovery about damage, to standard error. */
void jobs_complain(const struct jobs *jobs);

uint16_t jobs_streams(const struct jobs *jobs);
/* Slots 0 .. this - 1 can be read. */
uint64_t jobs_slots(const struct jobs *jobs, uint16_t stream);
/* False: no waiting job is there (any more). */
bool jobs_read(const struct jobs *jobs, uint16_t stream, uint64_t slot, struct format_job *out);

struct jobs_reply {
	struct span host, text; /* borrowed from the jobs; may be empty */
};

struct span jobs_domain(struct jobs *jobs, uint16_t stream, const struct format_job *job);
struct jobs_reply jobs_reply(struct jobs *jobs, uint16_t stream, const struct format_job *job);

#endif
