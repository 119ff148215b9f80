/*
 * The loop: sleeping, waking, posting, helper threads, the choice of a backend.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"

#define POSTERS	   4
#define POSTS_EACH 2000

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
	assert_true(os_mono_now().ns < start.ns + 2000 * OS_NS_PER_MS);
	assert_true(os_loop_mono(loop).ns >= start.ns + 20 * OS_NS_PER_MS);
	assert_true(os_loop_wall(loop).us > 0);
}

static void a_time_in_the_past_does_not_sleep(void **state)
{
	struct os_mono start = os_mono_now();

	(void)state;
	for (int i = 0; i < 100; i++)
		os_loop_turn(loop, (struct os_mono){ 0 });
	assert_true(os_mono_now().ns < start.ns + 1000 * OS_NS_PER_MS);
}

static void a_wake_before_the_sleep_is_not_lost(void **state)
{
	struct os_mono start = os_mono_now();

	(void)state;
	os_loop_wake(loop);
	os_loop_turn(loop, in_ms(10000));
	assert_true(os_mono_now().ns < start.ns + 5000 * OS_NS_PER_MS);
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
		struct os_mono until = i ? in_ms(100000) : (struct os_mono){ UINT64_MAX };

		start = os_mono_now();
		assert_int_equal(os_thread_start(&thread, "waker", wake_later, loop), 0);
		while (os_mono_now().ns < start.ns + 20 * OS_NS_PER_MS)
			os_loop_turn(loop, until);
		os_thread_join(thread);
		assert_true(os_mono_now().ns < start.ns + 50000 * OS_NS_PER_MS);
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

static void offloaded_work_comes_back(void **state)
{
	static struct chore chores[500];

	(void)state;
	for (int i = 0; i < 500; i++) {
		chores[i].op.done = on_chore;
		chores[i].input = i;
		os_offload(loop, &chores[i].op, chore_run);
		os_cancel(loop, &chores[i].op); /* allowed, and without effect */
	}
	while (chores_done < 500)
		os_loop_turn(loop, in_ms(10000));
	assert_int_equal(chores_done, 500);
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
	assert_true(os_mono_now().ns - start.ns < 5000 * OS_NS_PER_MS);
}

static void a_signal_is_waited_for(void **state)
{
	(void)state;
	os_signals_block();
	assert_int_equal(os_signal_wait(in_ms(1)), 0);
	kill(getpid(), SIGHUP);
	assert_int_equal(os_signal_wait(in_ms(5000)), SIGHUP);
	assert_int_equal(os_signal_wait((struct os_mono){ 0 }), 0);
}

static void the_machine_is_known(void **state)
{
	(void)state;
	assert_true(os_cpu_count() >= 1);
	assert_true(strlen(os_host_name()) > 0);
	assert_true(os_files_limit() > 100);
}

/* ── the choice of a backend ──────────────────────────────────────────────────────── */

/* In a child under a seccomp filter like a container's: what does choose() say? */
static void refused_child(int pipe_fd, int error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the number of the system call */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { array_count(filter), filter };
	char why[256] = "";
	int result;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
	result = os_backend_choose(why, sizeof(why));
	_exit(write(pipe_fd, why, sizeof(why)) == sizeof(why) && result == -error ? 0 : 1);
}

static void check_refusal(int error, const char *expected)
{
	char why[256];
	int fds[2], status;
	pid_t child;

	assert_int_equal(pipe(fds), 0);
	child = fork();
	if (child == 0)
		refused_child(fds[1], error);
	assert_int_equal(read(fds[0], why, sizeof(why)), sizeof(why));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_non_null(strstr(why, expected));
	assert_null(strchr(why, '\n'));
	close(fds[0]);
	close(fds[1]);
}

static void a_seccomp_filter_is_named(void **state)
{
	(void)state;
	check_refusal(EPERM, "seccomp");
}

static void a_kernel_without_io_uring_is_named(void **state)
{
	(void)state;
	check_refusal(ENOSYS, "5.19");
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
		cmocka_unit_test(a_futex_is_woken),
		cmocka_unit_test(a_futex_wait_ends_at_its_time),
		cmocka_unit_test(a_signal_is_waited_for),
		cmocka_unit_test(the_machine_is_known),
		cmocka_unit_test(a_seccomp_filter_is_named),
		cmocka_unit_test(a_kernel_without_io_uring_is_named),
	};
	char why[256];

	if (os_backend_choose(why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	printf("%s\n", why);
	return cmocka_run_group_tests_name("os_loop", tests, NULL, NULL);
}
