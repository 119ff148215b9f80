/* Operations that other threads complete on a loop which ends right after the last of them:
 * os/op_stack.h, loop_return(), the sleep and the visitors of os/loop.c. */
#include "tests/model/explore.h"

#include <sched.h>

#define sched_yield() model_block(visitors_are_gone, loop)
#define free(at)      ((void)(at))

static bool visitors_are_gone(void *context);

#include "os/loop.c"

enum { POSTERS = 2 };

struct poster {
	struct os_op op;
	uint32_t index;
};

static struct world {
	struct os_loop loop;
	bool woken;
	uint32_t done;
	struct poster posters[POSTERS];
} * world;

struct os_mono os_mono_now(void)
{
	return (struct os_mono){ 1 };
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ 1 };
}

static bool visitors_are_gone(void *context)
{
	return ((struct os_loop *)context)->visitors == 0;
}

static bool is_woken(void *context)
{
	(void)context;
	return world->woken;
}

static void fake_wait(struct os_loop *loop, struct os_mono until)
{
	(void)loop;
	if (until.ns > 0)
		model_block(is_woken, NULL);
	world->woken = false;
}

static void fake_wake(struct os_loop *loop)
{
	model_point(&loop->visitors); /* it reads what the loop's backend has */
	world->woken = true;
}

static void fake_destroy(struct os_loop *loop)
{
	model_dead(loop, sizeof(*loop));
}

static const struct os_backend backend = {
	.wait = fake_wait,
	.wake = fake_wake,
	.destroy = fake_destroy,
};

static void on_done(struct os_op *op)
{
	struct poster *poster = container_of(op, struct poster, op);

	model_check(op->result == (int32_t)poster->index + 7, "not what was posted");
	world->done++;
}

static void poster_run(void *context)
{
	struct poster *poster = context;

	os_loop_post(&world->loop, &poster->op, (int32_t)poster->index + 7);
}

static void loop_thread(void *context)
{
	(void)context;
	os_loop_turn(&world->loop, (struct os_mono){ 0 });
	while (world->done < POSTERS)
		os_loop_turn(&world->loop, (struct os_mono){ UINT64_MAX });
	os_loop_destroy(&world->loop);
}

void model_start(void)
{
	world = model_memory(sizeof(*world));
	loop_init(&world->loop, &backend);
	for (uint32_t i = 0; i < POSTERS; i++) {
		world->posters[i].index = i;
		world->posters[i].op.done = on_done;
		model_thread(poster_run, &world->posters[i]);
	}
	model_thread(loop_thread, NULL);
}

void model_end(void)
{
	model_check(world->done == POSTERS, "an operation was lost");
}
