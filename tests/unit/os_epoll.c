/*
 * What only the epoll backend can get wrong: numbers that come back, buffers while data waits,
 * UNIX backlogs, coarse timeouts.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "tests/unit/os_refuse.h"

#define SHARED_COUNT 65536 /* descriptors this far apart share their count of closings */
#define CROWD	     12
#define CROWD_BYTES  (64 << 10)

static struct os_loop *loop;

struct act {
	struct os_op op;
	bool done;
	int32_t result;
};

static void on_act(struct os_op *op)
{
	struct act *act = container_of(op, struct act, op);

	act->done = true;
	act->result = op->result;
}

static struct act act(void)
{
	return (struct act){ .op.done = on_act };
}

static int32_t result_of(struct act *act)
{
	struct os_mono limit = os_mono_add_ms(os_mono_now(), 20000);

	while (!act->done) {
		assert_true(os_mono_now().ns < limit.ns);
		os_loop_turn(loop, limit);
	}
	return act->result;
}

static void turn(void)
{
	os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 2));
}

static void pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void send_text(int fd, const char *text)
{
	struct act sent = act();
	struct iovec iov = { (void *)text, strlen(text) };

	os_send(loop, &sent.op, fd, &iov, 1);
	assert_int_equal(result_of(&sent), strlen(text));
}

/* ── descriptors ──────────────────────────────────────────────────────────────────── */

static void close_all(void *context)
{
	int *fds = context;

	os_close(fds[0]);
	os_close(fds[1]);
}

static void check_reuse(bool by_another_thread)
{
	int first[2];

	for (int i = 0; i < 20; i++) {
		struct act received = act(), cancelled = act();
		struct os_thread *thread;
		int fds[2];

		pair(fds);
		if (i == 0)
			memcpy(first, fds, sizeof(first));
		assert_memory_equal(first, fds, sizeof(first));
		os_recv(loop, &received.op, fds[0]);
		turn();
		send_text(fds[1], "x");
		assert_int_equal(result_of(&received), 1);
		os_recv(loop, &cancelled.op, fds[0]);
		turn();
		os_cancel(loop, &cancelled.op);
		assert_int_equal(result_of(&cancelled), -ECANCELED);
		if (!by_another_thread) {
			close_all(fds);
			continue;
		}
		assert_int_equal(os_thread_start(&thread, "closer", close_all, fds), 0);
		os_thread_join(thread);
	}
}

static void a_number_that_comes_back_is_another_connection(void **state)
{
	(void)state;
	check_reuse(false);
}

static void also_when_another_thread_closed_it(void **state)
{
	(void)state;
	check_reuse(true);
}

static void a_number_that_only_shares_its_count_stays_known(void **state)
{
	struct act received = act(), again = act(), last = act();
	int fds[2];

	(void)state;
	pair(fds);
	os_recv(loop, &received.op, fds[0]);
	turn();
	os_close(fds[0] + SHARED_COUNT);
	send_text(fds[0], "y"); /* looks at the descriptor anew, while a receive waits */
	os_recv(loop, &again.op, fds[1]);
	assert_int_equal(result_of(&again), 1);
	assert_false(received.done);
	send_text(fds[1], "z");
	assert_int_equal(result_of(&received), 1);
	os_close(fds[0] + SHARED_COUNT);
	os_recv(loop, &last.op, fds[0]); /* registers what is registered */
	turn();
	send_text(fds[1], "!");
	assert_int_equal(result_of(&last), 1);
	close_all(fds);
}

static void bytes_before_the_end_are_received_before_it(void **state)
{
	int fds[2];

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct act first = act(), last = act();

		pair(fds);
		os_recv(loop, &first.op, fds[0]);
		/* Behind the loop's back, so that both come with one edge. */
		assert_int_equal(write(fds[1], "bye", 3), 3);
		close(fds[1]);
		assert_int_equal(result_of(&first), 3);
		os_recv(loop, &last.op, fds[0]);
		assert_int_equal(result_of(&last), 0);
		os_close(fds[0]);
	}
}

/* ── buffers ──────────────────────────────────────────────────────────────────────── */

struct member {
	struct os_op recv_op, send_op;
	int fds[2];
	size_t received;
	struct iovec iov;
};

static struct member crowd[CROWD];
static size_t most_ahead;

static void on_member_recv(struct os_op *op)
{
	struct member *member = container_of(op, struct member, recv_op);
	size_t least = SIZE_MAX;

	assert_true(op->result > 0);
	member->received += (size_t)op->result;
	for (int i = 0; i < CROWD; i++)
		if (crowd[i].received < least)
			least = crowd[i].received;
	if (member->received - least > most_ahead)
		most_ahead = member->received - least;
	if (member->received < CROWD_BYTES)
		os_recv(loop, op, member->fds[0]);
}

static void on_member_send(struct os_op *op)
{
	assert_int_equal(op->result, CROWD_BYTES);
}

/* The loop of these tests has 4 buffers of 1 KiB; all members have data all the time. */
static void starving_receives_take_turns(void **state)
{
	static char bytes[CROWD_BYTES];
	bool busy = true;

	(void)state;
	memset(crowd, 0, sizeof(crowd));
	most_ahead = 0;
	for (int i = 0; i < CROWD; i++) {
		struct member *member = &crowd[i];

		pair(member->fds);
		member->iov = (struct iovec){ bytes, sizeof(bytes) };
		member->send_op.done = on_member_send;
		member->recv_op.done = on_member_recv;
		os_send(loop, &member->send_op, member->fds[1], &member->iov, 1);
	}
	turn();
	for (int i = 0; i < CROWD; i++)
		os_recv(loop, &crowd[i].recv_op, crowd[i].fds[0]);
	while (busy) {
		turn();
		busy = false;
		for (int i = 0; i < CROWD; i++)
			busy |= crowd[i].recv_op.busy || crowd[i].send_op.busy;
	}
	for (int i = 0; i < CROWD; i++) {
		assert_int_equal(crowd[i].received, CROWD_BYTES);
		close_all(crowd[i].fds);
	}
	assert_true(most_ahead <= 3 * 1024);
}

/* ── UNIX sockets ─────────────────────────────────────────────────────────────────── */

static void a_full_backlog_is_waited_for(void **state)
{
	char folder[] = "/tmp/os_epoll.XXXXXX", path[64];
	struct act connected[8], cancelled = act();
	int fds[8], listen_fd, cancelled_fd, busy_count = 0;
	struct os_address address;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	assert_true(os_address_parse(path, 0, &address));
	listen_fd = os_listen(&address, 1);
	for (int i = 0; i < 8; i++) {
		connected[i] = act();
		fds[i] = os_socket(AF_UNIX, NULL);
		os_connect(loop, &connected[i].op, fds[i], &address);
	}
	cancelled_fd = os_socket(AF_UNIX, NULL);
	os_connect(loop, &cancelled.op, cancelled_fd, &address);
	turn();
	os_cancel(loop, &cancelled.op);
	assert_int_equal(result_of(&cancelled), -ECANCELED);
	for (int i = 0; i < 8; i++)
		busy_count += connected[i].op.busy;
	assert_true(busy_count >= 5);
	for (int i = 0; i < 8; i++) {
		struct act accepted = act();

		os_accept(loop, &accepted.op, listen_fd);
		assert_true(result_of(&accepted) >= 0);
		os_close(accepted.result);
	}
	for (int i = 0; i < 8; i++) {
		assert_int_equal(result_of(&connected[i]), 0);
		os_close(fds[i]);
	}
	os_close(cancelled_fd);
	os_close(listen_fd);
	unlink(path);
	rmdir(folder);
}

/* ── old kernels ──────────────────────────────────────────────────────────────────── */

static int loop_up(void **state)
{
	const struct os_loop_options small = { .recv_buffers = 4, .recv_buffer_bytes = 1024 };

	(void)state;
	return os_loop_create(&small, &loop);
}

static int loop_down(void **state)
{
	(void)state;
	os_loop_destroy(loop);
	return 0;
}

static void without_pwait2_a_turn_still_ends_at_its_time(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	if (child == 0) {
		struct os_mono start = os_mono_now(), until = os_mono_add_ms(start, 20);

		refuse_call(SYS_epoll_pwait2, EPERM);
		if (loop_up(NULL) != 0)
			_exit(1);
		while (os_mono_now().ns < until.ns)
			os_loop_turn(loop, until);
		_exit(os_mono_now().ns < start.ns + 60000 * OS_NS_PER_MS ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

#define on_loop(test) cmocka_unit_test_setup_teardown(test, loop_up, loop_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_loop(a_number_that_comes_back_is_another_connection),
		on_loop(also_when_another_thread_closed_it),
		on_loop(a_number_that_only_shares_its_count_stays_known),
		on_loop(bytes_before_the_end_are_received_before_it),
		on_loop(starving_receives_take_turns),
		on_loop(a_full_backlog_is_waited_for),
		cmocka_unit_test(without_pwait2_a_turn_still_ends_at_its_time),
	};
	char why[256];

	if (os_backend_use("epoll", why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	return cmocka_run_group_tests_name("os_epoll", tests, NULL, NULL);
}
