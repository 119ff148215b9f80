/*
 * source - sends messages by SMTP as fast as the other end takes them.
 *
 *   thread ── loop ── sessions ── flights (messages on their way, oldest first)
 *
 * A message and its recipients are a function of its number alone; its id is the run's random
 * half and that number. Nothing is sent twice: what a lost connection leaves without a reply
 * is counted as unknown.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "bench/options.h"
#include "bench/pattern.h"
#include "bench/replies.h"
#include "bench/wire.h"
#include "bench/wire_tls.h"

#define DEPTH_MAX      256
#define RECIPIENTS_MAX 64

enum mode { MODE_CLASSIC, MODE_ONEFLIGHT, MODE_STREAMED };

static struct {
	struct os_address to;
	enum mode mode;
	const char *sizes, *from, *to_format, *ledger_name;
	bool tls;
	uint64_t count, sessions, domains, users, recipients, depth, threads, rate;
} options = {
	.sizes = "4096",
	.from = "sender@source.test",
	.to_format = "u%d@d%d.test",
	.count = 10000,
	.sessions = 10,
	.domains = 10,
	.users = 1000,
	.recipients = 1,
	.depth = 32,
	.threads = 1,
};

static struct pattern pattern;
static uint64_t run_id; /* the upper half of every message's id */
static FILE *ledger;	/* stdio's own lock is held for each line */
static atomic_ullong next_number;
static struct tls_contexts *contexts; /* NULL: in clear */

/* ── what a thread has ────────────────────────────────────────────────────────────── */

struct counts {
	uint64_t accepted, refused_4xx, refused_5xx, unknown;
	uint64_t recipients, recipients_4xx, recipients_5xx, connections, failed_connections;
};

struct worker {
	struct os_thread *thread;
	struct os_loop *loop;
	struct session *sessions;
	uint64_t session_count, running_count;
	uint64_t taken_count; /* of messages: for the rate */
	struct os_mono started;
	struct list parked; /* sessions that wait for the rate to allow a message */
	struct counts counts;
	struct buffer line; /* of the ledger */
};

struct flight {
	uint64_t number;
	uint64_t accepted; /* mask of recipients */
	uint32_t stage;	   /* replies that have come */
	int code;	   /* the mildest refusal of a recipient; 0: none */
};

enum session_state { GREETING, EHLO, RUNNING, QUITTING };

struct session {
	struct wire wire;
	struct os_op connect_op;
	int connect_fd;
	struct worker *worker;
	struct list parked;
	enum session_state state;
	struct replies replies;
	bool chunking;
	bool progress; /* on this connection: worth another one when it is lost */
	uint32_t first, flight_count;
	struct flight flights[DEPTH_MAX];
};

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static uint64_t id_of(uint64_t number)
{
	return run_id | number;
}

/* The first %d of the format is the user, the second the domain. */
static void recipient_put(struct buffer *out, uint64_t number, uint64_t index)
{
	uint64_t n = number * options.recipients + index;
	uint64_t values[2] = { n / options.domains % options.users, n % options.domains };
	int used = 0;

	for (const char *at = options.to_format; *at != '\0'; at++) {
		char digits[20];
		int length = 0;
		uint64_t value;

		if (at[0] != '%' || at[1] != 'd' || used == 2) {
			buffer_put(out, at, 1);
			continue;
		}
		value = values[used++];
		at++;
		do
			digits[sizeof(digits) - 1 - (size_t)length++] = (char)('0' + value % 10);
		while ((value /= 10) != 0);
		buffer_put(out, digits + sizeof(digits) - length, (size_t)length);
	}
}

static void flight_put(struct buffer *out, const struct flight *flight)
{
	const struct pattern_kind *kind = pattern_kind(&pattern, flight->number);

	buffer_put_text(out, "MAIL FROM:<");
	buffer_put_text(out, options.from);
	buffer_put_text(out, ">\r\n");
	for (uint64_t i = 0; i < options.recipients; i++) {
		buffer_put_text(out, "RCPT TO:<");
		recipient_put(out, flight->number, i);
		buffer_put_text(out, ">\r\n");
	}
	if (options.mode == MODE_CLASSIC) {
		buffer_put_text(out, "DATA\r\n");
		return;
	}
	out->length += (size_t)sprintf(buffer_space(out, 64), "BDAT %zu LAST\r\n", kind->length);
	pattern_put(kind, id_of(flight->number), out);
}

static void ledger_note(struct worker *worker, const struct flight *flight)
{
	struct buffer *line = &worker->line;

	line->length = 0;
	pattern_id_text(id_of(flight->number), buffer_space(line, PATTERN_ID_LENGTH));
	line->length += PATTERN_ID_LENGTH;
	for (uint64_t i = 0; i < options.recipients; i++) {
		if (!(flight->accepted >> i & 1))
			continue;
		buffer_put(line, " ", 1);
		recipient_put(line, flight->number, i);
	}
	buffer_put(line, "\n", 1);
	fwrite(line->at, 1, line->length, ledger);
}

/* False if there are no more, or not yet: then the session is parked. */
static bool message_take(struct session *session, uint64_t *number_out)
{
	struct worker *worker = session->worker;
	uint64_t number;

	if (atomic_load_explicit(&bench_stopping, memory_order_relaxed))
		return false;
	if (options.rate != 0) {
		uint64_t elapsed_ns = os_mono_now().ns - worker->started.ns;
		uint64_t allowed = (uint64_t)((double)elapsed_ns * (double)options.rate /
					      (double)options.threads / 1e9);

		if (worker->taken_count > allowed) {
			if (!list_linked(&session->parked))
				list_push_back(&worker->parked, &session->parked);
			return false;
		}
	}
	number = atomic_fetch_add_explicit(&next_number, 1, memory_order_relaxed);
	if (number >= options.count)
		return false;
	worker->taken_count++;
	*number_out = number;
	return true;
}

/* ── sessions ─────────────────────────────────────────────────────────────────────── */

static void session_connect(struct session *session);

/* Sends what may be sent now. */
static void session_pump(struct session *session)
{
	uint32_t depth = options.mode == MODE_STREAMED ? (uint32_t)options.depth : 1;
	uint64_t number;

	while (session->flight_count < depth && message_take(session, &number)) {
		uint32_t at = (session->first + session->flight_count++) % DEPTH_MAX;

		session->flights[at] = (struct flight){ .number = number };
		flight_put(wire_out(&session->wire), &session->flights[at]);
	}
	if (session->flight_count == 0 && !list_linked(&session->parked)) {
		session->state = QUITTING;
		buffer_put_text(wire_out(&session->wire), "QUIT\r\n");
	}
	wire_flush(&session->wire);
}

/* The last reply about the oldest flight has come. */
static void flight_end(struct session *session, int code)
{
	struct flight *flight = &session->flights[session->first];
	struct counts *counts = &session->worker->counts;

	/* Without a recipient it is their replies that say why. */
	if (flight->accepted == 0 && flight->code != 0)
		code = flight->code;
	if (code / 100 == 2 && flight->accepted != 0) {
		counts->accepted++;
		counts->recipients += (uint64_t)__builtin_popcountll(flight->accepted);
		session->progress = true;
		if (ledger != NULL)
			ledger_note(session->worker, flight);
	} else if (code / 100 == 4) {
		counts->refused_4xx++;
	} else {
		counts->refused_5xx++;
	}
	session->first = (session->first + 1) % DEPTH_MAX;
	session->flight_count--;
}

/* Replies to a flight: MAIL, each RCPT, DATA in the classic mode, the message. */
static void flight_reply(struct session *session, int code)
{
	struct flight *flight = &session->flights[session->first];
	struct counts *counts = &session->worker->counts;
	uint32_t stage = flight->stage++;
	struct buffer *out = wire_out(&session->wire);

	if (stage == 0)
		return; /* a MAIL that is refused shows in its RCPTs */
	if (stage <= options.recipients) {
		flight->accepted |= (uint64_t)(code / 100 == 2) << (stage - 1);
		if (code >= 400 && (flight->code == 0 || code < flight->code))
			flight->code = code;
		counts->recipients_4xx += code / 100 == 4;
		counts->recipients_5xx += code / 100 == 5;
	} else if (options.mode == MODE_CLASSIC && stage == options.recipients + 1) {
		if (code != 354) {
			flight_end(session, code);
			return;
		}
		if (flight->accepted != 0)
			pattern_put(pattern_kind(&pattern, flight->number), id_of(flight->number),
				    out);
		buffer_put_text(out, ".\r\n");
	} else {
		flight_end(session, code);
	}
}

/* False if the session cannot go on. */
static bool session_reply(struct session *session, int code)
{
	switch (session->state) {
	case GREETING:
		buffer_put_text(wire_out(&session->wire), "EHLO source.test\r\n");
		session->state = EHLO;
		return code == 220;
	case EHLO:
		if (options.mode != MODE_CLASSIC && !session->chunking)
			fail("the server offers no CHUNKING: use --mode classic");
		session->state = RUNNING;
		return code == 250;
	case RUNNING:
		if (session->flight_count == 0 || code == 421)
			return false;
		flight_reply(session, code);
		return true;
	case QUITTING:
		return false;
	}
	return false;
}

static void on_bytes(struct wire *wire, struct span bytes)
{
	struct session *session = container_of(wire, struct session, wire);
	int code;

	if (session->state == EHLO && memmem(bytes.at, bytes.len, "CHUNKING", 8) != NULL)
		session->chunking = true;
	while ((code = replies_next(&session->replies, &bytes)) != 0) {
		if (!session_reply(session, code)) {
			wire_close(wire);
			return;
		}
	}
	if (session->state == RUNNING)
		session_pump(session);
	else
		wire_flush(wire);
}

/* ── connections ──────────────────────────────────────────────────────────────────── */

static void session_end(struct session *session)
{
	list_remove(&session->parked);
	session->worker->running_count--;
}

static void on_end(struct wire *wire)
{
	struct session *session = container_of(wire, struct session, wire);

	session->worker->counts.unknown += session->flight_count;
	list_remove(&session->parked);
	if (session->state != QUITTING && session->progress && !atomic_load(&bench_stopping))
		session_connect(session);
	else
		session_end(session);
}

static void on_connect(struct os_op *op)
{
	struct session *session = container_of(op, struct session, connect_op);

	if (op->result < 0) {
		session->worker->counts.failed_connections++;
		os_close(session->connect_fd);
		session_end(session);
		return;
	}
	session->worker->counts.connections++;
	wire_start(&session->wire, session->worker->loop, session->connect_fd);
}

static void session_connect(struct session *session)
{
	struct worker *worker = session->worker;

	memset(session, 0, sizeof(*session));
	session->worker = worker;
	list_init(&session->parked);
	session->wire.on_bytes = on_bytes;
	session->wire.on_end = on_end;
	session->wire.tls = wire_tls_connect(contexts);
	session->connect_op.done = on_connect;
	session->connect_fd = os_socket(options.to.family, NULL);
	if (session->connect_fd < 0)
		fail("no socket: %s", strerror(-session->connect_fd));
	os_connect(worker->loop, &session->connect_op, session->connect_fd, &options.to);
}

/* Gives those who wait for the rate another try; when to do so next. */
static struct os_mono parked_pump(struct worker *worker)
{
	struct list parked, *node;

	list_init(&parked);
	list_splice_back(&parked, &worker->parked);
	while ((node = list_pop_front(&parked)) != NULL)
		session_pump(container_of(node, struct session, parked));
	return list_empty(&worker->parked) ? (struct os_mono){ UINT64_MAX }
					   : os_mono_add_ms(os_mono_now(), 1);
}

static void worker_main(void *context)
{
	struct worker *worker = context;

	worker->loop = bench_loop();
	worker->sessions = calloc(worker->session_count, sizeof(*worker->sessions));
	assert(worker->sessions != NULL);
	worker->running_count = worker->session_count;
	worker->started = os_mono_now();
	list_init(&worker->parked);
	for (uint64_t i = 0; i < worker->session_count; i++) {
		worker->sessions[i].worker = worker;
		session_connect(&worker->sessions[i]);
	}
	while (worker->running_count > 0) {
		os_loop_turn(worker->loop, parked_pump(worker));
		/* The ledger is whole after each turn, for those who read it meanwhile. */
		if (worker->line.length > 0)
			fflush(ledger);
		worker->line.length = 0;
	}
	os_loop_destroy(worker->loop);
	free(worker->sessions);
	buffer_free(&worker->line);
}

/* ── the command line ─────────────────────────────────────────────────────────────── */

static const char usage[] =
	"usage: source [options] HOST:PORT\n"
	"  --count N         messages (10000)\n"
	"  --mode MODE       classic, oneflight (BDAT), streamed (classic)\n"
	"  --depth N         messages on their way at once, streamed (32)\n"
	"  --sessions N      connections (10)\n"
	"  --size N          bytes of a message (4096), or mixed\n"
	"  --recipients N    of a message (1)\n"
	"  --domains N       of recipients (10)\n"
	"  --users N         of each domain (1000)\n"
	"  --from ADDRESS    (sender@source.test)\n"
	"  --to-format TEXT  user and domain number for each %d (u%d@d%d.test)\n"
	"  --rate N          messages a second at most\n"
	"  --threads N       (1)\n"
	"  --tls             from the first byte on\n"
	"  --ledger FILE     a line for each accepted message: id, recipients\n";

static enum mode mode_of(const char *name)
{
	static const char *const names[] = { "classic", "oneflight", "streamed" };

	for (size_t i = 0; i < array_count(names); i++)
		if (strcmp(names[i], name) == 0)
			return (enum mode)i;
	fail("--mode is classic, oneflight or streamed");
}

static const struct option long_options[] = {
	{ "count", 1, NULL, 'n' },	{ "mode", 1, NULL, 'm' },      { "depth", 1, NULL, 'q' },
	{ "sessions", 1, NULL, 's' },	{ "size", 1, NULL, 'b' },      { "sizes", 1, NULL, 'b' },
	{ "recipients", 1, NULL, 'r' }, { "domains", 1, NULL, 'd' },   { "users", 1, NULL, 'u' },
	{ "from", 1, NULL, 'f' },	{ "to-format", 1, NULL, 't' }, { "rate", 1, NULL, 'R' },
	{ "threads", 1, NULL, 'T' },	{ "ledger", 1, NULL, 'l' },    { "tls", 0, NULL, 'S' },
	{ NULL, 0, NULL, 0 },
};

static void option_set(int letter, const char *value)
{
	switch (letter) {
	case 'n':
		options.count = option_number("--count", value);
		break;
	case 'm':
		options.mode = mode_of(value);
		break;
	case 'q':
		options.depth = option_number("--depth", value);
		break;
	case 's':
		options.sessions = option_number("--sessions", value);
		break;
	case 'b':
		options.sizes = value;
		break;
	case 'r':
		options.recipients = option_number("--recipients", value);
		break;
	case 'd':
		options.domains = option_number("--domains", value);
		break;
	case 'u':
		options.users = option_number("--users", value);
		break;
	case 'f':
		options.from = value;
		break;
	case 't':
		options.to_format = value;
		break;
	case 'R':
		options.rate = option_number("--rate", value);
		break;
	case 'T':
		options.threads = option_number("--threads", value);
		break;
	case 'l':
		options.ledger_name = value;
		break;
	case 'S':
		options.tls = true;
		break;
	default:
		fail("%s", usage);
	}
}

static void options_read(int argc, char **argv)
{
	int letter;

	while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		option_set(letter, optarg);
	if (optind != argc - 1)
		fail("%s", usage);
	options.to = option_address(argv[optind]);
	if (options.depth < 1 || options.depth > DEPTH_MAX)
		fail("--depth is 1 to %d", DEPTH_MAX);
	if (options.recipients < 1 || options.recipients > RECIPIENTS_MAX)
		fail("--recipients is 1 to %d", RECIPIENTS_MAX);
	if (options.domains < 1 || options.users < 1 || options.threads < 1)
		fail("--domains, --users and --threads are at least 1");
	if (options.sessions < options.threads)
		options.sessions = options.threads;
	if (options.ledger_name != NULL && (ledger = fopen(options.ledger_name, "ae")) == NULL)
		fail("%s: %s", options.ledger_name, strerror(errno));
}

static void counts_print(const struct worker *workers, double seconds)
{
	struct counts sum = { 0 };

	for (uint64_t i = 0; i < options.threads; i++) {
		const uint64_t *from = (const uint64_t *)&workers[i].counts;

		for (size_t k = 0; k < sizeof(sum) / sizeof(uint64_t); k++)
			((uint64_t *)&sum)[k] += from[k];
	}
	printf("{\"accepted\":%lu,\"refused\":%lu,\"refused_4xx\":%lu,\"refused_5xx\":%lu,"
	       "\"unknown\":%lu,\"recipients\":%lu,\"recipients_4xx\":%lu,\"recipients_5xx\":%lu,"
	       "\"connections\":%lu,\"failed_connections\":%lu,\"seconds\":%.3f,\"rate\":%.0f}\n",
	       sum.accepted, sum.refused_4xx + sum.refused_5xx, sum.refused_4xx, sum.refused_5xx,
	       sum.unknown, sum.recipients, sum.recipients_4xx, sum.recipients_5xx, sum.connections,
	       sum.failed_connections, seconds, (double)sum.accepted / seconds);
}

int main(int argc, char **argv)
{
	struct worker *workers;
	struct os_mono started;

	options_read(argc, argv);
	bench_start();
	bench_stop_on_signal(NULL); /* no new messages; those on their way end */
	pattern_init(&pattern, options.sizes, options.from);
	if (options.tls)
		contexts = wire_tls_contexts(NULL);
	os_random(&run_id, sizeof(run_id));
	run_id &= ~UINT64_C(0xffffffff);
	workers = calloc(options.threads, sizeof(*workers));
	assert(workers != NULL);
	started = os_mono_now();
	for (uint64_t i = 0; i < options.threads; i++) {
		workers[i].session_count = options.sessions / options.threads +
					   (i < options.sessions % options.threads);
		if (os_thread_start(&workers[i].thread, "source", worker_main, &workers[i]) != 0)
			fail("no thread");
	}
	for (uint64_t i = 0; i < options.threads; i++)
		os_thread_join(workers[i].thread);
	if (ledger != NULL && fclose(ledger) != 0)
		fail("%s: %s", options.ledger_name, strerror(errno));
	counts_print(workers, (double)(os_mono_now().ns - started.ns) / 1e9);
	free(workers);
	return 0;
}
