/*
 * backend - what stands behind the loops of os.h.
 *
 *   os.h ──► loop.c (asserts, clocks, posting) ──► struct os_backend ──► the kernel
 *
 * A backend starts operations, waits, and moves what has ended to loop->completed; loop.c runs
 * the callbacks. Calls without a loop (os_file_*, clocks, ...) are no part of the table: a
 * backend that must replace those too replaces their files at link time.
 *
 * Thread: everything here belongs to the loop's thread but `wake`.
 */
#ifndef OS_BACKEND_H
#define OS_BACKEND_H

#include "os/op_stack.h"
#include "os/os.h"

enum op_kind {
	OP_ACCEPT = 1,
	OP_CONNECT,
	OP_RECV,
	OP_SEND,
	OP_READ,
	OP_WRITE,
	OP_SYNC,
	OP_POSTED,  /* by os_loop_post() */
	OP_OFFLOAD, /* on a helper thread */
	OP_DNS,	    /* with the resolver */
};

enum op_stage {
	OP_STARTED = 1, /* the backend has it; on another thread for OFFLOAD and DNS */
	OP_STARVED,	/* begun again later: a receive that waits for a buffer */
	OP_COMPLETED,	/* its callback is due */
};

/* Who sleeps and who has to write: see loop_fall_asleep(). */
enum loop_sleep {
	LOOP_AWAKE = 0,
	LOOP_ASLEEP,
	LOOP_WOKEN,
};

struct os_loop {
	/* owner: the loop's thread */
	const struct os_backend *backend;
	struct list completed; /* of struct os_op */
	struct os_mono mono;
	struct os_wall wall;
	uint32_t in_flight_count; /* started by this thread and not completed */

	/* shared: atomics */
	_Alignas(64) struct op_stack posted;
	_Atomic uint32_t sleep;	   /* enum loop_sleep */
	_Atomic uint32_t visitors; /* threads inside loop_return() */
};

struct os_backend {
	const char *name;
	/* Of the sockets that its loops are given: SOCK_NONBLOCK, or 0. */
	int socket_flags;
	/* Tries it out; `why_out` as os_backend_choose() says. */
	int (*probe)(char *why_out, size_t why_bytes);
	/* `options` has no zeroes. Calls loop_init(). */
	int (*create)(const struct os_loop_options *options, struct os_loop **out);
	void (*destroy)(struct os_loop *loop);
	/* op->kind, op->fd and op->u say what to do. */
	void (*start)(struct os_loop *loop, struct os_op *op);
	/* Only for what `start` was called with, and that is not completed. */
	void (*cancel)(struct os_loop *loop, struct os_op *op);
	/* Hands everything to the kernel, sleeps until a completion, a wake or `until`
	 * (0 ns: not at all), and calls loop_complete() for what has ended. */
	void (*wait)(struct os_loop *loop, struct os_mono until);
	/* Any thread; only while the loop is asleep, once for each sleep. */
	void (*wake)(struct os_loop *loop);
	/* `done` has returned: what op->data pointed to may be filled again. */
	void (*take_back)(struct os_loop *loop, const char *data);
};

extern const struct os_backend os_backend_uring, os_backend_epoll;

/* For all loops to come, once: what os_backend_choose() has chosen. */
void loop_backend_set(const struct os_backend *backend);
/* The socket_flags of what was chosen; 0 before. */
int loop_socket_flags(void);
/* Any thread. Changes whenever os_close() has closed a descriptor with this number: whoever
 * remembers something of it then knows that it is another one now. May change without. */
uint32_t socket_closings(int fd);

void loop_init(struct os_loop *loop, const struct os_backend *backend);
/* `op` has ended; its callback runs in this turn or the next. */
void loop_complete(struct os_loop *loop, struct os_op *op, int32_t result);
/* Marks an operation as begun by the loop's thread. */
void loop_begin(struct os_loop *loop, struct os_op *op, enum op_kind kind);
/* loop_begin() and the backend's start, for an operation on `fd`. */
void loop_start(struct os_loop *loop, struct os_op *op, enum op_kind kind, int fd);
/* Any thread: completes what loop_begin() began. */
void loop_return(struct os_loop *loop, struct os_op *op, int32_t result);

#endif
