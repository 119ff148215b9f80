/*
 * wire - one connection: receives until told otherwise, and sends what has gathered.
 *
 *   wire_put() ──► gathering buffer ──wire_flush()──► buffer in flight ──► peer
 *
 * Promise: one send is in flight at a time; what is put meanwhile goes out together when it
 * ends. on_end is called exactly once, when nothing is in flight and the descriptor is closed;
 * the owner may then free the wire.
 *
 * Thread: the loop's.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include "bench/buffer.h"
#include "engine/tls/tls.h"
#include "os/os.h"

struct wire {
	/* Set by the owner before wire_start(). */
	void (*on_bytes)(struct wire *wire, struct span bytes);
	void (*on_end)(struct wire *wire);
	struct tls *tls; /* owned; NULL: in clear */
	/* Private. */
	struct os_loop *loop;
	int fd;
	bool closing;	/* the end has come, or was asked for */
	bool finishing; /* close as soon as everything is sent */
	bool paused;
	int gathering; /* index into `out` */
	struct buffer out[2];
	struct iovec iov;
	bool shaken;   /* the handshake is done */
	char *records; /* owned: TLS's, in flight */
	struct os_op recv_op, send_op;
};

/* Takes `fd`, which is connected. */
void wire_start(struct wire *wire, struct os_loop *loop, int fd);
void wire_flush(struct wire *wire);
/* The wire may be gone when these return. */
void wire_close(struct wire *wire);
void wire_finish(struct wire *wire);
/* Receives nothing from the next time on, or again. */
void wire_pause(struct wire *wire);
void wire_resume(struct wire *wire);

static inline struct buffer *wire_out(struct wire *wire)
{
	return &wire->out[wire->gathering];
}

#endif
