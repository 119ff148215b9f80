/*
 * TLS on connections: a client and a server, each a struct conn, with a wire between them that
 * does to the records what the input says. What arrives is the beginning of what was sent, whatever
 * happened on the way; and on a wire that only cuts, all of it. Whatever the wire says, a
 * connection tells its owner things in their order, and ends.
 *
 *   input: how the owners are, then { what and from whom, how much }, foreign records among them
 *
 * OpenSSL's randomness is a counter, so that an input does the same again.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* for its randomness */

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/config/config.h"
#include "engine/conn.h"
#include "os/prng.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENT, SERVER, ENDS, FD_FIRST = 1000, PIECE_MAX = 60 << 10, PLAIN_MAX = 200 << 10 };

/* The first octet. */
enum {
	HEARS_OUT = 1,
	ANSWERS = 2,	    /* an owner sends from within `received` */
	CLOSES_AT_ONCE = 4, /* ... or closes there */
	PROVES = 8,	    /* the client wants the right certificate */
	RESUMES = 16,	    /* and has a session of an earlier handshake */
	CLOSES_WHEN_SENT = 32,
	STARVES = 64, /* no memory for what the server sends second */
};

static struct end {
	struct conn conn;
	struct {
		char *at; /* sent, and not yet there */
		size_t len;
	} wire;
	const struct iovec *flying;
	int flying_count;
	bool holds; /* what it sends stays with the kernel */
	bool cancelled_recv, cancelled_send;
	bool starved; /* what it was to send could not be made */
	bool ended;   /* it was told that nothing more comes */
	char *plain;  /* owned: being sent */
	struct iovec vectors[3];
	size_t asked, said, told, heard; /* of plaintext; told: as sent */
	uint32_t secured, failed, lost, closed;
} ends[ENDS];

static uint8_t how;
static bool meddled; /* the wire did more than cut */
static bool starving;
static struct worker worker;
static struct tls_contexts *contexts;
static struct tls_session *earlier;
static uint64_t random_count;

/* ── what conn is given instead of the kernel ─────────────────────────────────────── */

struct worker *__wrap_worker_self(void);
struct os_mono __wrap_os_loop_mono(const struct os_loop *loop);
void __wrap_os_recv(struct os_loop *loop, struct os_op *op, int fd);
void __wrap_os_send(struct os_loop *loop, struct os_op *op, int fd, const struct iovec *iov,
		    int count);
void __wrap_os_loop_post(struct os_loop *loop, struct os_op *op, int32_t result);
void __wrap_os_cancel(struct os_loop *loop, struct os_op *op);
void __wrap_os_close(int fd);
void *__real_realloc(void *at, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);

void *__wrap_realloc(void *at, size_t bytes)
{
	return starving ? NULL : __real_realloc(at, bytes);
}

struct worker *__wrap_worker_self(void)
{
	return &worker;
}

struct os_mono __wrap_os_loop_mono(const struct os_loop *loop)
{
	(void)loop;
	return (struct os_mono){ OS_NS_PER_S };
}

void __wrap_os_recv(struct os_loop *loop, struct os_op *op, int fd)
{
	(void)loop;
	assert(!op->busy && op == &ends[fd - FD_FIRST].conn.recv_op);
	op->busy = true;
}

void __wrap_os_send(struct os_loop *loop, struct os_op *op, int fd, const struct iovec *iov,
		    int count)
{
	struct end *end = &ends[fd - FD_FIRST];

	(void)loop;
	assert(!op->busy && op == &end->conn.send_op && count > 0);
	op->busy = true;
	end->flying = iov;
	end->flying_count = count;
}

void __wrap_os_loop_post(struct os_loop *loop, struct os_op *op, int32_t result)
{
	struct end *end = &ends[op == &ends[1].conn.send_op];

	(void)loop;
	assert(!op->busy && op == &end->conn.send_op && result == -ENOMEM);
	op->busy = true;
	end->starved = end->ended = true;
}

void __wrap_os_cancel(struct os_loop *loop, struct os_op *op)
{
	(void)loop;
	for (size_t i = 0; i < ENDS; i++) {
		ends[i].cancelled_recv |= op == &ends[i].conn.recv_op;
		ends[i].cancelled_send |= op == &ends[i].conn.send_op;
	}
}

void __wrap_os_close(int fd)
{
	assert(!ends[fd - FD_FIRST].conn.recv_op.busy && !ends[fd - FD_FIRST].conn.send_op.busy);
}

static void complete(struct os_op *op, int32_t result)
{
	assert(op->busy);
	op->busy = false;
	op->result = result;
	op->done(op);
}

/* What flies reaches the wire, up to `limit`; fewer than all is a connection that broke. */
static void land(struct end *end, size_t limit)
{
	size_t landed = 0;

	for (int i = 0; i < end->flying_count && landed < limit; i++) {
		size_t len = end->flying[i].iov_len < limit - landed ? end->flying[i].iov_len
								     : limit - landed;

		end->wire.at = realloc(end->wire.at, end->wire.len + len);
		memcpy(end->wire.at + end->wire.len, end->flying[i].iov_base, len);
		end->wire.len += len;
		landed += len;
	}
	complete(&end->conn.send_op, landed > 0 ? (int32_t)landed : -EPIPE);
}

static bool land_all(struct end *end)
{
	if (end->cancelled_recv && end->conn.recv_op.busy) {
		complete(&end->conn.recv_op, -ECANCELED);
		return true;
	}
	if (end->starved) {
		end->starved = false;
		complete(&end->conn.send_op, -ENOMEM);
		return true;
	}
	if (!end->conn.send_op.busy || (end->holds && !end->cancelled_send))
		return false;
	if (end->cancelled_send)
		complete(&end->conn.send_op, -ECANCELED);
	else
		land(end, SIZE_MAX);
	return true;
}

static void wire_cut(struct end *from, size_t count)
{
	from->wire.len -= count;
	if (from->wire.len > 0)
		memmove(from->wire.at, from->wire.at + count, from->wire.len);
}

/* At the receiver, in memory of just that size. */
static bool arrive(struct end *to, struct span bytes)
{
	char *copy;

	if (!to->conn.recv_op.busy || bytes.len == 0)
		return false;
	copy = malloc(bytes.len);
	memcpy(copy, bytes.at, bytes.len);
	to->conn.recv_op.data = copy;
	complete(&to->conn.recv_op, (int32_t)bytes.len);
	free(copy);
	return true;
}

static bool move(struct end *from, struct end *to, size_t count)
{
	count = count < from->wire.len ? count : from->wire.len;
	count = count < PIECE_MAX ? count : PIECE_MAX;
	if (!to->conn.recv_op.busy || count == 0)
		return false;
	struct span bytes = span_of(from->wire.at, count);
	char *whole = from->wire.at;

	/* What the receiver answers may make this wire longer only by a later turn. */
	bool there = arrive(to, bytes);

	assert(from->wire.at == whole);
	wire_cut(from, count);
	return there;
}

/* ── the owners ───────────────────────────────────────────────────────────────────── */

static char patterns[ENDS][PLAIN_MAX]; /* all that each may say */

static void patterns_make(void)
{
	for (size_t i = 0; i < ENDS; i++)
		for (size_t at = 0; at < PLAIN_MAX; at++)
			patterns[i][at] = (char)(at * 31 + (at >> 8) * 7 + i);
}

static struct end *end_of(struct conn *conn)
{
	return container_of(conn, struct end, conn);
}

static void say(struct end *end, size_t count, int pieces)
{
	size_t part = count / (size_t)pieces;

	if (conn_sending(&end->conn) || end->conn.closing || conn_breaking(&end->conn) ||
	    !conn_facts(&end->conn) || end->said + count > PLAIN_MAX || part == 0)
		return;
	assert(!end->plain);
	end->plain = malloc(count);
	memcpy(end->plain, patterns[end - ends] + end->said, count);
	for (int i = 0; i < pieces; i++)
		end->vectors[i] = (struct iovec){
			end->plain + (size_t)i * part,
			i + 1 < pieces ? part : count - (size_t)i * part,
		};
	starving = how & STARVES && end == &ends[SERVER] && end->said > 0;
	end->asked = count;
	end->said += count;
	conn_send(&end->conn, end->vectors, pieces);
	starving = false;
}

static void on_secured(struct conn *conn, const char *failure)
{
	struct end *end = end_of(conn);

	assert(++end->secured == 1 && end->lost == 0 && end->closed == 0);
	end->failed = failure != NULL;
	if (failure) {
		assert(failure[0] != '\0');
		conn_close(conn);
		return;
	}
	assert(strncmp(conn_facts(conn)->text, "TLSv1.", 6) == 0);
	assert(end == &ends[SERVER] || !(how & PROVES) || conn_facts(conn)->verified);
}

static void on_received(struct conn *conn, struct span bytes)
{
	struct end *end = end_of(conn), *peer = &ends[end == ends];

	assert(end->secured && !end->failed && !end->lost && !end->closed && bytes.len > 0);
	assert(end->heard + bytes.len <= peer->said);
	assert(memcmp(bytes.at, patterns[peer - ends] + end->heard, bytes.len) == 0);
	end->heard += bytes.len;
	if (how & ANSWERS)
		say(end, bytes.len / 2, 1);
	if (how & CLOSES_AT_ONCE)
		conn_close(conn);
	conn_recv(conn);
}

static void on_sent(struct conn *conn, size_t count)
{
	struct end *end = end_of(conn);

	assert(!end->lost && !end->closed && count <= end->asked);
	end->told += count;
	free(end->plain);
	end->plain = NULL;
	if (how & CLOSES_WHEN_SENT)
		conn_close(conn);
}

static void on_lost(struct conn *conn, int error)
{
	struct end *end = end_of(conn);

	assert(error <= 0 && ++end->lost == 1 && end->secured && !end->failed && !end->closed);
	assert(!conn->host->hears_out || !conn_sending(conn));
	conn_close(conn);
}

static void on_closed(struct conn *conn)
{
	assert(++end_of(conn)->closed == 1 && conn->closing);
}

/* ── the start ────────────────────────────────────────────────────────────────────── */

static int random_bytes(unsigned char *out, int count)
{
	struct prng prng = { .state = ++random_count };

	for (int i = 0; i < count; i++)
		out[i] = (unsigned char)prng_next(&prng);
	return 1;
}

static int random_status(void)
{
	return 1;
}

static FILE *file_new(const char *name)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert(file && fchmod(fileno(file), 0600) == 0);
	return file;
}

/* Its own authority, of one.test; valid through 2026. */
static void certificate_make(void)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_NAME *name = X509_get_subject_name(certificate);
	FILE *file = file_new("key");

	assert(key && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
	fclose(file);
	ASN1_TIME_set_string(X509_getm_notBefore(certificate), "20260101000000Z");
	ASN1_TIME_set_string(X509_getm_notAfter(certificate), "20261231000000Z");
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"one.test", -1,
				   -1, 0);
	X509_set_issuer_name(certificate, name);
	X509_set_pubkey(certificate, key);
	assert(X509_sign(certificate, key, EVP_sha256()) > 0);
	file = file_new("chain");
	assert(PEM_write_X509(file, certificate) == 1);
	fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static void contexts_make(void)
{
	static const RAND_METHOD method = { .bytes = random_bytes,
					    .pseudorand = random_bytes,
					    .status = random_status };
	char path[64], error[1024];
	struct config *config;
	FILE *file;

	folder_make();
	assert(RAND_set_rand_method(&method) == 1);
	certificate_make();
	file = file_new("conf");
	fprintf(file,
		"tls { ca_file = \"%s/chain\" }\ndelivery { tls = \"verify\" }\n"
		"certificate { chain = \"%s/chain\" key = \"%s/key\" }\n",
		folder, folder, folder);
	fclose(file);
	snprintf(path, sizeof(path), "%s/conf", folder);
	config = config_load(path, error, sizeof(error));
	contexts = config ? tls_contexts_create(config, error, sizeof(error)) : NULL;
	if (!contexts)
		fprintf(stderr, "%s\n", error);
	assert(contexts);
	config_destroy(config);
	worker.tls_scratch = malloc(sizeof(*worker.tls_scratch));
	list_init(&worker.closing);
}

static void begin(void)
{
	static const struct conn_host hosts[2] = {
#define OWNER                                                                                      \
	.received = on_received, .sent = on_sent, .secured = on_secured, .lost = on_lost,          \
	.closed = on_closed
		{ OWNER },
		{ OWNER, .hears_out = true },
#undef OWNER
	};
	const struct conn_host *host = &hosts[(how & HEARS_OUT) != 0];
	struct tls_policy policy = { .level = how & PROVES ? TLS_VERIFY : TLS_MAY,
				     .name = "one.test" };
	struct os_wall now = { INT64_C(1780000000) * OS_US_PER_S }; /* of the year 2026 */

	random_count = 0;
	meddled = false;
	timer_wheel_init(&worker.timers, (struct os_mono){ OS_NS_PER_S });
	for (int i = 0; i < ENDS; i++) {
		ends[i] = (struct end){ .holds = false };
		conn_open(&ends[i].conn, &worker, host, FD_FIRST + i);
	}
	assert(conn_start_tls(&ends[SERVER].conn, tls_accept(contexts)));
	assert(conn_start_tls(&ends[CLIENT].conn,
			      tls_connect(contexts, &policy, how & RESUMES ? earlier : NULL, now)));
}

/* Until nothing is on its way that could arrive. */
static void pump(void)
{
	for (bool busy = true; busy;) {
		busy = false;
		for (int i = 0; i < ENDS; i++) {
			busy |= land_all(&ends[i]);
			busy |= move(&ends[i], &ends[!i], SIZE_MAX);
		}
		conn_reap(&worker.closing);
	}
}

static void end_all(void)
{
	for (int i = 0; i < ENDS; i++)
		ends[i].holds = false;
	pump();
	for (int i = 0; i < ENDS; i++) {
		assert(!ends[i].ended || ends[i].closed); /* its owner was told */
		conn_close(&ends[i].conn);
	}
	pump();
	for (int i = 0; i < ENDS; i++) {
		assert(ends[i].closed == 1);
		if ((how & HEARS_OUT) && ends[i].lost)
			assert(ends[!i].heard <= ends[i].told);
		free(ends[i].wire.at);
		free(ends[i].plain);
	}
	assert(list_empty(&worker.closing));
}

/* A session to begin with again, from a handshake that nobody disturbs. */
static void session_make(void)
{
	how = PROVES;
	begin();
	pump();
	earlier = tls_session_take(ends[CLIENT].conn.tls);
	assert(earlier && ends[CLIENT].secured && ends[SERVER].secured);
	end_all();
}

/* ── what the input says ──────────────────────────────────────────────────────────── */

enum step { MOVE, PUMP, SAY, FLIP, INJECT, DROP, END_OF_FILE, OTHER, STEPS };
enum other { CLOSE, HOLD, BREAK, MOVE_MANY, OTHERS };

static void other(struct end *from, struct end *to, uint8_t count)
{
	switch ((enum other)(count % OTHERS)) {
	case CLOSE:
		conn_close(&from->conn);
		break;
	case HOLD:
		from->holds = !from->holds;
		break;
	case BREAK:
		meddled = true;
		if (from->conn.send_op.busy && !from->cancelled_send && !from->starved)
			land(from, count / OTHERS);
		break;
	case MOVE_MANY:
		move(from, to, (size_t)count * 64);
		break;
	case OTHERS:
		break;
	}
}

/* Returns how much of `rest` it took. */
static size_t step(uint8_t what, uint8_t count, struct span rest)
{
	struct end *from = &ends[what & 1], *to = &ends[!(what & 1)];
	size_t used = rest.len < count * 2u + 1 ? rest.len : count * 2u + 1;

	switch ((enum step)(what / 2 % STEPS)) {
	case MOVE:
		move(from, to, count + 1u);
		break;
	case PUMP:
		pump();
		break;
	case SAY:
		say(from, count * 397u + 3, 1 + count % 3);
		break;
	case FLIP:
		meddled |= from->wire.len > 0;
		if (from->wire.len > 0)
			from->wire.at[count % from->wire.len] ^= (char)(1 << (what >> 5));
		break;
	case INJECT:
		meddled = true;
		arrive(to, span_of(rest.at, used));
		return used;
	case DROP:
		meddled = true;
		wire_cut(from, count < from->wire.len ? count + 1u : from->wire.len);
		break;
	case END_OF_FILE:
		meddled = true;
		to->ended |= to->conn.recv_op.busy;
		if (to->conn.recv_op.busy)
			complete(&to->conn.recv_op, count & 1 ? -ECONNRESET : 0);
		break;
	case OTHER:
		other(from, to, count);
		break;
	case STEPS:
		break;
	}
	return 0;
}

static void check_all_is_there(void)
{
	if (meddled || how & (CLOSES_AT_ONCE | CLOSES_WHEN_SENT | STARVES))
		return;
	for (int i = 0; i < ENDS; i++)
		if (ends[0].conn.closing || ends[1].conn.closing || ends[i].closed)
			return;
	for (int i = 0; i < ENDS; i++) {
		ends[i].holds = false;
		pump();
	}
	for (int i = 0; i < ENDS; i++) {
		assert(ends[i].secured && !ends[i].failed && !ends[i].lost);
		assert(ends[i].heard == ends[!i].said && !ends[i].plain);
	}
	assert(!(how & RESUMES) || conn_facts(&ends[CLIENT].conn)->resumed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size);

	if (size < 1 || size > 4096)
		return 0;
	if (!contexts) {
		contexts_make();
		patterns_make();
		session_make();
	}
	how = data[0];
	begin();
	rest = span_skip(rest, 1);
	while (rest.len >= 2) {
		uint8_t what = (uint8_t)rest.at[0], count = (uint8_t)rest.at[1];

		rest = span_skip(rest, 2);
		rest = span_skip(rest, step(what, count, rest));
		for (int i = 0; i < ENDS; i++)
			land_all(&ends[i]);
		conn_reap(&worker.closing);
	}
	check_all_is_there();
	end_all();
	return 0;
}
