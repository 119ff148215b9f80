/*
 * Addresses, and connections over loopback.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"

/* ── addresses ────────────────────────────────────────────────────────────────────── */

static const struct address_case {
	const char *name, *text;
	bool valid;
	sa_family_t family;
	const char *printed;
} address_cases[] = {
	{ "IPv4", "192.0.2.1", true, AF_INET, "192.0.2.1" },
	{ "IPv6", "2001:db8::1", true, AF_INET6, "2001:db8::1" },
	{ "IPv6 in a long form is shortened", "2001:0DB8:0:0:0:0:0:1", true, AF_INET6,
	  "2001:db8::1" },
	{ "IPv6 any", "::", true, AF_INET6, "::" },
	{ "a mapped IPv4 address stays IPv6", "::ffff:192.0.2.1", true, AF_INET6,
	  "::ffff:192.0.2.1" },
	{ "a scope that exists", "fe80::1%lo", true, AF_INET6, "fe80::1%lo" },
	{ "a scope that does not exist", "fe80::1%nothere", false, 0, NULL },
	{ "UNIX path", "/run/stafette.sock", true, AF_UNIX, "/run/stafette.sock" },
	{ "relative path", "run/stafette.sock", false, 0, NULL },
	{ "empty", "", false, 0, NULL },
	{ "host name", "mx.example.org", false, 0, NULL },
	{ "three numbers", "192.0.2", false, 0, NULL },
	{ "a number too large", "192.0.2.256", false, 0, NULL },
	{ "brackets", "[::1]", false, 0, NULL },
	{ "trailing blank", "192.0.2.1 ", false, 0, NULL },
	{ "too many colons", "1:2:3:4:5:6:7:8:9", false, 0, NULL },
	{ "a very long word",
	  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  false, 0, NULL },
	{ "a path too long for the kernel",
	  "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  false, 0, NULL },
};

static void check_address(void **state)
{
	const struct address_case *row = *state;
	struct os_address address, again;
	char text[OS_ADDRESS_TEXT_MAX];

	assert_int_equal(os_address_parse(row->text, 25, &address), row->valid);
	if (!row->valid)
		return;
	assert_int_equal(address.family, row->family);
	assert_string_equal(os_address_text(&address, text), row->printed);
	assert_true(os_address_parse(text, 25, &again));
	assert_true(os_address_equal(&address, &again));
	again.ip[3] ^= 1;
	again.path[3] ^= 1;
	assert_false(os_address_equal(&address, &again));
}

static void ports_distinguish(void **state)
{
	struct os_address a, b;

	(void)state;
	assert_true(os_address_parse("127.0.0.1", 25, &a));
	assert_true(os_address_parse("127.0.0.1", 26, &b));
	assert_false(os_address_equal(&a, &b));
}

/* ── connections ──────────────────────────────────────────────────────────────────── */

#define PAIRS_MAX 40

static struct os_loop *loop;
static bool finished[2 * PAIRS_MAX + 1]; /* by note_finished() */

struct end {
	struct os_op recv_op, send_op;
	int fd;
	int index;
	size_t sent, received, wanted;
	uint32_t sum;
	int32_t last; /* result of the last receive */
	bool hold;    /* does not receive again by itself */
	struct iovec iov[4];
	unsigned char *bytes;
};

static struct end ends[2 * PAIRS_MAX];

static void wait_for(const bool *flag)
{
	struct os_mono limit = os_mono_add_ms(os_mono_now(), 20000);

	while (!*flag) {
		assert_true(os_mono_now().ns < limit.ns);
		os_loop_turn(loop, limit);
	}
}

struct waiter {
	struct os_op op;
	bool done;
	int32_t result;
};

static void on_waiter(struct os_op *op)
{
	struct waiter *waiter = container_of(op, struct waiter, op);

	waiter->done = true;
	waiter->result = op->result;
}

static void connect_to(const struct os_address *address, int listen_fd, int *near_out, int *far_out)
{
	struct waiter accepted = { .op.done = on_waiter }, connected = { .op.done = on_waiter };
	int fd = os_socket(address->family, NULL);

	assert_true(fd >= 0);
	os_accept(loop, &accepted.op, listen_fd);
	os_connect(loop, &connected.op, fd, address);
	wait_for(&accepted.done);
	wait_for(&connected.done);
	assert_int_equal(connected.result, 0);
	assert_true(accepted.result >= 0);
	*near_out = fd;
	*far_out = accepted.result;
}

static void pairs_make(int count)
{
	struct os_address address;
	int listen_fd;

	memset(ends, 0, sizeof(ends));
	memset(finished, 0, sizeof(finished));
	assert_true(os_address_parse("127.0.0.1", 0, &address));
	listen_fd = os_listen(&address, 100);
	assert_true(listen_fd >= 0);
	assert_int_equal(os_local_address(listen_fd, &address), 0);
	assert_true(address.port != 0);
	for (int i = 0; i < count; i++) {
		connect_to(&address, listen_fd, &ends[2 * i].fd, &ends[2 * i + 1].fd);
		ends[2 * i].index = 2 * i;
		ends[2 * i + 1].index = 2 * i + 1;
	}
	os_close(listen_fd);
}

static void pairs_close(int count)
{
	for (int i = 0; i < 2 * count; i++) {
		assert_false(ends[i].recv_op.busy || ends[i].send_op.busy);
		os_close(ends[i].fd);
		free(ends[i].bytes);
	}
}

static void on_recv(struct os_op *op)
{
	struct end *end = container_of(op, struct end, recv_op);

	end->last = op->result;
	if (op->result > 0) {
		for (int32_t i = 0; i < op->result; i++)
			end->sum = end->sum * 31 + (unsigned char)op->data[i];
		end->received += (size_t)op->result;
	}
	if (op->result > 0 && end->received < end->wanted && !end->hold)
		os_recv(loop, op, end->fd);
	else
		finished[end->index] = true;
}

static void recv_start(struct end *end, size_t wanted)
{
	end->recv_op.done = on_recv;
	end->wanted = wanted;
	finished[end->index] = false;
	os_recv(loop, &end->recv_op, end->fd);
}

static void on_send(struct os_op *op)
{
	struct end *end = container_of(op, struct end, send_op);

	if (op->result > 0)
		end->sent = (size_t)op->result;
}

/* Sends `count` bytes of a pattern in four uneven pieces, one of them empty. */
static uint32_t send_start(struct end *end, size_t count)
{
	uint32_t sum = 0;

	free(end->bytes);
	end->bytes = malloc(count);
	for (size_t i = 0; i < count; i++) {
		end->bytes[i] = (unsigned char)((i * 7 + (size_t)end->index) >> (i % 3));
		sum = sum * 31 + end->bytes[i];
	}
	end->iov[0] = (struct iovec){ end->bytes, 1 };
	end->iov[1] = (struct iovec){ end->bytes + 1, count / 3 };
	end->iov[2] = (struct iovec){ end->bytes, 0 };
	end->iov[3] = (struct iovec){ end->bytes + 1 + count / 3, count - 1 - count / 3 };
	end->send_op.done = on_send;
	os_send(loop, &end->send_op, end->fd, end->iov, 4);
	return sum;
}

static void large_sends_cross(void **state)
{
	const size_t count = 8 << 20;
	uint32_t sums[2];

	(void)state;
	pairs_make(1);
	for (int i = 0; i < 2; i++) {
		sums[i] = send_start(&ends[i], count);
		recv_start(&ends[i], count);
	}
	for (int i = 0; i < 2; i++)
		wait_for(&finished[i]);
	while (ends[0].send_op.busy || ends[1].send_op.busy)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 100));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ends[i].sent, count);
		assert_int_equal(ends[i].received, count);
		assert_int_equal(ends[i].sum, sums[!i]);
	}
	pairs_close(1);
}

/* The loop of these tests has 4 buffers of 4 KiB. */
static void more_connections_than_buffers(void **state)
{
	const size_t count = 50000;
	uint32_t sums[PAIRS_MAX];

	(void)state;
	pairs_make(PAIRS_MAX);
	for (int i = 0; i < PAIRS_MAX; i++)
		recv_start(&ends[2 * i], count);
	os_loop_turn(loop, (struct os_mono){ 0 });
	for (int i = 0; i < PAIRS_MAX; i++)
		sums[i] = send_start(&ends[2 * i + 1], count);
	for (int i = 0; i < PAIRS_MAX; i++) {
		wait_for(&finished[2 * i]);
		assert_int_equal(ends[2 * i].received, count);
		assert_int_equal(ends[2 * i].sum, sums[i]);
	}
	for (int i = 0; i < PAIRS_MAX; i++)
		while (ends[2 * i + 1].send_op.busy)
			os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 100));
	pairs_close(PAIRS_MAX);
}

static void starving_receives_are_cancelled(void **state)
{
	(void)state;
	pairs_make(PAIRS_MAX);
	for (int i = 0; i < PAIRS_MAX; i++)
		send_start(&ends[2 * i + 1], 10);
	while (ends[2 * PAIRS_MAX - 1].send_op.busy)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 100));
	for (int i = 0; i < PAIRS_MAX; i++)
		recv_start(&ends[2 * i], 10);
	os_loop_turn(loop, (struct os_mono){ 0 }); /* four have buffers; the others starve */
	for (int i = 0; i < PAIRS_MAX; i++)
		os_cancel(loop, &ends[2 * i].recv_op);
	for (int i = 0; i < PAIRS_MAX; i++) {
		wait_for(&finished[2 * i]);
		assert_true(ends[2 * i].last == 10 || ends[2 * i].last == -ECANCELED);
	}
	for (int i = 0; i < PAIRS_MAX; i++)
		while (ends[2 * i + 1].send_op.busy)
			os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 100));
	pairs_close(PAIRS_MAX);
}

static void a_waiting_receive_is_cancelled(void **state)
{
	(void)state;
	pairs_make(1);
	recv_start(&ends[0], 1);
	os_loop_turn(loop, (struct os_mono){ 0 });
	os_cancel(loop, &ends[0].recv_op);
	os_cancel(loop, &ends[0].recv_op); /* twice does no harm */
	wait_for(&finished[0]);
	assert_int_equal(ends[0].last, -ECANCELED);

	/* Cancelled before it was even handed to the kernel. */
	recv_start(&ends[0], 1);
	os_cancel(loop, &ends[0].recv_op);
	wait_for(&finished[0]);
	assert_int_equal(ends[0].last, -ECANCELED);

	/* And the operation is as good as new. */
	recv_start(&ends[0], 100);
	send_start(&ends[1], 100);
	wait_for(&finished[0]);
	assert_int_equal(ends[0].received, 100);
	pairs_close(1);
}

static void a_send_that_stands_still_is_cancelled(void **state)
{
	(void)state;
	pairs_make(1);
	send_start(&ends[0], 64 << 20);
	for (int i = 0; i < 10; i++)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 5));
	assert_true(ends[0].send_op.busy);
	os_cancel(loop, &ends[0].send_op);
	while (ends[0].send_op.busy)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 100));
	assert_true(ends[0].sent < 64 << 20);
	pairs_close(1);
}

static void the_peers_end_is_a_zero(void **state)
{
	(void)state;
	pairs_make(1);
	recv_start(&ends[0], 1000);
	send_start(&ends[1], 10);
	while (ends[1].send_op.busy)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 100));
	assert_int_equal(shutdown(ends[1].fd, SHUT_WR), 0);
	wait_for(&finished[0]);
	assert_int_equal(ends[0].received, 10);
	assert_int_equal(ends[0].last, 0);
	pairs_close(1);
}

static void a_closed_peer_breaks_a_send_without_a_signal(void **state)
{
	struct waiter sent = { .op.done = on_waiter };
	static char bytes[1 << 20];
	struct iovec iov = { bytes, sizeof(bytes) };

	(void)state;
	pairs_make(1);
	os_close(ends[1].fd);
	for (int i = 0; i < 10 && sent.result >= 0; i++) {
		sent.done = false;
		os_send(loop, &sent.op, ends[0].fd, &iov, 1);
		wait_for(&sent.done);
	}
	assert_true(sent.result == -EPIPE || sent.result == -ECONNRESET);
	os_close(ends[0].fd);
}

static void a_connect_to_nobody_is_refused(void **state)
{
	struct waiter connected = { .op.done = on_waiter };
	struct sockaddr_in any = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct os_address address;
	int fd, deaf = socket(AF_INET, SOCK_STREAM, 0);

	(void)state;
	/* A port that nobody else can have, and on which nobody listens. */
	assert_int_equal(bind(deaf, (struct sockaddr *)&any, sizeof(any)), 0);
	assert_int_equal(os_local_address(deaf, &address), 0);
	fd = os_socket(AF_INET, NULL);
	os_connect(loop, &connected.op, fd, &address);
	wait_for(&connected.done);
	assert_int_equal(connected.result, -ECONNREFUSED);
	os_close(fd);
	close(deaf);
}

static void an_accept_is_cancelled(void **state)
{
	struct waiter accepted = { .op.done = on_waiter };
	struct os_address address;
	int fd;

	(void)state;
	assert_true(os_address_parse("::1", 0, &address));
	fd = os_listen(&address, 1);
	assert_true(fd >= 0);
	os_accept(loop, &accepted.op, fd);
	os_loop_turn(loop, (struct os_mono){ 0 });
	os_cancel(loop, &accepted.op);
	wait_for(&accepted.done);
	assert_int_equal(accepted.result, -ECANCELED);
	os_close(fd);
}

static void the_source_address_is_bound(void **state)
{
	struct waiter accepted = { .op.done = on_waiter }, connected = { .op.done = on_waiter };
	struct os_address address, source, seen;
	char text[OS_ADDRESS_TEXT_MAX];
	int fd, listen_fd;

	(void)state;
	assert_true(os_address_parse("127.0.0.1", 0, &address));
	assert_true(os_address_parse("127.0.0.9", 0, &source));
	listen_fd = os_listen(&address, 1);
	assert_int_equal(os_local_address(listen_fd, &address), 0);
	fd = os_socket(AF_INET, &source);
	assert_true(fd >= 0);
	os_accept(loop, &accepted.op, listen_fd);
	os_connect(loop, &connected.op, fd, &address);
	wait_for(&accepted.done);
	wait_for(&connected.done);
	assert_int_equal(os_peer_address(accepted.result, &seen), 0);
	assert_string_equal(os_address_text(&seen, text), "127.0.0.9");
	os_close(fd);
	os_close(accepted.result);
	os_close(listen_fd);
}

/* os_listen() would join whoever listens there already, for a share of the connections. */
static void a_port_in_use_is_seen_before(void **state)
{
	static const char *const texts[] = { "127.0.0.1", "::1" };
	struct os_address address;
	int fd, other;

	(void)state;
	for (size_t i = 0; i < array_count(texts); i++) {
		assert_true(os_address_parse(texts[i], 0, &address));
		fd = os_listen(&address, 1);
		assert_int_equal(os_local_address(fd, &address), 0);
		assert_int_equal(os_listen_try(&address), -EADDRINUSE);
		other = os_listen(&address, 1);
		assert_true(other >= 0);
		os_close(other);
		os_close(fd);
		assert_int_equal(os_listen_try(&address), 0);
	}
	assert_true(os_address_parse("203.0.113.1", 25, &address));
	assert_int_equal(os_listen_try(&address), -EADDRNOTAVAIL);
}

static void a_stale_unix_socket_is_replaced(void **state)
{
	char folder[] = "/tmp/os_socket.XXXXXX", path[64];
	struct os_address address;
	int fd, near, far;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	assert_true(os_address_parse(path, 0, &address));
	os_close(os_listen(&address, 1)); /* leaves its name behind */
	fd = os_listen(&address, 1);
	assert_true(fd >= 0);
	connect_to(&address, fd, &near, &far);
	assert_int_equal(os_listen(&address, 1), -EADDRINUSE); /* this one lives */
	os_close(near);
	os_close(far);
	os_close(fd);
	unlink(path);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(os_listen(&address, 1), -EADDRINUSE); /* not ours to remove */
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
	rmdir(folder);
}

/* All of the kernel's field, without an end: what lies behind it is not read (ASan). */
static void a_unix_name_without_an_end_is_cut(void **state)
{
	char folder[] = "/tmp/os_socket.XXXXXX", path[64];
	struct sockaddr_un name = { .sun_family = AF_UNIX }, to = name;
	struct os_address address;
	int fd, near, far;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	memset(name.sun_path, 'x', sizeof(name.sun_path));
	memcpy(name.sun_path, folder, strlen(folder));
	name.sun_path[strlen(folder)] = '/';
	assert_true(os_address_parse(path, 0, &address));
	fd = os_listen(&address, 1);
	near = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(near, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(connect(near, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_true((far = accept(fd, NULL, NULL)) >= 0);
	assert_int_equal(os_peer_address(far, &address), 0);
	assert_int_equal(strlen(address.path), sizeof(address.path) - 1);
	assert_memory_equal(address.path, name.sun_path, sizeof(address.path) - 1);
	os_close(near);
	os_close(far);
	os_close(fd);
	snprintf(path, sizeof(path), "rm -r %s", folder);
	assert_int_equal(system(path), 0);
}

#define FLOOD 300

static void a_flood_beyond_the_ring_loses_nothing(void **state)
{
	static struct waiter floods[FLOOD];

	(void)state;
	/* The ring of these tests has 8 slots, and 32 for completions. */
	pairs_make(1);
	for (int i = 0; i < FLOOD; i++) {
		floods[i] = (struct waiter){ .op.done = on_waiter };
		os_sync(loop, &floods[i].op, ends[0].fd); /* a socket cannot be synced */
	}
	for (int i = 0; i < FLOOD; i++) {
		wait_for(&floods[i].done);
		assert_int_equal(floods[i].result, -EINVAL);
	}
	pairs_close(1);
}

static int loop_up(void **state)
{
	const struct os_loop_options small = {
		.operations = 8,
		.recv_buffers = 4,
		.recv_buffer_bytes = 4096,
	};

	(void)state;
	return os_loop_create(&small, &loop);
}

static int loop_down(void **state)
{
	(void)state;
	os_loop_destroy(loop);
	return 0;
}

#define on_loop(test) cmocka_unit_test_setup_teardown(test, loop_up, loop_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_distinguish),
		on_loop(large_sends_cross),
		on_loop(more_connections_than_buffers),
		on_loop(starving_receives_are_cancelled),
		on_loop(a_waiting_receive_is_cancelled),
		on_loop(a_send_that_stands_still_is_cancelled),
		on_loop(the_peers_end_is_a_zero),
		on_loop(a_closed_peer_breaks_a_send_without_a_signal),
		on_loop(a_connect_to_nobody_is_refused),
		on_loop(an_accept_is_cancelled),
		on_loop(the_source_address_is_bound),
		on_loop(a_port_in_use_is_seen_before),
		on_loop(a_stale_unix_socket_is_replaced),
		on_loop(a_unix_name_without_an_end_is_cut),
		on_loop(a_flood_beyond_the_ring_loses_nothing),
	};
	struct CMUnitTest rows[array_count(address_cases)];
	char why[256];
	int failed;

	for (size_t i = 0; i < array_count(rows); i++)
		rows[i] = (struct CMUnitTest){ address_cases[i].name, check_address, NULL, NULL,
					       (void *)&address_cases[i] };
	if (os_backend_choose(why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	failed = cmocka_run_group_tests_name("os_address", rows, NULL, NULL);
	return failed | cmocka_run_group_tests_name("os_socket", tests, NULL, NULL);
}
