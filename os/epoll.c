/*
 * epoll - the backend for where io_uring is refused.
 *
 *   start ──► accept, connect, recv, send at once ──► loop_complete(), for the next turn
 *                │ EAGAIN                    ▲
 *                └──► the descriptor's state ┘ an edge from epoll_wait()
 *   start ──► disk threads ──► loop_return()
 *
 * A descriptor is registered once, for all edges, when an operation has to wait for it; from
 * then on its state remembers what it was last seen ready for. So a turn costs one epoll_wait(),
 * a receive and a send one call each, and nothing is asked of the kernel to wait. Edges are
 * hints: one too many costs an EAGAIN, and none gets lost, because all are collected by the
 * thread that makes the calls.
 *
 * Closing a descriptor takes it out of the kernel's set without a word to us, and its number
 * may come back: a state is believed only while socket_closings() stands still.
 *
 * Receives lend a buffer only for bytes that are there. One that finds none starves until the
 * callbacks of this turn have given theirs back; while some starve, others queue up behind.
 *
 * Thread: all of it belongs to the loop's thread but the wake.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "os/backend.h"
#include "os/disk_threads.h"
#include "os/transfer.h"

#define EVENTS_MAX     512 /* taken in one turn; the others wait for the next */
#define STATES_MIN     256
#define STALLED_NS     (5 * OS_NS_PER_MS)
#define EVENTS_WATCHED (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET)
/* After these a receive that was not filled may not have been the last. */
#define EVENTS_MORE (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)

enum {
	READY_IN = 1,	/* accept or recv did not say EAGAIN since the last edge */
	READY_OUT = 2,	/* the same for send */
	READY_MORE = 4, /* an end, an error or urgent data: ask until EAGAIN */
};

/* A descriptor's, by its number. */
struct fd_state {
	uint32_t closings; /* socket_closings() when it was registered */
	bool registered;   /* with the kernel */
	uint8_t ready;	   /* READY_... */
	struct os_op *in;  /* the accept or receive that waits */
	struct os_op *out; /* the connect or send that waits */
};

struct poller {
	struct os_loop loop;
	int epoll_fd;
	int wake_fd;
	bool fine_timeouts;  /* epoll_pwait2() is there: Linux 5.11 */
	struct list starved; /* receives without a buffer */
	struct list stalled; /* connects to a UNIX socket whose backlog is full */

	struct fd_state *states; /* grows, so a pointer into it lasts until the next start */
	uint32_t state_count;

	char *buffers;
	uint32_t buffer_count, buffer_bytes;
	uint32_t *free_buffers; /* a stack of indexes: what was used last is in the cache */
	uint32_t free_count;

	struct epoll_event events[EVENTS_MAX];
};

static struct poller *poller_of(struct os_loop *loop)
{
	return container_of(loop, struct poller, loop);
}

/* ── life ─────────────────────────────────────────────────────────────────────────── */

static int buffers_create(struct poller *poller, uint32_t count, uint32_t bytes)
{
	poller->buffer_count = count;
	poller->buffer_bytes = bytes;
	poller->buffers = mmap(NULL, (size_t)count * bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (poller->buffers == MAP_FAILED)
		poller->buffers = NULL;
	poller->free_buffers = calloc(count, sizeof(poller->free_buffers[0]));
	if (poller->buffers == NULL || poller->free_buffers == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++)
		poller->free_buffers[poller->free_count++] = count - 1 - i;
	return 0;
}

static int wake_create(struct poller *poller)
{
	/* Every write is an edge: nobody has to read it. */
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.fd = -1 };

	poller->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (poller->wake_fd < 0 ||
	    epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, poller->wake_fd, &event) != 0)
		return -errno;
	return 0;
}

static void poller_destroy(struct os_loop *loop)
{
	struct poller *poller = poller_of(loop);

	if (poller->wake_fd >= 0)
		close(poller->wake_fd);
	if (poller->epoll_fd >= 0)
		close(poller->epoll_fd);
	if (poller->buffers != NULL)
		munmap(poller->buffers, (size_t)poller->buffer_count * poller->buffer_bytes);
	free(poller->free_buffers);
	free(poller->states);
	free(poller);
}

/* Where it is missing or filtered, the error is another one. */
static bool fine_timeouts_exist(void)
{
	struct epoll_event event;
	struct timespec no_time = { 0 };

	return epoll_pwait2(-1, &event, 1, &no_time, NULL) < 0 && errno == EBADF;
}

static int poller_create(const struct os_loop_options *options, struct os_loop **out)
{
	struct poller *poller = aligned_alloc(64, (sizeof(*poller) + 63) / 64 * 64);
	int result;

	if (poller == NULL)
		return -ENOMEM;
	memset(poller, 0, sizeof(*poller));
	loop_init(&poller->loop, &os_backend_epoll);
	list_init(&poller->starved);
	list_init(&poller->stalled);
	poller->fine_timeouts = fine_timeouts_exist();
	poller->wake_fd = -1;
	poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	result = poller->epoll_fd < 0 ? -errno : wake_create(poller);
	if (result == 0)
		result = buffers_create(poller, options->recv_buffers, options->recv_buffer_bytes);
	if (result < 0) {
		poller_destroy(&poller->loop);
		return result;
	}
	*out = &poller->loop;
	return 0;
}

static int poller_probe(char *why, size_t why_bytes)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);
	int result = fd < 0 ? -errno : 0;
	struct utsname host;

	if (result < 0) {
		snprintf(why, why_bytes, "epoll cannot be set up: %s", strerror(-result));
		return result;
	}
	close(fd);
	uname(&host);
	snprintf(why, why_bytes, "epoll, %d disk threads, kernel %s", DISK_THREAD_COUNT,
		 host.release);
	return 0;
}

/* ── what is known of a descriptor ────────────────────────────────────────────────── */

/* NULL: no memory for a number as high as this. */
static struct fd_state *state_of(struct poller *poller, int fd)
{
	uint32_t count = poller->state_count > 0 ? poller->state_count : STATES_MIN;
	struct fd_state *states;

	if ((uint32_t)fd < poller->state_count)
		return &poller->states[fd];
	while (count <= (uint32_t)fd)
		count *= 2;
	states = realloc(poller->states, count * sizeof(states[0]));
	if (states == NULL)
		return NULL;
	memset(&states[poller->state_count], 0, (count - poller->state_count) * sizeof(states[0]));
	poller->states = states;
	poller->state_count = count;
	return &states[fd];
}

static bool state_holds(const struct fd_state *state, int fd)
{
	return state->registered && state->closings == socket_closings(fd);
}

/* From here on edges arrive; the first, with what is ready now, in the next wait. 0 or -errno. */
static int state_register(struct poller *poller, struct fd_state *state, int fd)
{
	struct epoll_event event = { .events = EVENTS_WATCHED, .data.fd = fd };

	if (state_holds(state, fd))
		return 0;
	if (epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) {
		/* Nothing may be in flight on a descriptor when it is closed. */
		assert(state->in == NULL && state->out == NULL);
		state->ready = 0;
	} else if (errno != EEXIST) {
		/* It exists when another descriptor was closed that shares its count. */
		return -errno;
	}
	state->registered = true;
	state->closings = socket_closings(fd);
	return 0;
}

/* ── accept ───────────────────────────────────────────────────────────────────────── */

static void accept_try(struct poller *poller, struct fd_state *state)
{
	struct os_op *op = state->in;
	int fd;

	do
		fd = accept4(op->fd, NULL, NULL, SOCK_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd < 0 && errno == EAGAIN) {
		state->ready &= (uint8_t)~READY_IN;
		return;
	}
	state->in = NULL;
	loop_complete(&poller->loop, op, fd < 0 ? -errno : fd);
}

/* ── receive ──────────────────────────────────────────────────────────────────────── */

static void starve(struct poller *poller, struct os_op *op)
{
	op->stage = OP_STARVED;
	list_push_back(&poller->starved, &op->link);
}

/* A receive that fills less than its buffer has emptied the socket: the EAGAIN is saved. */
static void recv_note(const struct poller *poller, struct fd_state *state, ssize_t result)
{
	if (result < 0 && errno == EAGAIN)
		state->ready &= (uint8_t)~READY_IN;
	else if (result > 0 && result < poller->buffer_bytes && !(state->ready & READY_MORE))
		state->ready &= (uint8_t)~READY_IN;
}

static void recv_try(struct poller *poller, struct fd_state *state)
{
	struct os_op *op = state->in;
	uint32_t index;
	char *buffer;
	ssize_t result;

	if (poller->free_count == 0 || !list_empty(&poller->starved)) {
		state->in = NULL;
		starve(poller, op);
		return;
	}
	index = poller->free_buffers[poller->free_count - 1];
	buffer = poller->buffers + (size_t)index * poller->buffer_bytes;
	do
		result = recv(op->fd, buffer, poller->buffer_bytes, MSG_DONTWAIT);
	while (result < 0 && errno == EINTR);
	recv_note(poller, state, result);
	if (result < 0 && errno == EAGAIN)
		return;
	if (result > 0) {
		op->data = buffer;
		poller->free_count--;
	}
	state->in = NULL;
	loop_complete(&poller->loop, op, result < 0 ? -errno : (int32_t)result);
}

static void poller_take_back(struct os_loop *loop, const char *data)
{
	struct poller *poller = poller_of(loop);
	size_t index = (size_t)(data - poller->buffers) / poller->buffer_bytes;

	assert(index < poller->buffer_count && poller->free_count < poller->buffer_count);
	poller->free_buffers[poller->free_count++] = (uint32_t)index;
}

/* ── send ─────────────────────────────────────────────────────────────────────────── */

static ssize_t send_call(struct os_op *op)
{
	struct iovec single;
	struct msghdr *message = transfer_send_next(op, &single);
	int flags = MSG_DONTWAIT | MSG_NOSIGNAL;

	if (message == NULL)
		return send(op->fd, single.iov_base, single.iov_len, flags);
	return sendmsg(op->fd, message, flags);
}

/* True when `op` is complete; false: the socket's buffer is full. */
static bool send_push(struct poller *poller, struct os_op *op)
{
	for (;;) {
		ssize_t sent = send_call(op);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return false;
		if (sent > 0 && transfer_advance(op, (size_t)sent))
			continue;
		loop_complete(&poller->loop, op, transfer_result(op, sent < 0 ? -errno : 0));
		return true;
	}
}

static void send_try(struct poller *poller, struct fd_state *state)
{
	struct os_op *op = state->out;

	if (send_push(poller, op))
		state->out = NULL;
	else
		state->ready &= (uint8_t)~READY_OUT;
}

/* A descriptor that is not registered most likely takes it, and may never need to be. */
static void send_start(struct poller *poller, struct fd_state *state, struct os_op *op)
{
	int result;

	assert(state->out == NULL);
	if (!state_holds(state, op->fd) && send_push(poller, op))
		return;
	result = state_register(poller, state, op->fd);
	if (result < 0) {
		loop_complete(&poller->loop, op, transfer_result(op, result));
		return;
	}
	state->out = op;
	if (state->ready & READY_OUT)
		send_try(poller, state);
}

/* ── connect ──────────────────────────────────────────────────────────────────────── */

static void connect_start(struct poller *poller, struct fd_state *state, struct os_op *op)
{
	int result = connect(op->fd, (const struct sockaddr *)&op->u.connect.address,
			     op->u.connect.length);

	if (result != 0)
		result = -errno;
	if (result == -EAGAIN) {
		/* A full backlog of a UNIX socket; its kernel would tell nobody of room. */
		op->stage = OP_STARVED;
		list_push_back(&poller->stalled, &op->link);
		return;
	}
	/* Registered no sooner: a socket that does not connect yet reads as hung up. */
	if (result == -EINPROGRESS) {
		result = state_register(poller, state, op->fd);
		assert(state->out == NULL);
		if (result == 0) {
			state->ready = 0;
			state->out = op;
			return;
		}
	}
	loop_complete(&poller->loop, op, result);
}

static void connect_ended(struct poller *poller, struct fd_state *state)
{
	struct os_op *op = state->out;
	socklen_t length = sizeof(int);
	int error = 0;

	if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
		error = errno;
	state->out = NULL;
	loop_complete(&poller->loop, op, -error);
}

/* ── starting and cancelling ──────────────────────────────────────────────────────── */

static void in_try(struct poller *poller, struct fd_state *state)
{
	if (state->in->kind == OP_ACCEPT)
		accept_try(poller, state);
	else
		recv_try(poller, state);
}

static void in_start(struct poller *poller, struct fd_state *state, struct os_op *op)
{
	int result = state_register(poller, state, op->fd);

	if (result < 0) {
		loop_complete(&poller->loop, op, result);
		return;
	}
	assert(state->in == NULL);
	state->in = op;
	if (state->ready & READY_IN)
		in_try(poller, state);
}

static void poller_start(struct os_loop *loop, struct os_op *op)
{
	struct poller *poller = poller_of(loop);
	struct fd_state *state;

	op->stage = OP_STARTED;
	if (op->kind == OP_READ || op->kind == OP_WRITE || op->kind == OP_SYNC) {
		disk_submit(op);
		return;
	}
	op->data = NULL;
	state = state_of(poller, op->fd);
	if (state == NULL)
		loop_complete(loop, op, -ENOMEM);
	else if (op->kind == OP_SEND)
		send_start(poller, state, op);
	else if (op->kind == OP_CONNECT)
		connect_start(poller, state, op);
	else
		in_start(poller, state, op);
}

static void poller_cancel(struct os_loop *loop, struct os_op *op)
{
	struct poller *poller = poller_of(loop);

	if (op->kind == OP_READ || op->kind == OP_WRITE || op->kind == OP_SYNC)
		return; /* on a thread that ends it soon by itself */
	if (op->stage == OP_STARVED) {
		list_remove(&op->link);
	} else {
		struct fd_state *state = &poller->states[op->fd];

		assert(state->in == op || state->out == op);
		if (state->in == op)
			state->in = NULL;
		else
			state->out = NULL;
	}
	loop_complete(loop, op, transfer_result(op, -ECANCELED));
}

/* ── the wait ─────────────────────────────────────────────────────────────────────── */

static void poller_wake(struct os_loop *loop)
{
	uint64_t one = 1;
	ssize_t written = write(poller_of(loop)->wake_fd, &one, sizeof(one));

	assert(written == sizeof(one));
}

static void restart_all(struct poller *poller, struct list *list)
{
	struct list again, *node;

	list_init(&again);
	list_splice_back(&again, list);
	while ((node = list_pop_front(&again)) != NULL)
		poller_start(&poller->loop, container_of(node, struct os_op, link));
}

static int poller_sleep(struct poller *poller, struct os_mono until)
{
	uint64_t now = until.ns == 0 ? 0 : os_mono_now().ns;
	uint64_t rest = until.ns > now ? until.ns - now : 0;
	bool for_ever = until.ns == UINT64_MAX;
	struct timespec limit = {
		.tv_sec = (time_t)(rest / OS_NS_PER_S),
		.tv_nsec = (long)(rest % OS_NS_PER_S),
	};
	uint64_t rest_ms = (rest + OS_NS_PER_MS - 1) / OS_NS_PER_MS;

	if (!list_empty(&poller->stalled) && rest > STALLED_NS) {
		limit = (struct timespec){ .tv_nsec = STALLED_NS };
		rest_ms = STALLED_NS / OS_NS_PER_MS;
		for_ever = false;
	}
	if (poller->fine_timeouts)
		return epoll_pwait2(poller->epoll_fd, poller->events, EVENTS_MAX,
				    for_ever ? NULL : &limit, NULL);
	return epoll_wait(poller->epoll_fd, poller->events, EVENTS_MAX,
			  for_ever		? -1
			  : rest_ms > INT32_MAX ? INT32_MAX
						: (int)rest_ms);
}

static void event_take(struct poller *poller, const struct epoll_event *event)
{
	struct fd_state *state;

	if (event->data.fd < 0)
		return; /* a wake */
	state = &poller->states[event->data.fd];
	if (event->events & (EPOLLIN | EVENTS_MORE))
		state->ready |= READY_IN;
	if (event->events & EVENTS_MORE)
		state->ready |= READY_MORE;
	if (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		state->ready |= READY_OUT;
	if (state->in != NULL && (state->ready & READY_IN))
		in_try(poller, state);
	if (state->out == NULL || !(state->ready & READY_OUT))
		return;
	if (state->out->kind == OP_CONNECT)
		connect_ended(poller, state);
	else
		send_try(poller, state);
}

static void poller_wait(struct os_loop *loop, struct os_mono until)
{
	struct poller *poller = poller_of(loop);
	int count;

	restart_all(poller, &poller->starved);
	restart_all(poller, &poller->stalled);
	if (!list_empty(&loop->completed))
		until = (struct os_mono){ 0 };
	/* Buffers are out only with what is completed. */
	assert(until.ns == 0 || list_empty(&poller->starved));
	count = poller_sleep(poller, until);
	assert(count >= 0 || errno == EINTR);
	for (int i = 0; i < count; i++)
		event_take(poller, &poller->events[i]);
}

const struct os_backend os_backend_epoll = {
	.name = "epoll",
	.socket_flags = SOCK_NONBLOCK,
	.probe = poller_probe,
	.create = poller_create,
	.destroy = poller_destroy,
	.start = poller_start,
	.cancel = poller_cancel,
	.wait = poller_wait,
	.wake = poller_wake,
	.take_back = poller_take_back,
};
