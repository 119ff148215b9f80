/*
 * loop - the part of a loop that is the same for every backend: the turn, the sleep, and
 * operations that come back from other threads.
 */
#include <sched.h>
#include <stdio.h>

#include "os/backend.h"

#define OPERATIONS_DEFAULT	  1024
#define RECV_BUFFERS_DEFAULT	  128
#define RECV_BUFFER_BYTES_DEFAULT 65536

/* Written once, before the first loop and the first thread. */
static const struct os_backend *chosen;

/* ── life ─────────────────────────────────────────────────────────────────────────── */

void loop_backend_set(const struct os_backend *backend)
{
	chosen = backend;
}

int loop_socket_flags(void)
{
	return chosen == NULL ? 0 : chosen->socket_flags;
}

int os_loop_create(const struct os_loop_options *options, struct os_loop **out)
{
	struct os_loop_options full = options != NULL ? *options : (struct os_loop_options){ 0 };

	assert(chosen != NULL);
	if (full.operations == 0)
		full.operations = OPERATIONS_DEFAULT;
	if (full.recv_buffers == 0)
		full.recv_buffers = RECV_BUFFERS_DEFAULT;
	if (full.recv_buffer_bytes == 0)
		full.recv_buffer_bytes = RECV_BUFFER_BYTES_DEFAULT;
	assert((full.recv_buffers & (full.recv_buffers - 1)) == 0);
	return chosen->create(&full, out);
}

void loop_init(struct os_loop *loop, const struct os_backend *backend)
{
	loop->backend = backend;
	list_init(&loop->completed);
	loop->mono = os_mono_now();
	loop->wall = os_wall_now();
	loop->in_flight_count = 0;
	atomic_init(&loop->posted.head, NULL);
	atomic_init(&loop->sleep, LOOP_AWAKE);
	atomic_init(&loop->visitors, 0);
}

void os_loop_destroy(struct os_loop *loop)
{
	if (loop == NULL)
		return;
	assert(loop->in_flight_count == 0 && list_empty(&loop->completed));
	/* acquire: pairs with loop_return(); its last touch comes before the end. */
	while (atomic_load_explicit(&loop->visitors, memory_order_acquire) > 0)
		sched_yield();
	loop->backend->destroy(loop);
}

struct os_mono os_loop_mono(const struct os_loop *loop)
{
	return loop->mono;
}

struct os_wall os_loop_wall(const struct os_loop *loop)
{
	return loop->wall;
}

/* ── the turn ─────────────────────────────────────────────────────────────────────── */

/* False if somebody has called os_loop_wake() since the last turn began.
 *
 *   waker                                loop
 *   writes its message                   sleep: AWAKE -> ASLEEP, or finds WOKEN: stays up
 *   sleep := WOKEN, was ASLEEP: wake     ... sleeps ...
 *                                        sleep := AWAKE
 *                                        reads messages
 *
 * All three are read-modify-writes of one word, so they have one order. Release in the waker
 * and acquire in `sleep := AWAKE` make the message visible to the turn that takes the WOKEN
 * away; a WOKEN written later stays, and the next turn does not sleep. */
static bool loop_fall_asleep(struct os_loop *loop)
{
	uint32_t expected = LOOP_AWAKE;

	return atomic_compare_exchange_strong_explicit(&loop->sleep, &expected, LOOP_ASLEEP,
						       memory_order_relaxed, memory_order_relaxed);
}

static void loop_get_up(struct os_loop *loop)
{
	atomic_exchange_explicit(&loop->sleep, LOOP_AWAKE, memory_order_acquire);
}

void os_loop_wake(struct os_loop *loop)
{
	uint32_t before = atomic_exchange_explicit(&loop->sleep, LOOP_WOKEN, memory_order_release);

	if (before == LOOP_ASLEEP)
		loop->backend->wake(loop);
}

static void loop_take_posted(struct os_loop *loop)
{
	struct list posted;

	list_init(&posted);
	op_stack_take(&loop->posted, &posted);
	list_each(node, &posted) {
		struct os_op *op = container_of(node, struct os_op, link);

		list_remove(node);
		if (op->kind == OP_POSTED)
			loop->in_flight_count++; /* its poster could not count it */
		loop_complete(loop, op, op->result);
	}
}

/* `op` may be gone when its callback returns. */
static void loop_run(struct os_loop *loop, struct os_op *op)
{
	const char *lent = op->data;

	assert(op->busy && op->stage == OP_COMPLETED);
	op->busy = false;
	loop->in_flight_count--;
	op->done(op);
	if (lent != NULL)
		loop->backend->take_back(loop, lent);
}

uint32_t os_loop_turn(struct os_loop *loop, struct os_mono until)
{
	struct list due, *node;
	uint32_t count = 0;
	bool sleep = list_empty(&loop->completed) && until.ns > os_mono_now().ns &&
		     loop_fall_asleep(loop);

	loop->backend->wait(loop, sleep ? until : (struct os_mono){ 0 });
	loop_get_up(loop);
	loop_take_posted(loop);
	loop->mono = os_mono_now();
	loop->wall = os_wall_now();

	/* What callbacks complete in passing waits for the next turn, so that a turn ends. */
	list_init(&due);
	list_splice_back(&due, &loop->completed);
	while ((node = list_pop_front(&due)) != NULL) {
		loop_run(loop, container_of(node, struct os_op, link));
		count++;
	}
	return count;
}

/* ── beginning and ending ─────────────────────────────────────────────────────────── */

void loop_begin(struct os_loop *loop, struct os_op *op, enum op_kind kind)
{
	assert(!op->busy && op->done != NULL);
	op->busy = true;
	op->cancelled = false;
	op->kind = (uint8_t)kind;
	op->stage = OP_STARTED;
	op->generation++;
	op->loop = loop;
	op->result = 0;
	list_init(&op->link);
	loop->in_flight_count++;
}

void loop_complete(struct os_loop *loop, struct os_op *op, int32_t result)
{
	assert(op->busy && op->stage != OP_COMPLETED && op->loop == loop);
	op->stage = OP_COMPLETED;
	op->result = result;
	if (op->kind != OP_RECV)
		op->data = NULL;
	list_push_back(&loop->completed, &op->link);
}

/* Once `op` is pushed its owner may go on, up to destroying the loop: it waits for visitors. */
void loop_return(struct os_loop *loop, struct os_op *op, int32_t result)
{
	atomic_fetch_add_explicit(&loop->visitors, 1, memory_order_relaxed);
	op->result = result;
	if (op_stack_push(&loop->posted, op))
		os_loop_wake(loop);
	atomic_fetch_sub_explicit(&loop->visitors, 1, memory_order_release);
}

void os_loop_post(struct os_loop *loop, struct os_op *op, int32_t result)
{
	assert(!op->busy && op->done != NULL);
	op->busy = true;
	op->cancelled = false;
	op->kind = OP_POSTED;
	op->stage = OP_STARTED;
	op->loop = loop;
	loop_return(loop, op, result);
}

void os_cancel(struct os_loop *loop, struct os_op *op)
{
	if (!op->busy || op->cancelled || op->stage == OP_COMPLETED || op->kind >= OP_POSTED)
		return; /* nothing to end, or on a thread that ends it soon by itself */
	assert(op->loop == loop);
	op->cancelled = true;
	loop->backend->cancel(loop, op);
}

/* ── operations ───────────────────────────────────────────────────────────────────── */

void loop_start(struct os_loop *loop, struct os_op *op, enum op_kind kind, int fd)
{
	assert(fd >= 0);
	loop_begin(loop, op, kind);
	op->fd = fd;
	loop->backend->start(loop, op);
}

void os_accept(struct os_loop *loop, struct os_op *op, int listen_fd)
{
	loop_start(loop, op, OP_ACCEPT, listen_fd);
}

void os_recv(struct os_loop *loop, struct os_op *op, int fd)
{
	loop_start(loop, op, OP_RECV, fd);
}

void os_send(struct os_loop *loop, struct os_op *op, int fd, const struct iovec *iov, int count)
{
	assert(!op->busy && count >= 0 && count <= UIO_MAXIOV);
	op->u.send.next = iov;
	op->u.send.next_count = count;
	op->u.send.partial = (struct iovec){ 0 };
	loop_start(loop, op, OP_SEND, fd);
}

static void loop_start_file(struct os_loop *loop, struct os_op *op, enum op_kind kind, int fd)
{
	assert(op->u.file.count <= INT32_MAX);
	loop_start(loop, op, kind, fd);
}

void os_read(struct os_loop *loop, struct os_op *op, int fd, void *bytes, size_t count,
	     uint64_t offset)
{
	assert(!op->busy);
	op->u.file.bytes = bytes;
	op->u.file.count = count;
	op->u.file.offset = offset;
	op->u.file.flags = 0;
	loop_start_file(loop, op, OP_READ, fd);
}

void os_write(struct os_loop *loop, struct os_op *op, int fd, const void *bytes, size_t count,
	      uint64_t offset, int flags)
{
	assert(!op->busy);
	op->u.file.bytes = (void *)bytes; /* a write only reads it */
	op->u.file.count = count;
	op->u.file.offset = offset;
	op->u.file.flags = flags;
	loop_start_file(loop, op, OP_WRITE, fd);
}

void os_sync(struct os_loop *loop, struct os_op *op, int fd)
{
	loop_start(loop, op, OP_SYNC, fd);
}
