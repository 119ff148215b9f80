/*
 * Dovecot's end of the auth socket: octets on a connection that is none, while logins are asked
 * for and taken back. However they are cut, each request gets the same answer, once.
 *
 *   input: how it is cut and what is taken back, octets
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/auth/dovecot.h"
#include "engine/conn.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REQUESTS = 6 };

struct answer {
	uint32_t count;
	enum smtp_auth_verdict verdict;
	char user[256];
};

static struct world {
	struct dovecot_auth *dovecot;
	struct request {
		struct dovecot_request request;
		struct answer answer;
	} requests[REQUESTS];
} whole, pieces;

/* ── a connection ─────────────────────────────────────────────────────────────────── */

static struct config config;
static struct worker worker = { .config = &config };
static struct conn *line; /* NULL: none */
static bool wants;	  /* it has asked for octets */

int __wrap_conn_connect(struct conn *conn, struct worker *of, const struct conn_host *host,
			const struct os_address *to, const struct os_address *source);
void __wrap_conn_recv(struct conn *conn);
void __wrap_conn_send(struct conn *conn, const struct iovec *vectors, int count);
void __wrap_conn_deadline(struct conn *conn, uint32_t ms);
void __wrap_conn_close(struct conn *conn);
struct os_mono __wrap_os_loop_mono(const struct os_loop *loop);
void __wrap_log_notice(enum log_level level, const char *format, ...);

int __wrap_conn_connect(struct conn *conn, struct worker *of, const struct conn_host *host,
			const struct os_address *to, const struct os_address *source)
{
	assert(!line && of == &worker && to->family == AF_UNIX && !source);
	*conn = (struct conn){ .host = host, .worker = of };
	line = conn;
	wants = false;
	return 0;
}

void __wrap_conn_recv(struct conn *conn)
{
	assert(conn == line);
	wants = true;
}

void __wrap_conn_send(struct conn *conn, const struct iovec *vectors, int count)
{
	assert(conn == line && !conn->sending && !conn->closing && count == 1);
	assert(vectors[0].iov_len > 0);
	assert(((const char *)vectors[0].iov_base)[vectors[0].iov_len - 1] == '\n');
	conn->sending = true;
	conn->plain_bytes = vectors[0].iov_len;
}

void __wrap_conn_deadline(struct conn *conn, uint32_t ms)
{
	(void)ms;
	assert(conn == line);
}

void __wrap_conn_close(struct conn *conn)
{
	assert(conn == line && !conn->closing);
	conn->closing = true;
}

struct os_mono __wrap_os_loop_mono(const struct os_loop *loop)
{
	(void)loop;
	return (struct os_mono){ OS_NS_PER_S };
}

void __wrap_log_notice(enum log_level level, const char *format, ...)
{
	(void)level;
	assert(format[0] != '\0');
}

/* The turn's end: what was sent is there, and what was closed is gone. */
static void turn(void)
{
	while (line && !line->closing && line->sending) {
		line->sending = false;
		line->host->sent(line, line->plain_bytes);
	}
	if (line && line->closing) {
		struct conn *closed = line;

		line = NULL;
		closed->host->closed(closed);
	}
}

/* ── the logins ───────────────────────────────────────────────────────────────────── */

static void on_answered(struct dovecot_request *request, enum smtp_auth_verdict verdict,
			const char *user)
{
	struct answer *answer = &container_of(request, struct request, request)->answer;

	assert(!list_linked(&request->link));
	assert(verdict == SMTP_AUTH_OK || user[0] == '\0');
	answer->count++;
	answer->verdict = verdict;
	snprintf(answer->user, sizeof(answer->user), "%s", user);
}

static void ask(struct world *world, struct request *request)
{
	static const struct smtp_credentials credentials = { .user = { "u", 1 },
							     .password = { "p", 1 } };
	struct os_address client = { .family = AF_UNSPEC };

	assert(os_address_parse("192.0.2.1", 0, &client));
	request->request.answered = on_answered;
	list_init(&request->request.link);
	assert(dovecot_auth_ask(world->dovecot, &request->request, &credentials, &client, true));
}

static void run(struct world *world, struct span bytes, size_t cut, uint8_t taken_back)
{
	memset(world, 0, sizeof(*world));
	world->dovecot = dovecot_auth_create(&worker);
	for (size_t i = 0; i < REQUESTS; i++)
		ask(world, &world->requests[i]);
	line->host->connected(line, 0);
	turn();
	for (size_t i = 0; i < REQUESTS; i++)
		if (taken_back & 1 << i)
			dovecot_auth_take_back(world->dovecot, &world->requests[i].request);
	while (bytes.len > 0 && line && !line->closing) {
		size_t len = bytes.len < cut ? bytes.len : cut;
		char *copy = malloc(len);

		assert(wants);
		wants = false;
		memcpy(copy, bytes.at, len);
		line->host->received(line, span_of(copy, len));
		free(copy);
		bytes = span_skip(bytes, len);
	}
	if (line && !line->closing)
		line->host->lost(line, 0);
	turn();
	assert(!line && dovecot_auth_idle(world->dovecot));
	dovecot_auth_destroy(world->dovecot);
	for (size_t i = 0; i < REQUESTS; i++)
		assert(world->requests[i].answer.count == !(taken_back & 1 << i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 20000)
		return 0;
	struct span bytes = span_of(data + 2, size - 2);

	static char path[] = "/nowhere";

	config.auth.dovecot = path;
	run(&whole, bytes, SIZE_MAX, data[1]);
	run(&pieces, bytes, 1 + data[0], data[1]);
	for (size_t i = 0; i < REQUESTS; i++)
		assert(memcmp(&whole.requests[i].answer, &pieces.requests[i].answer,
			      sizeof(struct answer)) == 0);
	return 0;
}
