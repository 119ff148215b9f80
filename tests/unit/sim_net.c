/* What the simulated network does to both sides: bytes in order, in pieces, or not at all. */
#include "tests/unit/sim_stage.h"

#include <errno.h>

enum { STREAM_BYTES = 300000 };

/* ── a loop for the daemon's side ── */

static struct os_loop loop;
static struct fiber *sleeper;

void sim_loop_kick(struct os_loop *kicked)
{
	assert_ptr_equal(kicked, &loop);
	if (sleeper != NULL)
		fiber_wake(sleeper);
}

static void loop_wait(struct os_loop *waiting, struct os_mono until)
{
	if (until.ns == 0 || !list_empty(&waiting->completed))
		return;
	sleeper = fiber_self();
	fiber_park(until.ns);
	sleeper = NULL;
}

static void loop_take_back(struct os_loop *of, const char *data)
{
	(void)of;
	net_take_back(data);
}

static const struct os_backend backend = {
	.name = "test",
	.start = net_start,
	.cancel = net_cancel,
	.wait = loop_wait,
	.take_back = loop_take_back,
};

/* One operation, and what came of it; received bytes are kept. */
struct probe {
	struct os_op op;
	char bytes[65536];
};

static void on_probe(struct os_op *op)
{
	struct probe *probe = container_of(op, struct probe, op);

	if (op->data != NULL && op->result > 0)
		memcpy(probe->bytes, op->data, (size_t)op->result);
}

static int32_t probe_wait(struct probe *probe, uint64_t patience_ns)
{
	uint64_t until = sim_now() + patience_ns;

	while (probe->op.busy && sim_now() < until)
		os_loop_turn(&loop, (struct os_mono){ until });
	return probe->op.busy ? -EINPROGRESS : probe->op.result;
}

static int32_t receive(struct probe *probe, int fd)
{
	os_recv(&loop, &probe->op, fd);
	return probe_wait(probe, 100 * SIM_S);
}

static int32_t transmit(int fd, const void *bytes, size_t count)
{
	struct probe probe = { .op.done = on_probe };
	struct iovec iov[2] = { { (void *)bytes, count / 3 },
				{ (char *)bytes + count / 3, count - count / 3 } };

	os_send(&loop, &probe.op, fd, iov, 2);
	return probe_wait(&probe, 100 * SIM_S);
}

static int32_t dial(int *fd_out, const struct os_address *to)
{
	struct probe probe = { .op.done = on_probe };
	int fd = os_socket(to->family, NULL);

	assert_true(fd >= 0);
	*fd_out = fd;
	os_connect(&loop, &probe.op, fd, to);
	return probe_wait(&probe, 200 * SIM_S);
}

static int setup(void **state)
{
	stage_setup(state);
	sleeper = NULL;
	loop_init(&loop, &backend);
	return 0;
}

static void check_clean(void)
{
	assert_int_equal(loop.in_flight_count, 0);
	assert_int_equal(net_open_count(), 0);
}

/* ── streams ── */

static char pattern(uint64_t at)
{
	return (char)(at * 7 + at / 251);
}

/* A host that sends a stream and then reads one to its end. */
static uint64_t host_read;
static bool host_in_order;

static void stream_host(struct sock *sock, void *context)
{
	char bytes[5000];
	int count;

	(void)context;
	for (uint64_t at = 0; at < STREAM_BYTES; at += sizeof(bytes)) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = pattern(at + i);
		if (net_write(sock, bytes, sizeof(bytes)) != 0)
			break;
	}
	host_read = 0;
	host_in_order = true;
	while (host_read < STREAM_BYTES &&
	       (count = net_read(sock, bytes, 1 + sim_below(sizeof(bytes)), 900 * SIM_S)) > 0)
		for (int i = 0; i < count; i++)
			host_in_order &= bytes[i] == pattern(host_read++);
	net_close(sock, false);
}

static uint64_t stream_read(int fd, struct probe *probe, bool *in_order)
{
	uint64_t at = 0;

	*in_order = true;
	while (at < STREAM_BYTES) {
		int32_t count = receive(probe, fd);

		if (count <= 0)
			break;
		for (int32_t i = 0; i < count; i++)
			*in_order &= probe->bytes[i] == pattern(at++);
	}
	return at;
}

/* Both ways; `whole`: everything has to arrive. */
static void stream_play(void *context)
{
	bool whole = *(bool *)context, in_order;
	struct os_address host = stage_address("10.0.0.1", 25);
	static struct probe probe;
	static char bytes[STREAM_BYTES];
	uint64_t got;
	int32_t sent;
	int fd;

	probe = (struct probe){ .op.done = on_probe };
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = pattern(i);
	net_host(&host, stream_host, NULL);
	if (dial(&fd, &host) == 0) {
		got = stream_read(fd, &probe, &in_order);
		assert_true(in_order);
		sent = got == STREAM_BYTES ? transmit(fd, bytes, sizeof(bytes)) : 0;
		if (whole)
			assert_int_equal(sent, STREAM_BYTES);
		while (whole && receive(&probe, fd) > 0)
			;
		if (probe.op.busy) {
			os_cancel(&loop, &probe.op);
			probe_wait(&probe, SIM_S);
		}
	} else {
		assert_false(whole);
	}
	os_close(fd);
}

static void streams_arrive_in_order_and_whole(void **state)
{
	bool whole = true;

	(void)state;
	sky.split_permille = 300;
	for (int i = 0; i < 20; i++) {
		stage_run(stream_play, &whole);
		assert_true(host_in_order);
		assert_int_equal(host_read, STREAM_BYTES);
		check_clean();
	}
}

/* A send that stays is given up, as by the daemon's deadline. */
static void storm_play(void *context)
{
	struct os_address host = stage_address("10.0.0.1", 25);
	struct probe send = { .op.done = on_probe };
	static struct probe probe;
	static char bytes[STREAM_BYTES];
	struct iovec iov = { bytes, sizeof(bytes) };
	bool in_order;
	int fd;

	(void)context;
	probe = (struct probe){ .op.done = on_probe };
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = pattern(i);
	net_host(&host, stream_host, NULL);
	if (dial(&fd, &host) == 0) {
		os_send(&loop, &send.op, fd, &iov, 1);
		stream_read(fd, &probe, &in_order);
		assert_true(in_order);
		if (send.op.busy)
			os_cancel(&loop, &send.op);
		if (probe.op.busy)
			os_cancel(&loop, &probe.op);
		assert_int_not_equal(probe_wait(&send, SIM_S), -EINPROGRESS);
		assert_int_not_equal(probe_wait(&probe, SIM_S), -EINPROGRESS);
	}
	os_close(fd);
}

static void what_arrives_in_a_storm_is_a_prefix(void **state)
{
	(void)state;
	sky.split_permille = 100;
	sky.resets = 20000;
	sky.stalls = 200000;
	sky.connect_fails = 0;
	for (int i = 0; i < 200; i++) {
		host_in_order = true;
		stage_run(storm_play, NULL);
		assert_true(host_in_order);
		check_clean();
	}
}

/* ── connects ── */

static void nobody_play(void *context)
{
	struct os_address host = stage_address("10.0.0.9", 25);
	int fd;

	(void)context;
	assert_int_equal(dial(&fd, &host), -ECONNREFUSED);
	os_close(fd);
	assert_null(net_connect(NULL, &host));
}

static void a_connection_to_nobody_is_refused(void **state)
{
	(void)state;
	stage_run(nobody_play, NULL);
	check_clean();
}

static void cancel_connect_play(void *context)
{
	struct os_address host = stage_address("10.0.0.1", 25);
	struct probe probe = { .op.done = on_probe };
	int fd = os_socket(AF_INET, NULL);

	(void)context;
	net_host(&host, stream_host, NULL);
	os_connect(&loop, &probe.op, fd, &host);
	probe_wait(&probe, sim_below(300 * SIM_US));
	if (probe.op.busy) {
		os_cancel(&loop, &probe.op);
		assert_int_equal(probe_wait(&probe, SIM_S), -ECANCELED);
	}
	os_close(fd);
}

static void a_connect_can_be_given_up_at_any_moment(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) {
		stage_run(cancel_connect_play, NULL);
		check_clean();
	}
}

/* ── accepting ── */

static void client_run(void *context)
{
	struct os_address to = stage_address("127.0.0.1", 25), from = stage_address("10.9.9.9", 0);
	struct sock *sock = net_connect(&from, &to);
	char line[100];

	(void)context;
	assert_non_null(sock);
	assert_int_equal(net_read_line(sock, line, sizeof(line), SIM_S), 5);
	assert_string_equal(line, "hello");
	assert_int_equal(net_read_line(sock, line, sizeof(line), SIM_S), -ETIMEDOUT);
	assert_true(net_printf(sock, "%s\r\n", "and you") == 0);
	assert_false(net_arrived(sock));
	assert_int_equal(net_read_line(sock, line, sizeof(line), 900 * SIM_S), 0);
	assert_true(net_arrived(sock));
	net_close(sock, false);
}

static void accept_play(void *context)
{
	struct os_address any = stage_address("0.0.0.0", 25), peer;
	static struct probe probe;
	int first = os_listen(&any, 10), second = os_listen(&any, 10), fd;

	(void)context;
	probe = (struct probe){ .op.done = on_probe };
	os_close(second);
	fiber_start("client", client_run, NULL);
	os_accept(&loop, &probe.op, first);
	fd = probe_wait(&probe, SIM_S);
	assert_true(fd >= 10000);
	assert_int_equal(os_peer_address(fd, &peer), 0);
	assert_true(peer.ip[0] == 10 && peer.port > 0);
	assert_int_equal(transmit(fd, "hello\r\n", 7), 7);
	assert_int_equal(receive(&probe, fd), 9);
	os_close(fd);
	os_accept(&loop, &probe.op, first);
	probe_wait(&probe, SIM_S);
	os_cancel(&loop, &probe.op);
	assert_int_equal(probe_wait(&probe, SIM_S), -ECANCELED);
	os_close(first);
}

static void a_client_is_accepted_and_heard(void **state)
{
	(void)state;
	stage_run(accept_play, NULL);
	check_clean();
}

/* ── what was heard ── */

static int heard, unheard;

static void on_settled(struct net_watch *watch, bool arrived)
{
	(void)watch;
	heard += arrived;
	unheard += !arrived;
}

/* Says two things, each watched, and leaves hard or softly. */
static void watched_host(struct sock *sock, void *context)
{
	static struct net_watch first, second;

	(void)context;
	first.settled = second.settled = on_settled;
	net_printf(sock, "one");
	net_watch(sock, &first);
	fiber_sleep(SIM_S);
	net_printf(sock, "two");
	net_watch(sock, &second);
	net_close(sock, false);
}

static void watch_play(void *context)
{
	struct os_address host = stage_address("10.0.0.3", 25);
	static struct probe probe;
	int fd;

	probe = (struct probe){ .op.done = on_probe };
	net_host(&host, watched_host, NULL);
	assert_int_equal(dial(&fd, &host), 0);
	assert_int_equal(receive(&probe, fd), 3);
	fiber_sleep(2 * SIM_S);
	if (*(bool *)context)
		net_end();
	os_close(fd);
}

static void what_was_not_read_was_not_heard(void **state)
{
	bool ends = false;

	(void)state;
	heard = unheard = 0;
	stage_run(watch_play, &ends);
	assert_int_equal(heard, 1);
	assert_int_equal(unheard, 1);
	ends = true;
	stage_run(watch_play, &ends);
	assert_int_equal(heard, 2);
	assert_int_equal(unheard, 2);
}

/* ── what was believed ── */

static int believed, unbelieved;

static void on_heard(struct net_watch *watch, bool is_heard)
{
	(void)watch;
	believed += is_heard;
	unbelieved += !is_heard;
}

/* Talks ahead, and reads only later. */
static void hasty_host(struct sock *sock, void *context)
{
	static struct net_watch watch = { .settled = on_settled, .heard = on_heard };
	char bytes[5000];

	(void)context;
	net_printf(sock, "one");
	net_watch(sock, &watch);
	fiber_sleep(10 * SIM_S);
	while (net_read(sock, bytes, sizeof(bytes), SIM_S) > 0)
		;
	net_close(sock, false);
}

static void hasty_play(void *context)
{
	static char bytes[STREAM_BYTES];
	static struct probe reads, sends;
	struct os_address host = stage_address("10.0.0.5", 25);
	struct iovec iov = { bytes, sizeof(bytes) };
	bool gives_up = *(bool *)context;
	int fd;

	reads = sends = (struct probe){ .op.done = on_probe };
	net_host(&host, hasty_host, NULL);
	assert_int_equal(dial(&fd, &host), 0);
	os_send(&loop, &sends.op, fd, &iov, 1);
	assert_int_equal(receive(&reads, fd), 3);
	assert_int_equal(heard, 1);
	assert_int_equal(believed, 0);
	if (gives_up)
		os_cancel(&loop, &sends.op);
	probe_wait(&sends, 100 * SIM_S);
	assert_int_equal(believed, 0);
	fiber_sleep(2 * SIM_MS);
	assert_int_equal(believed, !gives_up);
	os_close(fd);
	assert_int_equal(believed, !gives_up);
	assert_int_equal(unbelieved, gives_up);
}

static void a_reply_is_believed_when_what_was_being_sent_has_left(void **state)
{
	bool gives_up = false;

	(void)state;
	heard = unheard = believed = unbelieved = 0;
	stage_run(hasty_play, &gives_up);
	check_clean();
}

static void who_gives_up_sending_does_not_believe_what_came_meanwhile(void **state)
{
	bool gives_up = true;

	(void)state;
	heard = unheard = believed = unbelieved = 0;
	stage_run(hasty_play, &gives_up);
	check_clean();
}

/* ── half-closes ── */

static int32_t half_read, half_result;

/* Says a word and that it was the last, and hears the answer to it. */
static void finishing_host(struct sock *sock, void *context)
{
	char bytes[16];

	(void)context;
	net_printf(sock, "last");
	net_finish(sock);
	net_finish(sock);
	half_read = net_read_line(sock, bytes, sizeof(bytes), 10 * SIM_S);
	half_result = net_read(sock, bytes, sizeof(bytes), 10 * SIM_S);
	net_close(sock, false);
}

static void finish_play(void *context)
{
	struct os_address host = stage_address("10.0.0.4", 25);
	static struct probe probe;
	int fd;

	(void)context;
	probe = (struct probe){ .op.done = on_probe };
	net_host(&host, finishing_host, NULL);
	assert_int_equal(dial(&fd, &host), 0);
	assert_int_equal(receive(&probe, fd), 4);
	assert_int_equal(receive(&probe, fd), 0);
	assert_int_equal(receive(&probe, fd), 0);
	assert_int_equal(transmit(fd, "answer\r\n", 8), 8);
	os_close(fd);
}

static void behind_its_fin_a_host_still_hears(void **state)
{
	(void)state;
	half_read = half_result = -1;
	stage_run(finish_play, NULL);
	assert_int_equal(half_read, 6);
	assert_int_equal(half_result, 0);
	check_clean();
}

static void finish_broken_play(void *context)
{
	struct os_address host = stage_address("10.0.0.4", 25);
	static struct probe probe;
	int fd;

	(void)context;
	probe = (struct probe){ .op.done = on_probe };
	net_host(&host, finishing_host, NULL);
	assert_int_equal(dial(&fd, &host), 0);
	while (receive(&probe, fd) > 0)
		;
	assert_int_equal(probe.op.result, -ECONNRESET);
	os_close(fd);
}

static void a_fin_on_a_broken_connection_is_nothing(void **state)
{
	(void)state;
	half_read = half_result = 1;
	sky.resets = 1000000;
	stage_run(finish_broken_play, NULL);
	assert_int_equal(half_read, -ECONNRESET);
	check_clean();
}

/* ── rules ── */

static void close_busy_play(void *context)
{
	struct os_address any = stage_address("0.0.0.0", 25);
	static struct probe probe;
	int fd = os_listen(&any, 10);

	(void)context;
	probe = (struct probe){ .op.done = on_probe };
	os_accept(&loop, &probe.op, fd);
	os_close(fd);
}

static void close_twice_play(void *context)
{
	int fd = os_socket(AF_INET, NULL);

	(void)context;
	os_close(fd);
	os_close(fd);
}

static void recv_fresh_play(void *context)
{
	static struct probe probe;

	(void)context;
	probe = (struct probe){ .op.done = on_probe };
	os_recv(&loop, &probe.op, os_socket(AF_INET, NULL));
}

static void breaking_a_rule_is_a_finding(void **state)
{
	(void)state;
	assert_true(stage_finds(close_busy_play, NULL));
	assert_true(stage_finds(close_twice_play, NULL));
	assert_true(stage_finds(recv_fresh_play, NULL));
}

#define ROW(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		ROW(streams_arrive_in_order_and_whole),
		ROW(what_arrives_in_a_storm_is_a_prefix),
		ROW(a_connection_to_nobody_is_refused),
		ROW(a_connect_can_be_given_up_at_any_moment),
		ROW(a_client_is_accepted_and_heard),
		ROW(what_was_not_read_was_not_heard),
		ROW(a_reply_is_believed_when_what_was_being_sent_has_left),
		ROW(who_gives_up_sending_does_not_believe_what_came_meanwhile),
		ROW(behind_its_fin_a_host_still_hears),
		ROW(a_fin_on_a_broken_connection_is_nothing),
		ROW(breaking_a_rule_is_a_finding),
	};

	return cmocka_run_group_tests_name("sim_net", tests, NULL, NULL);
}
