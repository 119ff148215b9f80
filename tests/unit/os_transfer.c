/*
 * Reads and writes of files that the kernel cuts into pieces, on a loop and blocking: the owner
 * sees one result, by the rules of os.h. The calls of the C library are stood in for here.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/backend.h"
#include "os/check.h"
#include "os/os.h"
#include "os/transfer.h"

enum { COUNT = 1000, OFFSET = 77, FD = 1 << 20 };

/* ── a file, and a kernel that moves little of it at once ─────────────────────────── */

static struct {
	char bytes[OFFSET + COUNT];
	size_t size;  /* reads end here */
	size_t piece; /* moved by one call, at most */
	int good;     /* so many calls move something, */
	int error;    /* the next ones give this errno; 0: none ends */
	bool interrupted;
	bool durable; /* so far all writes were */
} file;

/* How much of `count` is moved; -1 with errno. Each is interrupted once. */
static ssize_t moved_of(int fd, size_t count)
{
	assert_int_equal(fd, FD);
	file.interrupted = !file.interrupted;
	if (file.interrupted) {
		errno = EINTR;
		return -1;
	}
	if (file.good-- <= 0 && file.error != 0) {
		errno = file.error;
		return -1;
	}
	return (ssize_t)(count < file.piece ? count : file.piece);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset)
{
	size_t left = file.size - (size_t)offset;
	ssize_t moved = moved_of(fd, count < left ? count : left);

	if (moved > 0)
		memcpy(bytes, file.bytes + offset, (size_t)moved);
	return moved;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	ssize_t moved = moved_of(fd, count);

	if (moved > 0)
		memcpy(file.bytes + offset, bytes, (size_t)moved);
	return moved;
}

ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags)
{
	assert_int_equal(count, 1);
	file.durable &= flags == RWF_DSYNC;
	return pwrite(fd, pieces->iov_base, pieces->iov_len, offset);
}

/* ── one transfer ─────────────────────────────────────────────────────────────────── */

struct act {
	struct os_op op;
	bool done;
};

static void on_act(struct os_op *op)
{
	container_of(op, struct act, op)->done = true;
}

static struct os_loop *loop;

static int32_t on_loop(bool writes, char *bytes)
{
	struct act act = { .op.done = on_act };

	if (writes)
		os_write(loop, &act.op, FD, bytes, COUNT, OFFSET, OS_WRITE_DURABLE);
	else
		os_read(loop, &act.op, FD, bytes, COUNT, OFFSET);
	while (!act.done)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 1000));
	return act.op.result;
}

static int32_t blocking(bool writes, char *bytes)
{
	return (int32_t)(writes ? os_file_write(FD, bytes, COUNT, OFFSET)
				: os_file_read(FD, bytes, COUNT, OFFSET));
}

/* As a ring does it: each completion says how much it has moved, or an error below 0. */
static int32_t by_completions(bool writes, char *bytes)
{
	struct os_op op = { .kind = writes ? OP_WRITE : OP_READ,
			    .u.file = { .bytes = bytes, .count = COUNT, .offset = OFFSET } };
	ssize_t moved;

	do {
		do
			moved = writes ? pwrite(FD, op.u.file.bytes, op.u.file.count,
						(off_t)op.u.file.offset)
				       : pread(FD, op.u.file.bytes, op.u.file.count,
					       (off_t)op.u.file.offset);
		while (moved < 0 && errno == EINTR);
		if (moved <= 0)
			return transfer_result(&op, moved < 0 ? -errno : 0);
	} while (transfer_advance(&op, (size_t)moved));
	return op.result;
}

static const struct cut {
	const char *name;
	bool writes;
	size_t size, piece;
	int good, error;
	int32_t result;
} cuts[] = {
	{ "a read in one", false, COUNT, COUNT, 1, 0, COUNT },
	{ "a read in odd pieces", false, COUNT, 7, 143, 0, COUNT },
	{ "a read up to the end of the file", false, 500, 300, 2, 0, 500 },
	{ "a read behind the end", false, 0, 300, 0, 0, 0 },
	{ "a read that ends with an odd piece of a direct file", false, COUNT, 300, 2, EINVAL,
	  600 },
	{ "a read that is refused at once", false, COUNT, 300, 0, EINVAL, -EINVAL },
	{ "a read whose rest fails", false, COUNT, 300, 2, EIO, -EIO },
	{ "a write in one", true, COUNT, COUNT, 1, 0, COUNT },
	{ "a write in odd pieces", true, COUNT, 7, 143, 0, COUNT },
	{ "a write for whose rest is no room", true, COUNT, 300, 2, ENOSPC, 600 },
	{ "a write for which is no room", true, COUNT, 300, 0, ENOSPC, -ENOSPC },
	{ "a write whose rest fails", true, COUNT, 300, 3, EIO, -EIO },
};

static void run(const struct cut *cut, const char *how, int32_t (*transfer)(bool, char *))
{
	char ours[COUNT], theirs[COUNT];
	int32_t result;

	for (size_t i = 0; i < COUNT; i++)
		ours[i] = (char)(i * 7 + 1);
	memset(&file, 0, sizeof(file));
	memset(theirs, 0, sizeof(theirs));
	file.size = OFFSET + cut->size;
	file.piece = cut->piece;
	file.good = cut->good;
	file.error = cut->error;
	file.durable = true;
	if (!cut->writes)
		memcpy(file.bytes + OFFSET, ours, COUNT);
	result = transfer(cut->writes, cut->writes ? ours : theirs);
	if (result != cut->result)
		fail_msg("%s, %s: %d and not %d", cut->name, how, result, cut->result);
	if (result > 0)
		assert_memory_equal(ours, cut->writes ? file.bytes + OFFSET : theirs,
				    (size_t)result);
	assert_true(file.durable);
}

static void a_transfer_in_pieces_has_one_result(void **state)
{
	char why[256];

	(void)state;
	assert_int_equal(os_backend_use("epoll", why, sizeof(why)), 0);
	assert_int_equal(os_loop_create(NULL, &loop), 0);
	for (size_t i = 0; i < array_count(cuts); i++) {
		run(&cuts[i], "on a loop", on_loop);
		run(&cuts[i], "blocking", blocking);
		run(&cuts[i], "by completions", by_completions);
	}
	os_loop_destroy(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_transfer_in_pieces_has_one_result) };

	return cmocka_run_group_tests_name("os_transfer", tests, NULL, NULL);
}
