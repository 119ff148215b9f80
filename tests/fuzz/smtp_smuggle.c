/*
 * Mail data by two parsers: the session's and a slow one written from RFC 5321 alone. Both must
 * find the end of the data at the same octet, and the same body before it; what follows are
 * commands. And whatever was sent, each reply is well formed.
 */
#include <stdlib.h>

#include "engine/smtp/session.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DATA_MAX = 4096, SAID_MAX = 1 << 20 };

struct world {
	char body[DATA_MAX * 2 + 16], said[SAID_MAX];
	size_t body_len, said_len;
	uint32_t begun, ended, aborted, tickets[8], ticket_count;
};

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	(void)context, (void)mail;
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	(void)context, (void)rcpt;
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	(void)greeting;
	((struct world *)context)->begun++;
	return (struct smtp_answer){ 354, NULL, "Go ahead" };
}

static void on_body(void *context, struct span bytes)
{
	struct world *world = context;

	if (world->begun > 1)
		return; /* a later message: its own business */
	assert(world->body_len + bytes.len <= sizeof(world->body));
	memcpy(world->body + world->body_len, bytes.at, bytes.len);
	world->body_len += bytes.len;
}

static void on_end(void *context, uint32_t ticket)
{
	struct world *world = context;

	world->ended++;
	world->tickets[world->ticket_count++] = ticket;
}

static void on_abort(void *context, const char *why)
{
	(void)why;
	((struct world *)context)->aborted++;
}

/* ── the slow parser ──────────────────────────────────────────────────────────────── */

struct truth {
	bool ends, bare;
	size_t end; /* behind CRLF.CRLF */
	char body[DATA_MAX + 2];
	size_t body_len;
};

static bool is_line_start(const char *data, size_t at)
{
	return at == 0 || (at >= 2 && data[at - 2] == '\r' && data[at - 1] == '\n');
}

static void truth_find(const char *data, size_t size, struct truth *truth)
{
	*truth = (struct truth){ .end = size };
	for (size_t at = 0; at + 3 <= size; at++)
		if (is_line_start(data, at) && memcmp(data + at, ".\r\n", 3) == 0) {
			truth->ends = true;
			truth->end = at + 3;
			break;
		}
	size_t len = truth->ends ? truth->end - 3 : size;

	for (size_t at = 0; at < len; at++) {
		bool cr = data[at] == '\r' && (at + 1 == len || data[at + 1] != '\n');
		bool lf = data[at] == '\n' && (at == 0 || data[at - 1] != '\r');

		truth->bare |= cr || lf;
		if (data[at] != '.' || !is_line_start(data, at))
			truth->body[truth->body_len++] = data[at];
	}
}

/* ── what came out ────────────────────────────────────────────────────────────────── */

/* Returns how many there are. */
static size_t check_replies(const char *said, size_t len)
{
	size_t count = 0;

	const char *end = said + len;

	while (said < end) {
		const char *line_end = memchr(said, '\n', (size_t)(end - said));

		assert(line_end && line_end - said >= 5 && line_end - said <= 512);
		assert(line_end[-1] == '\r');
		assert(said[0] >= '2' && said[0] <= '5' && said[1] >= '0' && said[1] <= '5');
		assert(said[2] >= '0' && said[2] <= '9' && (said[3] == ' ' || said[3] == '-'));
		for (const char *at = said; at < line_end - 1; at++)
			assert((*at >= ' ' && *at < 0x7f) || *at == '\t');
		count += said[3] == ' ';
		said = line_end + 1;
	}
	return count;
}

static void feed(struct smtp_session *session, struct world *world, struct span bytes, size_t step)
{
	static const struct smtp_answer queued = { 250, "2.0.0", "Queued" };

	while (bytes.len > 0 && !smtp_session_finished(session)) {
		size_t taken = smtp_session_feed(
			session, span_of(bytes.at, bytes.len < step ? bytes.len : step));

		bytes = span_skip(bytes, taken);
		while (world->ticket_count > 0)
			smtp_session_answer(session, world->tickets[--world->ticket_count],
					    &queued);
		struct span out = smtp_session_output(session);

		assert(world->said_len + out.len <= SAID_MAX);
		memcpy(world->said + world->said_len, out.at, out.len);
		world->said_len += out.len;
		smtp_session_sent(session, out.len);
	}
}

static size_t count_lines(const char *data, size_t size)
{
	size_t count = 0;

	for (size_t i = 0; i < size; i++)
		count += data[i] == '\n';
	return count;
}

static void check_data(const char *data, size_t size, size_t step, bool normalise)
{
	static const struct smtp_session_host host = {
		.mail = on_mail,
		.rcpt = on_rcpt,
		.begin = on_begin,
		.body = on_body,
		.end = on_end,
		.abort = on_abort,
	};
	struct smtp_session_options options = {
		.name = "b.example",
		.recipients_max = 3,
		.errors_max = 10,
		.pending_max = 4,
		.pipelining = true,
		.eightbit = true,
		.normalise = normalise,
	};
	static struct world world;
	static struct truth truth;

	world.body_len = world.said_len = world.begun = world.ended = world.aborted = 0;
	world.ticket_count = 0;
	truth_find(data, size, &truth);
	struct smtp_session *session = smtp_session_create(&options, &host, &world);

	smtp_session_greet(session, NULL);
	feed(session, &world,
	     span_text("EHLO a\r\nMAIL FROM:<a@b.example> BODY=8BITMIME\r\n"
		       "RCPT TO:<c@d.example>\r\nDATA\r\n"),
	     SIZE_MAX);
	assert(smtp_session_in_data(session));
	if (truth.end > 1) {
		feed(session, &world, span_of(data, truth.end - 1), step);
		/* Not one octet early. */
		assert(smtp_session_in_data(session) && world.ended == 0);
	}
	feed(session, &world, span_of(data + truth.end - 1, 1), step);
	assert(smtp_session_in_data(session) == !truth.ends);
	if (truth.ends)
		assert(world.ended + world.aborted == 1 &&
		       world.ended == (!truth.bare || normalise));
	if (truth.ends && !truth.bare)
		assert(span_equal(span_of(world.body, world.body_len),
				  span_of(truth.body, truth.body_len)));
	feed(session, &world, span_of(data + truth.end, size - truth.end), step);
	/* The greeting, one reply to each line at most, and one to what is no SMTP and has no
	 * end, and the last word. */
	assert(check_replies(world.said, world.said_len) <= 3 + 4 + count_lines(data, size));
	smtp_session_destroy(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > DATA_MAX)
		return 0;
	char *copy = malloc(size - 1);

	memcpy(copy, data + 1, size - 1);
	check_data(copy, size - 1, 1 + data[0] / 2, data[0] & 1);
	free(copy);
	return 0;
}
