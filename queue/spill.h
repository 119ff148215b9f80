/*
 * spill - a body that is too large for memory goes to a file in big/ while it arrives.
 *
 *   append ─► piece ─► piece ─► ... ─► big/<id>     one write in flight
 *
 * Promise: after spill_finish() said QUEUE_OK with SPILL_KEEP, file and name are durable and
 * `crcs` has the CRC of each MiB; with SPILL_READ_BACK, `bytes_out` holds what was appended.
 * Non-promise: until then the file means nothing, and recovery removes it.
 *
 * Thread: the owner of the stream.
 * Source: README.md ("big messages").
 */
#ifndef QUEUE_SPILL_H
#define QUEUE_SPILL_H

#include "queue/pool.h"
#include "queue/queue.h"

enum { SPILL_PIECE_BYTES = 128 << 10, SPILL_PENDING_MAX = 512 << 10 };

enum spill_finish { SPILL_KEEP, SPILL_READ_BACK };

struct spill {
	struct os_loop *loop;
	struct pool *pool;
	uint64_t id;
	struct os_op op;
	int fd; /* -1: not open yet */
	bool opened, closing, keep;
	struct list pieces; /* of struct spill_piece; the last may still grow */
	uint64_t appended, written;
	uint32_t *crcs; /* owned; spill_take_crcs() */
	uint32_t crc_count, crc_running;
	enum queue_status status;
	void (*resume)(void *context); /* NULL: nobody waits */
	void *resume_context;
	bool finishing, sealed; /* sealed: the last CRC is in `crcs` */
	enum spill_finish finish;
	char *bytes_out; /* SPILL_READ_BACK: the caller's, `appended` bytes */
	void (*finished)(void *context, enum queue_status status);
	void *finished_context;
	void (*gone)(void *context); /* after spill_close(), when all is over */
	void *gone_context;
};

/* NULL: no memory. */
struct spill *spill_create(struct os_loop *loop, struct pool *pool, uint64_t id);
void spill_append(struct spill *spill, struct span bytes);
/* False: `resume` will be called. */
bool spill_may_append(struct spill *spill, void (*resume)(void *context), void *context);
/* No more bytes. `finished` is called later in any case. */
void spill_finish(struct spill *spill, enum spill_finish finish, char *bytes_out,
		  void (*finished)(void *context, enum queue_status status), void *context);
/* Frees it when nothing is in flight any more; the file stays if `keep`, else it is unlinked. */
void spill_close(struct spill *spill, bool keep, void (*gone)(void *context), void *context);

#endif
