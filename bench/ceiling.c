/*
 * ceiling - a bare durable relay: the upper bound that a queue is compared with.
 *
 *   client ──► in ──► intake ──► transaction ──► log ──durable──► 250 to the client
 *                                                         └──► the same bytes ──► out ──► server
 *
 * It keeps the promise "250 means on disk" and nothing else: no queue, no recovery, no routing,
 * no retry, one connection out for each one in. A transaction goes out as it came in: MAIL,
 * RCPT, DATA and then the text, or MAIL, RCPT, BDAT without waiting.
 *
 * Replies to commands that follow a message which is not yet durable are held behind its 250.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "bench/intake.h"
#include "bench/log.h"
#include "bench/options.h"
#include "bench/replies.h"
#include "bench/wire.h"

#define BACKLOG_MAX (1 << 20) /* bytes towards the server, before the client has to wait */

static struct {
	struct os_address listen, to;
	const char *log_name;
	uint64_t log_bytes;
	bool no_log;
} options = { .log_name = "ceiling.log", .log_bytes = 256 << 20 };

/* One loop, one thread: all of this is its own. */
static struct os_loop *loop;
static struct log journal;
static uint64_t message_count, connection_count, lost_count;

/* A piece of a transaction that the server answers as a whole. */
struct part {
	size_t bytes;	  /* of the backlog */
	uint32_t replies; /* that it will get */
	bool streamed;	  /* goes out before the replies to the last one */
};

struct pair {
	struct wire in, out;
	bool in_ended, out_ended, out_open;
	bool quit; /* the client has said so */
	struct os_op connect_op;
	int connect_fd;

	/* The transaction that comes in, as it came. */
	struct intake intake;
	struct buffer transaction;
	size_t command_bytes; /* before the text of a DATA */
	uint32_t recipient_count;
	bool dot, last_chunk;

	/* What waits for the log. */
	bool in_open_group, in_sealed_group;
	struct buffer held;  /* replies */
	size_t sealed_bytes; /* of them: free with the sealed group */
	uint32_t open_parts, sealed_parts;

	/* Towards the server. */
	struct buffer backlog;
	struct buffer parts;  /* of struct part */
	uint32_t ready_parts; /* are durable */
	uint32_t awaited;     /* replies */
	struct replies replies;
	bool greeted;
};

/* ── towards the server ───────────────────────────────────────────────────────────── */

static void pair_free_if_done(struct pair *pair)
{
	if (!pair->in_ended || !pair->out_ended || pair->in_open_group || pair->in_sealed_group)
		return;
	buffer_free(&pair->transaction);
	buffer_free(&pair->held);
	buffer_free(&pair->backlog);
	buffer_free(&pair->parts);
	free(pair);
}

/* Sends what may go now. */
static void out_pump(struct pair *pair)
{
	size_t bytes = 0, count = 0;
	const struct part *part = (const struct part *)pair->parts.at;

	if (!pair->greeted || pair->out_ended)
		return;
	while (count < pair->ready_parts && (part[count].streamed || pair->awaited == 0)) {
		bytes += part[count].bytes;
		pair->awaited += part[count++].replies;
	}
	if (count > 0) {
		buffer_put(wire_out(&pair->out), pair->backlog.at, bytes);
		buffer_drop(&pair->backlog, bytes);
		buffer_drop(&pair->parts, count * sizeof(*part));
		pair->ready_parts -= (uint32_t)count;
		if (pair->in.paused && pair->backlog.length < BACKLOG_MAX / 2 && !pair->in_ended)
			wire_resume(&pair->in);
	}
	if (pair->in_ended && pair->awaited == 0 && pair->parts.length == 0) {
		buffer_put_text(wire_out(&pair->out), "QUIT\r\n");
		wire_finish(&pair->out);
	} else {
		wire_flush(&pair->out);
	}
}

static void on_out_bytes(struct wire *wire, struct span bytes)
{
	struct pair *pair = container_of(wire, struct pair, out);
	int code;

	if (wire->finishing)
		return; /* the answer to QUIT */
	while ((code = replies_next(&pair->replies, &bytes)) != 0) {
		if (code >= 400 || pair->awaited == 0) {
			fprintf(stderr, "the server says %d\n", code);
			wire_close(wire);
			return;
		}
		pair->awaited--;
	}
	pair->greeted |= pair->awaited == 0;
	out_pump(pair);
}

static void on_out_end(struct wire *wire)
{
	struct pair *pair = container_of(wire, struct pair, out);

	pair->out_ended = true;
	lost_count += pair->awaited > 0 || pair->parts.length > 0;
	if (!pair->in_ended)
		wire_close(&pair->in);
	else
		pair_free_if_done(pair);
}

static void on_connect(struct os_op *op)
{
	struct pair *pair = container_of(op, struct pair, connect_op);

	if (op->result < 0) {
		fprintf(stderr, "connect: %s\n", strerror(-op->result));
		os_close(pair->connect_fd);
		on_out_end(&pair->out);
		return;
	}
	pair->out_open = true;
	pair->awaited = 2; /* the greeting, and EHLO */
	wire_start(&pair->out, loop, pair->connect_fd);
	buffer_put_text(wire_out(&pair->out), "EHLO ceiling.test\r\n");
	wire_flush(&pair->out);
}

/* ── the log ──────────────────────────────────────────────────────────────────────── */

static void in_flush(struct pair *pair)
{
	if (pair->in_ended)
		return;
	if (pair->quit && pair->held.length == 0)
		wire_finish(&pair->in);
	else
		wire_flush(&pair->in);
}

static void on_sealed(void *member)
{
	struct pair *pair = member;

	pair->in_open_group = false;
	pair->in_sealed_group = true;
	pair->sealed_bytes = pair->held.length;
	pair->sealed_parts = pair->open_parts;
	pair->open_parts = 0;
}

static void on_durable(void *member)
{
	struct pair *pair = member;
	/* What is behind the last message is free too, unless another has come. */
	size_t bytes = pair->in_open_group ? pair->sealed_bytes : pair->held.length;

	pair->ready_parts += pair->sealed_parts;
	if (!pair->in_ended)
		buffer_put(wire_out(&pair->in), pair->held.at, bytes);
	buffer_drop(&pair->held, bytes);
	in_flush(pair);
	pair->in_sealed_group = false; /* not before: it keeps the pair alive */
	if (pair->out_ended)
		pair_free_if_done(pair);
	else
		out_pump(pair);
}

/* ── from the client ──────────────────────────────────────────────────────────────── */

static void reply(struct pair *pair, const char *text)
{
	bool hold = pair->in_open_group || pair->in_sealed_group;

	buffer_put_text(hold ? &pair->held : wire_out(&pair->in), text);
}

static void part_push(struct pair *pair, struct part part)
{
	buffer_put(&pair->parts, &part, sizeof(part));
	if (options.no_log)
		pair->ready_parts++;
	else
		pair->open_parts++;
}

static void transaction_end(struct pair *pair)
{
	struct buffer *all = &pair->transaction;
	uint32_t replies = pair->recipient_count + 2;

	message_count++;
	buffer_put(&pair->backlog, all->at, all->length);
	if (!options.no_log) {
		log_add(&journal, all->at, all->length);
		if (!pair->in_open_group)
			log_join(&journal, pair);
		pair->in_open_group = true;
	}
	if (pair->dot) {
		part_push(pair, (struct part){ pair->command_bytes, replies, false });
		part_push(pair, (struct part){ all->length - pair->command_bytes, 1, false });
	} else {
		part_push(pair, (struct part){ all->length, replies, true });
	}
	all->length = 0;
	pair->recipient_count = 0;
	reply(pair, "250 2.0.0 durable\r\n");
}

static void on_end(struct intake *intake)
{
	struct pair *pair = container_of(intake, struct pair, intake);

	if (pair->last_chunk)
		transaction_end(pair);
	else
		reply(pair, "250 2.0.0 chunk taken\r\n");
}

static void on_data(struct intake *intake, struct span bytes)
{
	struct pair *pair = container_of(intake, struct pair, intake);

	buffer_put(&pair->transaction, bytes.at, bytes.len);
}

static void on_bdat(struct pair *pair, struct span line)
{
	char text[64];
	char *end;

	snprintf(text, sizeof(text), "%.*s", SPAN_ARG(line));
	intake_expect_chunk(&pair->intake, strtoull(text + 4, &end, 10));
	pair->dot = false;
	pair->last_chunk = strcasestr(end, "LAST") != NULL;
}

static void on_command(struct intake *intake, struct span line)
{
	struct pair *pair = container_of(intake, struct pair, intake);
	bool data = span_equal_nocase(line, span_text("DATA"));
	bool rcpt = span_starts_nocase(line, "RCPT TO:");

	if (data || rcpt || span_starts_nocase(line, "MAIL FROM:") ||
	    span_starts_nocase(line, "BDAT ")) {
		buffer_put(&pair->transaction, line.at, line.len);
		buffer_put(&pair->transaction, "\r\n", 2);
		pair->recipient_count += rcpt;
		if (data) {
			pair->command_bytes = pair->transaction.length;
			pair->dot = pair->last_chunk = true;
			intake_expect_dot(intake);
			reply(pair, "354 go on\r\n");
		} else if (line.at[0] == 'B' || line.at[0] == 'b') {
			on_bdat(pair, line);
		} else {
			reply(pair, "250 2.1.0 ok\r\n");
		}
	} else if (span_starts_nocase(line, "EHLO")) {
		reply(pair, "250-ceiling.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n"
			    "250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n");
	} else if (span_starts_nocase(line, "QUIT")) {
		reply(pair, "221 2.0.0 bye\r\n");
		pair->quit = true;
	} else {
		reply(pair, "500 5.5.1 only what is needed\r\n");
	}
}

static void on_in_bytes(struct wire *wire, struct span bytes)
{
	struct pair *pair = container_of(wire, struct pair, in);

	if (!intake_feed(&pair->intake, bytes)) {
		reply(pair, "500 5.5.2 line too long\r\n");
		pair->quit = true;
	}
	if (pair->backlog.length > BACKLOG_MAX)
		wire_pause(wire);
	if (options.no_log && !pair->out_ended)
		out_pump(pair);
	in_flush(pair);
}

static void on_in_end(struct wire *wire)
{
	struct pair *pair = container_of(wire, struct pair, in);

	pair->in_ended = true;
	if (pair->out_ended)
		pair_free_if_done(pair);
	else
		out_pump(pair);
}

/* ── connections ──────────────────────────────────────────────────────────────────── */

static struct os_op accept_op;
static int listen_fd;

static void on_accept(struct os_op *op)
{
	int fd = op->result;
	struct pair *pair;

	os_accept(loop, op, listen_fd);
	if (fd < 0) {
		fprintf(stderr, "accept: %s\n", strerror(-fd));
		return;
	}
	pair = calloc(1, sizeof(*pair));
	assert(pair != NULL);
	pair->in.on_bytes = on_in_bytes;
	pair->in.on_end = on_in_end;
	pair->out.on_bytes = on_out_bytes;
	pair->out.on_end = on_out_end;
	pair->intake.on_command = on_command;
	pair->intake.on_data = on_data;
	pair->intake.on_end = on_end;
	pair->connect_op.done = on_connect;
	pair->connect_fd = os_socket(options.to.family, NULL);
	if (pair->connect_fd < 0)
		fail("no socket: %s", strerror(-pair->connect_fd));
	connection_count++;
	os_connect(loop, &pair->connect_op, pair->connect_fd, &options.to);
	wire_start(&pair->in, loop, fd);
	reply(pair, "220 ceiling.test ESMTP\r\n");
	wire_flush(&pair->in);
}

/* ── the command line ─────────────────────────────────────────────────────────────── */

static const char usage[] = "usage: ceiling --listen HOST:PORT [options] HOST:PORT\n"
			    "  --log FILE       (ceiling.log)\n"
			    "  --log-bytes N    its size (268435456)\n"
			    "  --no-log         promises nothing\n";

static const struct option long_options[] = {
	{ "listen", 1, NULL, 'L' }, { "log", 1, NULL, 'l' }, { "log-bytes", 1, NULL, 'b' },
	{ "no-log", 0, NULL, 'n' }, { NULL, 0, NULL, 0 },
};

static void options_read(int argc, char **argv)
{
	int letter;

	while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (letter) {
		case 'L':
			options.listen = option_address(optarg);
			break;
		case 'l':
			options.log_name = optarg;
			break;
		case 'b':
			options.log_bytes = option_number("--log-bytes", optarg);
			break;
		case 'n':
			options.no_log = true;
			break;
		default:
			fail("%s", usage);
		}
	}
	if (optind != argc - 1 || options.listen.family == AF_UNSPEC)
		fail("%s", usage);
	options.to = option_address(argv[optind]);
}

int main(int argc, char **argv)
{
	options_read(argc, argv);
	bench_start();
	loop = bench_loop();
	bench_stop_on_signal(loop);
	journal.on_sealed = on_sealed;
	journal.on_durable = on_durable;
	if (!options.no_log)
		log_open(&journal, loop, options.log_name, options.log_bytes);
	listen_fd = os_listen(&options.listen, 4096);
	if (listen_fd < 0)
		fail("cannot listen: %s", strerror(-listen_fd));
	accept_op.done = on_accept;
	os_accept(loop, &accept_op, listen_fd);
	while (!atomic_load_explicit(&bench_stopping, memory_order_relaxed)) {
		os_loop_turn(loop, (struct os_mono){ UINT64_MAX });
		if (!options.no_log)
			log_commit(&journal);
	}
	printf("{\"messages\":%lu,\"connections\":%lu,\"lost\":%lu,\"groups\":%lu,"
	       "\"log_bytes\":%lu}\n",
	       message_count, connection_count, lost_count, journal.group_count,
	       journal.byte_count);
	return 0;
}
