/* Letters between workers that sleep: engine/mailbox.c and the sleep of os/loop.c. The workers'
 * turns are those of engine/worker.c: flush, sleep unless letters wait, open. */
#include "tests/model/explore.h"

#include <sched.h>
#include <stdlib.h>

#define calloc(count, bytes)	    model_memory((count) * (bytes))
#define aligned_alloc(align, bytes) model_memory(bytes)
#define free(at)		    ((void)(at))
#define sched_yield()		    ((void)0) /* nobody posts here: os_loop_destroy() is in loop.c */
#include "os/loop.c"

#include "engine/mailbox.c"

enum { WORKERS = 2, LETTERS_MAX = 4 };

/* How many letters each worker sends to the other, and how many before it flushes. */
#ifndef MODEL_LETTERS
#define MODEL_LETTERS                                                                              \
	{                                                                                          \
		4, 0                                                                               \
	}
#define MODEL_BURST 3
#endif

struct post {
	struct letter letter;
	uint32_t to, number;
};

struct member {
	uint32_t index, sent, opened;
	bool woken;
	struct os_loop loop;
	struct post posts[LETTERS_MAX];
};

static const uint32_t letters[WORKERS] = MODEL_LETTERS;
static struct member *members;
static struct mailboxes *boxes;

struct os_mono os_mono_now(void)
{
	return (struct os_mono){ 1 };
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ 1 };
}

static bool is_woken(void *context)
{
	return ((struct member *)context)->woken;
}

/* Turns that change nothing are not gone through one by one. */
static bool has_room(void *context)
{
	struct member *member = context;
	struct box *box = box_of(boxes, member->index, 1 - member->index);

	return list_empty(&box->waiting) || box->given - box->taken < RING_LETTERS;
}

static void fake_wait(struct os_loop *loop, struct os_mono until)
{
	struct member *member = container_of(loop, struct member, loop);

	if (until.ns == UINT64_MAX)
		model_block(is_woken, member);
	else
		model_block(has_room, member);
	member->woken = false;
}

static void fake_wake(struct os_loop *loop)
{
	container_of(loop, struct member, loop)->woken = true;
}

static const struct os_backend backend = { .wait = fake_wait, .wake = fake_wake };

static void on_letter(struct letter *letter)
{
	struct post *post = container_of(letter, struct post, letter);

	model_check(post->number == members[post->to].opened, "a letter out of its order");
	members[post->to].opened++;
}

static void member_run(void *context)
{
	struct member *me = context;
	uint32_t other = 1 - me->index;
	bool waiting = true;

	while (waiting || me->sent < letters[me->index] || me->opened < letters[other]) {
		for (uint32_t i = 0; i < MODEL_BURST && me->sent < letters[me->index]; i++)
			mailbox_send(boxes, me->index, other, &me->posts[me->sent++].letter);
		waiting = mailbox_flush(boxes, me->index);
		if (!waiting && me->sent == letters[me->index] && me->opened == letters[other])
			return;
		os_loop_turn(&me->loop, waiting || me->sent < letters[me->index]
						? (struct os_mono){ 0 }
						: (struct os_mono){ UINT64_MAX });
		mailbox_open(boxes, me->index);
	}
}

void model_start(void)
{
	members = model_memory(WORKERS * sizeof(*members));
	boxes = mailboxes_create(WORKERS);
	for (uint32_t i = 0; i < WORKERS; i++) {
		members[i].index = i;
		loop_init(&members[i].loop, &backend);
		mailboxes_join(boxes, i, &members[i].loop);
		for (uint32_t k = 0; k < LETTERS_MAX; k++)
			members[i].posts[k] = (struct post){ { .open = on_letter }, 1 - i, k };
		model_thread(member_run, &members[i]);
	}
}

void model_end(void)
{
	for (uint32_t i = 0; i < WORKERS; i++)
		model_check(members[i].opened == letters[1 - i], "a letter was lost");
	mailboxes_destroy(boxes);
}
