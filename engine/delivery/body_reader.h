/*
 * body_reader - the body of a big message, a piece at a time, on its way to a connection.
 *
 * Thread: the worker that delivers.
 */
#ifndef ENGINE_BODY_READER_H
#define ENGINE_BODY_READER_H

#include "os/os.h"
#include "queue/queue.h"

struct body_reader; /* opaque: one read in flight, one MiB of memory */

/* `ready` is called when a piece is there, or with a status that ends the reading. NULL: no
 * memory. The message stays until body_reader_destroy(). */
struct body_reader *body_reader_create(struct os_loop *loop, struct queue_message *message,
				       void (*ready)(void *context, enum queue_status status),
				       void *context);
/* The next piece, lent until the next call; empty: wait for `ready`. */
struct span body_reader_next(struct body_reader *reader);
/* Calls `gone` (maybe at once) when nothing is in flight any more and the memory is free. */
void body_reader_destroy(struct body_reader *reader, void (*gone)(void *context));

#endif
