#include "os/transfer.h"

#include <errno.h>

static void send_take_piece(struct os_op *op)
{
	op->u.send.partial = *op->u.send.next++;
	op->u.send.next_count--;
}

struct msghdr *transfer_send_next(struct os_op *op, struct iovec *single_out)
{
	struct msghdr *message = &op->u.send.message;

	if (op->u.send.partial.iov_len == 0 && op->u.send.next_count == 1)
		send_take_piece(op);
	if (op->u.send.partial.iov_len > 0 || op->u.send.next_count == 0) {
		*single_out = op->u.send.partial;
		return NULL;
	}
	*message = (struct msghdr){
		.msg_iov = (struct iovec *)op->u.send.next, /* the kernel only reads it */
		.msg_iovlen = (size_t)op->u.send.next_count,
	};
	return message;
}

static bool send_advance(struct os_op *op, size_t sent)
{
	struct iovec *partial = &op->u.send.partial;

	if (partial->iov_len == 0 && op->u.send.next_count > 0)
		send_take_piece(op);
	while (sent >= partial->iov_len && op->u.send.next_count > 0) {
		sent -= partial->iov_len;
		send_take_piece(op);
	}
	assert(sent <= partial->iov_len);
	partial->iov_base = (char *)partial->iov_base + sent;
	partial->iov_len -= sent;
	return partial->iov_len > 0;
}

static bool file_advance(struct os_op *op, size_t moved)
{
	assert(moved <= op->u.file.count);
	op->u.file.bytes = (char *)op->u.file.bytes + moved;
	op->u.file.offset += moved;
	op->u.file.count -= moved;
	return op->u.file.count > 0;
}

bool transfer_advance(struct os_op *op, size_t moved)
{
	assert(moved > 0);
	op->result += (int32_t)moved;
	return op->kind == OP_SEND ? send_advance(op, moved) : file_advance(op, moved);
}

int32_t transfer_result(const struct os_op *op, int32_t result)
{
	bool counts;

	if (result >= 0)
		return op->result;
	/* A direct read that ended at the end of a file of odd size may not go on from there. */
	counts = op->kind == OP_SEND || (op->kind == OP_WRITE && result == -ENOSPC) ||
		 (op->kind == OP_READ && result == -EINVAL);
	return counts && op->result > 0 ? op->result : result;
}
