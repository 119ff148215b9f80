/*
 * Connections on a real loop, one end of each under test: a send that fails ends it at once, and
 * its owner hears all in order.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/config/config.h"
#include "engine/conn.h"
#include "os/check.h"
#include "tests/unit/memory_refuse.h"

enum { BATCH = 4 * TLS_RECORD_BYTES, TURNS_MAX = 200, TURN_MS = 10 };

static char folder[] = "/tmp/engine_conn.XXXXXX";
static struct tls_contexts *contexts;
static struct worker worker;

static int set_up(void **state)
{
	char path[64], text[1024], error[1024];
	struct config *config;
	FILE *file;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(text, sizeof(text),
		 "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
		 "-keyout key -out chain -days 9 -subj /CN=one.test 2>log && chmod 600 key",
		 folder);
	assert_int_equal(system(text), 0); /* NOLINT(cert-env33-c): a test */
	snprintf(path, sizeof(path), "%s/conf", folder);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "certificate { chain = \"%s/chain\" key = \"%s/key\" }\n", folder, folder);
	fclose(file);
	config = config_load(path, error, sizeof(error));
	if (!config)
		fail_msg("%s", error);
	contexts = tls_contexts_create(config, error, sizeof(error));
	config_destroy(config);
	if (!contexts || os_backend_choose(error, sizeof(error)) != 0)
		fail_msg("%s", error);
	assert_int_equal(os_loop_create(NULL, &worker.loop), 0);
	worker.tls_scratch = malloc(sizeof(*worker.tls_scratch));
	assert_non_null(worker.tls_scratch);
	timer_wheel_init(&worker.timers, os_mono_now());
	list_init(&worker.closing);
	os_thread_set_self(&worker);
	return 0;
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	os_loop_destroy(worker.loop);
	free(worker.tls_scratch);
	tls_contexts_destroy(contexts);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command); /* NOLINT(cert-env33-c): a test */
}

/* ── two ends ─────────────────────────────────────────────────────────────────────── */

static struct end {
	struct conn conn;
	char told[64]; /* what its owner heard, a letter each */
	size_t sent;
	int error;
} ends[2];

static void hear(struct conn *conn, char what)
{
	struct end *end = container_of(conn, struct end, conn);
	size_t count = strlen(end->told);

	assert(count + 1 < sizeof(end->told));
	end->told[count] = what;
}

static void on_received(struct conn *conn, struct span bytes)
{
	(void)bytes;
	conn_recv(conn);
}

static void on_sent(struct conn *conn, size_t count)
{
	container_of(conn, struct end, conn)->sent = count;
	hear(conn, 's');
}

static void on_secured(struct conn *conn, const char *failure)
{
	assert_null(failure);
	conn_recv(conn);
}

static void on_lost(struct conn *conn, int error)
{
	container_of(conn, struct end, conn)->error = error;
	hear(conn, 'l');
	conn_close(conn);
}

static void on_closed(struct conn *conn)
{
	hear(conn, 'c');
}

static const struct conn_host hosts[2] = {
#define OWNER                                                                                      \
	.received = on_received, .sent = on_sent, .secured = on_secured, .lost = on_lost,          \
	.closed = on_closed
	{ OWNER },
	{ OWNER, .hears_out = true },
#undef OWNER
};

static bool was_told(int end, char what)
{
	return strchr(ends[end].told, what) != NULL;
}

/* Turns until that end was told `what`; false: it isn't. */
static bool turn_until(int end, char what)
{
	for (int i = 0; i < TURNS_MAX && !was_told(end, what); i++) {
		os_loop_turn(worker.loop, os_mono_add_ms(os_mono_now(), TURN_MS));
		conn_reap(&worker.closing);
	}
	return was_told(end, what);
}

static void secure(void)
{
	struct tls_policy policy = { .level = TLS_MAY, .name = "one.test" };

	assert_true(conn_start_tls(&ends[1].conn, tls_accept(contexts)));
	assert_true(
		conn_start_tls(&ends[0].conn, tls_connect(contexts, &policy, NULL, os_wall_now())));
	for (int i = 0; i < TURNS_MAX && !(conn_facts(&ends[0].conn) && conn_facts(&ends[1].conn));
	     i++)
		os_loop_turn(worker.loop, os_mono_add_ms(os_mono_now(), TURN_MS));
	assert_non_null(conn_facts(&ends[0].conn));
	assert_non_null(conn_facts(&ends[1].conn));
}

/* ── the cases ────────────────────────────────────────────────────────────────────── */

static const struct send_case {
	const char *name;
	bool tls, hears_out;
	bool peer_reads_no_more;
	uint32_t batches; /* that can be encrypted; no memory for the next */
	const char *told;
	int error;
} sends[] = {
	{ "TLS: no memory for the first record", true, false, false, 0, "lc", -ENOMEM },
	{ "TLS: no memory for a later record", true, false, false, 1, "lc", -ENOMEM },
	{ "TLS: no memory, who hears out is told what left", true, true, false, 0, "slc", -ENOMEM },
	{ "TLS: no memory later, likewise", true, true, false, 1, "slc", -ENOMEM },
	{ "TLS: the peer is gone", true, false, true, 9, "lc", -EPIPE },
	{ "TLS: the peer is gone, who hears out is told what left", true, true, true, 9, "slc",
	  -EPIPE },
	{ "in clear: the peer is gone", false, false, true, 9, "lc", -EPIPE },
	{ "in clear: the peer is gone, what it said is heard first", false, true, true, 9, "lc",
	  -EPIPE },
};

static void send_run(void **state)
{
	static char plain[2 * BATCH];
	const struct send_case *row = *state;
	struct iovec vector = { plain, sizeof(plain) };
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (int i = 0; i < 2; i++) {
		ends[i] = (struct end){ .error = 0 };
		conn_open(&ends[i].conn, &worker, &hosts[i == 0 && row->hears_out], pair[i]);
	}
	if (row->tls)
		secure();
	else
		conn_recv(&ends[0].conn), conn_recv(&ends[1].conn);
	if (row->peer_reads_no_more) /* and closes when it sees that */
		assert_int_equal(shutdown(pair[1], SHUT_RD), 0);
	memory_refuse(row->batches, false);
	conn_send(&ends[0].conn, &vector, 1);
	assert_string_equal(ends[0].told, ""); /* never from within */
	assert_true(turn_until(0, 'c'));
	memory_refuse_end();
	assert_string_equal(ends[0].told, row->told);
	assert_int_equal(ends[0].error, row->error);
	if (!row->peer_reads_no_more)
		assert_int_equal(ends[0].sent, row->hears_out ? row->batches * BATCH : 0);
	conn_close(&ends[1].conn);
	assert_true(turn_until(1, 'c'));
}

int main(void)
{
	struct CMUnitTest tests[array_count(sends)];

	for (size_t i = 0; i < array_count(sends); i++)
		tests[i] = (struct CMUnitTest){
			.name = sends[i].name,
			.test_func = send_run,
			.initial_state = (void *)&sends[i],
		};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
