/*
 * transfer - how far a read, a write or a send has come.
 *
 *   ├── moved: op->result bytes ──┤── op->u: where the rest is ──┤
 *
 * Promise: however the kernel cuts a transfer into pieces, its owner sees one result, by the
 * rules of os.h; every backend takes them from here.
 *
 * Thread: whoever has the operation in hand; nothing here is shared.
 */
#ifndef OS_TRANSFER_H
#define OS_TRANSFER_H

#include "os/backend.h"

/* One pass over the bytes that are not yet sent: those of `*single_out`, if there is only one
 * piece, or else what the returned header names. */
struct msghdr *transfer_send_next(struct os_op *op, struct iovec *single_out);
/* `moved` more bytes, more than 0, are done; false if nothing is left. */
bool transfer_advance(struct os_op *op, size_t moved);
/* What the owner is told when the last call to the kernel gave `result`: what was moved before
 * counts, where os.h says so; else the error does. */
int32_t transfer_result(const struct os_op *op, int32_t result);

#endif
