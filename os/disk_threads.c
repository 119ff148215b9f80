#include "os/disk_threads.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "os/thread_pool.h"
#include "os/transfer.h"

static ssize_t disk_move(const struct os_op *op)
{
	struct iovec piece = { op->u.file.bytes, op->u.file.count };
	off_t offset = (off_t)op->u.file.offset;

	if (op->kind == OP_READ)
		return pread(op->fd, piece.iov_base, piece.iov_len, offset);
	return pwritev2(op->fd, &piece, 1, offset,
			op->u.file.flags & OS_WRITE_DURABLE ? RWF_DSYNC : 0);
}

static int32_t disk_transfer(struct os_op *op)
{
	for (;;) {
		ssize_t moved = disk_move(op);

		if (moved < 0 && errno == EINTR)
			continue;
		if (moved <= 0)
			return transfer_result(op, moved < 0 ? -errno : 0);
		if (!transfer_advance(op, (size_t)moved))
			return op->result;
	}
}

static void disk_work(struct os_op *op)
{
	if (op->kind == OP_SYNC)
		op->result = fdatasync(op->fd) == 0 ? 0 : -errno;
	else
		op->result = disk_transfer(op);
}

static struct thread_pool disk_threads = THREAD_POOL("disk", DISK_THREAD_COUNT, disk_work);

void disk_submit(struct os_op *op)
{
	assert(op->kind == OP_READ || op->kind == OP_WRITE || op->kind == OP_SYNC);
	thread_pool_submit(&disk_threads, op);
}
