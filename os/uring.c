/*
 * uring - the io_uring backend; the only file that knows liburing.
 *
 *   start ──► SQE ──► enter, once a turn ──► CQE ──► result copied ──► loop_complete()
 *     ▲                                       │
 *     └── the rest of a short read or write ──┘
 *
 * A CQE names its operation by address, with op->generation in the upper 16 bits, so that an
 * operation that was completed twice is an assert and not a stray callback.
 *
 * Receives take their buffer from a ring of buffers at the moment when there is something to
 * receive: ten thousand idle connections hold none. A receive that finds none starves until
 * the callbacks of this turn have given theirs back, and is then begun again.
 *
 * Thread: the ring belongs to the thread that created it (IORING_SETUP_SINGLE_ISSUER).
 */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "os/backend.h"
#include "os/transfer.h"

#define TAG_IGNORED	 0 /* the answer to a cancel */
#define TAG_WAKE	 1 /* the eventfd was written */
#define GENERATION_SHIFT 48
#define BUFFER_GROUP	 0

/* More completions than this at once go through the kernel's overflow list: slower, not lost. */
#define CQ_PER_SQ 8
/* Since Linux 6.14 rings count as locked memory of their user, those of all his processes together,
 * and for a moment those of processes that have ended: where that is short a ring is made smaller,
 * and the smallest is waited for. */
#define RING_SMALLEST 64
#define RING_SHRINKS  4 /* times smaller each */
#define RING_WAITS    100
#define RING_WAIT_US  10000
/* Kernel threads for file operations that would block, and for the rest. */
#define WORKERS_BOUNDED	  8
#define WORKERS_UNBOUNDED 8

struct uring {
	struct os_loop loop;
	struct io_uring ring;
	const char *mode;    /* static */
	struct list starved; /* receives without a buffer */
	int wake_fd;
	bool wake_armed;
	uint64_t wake_count; /* what the kernel read from wake_fd; of no interest */

	struct io_uring_buf_ring *buffer_ring;
	size_t buffer_ring_bytes;
	char *buffers;
	uint32_t buffer_count, buffer_bytes;
};

static struct uring *uring_of(struct os_loop *loop)
{
	return container_of(loop, struct uring, loop);
}

/* ── the ring ─────────────────────────────────────────────────────────────────────── */

/* Best first. */
static const struct uring_mode {
	uint32_t flags;
	const char *name;
} modes[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL,
	  "deferred task work" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "cooperative task work" },
	{ 0, "plain" },
};

/* All that this file asks of a ring. What the ring does passes by seccomp, so that somebody who
 * took the process over could otherwise open files or start connections of other kinds by it. */
static const uint8_t operations[] = {
	IORING_OP_NOP,	 IORING_OP_ACCEPT,	 IORING_OP_CONNECT, IORING_OP_RECV,
	IORING_OP_SEND,	 IORING_OP_SENDMSG,	 IORING_OP_READ,    IORING_OP_WRITE,
	IORING_OP_FSYNC, IORING_OP_ASYNC_CANCEL,
};
static const uint8_t registrations[] = {
	IORING_REGISTER_PBUF_RING,
	IORING_REGISTER_RING_FDS,
	IORING_UNREGISTER_RING_FDS,
	IORING_REGISTER_IOWQ_MAX_WORKERS,
};

/* Debian 12's shared liburing does not export the functions for these two. */
static int ring_restrict(const struct io_uring *ring)
{
	struct io_uring_restriction list[array_count(operations) + array_count(registrations) +
					 1] = { { .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
						  .sqe_flags = IOSQE_BUFFER_SELECT } };
	uint32_t count = 1;

	for (size_t i = 0; i < array_count(operations); i++)
		list[count++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_SQE_OP,
							       .sqe_op = operations[i] };
	for (size_t i = 0; i < array_count(registrations); i++)
		list[count++] =
			(struct io_uring_restriction){ .opcode = IORING_RESTRICTION_REGISTER_OP,
						       .register_op = registrations[i] };
	if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, list,
		    count) != 0 ||
	    syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) !=
		    0)
		return -errno;
	return 0;
}

static int ring_open(struct io_uring *ring, uint32_t entries, const char **mode_out)
{
	int result = -EINVAL;

	for (size_t i = 0; i < array_count(modes) && result == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = modes[i].flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
				 IORING_SETUP_R_DISABLED,
			.cq_entries = entries * CQ_PER_SQ,
		};

		*mode_out = modes[i].name;
		result = io_uring_queue_init_params(entries, ring, &params);
	}
	if (result < 0)
		return result;
	result = -ENOSYS;
	if ((ring->features & IORING_FEAT_NODROP) && (ring->features & IORING_FEAT_EXT_ARG))
		result = ring_restrict(ring);
	if (result < 0)
		io_uring_queue_exit(ring);
	return result;
}

/* Memory of whole pages that is there from the start; NULL if it is not to be had. */
static void *pages_map(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static void buffer_add(struct uring *uring, uint32_t index)
{
	io_uring_buf_ring_add(uring->buffer_ring,
			      uring->buffers + (size_t)index * uring->buffer_bytes,
			      uring->buffer_bytes, (uint16_t)index,
			      io_uring_buf_ring_mask(uring->buffer_count), 0);
	io_uring_buf_ring_advance(uring->buffer_ring, 1);
}

static int buffers_create(struct uring *uring, uint32_t count, uint32_t bytes)
{
	struct io_uring_buf_reg reg = { .ring_entries = count, .bgid = BUFFER_GROUP };
	int result;

	uring->buffer_count = count;
	uring->buffer_bytes = bytes;
	uring->buffer_ring_bytes = count * sizeof(struct io_uring_buf);
	uring->buffer_ring = pages_map(uring->buffer_ring_bytes);
	uring->buffers = pages_map((size_t)count * bytes);
	if (uring->buffer_ring == NULL || uring->buffers == NULL)
		return -ENOMEM;
	io_uring_buf_ring_init(uring->buffer_ring);
	reg.ring_addr = (uintptr_t)uring->buffer_ring;
	result = io_uring_register_buf_ring(&uring->ring, &reg, 0);
	for (uint32_t i = 0; i < count && result == 0; i++)
		buffer_add(uring, i);
	return result;
}

static void uring_destroy(struct os_loop *loop)
{
	struct uring *uring = uring_of(loop);

	io_uring_queue_exit(&uring->ring);
	if (uring->wake_fd >= 0)
		close(uring->wake_fd);
	if (uring->buffer_ring != NULL)
		munmap(uring->buffer_ring, uring->buffer_ring_bytes);
	if (uring->buffers != NULL)
		munmap(uring->buffers, (size_t)uring->buffer_count * uring->buffer_bytes);
	free(uring);
}

static int uring_try(const struct os_loop_options *options, uint32_t entries, struct os_loop **out)
{
	struct uring *uring = aligned_alloc(64, (sizeof(*uring) + 63) / 64 * 64);
	uint32_t workers[2] = { WORKERS_BOUNDED, WORKERS_UNBOUNDED };
	int result;

	if (uring == NULL)
		return -ENOMEM;
	memset(uring, 0, sizeof(*uring));
	loop_init(&uring->loop, &os_backend_uring);
	list_init(&uring->starved);
	result = ring_open(&uring->ring, entries, &uring->mode);
	if (result < 0) {
		free(uring);
		return result;
	}
	uring->wake_fd = eventfd(0, EFD_CLOEXEC);
	result = uring->wake_fd < 0
			 ? -errno
			 : buffers_create(uring, options->recv_buffers, options->recv_buffer_bytes);
	if (result < 0) {
		uring_destroy(&uring->loop);
		return result;
	}
	/* Both only save time; kernels without them do the same work. */
	io_uring_register_ring_fd(&uring->ring);
	io_uring_register_iowq_max_workers(&uring->ring, workers);
	*out = &uring->loop;
	return 0;
}

static int uring_create(const struct os_loop_options *options, struct os_loop **out)
{
	uint32_t entries = options->operations, waits = 0;
	int result = uring_try(options, entries, out);

	while (result == -ENOMEM && waits < RING_WAITS) {
		if (entries / RING_SHRINKS >= RING_SMALLEST) {
			entries /= RING_SHRINKS;
		} else {
			usleep(RING_WAIT_US);
			waits++;
		}
		result = uring_try(options, entries, out);
	}
	return result;
}

/* ── may we? ──────────────────────────────────────────────────────────────────────── */

/* kernel.io_uring_disabled: 0, 1 (only for a group), 2 (nobody); 0 where there is no such
 * setting. */
static int setting_disabled(void)
{
	FILE *file = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	char text[16] = "";

	if (file == NULL)
		return 0;
	if (fgets(text, sizeof(text), file) == NULL)
		text[0] = 0;
	fclose(file);
	return (int)strtol(text, NULL, 10);
}

static void refusal_explain(int error, char *why, size_t bytes)
{
	int disabled = setting_disabled();
	struct utsname host;

	uname(&host);
	if (error == -EPERM && disabled != 0)
		snprintf(why, bytes,
			 "io_uring is forbidden by kernel.io_uring_disabled=%d; allow it with "
			 "sysctl -w kernel.io_uring_disabled=0%s",
			 disabled, disabled == 1 ? ", or kernel.io_uring_group=<our group>" : "");
	else if (error == -EPERM || error == -EACCES)
		snprintf(why, bytes,
			 "io_uring is forbidden by a seccomp filter, as containers have it; allow "
			 "io_uring_setup, io_uring_enter and io_uring_register in its profile");
	else if (error == -ENOMEM)
		snprintf(why, bytes,
			 "io_uring finds too little memory; raise the limit of locked memory "
			 "(ulimit -l, LimitMEMLOCK=)");
	else if (error == -ENOSYS || error == -EINVAL)
		snprintf(why, bytes,
			 "io_uring is missing or too old in kernel %s, or hidden by a seccomp "
			 "filter; Linux 5.19 or newer is needed",
			 host.release);
	else
		snprintf(why, bytes, "io_uring cannot be set up: %s", strerror(-error));
}

/* A filter may allow the ring and forbid to enter it. */
static int ring_try(struct io_uring *ring)
{
	int result;

	io_uring_prep_nop(io_uring_get_sqe(ring));
	result = io_uring_submit_and_wait(ring, 1);
	return result < 0 ? result : 0;
}

/* Whether a small loop can be had. */
static int uring_probe(char *why, size_t why_bytes)
{
	static const struct os_loop_options options = {
		.operations = 8,
		.recv_buffers = 8,
		.recv_buffer_bytes = 512,
	};
	struct os_loop *loop;
	struct utsname host;
	const char *mode = "";
	int result = uring_create(&options, &loop);

	if (result == 0) {
		mode = uring_of(loop)->mode;
		result = ring_try(&uring_of(loop)->ring);
		uring_destroy(loop);
	}
	if (result < 0) {
		refusal_explain(result, why, why_bytes);
		return result;
	}
	uname(&host);
	snprintf(why, why_bytes, "io_uring, %s, kernel %s", mode, host.release);
	return 0;
}

/* ── completions ──────────────────────────────────────────────────────────────────── */

static void uring_start(struct os_loop *loop, struct os_op *op);

/* A read, write or send has moved `result` bytes, or failed. op->result is the sum so far. */
static void transfer_ended(struct uring *uring, struct os_op *op, int32_t result)
{
	bool again = result == -EINTR || result == -EAGAIN;

	if (result > 0)
		again = transfer_advance(op, (size_t)result);
	if (again && !op->cancelled)
		uring_start(&uring->loop, op);
	else if (again && op->result == 0)
		loop_complete(&uring->loop, op, -ECANCELED);
	else
		loop_complete(&uring->loop, op, transfer_result(op, again ? 0 : result));
}

static void recv_ended(struct uring *uring, struct os_op *op, const struct io_uring_cqe *cqe)
{
	op->data = NULL;
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		uint32_t index = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

		assert(index < uring->buffer_count);
		if (cqe->res > 0)
			op->data = uring->buffers + (size_t)index * uring->buffer_bytes;
		else
			buffer_add(uring, index);
	}
	if (cqe->res == -ENOBUFS && !op->cancelled) {
		op->stage = OP_STARVED;
		list_push_back(&uring->starved, &op->link);
	} else if (cqe->res == -EINTR && !op->cancelled) {
		uring_start(&uring->loop, op);
	} else {
		bool ended = cqe->res == -ENOBUFS || cqe->res == -EINTR;

		loop_complete(&uring->loop, op, ended ? -ECANCELED : cqe->res);
	}
}

static void cqe_take(struct uring *uring, const struct io_uring_cqe *cqe)
{
	uint64_t tag = cqe->user_data;
	struct os_op *op;

	if (tag == TAG_IGNORED)
		return;
	if (tag == TAG_WAKE) {
		uring->wake_armed = false;
		return;
	}
	op = (struct os_op *)(uintptr_t)(tag & ((UINT64_C(1) << GENERATION_SHIFT) - 1));
	assert(op->busy && op->stage == OP_STARTED && op->generation == tag >> GENERATION_SHIFT);
	switch ((enum op_kind)op->kind) {
	case OP_READ:
	case OP_WRITE:
	case OP_SEND:
		transfer_ended(uring, op, cqe->res);
		return;
	case OP_RECV:
		recv_ended(uring, op, cqe);
		return;
	default:
		if (cqe->res == -EINTR && !op->cancelled && op->kind != OP_CONNECT)
			uring_start(&uring->loop, op);
		else
			loop_complete(&uring->loop, op, cqe->res);
	}
}

/* Takes what is in the completion ring: the ring's slots are free again before any callback
 * runs. An operation that goes on submits itself here, which may need a free slot in the
 * submission ring and so come back to this function: hence the copy and the early advance. */
static void uring_reap(struct uring *uring)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
		struct io_uring_cqe copy = *cqe;

		io_uring_cqe_seen(&uring->ring, cqe);
		cqe_take(uring, &copy);
	}
}

/* ── submissions ──────────────────────────────────────────────────────────────────── */

/* A free slot; if there is none, everything so far goes to the kernel. */
static struct io_uring_sqe *uring_slot(struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	while (sqe == NULL) {
		int result = io_uring_submit(&uring->ring);

		/* The kernel wants its completions taken first. */
		if (result == -EBUSY || result == -EAGAIN) {
			io_uring_get_events(&uring->ring);
			uring_reap(uring);
		} else {
			assert(result >= 0 || result == -EINTR);
		}
		sqe = io_uring_get_sqe(&uring->ring);
	}
	return sqe;
}

static void send_fill(struct io_uring_sqe *sqe, struct os_op *op)
{
	struct iovec single;
	struct msghdr *message = transfer_send_next(op, &single);

	if (message == NULL)
		io_uring_prep_send(sqe, op->fd, single.iov_base, single.iov_len,
				   MSG_NOSIGNAL | MSG_WAITALL);
	else
		io_uring_prep_sendmsg(sqe, op->fd, message, MSG_NOSIGNAL | MSG_WAITALL);
}

static void sqe_fill(struct io_uring_sqe *sqe, struct os_op *op)
{
	switch ((enum op_kind)op->kind) {
	case OP_ACCEPT:
		io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC);
		break;
	case OP_CONNECT:
		io_uring_prep_connect(sqe, op->fd, (struct sockaddr *)&op->u.connect.address,
				      op->u.connect.length);
		break;
	case OP_RECV:
		io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
		io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
		sqe->buf_group = BUFFER_GROUP;
		break;
	case OP_SEND:
		send_fill(sqe, op);
		break;
	case OP_READ:
		io_uring_prep_read(sqe, op->fd, op->u.file.bytes, (uint32_t)op->u.file.count,
				   op->u.file.offset);
		break;
	case OP_WRITE:
		io_uring_prep_write(sqe, op->fd, op->u.file.bytes, (uint32_t)op->u.file.count,
				    op->u.file.offset);
		if (op->u.file.flags & OS_WRITE_DURABLE)
			sqe->rw_flags = RWF_DSYNC;
		break;
	case OP_SYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	default:
		assert(!"an operation that is not the ring's");
	}
}

static uint64_t op_tag(const struct os_op *op)
{
	uint64_t address = (uintptr_t)op;

	assert(address >> GENERATION_SHIFT == 0 && address > TAG_WAKE);
	return address | (uint64_t)op->generation << GENERATION_SHIFT;
}

static void uring_start(struct os_loop *loop, struct os_op *op)
{
	struct io_uring_sqe *sqe = uring_slot(uring_of(loop));

	op->stage = OP_STARTED;
	sqe_fill(sqe, op);
	io_uring_sqe_set_data64(sqe, op_tag(op));
}

static void uring_cancel(struct os_loop *loop, struct os_op *op)
{
	struct io_uring_sqe *sqe;

	if (op->stage == OP_STARVED) {
		list_remove(&op->link);
		loop_complete(loop, op, -ECANCELED);
		return;
	}
	sqe = uring_slot(uring_of(loop));
	io_uring_prep_cancel64(sqe, op_tag(op), 0);
	io_uring_sqe_set_data64(sqe, TAG_IGNORED);
}

static void uring_take_back(struct os_loop *loop, const char *data)
{
	struct uring *uring = uring_of(loop);

	buffer_add(uring, (uint32_t)((size_t)(data - uring->buffers) / uring->buffer_bytes));
}

/* ── the wait ─────────────────────────────────────────────────────────────────────── */

static void wake_arm(struct uring *uring)
{
	struct io_uring_sqe *sqe = uring_slot(uring);

	io_uring_prep_read(sqe, uring->wake_fd, &uring->wake_count, sizeof(uring->wake_count), 0);
	io_uring_sqe_set_data64(sqe, TAG_WAKE);
	uring->wake_armed = true;
}

static void uring_wake(struct os_loop *loop)
{
	uint64_t one = 1;
	ssize_t written = write(uring_of(loop)->wake_fd, &one, sizeof(one));

	assert(written == sizeof(one));
}

/* All buffers are back between two turns: who starves now gets one, or waits its turn. */
static void starved_restart(struct uring *uring)
{
	struct list starved, *node;

	list_init(&starved);
	list_splice_back(&starved, &uring->starved);
	while ((node = list_pop_front(&starved)) != NULL)
		uring_start(&uring->loop, container_of(node, struct os_op, link));
}

static int uring_sleep(struct uring *uring, struct os_mono until)
{
	uint64_t now = os_mono_now().ns;
	uint64_t rest = until.ns > now ? until.ns - now : 0;
	struct __kernel_timespec limit = {
		.tv_sec = (int64_t)(rest / OS_NS_PER_S),
		.tv_nsec = (int64_t)(rest % OS_NS_PER_S),
	};
	struct io_uring_cqe *cqe;

	return io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1,
						until.ns == UINT64_MAX ? NULL : &limit, NULL);
}

static void uring_wait(struct os_loop *loop, struct os_mono until)
{
	struct uring *uring = uring_of(loop);
	int result;

	starved_restart(uring);
	if (!uring->wake_armed)
		wake_arm(uring);
	if (until.ns != 0 && list_empty(&loop->completed))
		result = uring_sleep(uring, until);
	else
		result = io_uring_submit_and_get_events(&uring->ring);
	/* What was not submitted for want of memory or completion slots stays in the ring. */
	assert(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN ||
	       result == -EBUSY || result == -ENOMEM);
	uring_reap(uring);
	while (io_uring_cq_has_overflow(&uring->ring)) {
		io_uring_get_events(&uring->ring);
		uring_reap(uring);
	}
}

const struct os_backend os_backend_uring = {
	.name = "io_uring",
	.probe = uring_probe,
	.create = uring_create,
	.destroy = uring_destroy,
	.start = uring_start,
	.cancel = uring_cancel,
	.wait = uring_wait,
	.wake = uring_wake,
	.take_back = uring_take_back,
};
