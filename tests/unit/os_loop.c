/*
 * The loop: sleeping, waking, posting, helper threads, the choice of a backend.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "tests/unit/os_refuse.h"

#define POSTERS	   4
#define POSTS_EACH 2000
#define FOREVER_MS 60000 /* what sleeps too long does so for good; a busy machine does not */

static struct os_loop *loop;

static int loop_up(void **state)
{
	(void)state;
	return os_loop_create(NULL, &loop);
}

static int loop_down(void **state)
{
	(void)state;
	os_loop_destroy(loop);
	loop = NULL;
	return 0;
}

static struct os_mono in_ms(uint64_t ms)
{
	return os_mono_add_ms(os_mono_now(), ms);
}

static void a_turn_ends_at_its_time(void **state)
{
	struct os_mono start = os_mono_now();

	(void)state;
	while (os_mono_now().ns < start.ns + 30 * OS_NS_PER_MS)
		assert_int_equal(os_loop_turn(loop, os_mono_add_ms(start, 30)), 0);
	assert_true(os_mono_now().ns < start.ns + FOREVER_MS * OS_NS_PER_MS);
	assert_true(os_loop_mono(loop).ns >= start.ns + 20 * OS_NS_PER_MS);
	assert_true(os_loop_wall(loop).us > 0);
}

static void a_time_in_the_past_does_not_sleep(void **state)
{
	struct os_mono start = os_mono_now();

	(void)state;
	for (int i = 0; i < 100; i++)
		os_loop_turn(loop, (struct os_mono){ 0 });
	assert_true(os_mono_now().ns < start.ns + FOREVER_MS * OS_NS_PER_MS);
}

static void a_wake_before_the_sleep_is_not_lost(void **state)
{
	struct os_mono start = os_mono_now();

	(void)state;
	os_loop_wake(loop);
	os_loop_turn(loop, in_ms(2 * FOREVER_MS));
	assert_true(os_mono_now().ns < start.ns + FOREVER_MS * OS_NS_PER_MS);
}

static void wake_later(void *context)
{
	_Atomic uint32_t nobody = 0;

	os_futex_wait(&nobody, 0, in_ms(20));
	os_loop_wake(context);
}

static void a_wake_ends_a_sleep_without_end(void **state)
{
	struct os_mono start = os_mono_now();
	struct os_thread *thread;

	(void)state;
	/* Both forms of "no limit" and a far one. */
	for (int i = 0; i < 3; i++) {
		struct os_mono until = i ? in_ms(2 * FOREVER_MS) : (struct os_mono){ UINT64_MAX };

		start = os_mono_now();
		assert_int_equal(os_thread_start(&thread, "waker", wake_later, loop), 0);
		while (os_mono_now().ns < start.ns + 20 * OS_NS_PER_MS)
			os_loop_turn(loop, until);
		os_thread_join(thread);
		assert_true(os_mono_now().ns < start.ns + FOREVER_MS * OS_NS_PER_MS);
	}
}

/* ── posting ──────────────────────────────────────────────────────────────────────── */

struct poster {
	struct os_op ops[POSTS_EACH];
	int values[POSTS_EACH]; /* written by the poster, read by the loop: for TSan */
	int next;		/* posts of one thread arrive in order */
};

static struct poster posters[POSTERS];
static int arrived;

static void on_post(struct os_op *op)
{
	for (int i = 0; i < POSTERS; i++) {
		struct poster *poster = &posters[i];
		ptrdiff_t index = op - poster->ops;

		if (index < 0 || index >= POSTS_EACH)
			continue;
		assert_int_equal(index, poster->next);
		assert_int_equal(op->result, index);
		assert_int_equal(poster->values[index], index);
		poster->next++;
	}
	arrived++;
}

static void post_many(void *context)
{
	struct poster *poster = context;

	for (int i = 0; i < POSTS_EACH; i++) {
		poster->values[i] = i;
		os_loop_post(loop, &poster->ops[i], i);
	}
}

static void posts_of_many_threads_arrive_once_and_in_order(void **state)
{
	struct os_thread *threads[POSTERS];

	(void)state;
	arrived = 0;
	memset(posters, 0, sizeof(posters));
	for (int i = 0; i < POSTERS; i++) {
		for (int k = 0; k < POSTS_EACH; k++)
			posters[i].ops[k].done = on_post;
		assert_int_equal(os_thread_start(&threads[i], "poster", post_many, &posters[i]), 0);
	}
	while (arrived < POSTERS * POSTS_EACH)
		os_loop_turn(loop, (struct os_mono){ UINT64_MAX });
	for (int i = 0; i < POSTERS; i++)
		os_thread_join(threads[i]);
	assert_int_equal(arrived, POSTERS * POSTS_EACH);
}

static int reposts;

static void on_repost(struct os_op *op)
{
	if (++reposts < 10)
		os_loop_post(loop, op, 0);
}

static void a_post_from_a_callback_waits_for_the_next_turn(void **state)
{
	struct os_op op = { .done = on_repost };

	(void)state;
	reposts = 0;
	os_loop_post(loop, &op, 0);
	for (int i = 1; i <= 10; i++) {
		assert_int_equal(os_loop_turn(loop, in_ms(10000)), 1);
		assert_int_equal(reposts, i);
	}
}

/* ── helper threads ───────────────────────────────────────────────────────────────── */

struct chore {
	struct os_op op;
	int input, output;
};

static int chores_done;

static void chore_run(struct os_op *op)
{
	struct chore *chore = container_of(op, struct chore, op);

	chore->output = chore->input * 2;
	op->result = chore->input;
}

static void on_chore(struct os_op *op)
{
	struct chore *chore = container_of(op, struct chore, op);

	assert_int_equal(op->result, chore->input);
	assert_int_equal(chore->output, chore->input * 2);
	chores_done++;
}

static void chores_come_back(void (*offload)(struct os_loop *loop, struct os_op *op,
					     void (*run)(struct os_op *op)))
{
	struct chore chores[500] = { 0 };

	chores_done = 0;
	for (int i = 0; i < 500; i++) {
		chores[i].op.done = on_chore;
		chores[i].input = i;
		offload(loop, &chores[i].op, chore_run);
		os_cancel(loop, &chores[i].op); /* allowed, and without effect */
	}
	while (chores_done < 500)
		os_loop_turn(loop, in_ms(10000));
	assert_int_equal(chores_done, 500);
}

static void offloaded_work_comes_back(void **state)
{
	(void)state;
	chores_come_back(os_offload);
}

static void computed_work_comes_back(void **state)
{
	(void)state;
	chores_come_back(os_compute);
}

/* ── threads and signals ──────────────────────────────────────────────────────────── */

static _Atomic uint32_t word;

static void set_word(void *unused)
{
	(void)unused;
	atomic_store(&word, 1);
	os_futex_wake(&word);
}

static void a_futex_is_woken(void **state)
{
	struct os_thread *thread;

	(void)state;
	assert_int_equal(os_thread_start(&thread, "a name longer than 15", set_word, NULL), 0);
	while (atomic_load(&word) == 0)
		os_futex_wait(&word, 0, (struct os_mono){ UINT64_MAX });
	os_thread_join(thread);
}

static void a_futex_wait_ends_at_its_time(void **state)
{
	_Atomic uint32_t nobody = 7;
	struct os_mono start = os_mono_now();

	(void)state;
	os_futex_wait(&nobody, 8, (struct os_mono){ UINT64_MAX }); /* another value: at once */
	os_futex_wait(&nobody, 7, in_ms(20));
	assert_true(os_mono_now().ns - start.ns < FOREVER_MS * OS_NS_PER_MS);
}

static void a_signal_is_waited_for(void **state)
{
	(void)state;
	os_signals_block();
	assert_int_equal(os_signal_wait(in_ms(1)), 0);
	kill(getpid(), SIGHUP);
	assert_int_equal(os_signal_wait(in_ms(FOREVER_MS)), SIGHUP);
	assert_int_equal(os_signal_wait((struct os_mono){ 0 }), 0);
}

static void the_machine_is_known(void **state)
{
	(void)state;
	assert_true(os_cpu_count() >= 1);
	assert_true(strlen(os_host_name()) > 0);
	assert_true(os_limits_raise() > 100);
}

/* ── the choice of a backend ──────────────────────────────────────────────────────── */

static const struct choice_case {
	const char *name;
	uint32_t refused; /* the system call */
	int error;
	const char *environment; /* STAFETTE_IO */
	const char *wanted;	 /* NULL: what os_backend_choose() finds */
	int result;
	const char *said[2]; /* in the line for the operator */
} choice_cases[] = {
	{ "a seccomp filter is named, and epoll takes over",
	  SYS_io_uring_setup,
	  EPERM,
	  "",
	  NULL,
	  0,
	  { "epoll, ", "because io_uring is forbidden by a seccomp filter" } },
	{ "a kernel without io_uring is named, and epoll takes over",
	  SYS_io_uring_setup,
	  ENOSYS,
	  "auto",
	  NULL,
	  0,
	  { "epoll, ", "Linux 5.19 or newer" } },
	{ "a ring that may not be entered is no ring",
	  SYS_io_uring_enter,
	  EPERM,
	  "",
	  NULL,
	  0,
	  { "epoll, ", "seccomp" } },
	{ "io_uring by configuration stays refused",
	  SYS_io_uring_setup,
	  EPERM,
	  "",
	  "io_uring",
	  -EPERM,
	  { "io_uring is forbidden", "seccomp" } },
	{ "io_uring by the environment stays refused",
	  SYS_io_uring_setup,
	  EPERM,
	  "io_uring",
	  NULL,
	  -EPERM,
	  { "io_uring is forbidden", "seccomp" } },
	{ "epoll by configuration needs no reason",
	  SYS_io_uring_setup,
	  EPERM,
	  "",
	  "epoll",
	  0,
	  { "epoll, 4 disk threads, kernel", "" } },
	{ "epoll by the environment needs no reason",
	  SYS_io_uring_setup,
	  EPERM,
	  "epoll",
	  NULL,
	  0,
	  { "epoll, 4 disk threads, kernel", "" } },
	{ "neither is to be had",
	  SYS_epoll_create1,
	  ENFILE,
	  "epoll",
	  NULL,
	  -ENFILE,
	  { "epoll cannot be set up", "" } },
	{ "a name that nothing has",
	  SYS_io_uring_setup,
	  EPERM,
	  "kqueue",
	  NULL,
	  -EINVAL,
	  { "'kqueue'", "epoll" } },
};

/* What is said, and whether a loop then turns. */
static void choose_in_child(const struct choice_case *row, int pipe_fd)
{
	char why[512] = "";
	int result;

	setenv("STAFETTE_IO", row->environment, 1);
	refuse_call(row->refused, row->error);
	result = row->wanted == NULL ? os_backend_choose(why, sizeof(why))
				     : os_backend_use(row->wanted, why, sizeof(why));
	if (result == 0 && os_loop_create(NULL, &loop) == 0) {
		os_loop_turn(loop, (struct os_mono){ 0 });
		os_loop_destroy(loop);
	}
	_exit(write(pipe_fd, why, sizeof(why)) == sizeof(why) && result == row->result ? 0 : 1);
}

static void check_choice(void **state)
{
	const struct choice_case *row = *state;
	char why[512];
	int fds[2], status;
	pid_t child;

	assert_int_equal(pipe(fds), 0);
	child = fork();
	if (child == 0)
		choose_in_child(row, fds[1]);
	assert_int_equal(read(fds[0], why, sizeof(why)), sizeof(why));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	for (size_t i = 0; i < array_count(row->said); i++)
		if (strstr(why, row->said[i]) == NULL)
			fail_msg("'%s' lacks '%s'", why, row->said[i]);
	assert_null(strchr(why, '\n'));
	close(fds[0]);
	close(fds[1]);
}

/* ── locked memory ────────────────────────────────────────────────────────────────── */

#define SCARCE_BYTES (512 << 10)
#define SCARCE_LOOPS 4 /* at full size one alone has more */

static void loops_in_child(void)
{
	struct rlimit limit = { SCARCE_BYTES, SCARCE_BYTES };
	struct os_loop *loops[SCARCE_LOOPS];
	uid_t user = 20000 + (uid_t)getpid() % 40000; /* nobody: no other process counts */

	/* Kernels from 6.14 on count the rings of whoever may not lock without limit. */
	if (geteuid() == 0 &&
	    (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || setresuid(user, user, user) != 0))
		_exit(2);
	for (int i = 0; i < SCARCE_LOOPS; i++) {
		if (os_loop_create(NULL, &loops[i]) != 0)
			_exit(3);
		os_loop_wake(loops[i]);
		os_loop_turn(loops[i], in_ms(100000));
	}
	_exit(0);
}

static void loops_are_smaller_where_memory_is_scarce(void **state)
{
	int status;
	pid_t child = fork();

	(void)state;
	if (child == 0)
		loops_in_child();
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

#define on_loop(test) cmocka_unit_test_setup_teardown(test, loop_up, loop_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_loop(a_turn_ends_at_its_time),
		on_loop(a_time_in_the_past_does_not_sleep),
		on_loop(a_wake_before_the_sleep_is_not_lost),
		on_loop(a_wake_ends_a_sleep_without_end),
		on_loop(posts_of_many_threads_arrive_once_and_in_order),
		on_loop(a_post_from_a_callback_waits_for_the_next_turn),
		on_loop(offloaded_work_comes_back),
		on_loop(computed_work_comes_back),
		cmocka_unit_test(a_futex_is_woken),
		cmocka_unit_test(a_futex_wait_ends_at_its_time),
		cmocka_unit_test(a_signal_is_waited_for),
		cmocka_unit_test(loops_are_smaller_where_memory_is_scarce),
		cmocka_unit_test(the_machine_is_known),
	};
	struct CMUnitTest rows[array_count(choice_cases)];
	char why[256];
	int failed;

	if (os_backend_choose(why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	printf("%s\n", why);
	for (size_t i = 0; i < array_count(rows); i++)
		rows[i] = (struct CMUnitTest){ choice_cases[i].name, check_choice, NULL, NULL,
					       (void *)&choice_cases[i] };
	failed = cmocka_run_group_tests_name("the choice of a backend", rows, NULL, NULL);
	return failed + cmocka_run_group_tests_name("os_loop", tests, NULL, NULL);
}
