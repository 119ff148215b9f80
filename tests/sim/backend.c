/*
 * backend - the daemon's loops in virtual time: the simulator's side of os/backend.h, and
 * helper threads.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "os/backend.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/net.h"

enum {
	TURN_NS_MIN = 500, /* what a turn costs, so that a busy loop gets on */
	TURN_NS_MAX = 4000,
	HELPER_NS_MAX = 50000, /* until a helper thread has begun */
};

struct sim_loop {
	struct os_loop loop;
	struct fiber *sleeper; /* NULL: its thread is busy */
	bool kicked;	       /* since the last wait */
};

static struct sim_loop *sim_loop_of(struct os_loop *loop)
{
	return container_of(loop, struct sim_loop, loop);
}

void sim_loop_kick(struct os_loop *loop)
{
	struct sim_loop *sim = sim_loop_of(loop);

	sim->kicked = true;
	if (sim->sleeper != NULL)
		fiber_wake(sim->sleeper);
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

struct file_work {
	struct sim_event event;
	struct os_op *op;	/* borrowed until it is completed */
	struct disk_work *work; /* owned by the disk */
};

static void file_finish(struct sim_event *event)
{
	struct file_work *file = container_of(event, struct file_work, event);
	struct os_loop *loop = file->op->loop;

	loop_complete(loop, file->op, disk_finish(file->work));
	free(file);
	sim_loop_kick(loop);
}

static void file_start(struct os_op *op)
{
	struct file_work *file = calloc(1, sizeof(*file));
	uint64_t delay_ns = 0;

	assert(file != NULL);
	file->op = op;
	file->event.run = file_finish;
	if (op->kind == OP_READ)
		file->work = disk_begin_read(op->fd, op->u.file.bytes, op->u.file.count,
					     op->u.file.offset, &delay_ns);
	else if (op->kind == OP_WRITE)
		file->work = disk_begin_write(op->fd, op->u.file.bytes, op->u.file.count,
					      op->u.file.offset, op->u.file.flags, &delay_ns);
	else
		file->work = disk_begin_sync(op->fd, &delay_ns);
	sim_after(&file->event, delay_ns);
}

/* ── the table ────────────────────────────────────────────────────────────────────── */

static bool of_a_file(const struct os_op *op)
{
	return op->kind == OP_READ || op->kind == OP_WRITE || op->kind == OP_SYNC;
}

static void sim_start(struct os_loop *loop, struct os_op *op)
{
	if (of_a_file(op))
		file_start(op);
	else
		net_start(loop, op);
}

/* What a file does cannot be called back. */
static void sim_cancel(struct os_loop *loop, struct os_op *op)
{
	if (!of_a_file(op))
		net_cancel(loop, op);
}

static void sim_wait(struct os_loop *loop, struct os_mono until)
{
	struct sim_loop *sim = sim_loop_of(loop);
	bool sleeps = until.ns > 0;

	fiber_sleep(sim_between(TURN_NS_MIN, TURN_NS_MAX));
	while (sleeps && !sim->kicked && sim_now() < until.ns) {
		sim->sleeper = fiber_self();
		fiber_park(until.ns);
		sim->sleeper = NULL;
	}
	sim->kicked = false;
}

static int sim_create(const struct os_loop_options *options, struct os_loop **out);

static void sim_destroy(struct os_loop *loop)
{
	free(sim_loop_of(loop));
}

static int sim_probe(char *why_out, size_t why_bytes)
{
	snprintf(why_out, why_bytes, "the simulator stands for the kernel");
	return 0;
}

static void sim_take_back(struct os_loop *loop, const char *data)
{
	(void)loop;
	net_take_back(data);
}

static const struct os_backend sim_backend = {
	.name = "simulator",
	.probe = sim_probe,
	.create = sim_create,
	.destroy = sim_destroy,
	.start = sim_start,
	.cancel = sim_cancel,
	.wait = sim_wait,
	.wake = sim_loop_kick,
	.take_back = sim_take_back,
};

static int sim_create(const struct os_loop_options *options, struct os_loop **out)
{
	struct sim_loop *sim = aligned_alloc(_Alignof(struct sim_loop), sizeof(*sim));

	(void)options;
	if (sim == NULL)
		return -ENOMEM;
	sim->sleeper = NULL;
	sim->kicked = false;
	loop_init(&sim->loop, &sim_backend);
	*out = &sim->loop;
	return 0;
}

int os_backend_choose(char *why_out, size_t why_bytes)
{
	loop_backend_set(&sim_backend);
	return sim_backend.probe(why_out, why_bytes);
}

int os_backend_use(const char *name, char *why_out, size_t why_bytes)
{
	(void)name; /* whatever the configuration wants: here is only one */
	return os_backend_choose(why_out, why_bytes);
}

/* ── helper threads ───────────────────────────────────────────────────────────────── */

static void helper_run(void *context)
{
	struct os_op *op = context;

	fiber_sleep(sim_below(HELPER_NS_MAX));
	op->u.offload.run(op);
	loop_return(op->loop, op, op->result);
}

void os_offload(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op))
{
	loop_begin(loop, op, OP_OFFLOAD);
	op->u.offload.run = run;
	fiber_start("helper", helper_run, op);
}

void os_compute(struct os_loop *loop, struct os_op *op, void (*run)(struct os_op *op))
{
	os_offload(loop, op, run);
}
