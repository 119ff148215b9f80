/*
 * load - messages back from their segment, checked byte for byte.
 *
 * Promise: a message that is handed out has passed the CRCs of header, envelope and body, is
 * the one that was asked for, and the body of a big one is open. Otherwise the job gets
 * FORMAT_JOB_DAMAGED; if only the body is damaged the message comes all the same, with an empty
 * body, so that a report can be written.
 * Non-promise: a big body is checked as it is read, MiB by MiB.
 *
 * Thread: the owner of the stream.
 */
#ifndef QUEUE_LOAD_H
#define QUEUE_LOAD_H

#include "queue/queue.h"

struct load; /* opaque */

struct load *load_create(void); /* NULL: no memory */
/* Calls `loaded` later; takes over `load`. */
void load_start(struct queue_stream *stream, struct queue_job *job, struct load *load);
static inline bool load_is_running(const struct queue_job *job)
{
	return list_linked(&job->loading);
}

/* What lies at the start of `bytes`, read from a segment of that sequence. */
enum load_found {
	LOAD_WHOLE,
	LOAD_MORE,	   /* *bytes_out are needed */
	LOAD_BODY_DAMAGED, /* header and envelope are good */
	LOAD_DAMAGED,
};
enum load_found load_check(const char *bytes, size_t count, uint32_t sequence, uint64_t message,
			   struct format_message *header_out, uint32_t *bytes_out);

#endif
