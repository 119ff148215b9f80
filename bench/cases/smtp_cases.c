/*
 * smtp_cases - parsers and dots: everything that touches each byte or each command.
 */
#include <stdlib.h>

#include "bench/cases/cases.h"
#include "engine/smtp/address.h"
#include "engine/smtp/command.h"
#include "engine/smtp/dot.h"
#include "engine/smtp/reply.h"
#include "engine/smtp/scan.h"
#include "engine/smtp/session.h"
#include "os/check.h"

enum { BODY_BYTES = 65536 };

/* Keeps the compiler from leaving work out. */
static volatile uint64_t sink;

/* ── replies, commands, addresses ─────────────────────────────────────────────────── */

static uint64_t run_reply(void *context)
{
	static const char text[] = "250-2.1.5 first line of it\r\n250 2.1.5 Recipient OK\r\n";
	struct smtp_reply *reply = context;

	smtp_reply_reset(reply);
	sink += smtp_reply_feed(reply, span_of(text, sizeof(text) - 1));
	assert(reply->class == SMTP_REPLY_OK);
	return 1;
}

static void *begin_reply(uint64_t argument)
{
	(void)argument;
	return malloc(sizeof(struct smtp_reply));
}

static uint64_t run_command(void *context)
{
	static const char *const lines[] = { "MAIL FROM:<sender@example.org> SIZE=4096",
					     "RCPT TO:<someone@example.net>", "BDAT 4096 LAST",
					     "RSET" };

	(void)context;
	for (size_t i = 0; i < array_count(lines); i++)
		sink += smtp_command_parse(span_text(lines[i])).verb;
	return array_count(lines);
}

static uint64_t run_path(void *context)
{
	struct smtp_address address;
	struct span rest;

	(void)context;
	sink += smtp_path_parse(span_text("<some.body+tag@mail.example.net> NOTIFY=NEVER"), false,
				&address, &rest);
	sink += address.len;
	return 1;
}

/* ── bodies ───────────────────────────────────────────────────────────────────────── */

/* Lines of 70 octets; every tenth begins with a dot. */
static void *begin_body(uint64_t argument)
{
	char *body = malloc(BODY_BYTES + 5);
	size_t column = 0, line = 0;

	(void)argument;
	assert(body != NULL);
	for (size_t i = 0; i < BODY_BYTES; i++) {
		body[i] = column == 70			  ? '\r'
			  : column == 71		  ? '\n'
			  : column == 0 && line % 10 == 9 ? '.'
							  : 'x';
		column = column == 71 ? 0 : column + 1;
		line += column == 0;
	}
	memcpy(body, "\r\n", 2); /* its header is over at once */
	memcpy(body + BODY_BYTES - 2, "\r\n.\r\n", 5);
	return body;
}

static uint64_t run_dot_decode(void *context)
{
	struct smtp_dot_decoder decoder;
	struct span rest = span_of(context, BODY_BYTES + 3);

	smtp_dot_decoder_init(&decoder, true, false);
	while (!decoder.done) {
		struct span piece;

		rest = span_skip(rest, smtp_dot_decode(&decoder, rest, &piece));
		sink += piece.len;
	}
	return 1;
}

static uint64_t run_dot_encode(void *context)
{
	struct smtp_dot_encoder encoder;
	struct span rest = span_of(context, BODY_BYTES);

	smtp_dot_encoder_init(&encoder);
	while (rest.len > 0) {
		size_t piece = smtp_dot_piece(&encoder, rest);

		sink += piece;
		rest = span_skip(rest, smtp_dot_advance(&encoder, rest, piece));
	}
	return 1;
}

static uint64_t run_scan(void *context)
{
	struct smtp_scan scan;

	smtp_scan_init(&scan);
	smtp_scan_feed(&scan, span_of(context, BODY_BYTES));
	smtp_scan_finish(&scan);
	sink += scan.bytes;
	return 1;
}

/* ── a whole session ──────────────────────────────────────────────────────────────── */

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	(void)context;
	sink += mail->sender.len;
	return (struct smtp_answer){ 250, "2.1.0", "Sender ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	(void)context;
	sink += rcpt->recipient.len;
	return (struct smtp_answer){ 250, "2.1.5", "Recipient ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	(void)context;
	(void)greeting;
	return (struct smtp_answer){ 354, NULL, "go on" };
}

static void on_body(void *context, struct span bytes)
{
	(void)context;
	sink += bytes.len;
}

struct session_world {
	struct smtp_session *session;
	uint32_t ticket;
	bool ended;
	size_t flight_bytes;
	char flight[4400];
};

static void on_end(void *context, uint32_t ticket)
{
	struct session_world *world = context;

	world->ticket = ticket;
	world->ended = true;
}

static void on_abort(void *context, const char *why)
{
	(void)context;
	(void)why;
}

static const struct smtp_session_host host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
	.complaint = on_abort,
};

static void session_feed_all(struct session_world *world, struct span bytes)
{
	while (bytes.len > 0)
		bytes = span_skip(bytes, smtp_session_feed(world->session, bytes));
	smtp_session_sent(world->session, smtp_session_output(world->session).len);
}

static void *begin_session(uint64_t argument)
{
	static const struct smtp_session_options options = { .name = "bench.test",
							     .size_max = 1 << 20,
							     .recipients_max = 100,
							     .errors_max = 20,
							     .pending_max = 100,
							     .pipelining = true,
							     .chunking = true,
							     .smtputf8 = true,
							     .eightbit = true,
							     .dsn = true };
	static const char commands[] = "MAIL FROM:<sender@example.org>\r\n"
				       "RCPT TO:<someone@example.net>\r\n"
				       "BDAT 4096 LAST\r\n";
	struct session_world *world = calloc(1, sizeof(*world));
	char *body = begin_body(0);

	(void)argument;
	assert(world != NULL);
	world->session = smtp_session_create(&options, &host, world);
	assert(world->session != NULL);
	smtp_session_greet(world->session, NULL);
	session_feed_all(world, span_text("EHLO client.test\r\n"));
	memcpy(world->flight, commands, sizeof(commands) - 1);
	memcpy(world->flight + sizeof(commands) - 1, body, 4096);
	world->flight_bytes = sizeof(commands) - 1 + 4096;
	free(body);
	return world;
}

/* One message of 4 KiB in one flight. */
static uint64_t run_session(void *context)
{
	static const struct smtp_answer taken = { 250, "2.0.0", "taken" };
	struct session_world *world = context;

	world->ended = false;
	session_feed_all(world, span_of(world->flight, world->flight_bytes));
	assert(world->ended);
	smtp_session_answer(world->session, world->ticket, &taken);
	smtp_session_sent(world->session, smtp_session_output(world->session).len);
	return 1;
}

static void end_session(void *context)
{
	struct session_world *world = context;

	smtp_session_destroy(world->session);
	free(world);
}

const struct micro_case micro_smtp_cases[] = {
	{ "smtp/reply_parse", begin_reply, run_reply, free, 0, 0 },
	{ "smtp/command_parse", NULL, run_command, NULL, 0, 0 },
	{ "smtp/path_parse", NULL, run_path, NULL, 0, 0 },
	{ "smtp/dot_decode_64k", begin_body, run_dot_decode, free, 0, BODY_BYTES },
	{ "smtp/dot_encode_64k", begin_body, run_dot_encode, free, 0, BODY_BYTES },
	{ "smtp/scan_64k", begin_body, run_scan, free, 0, BODY_BYTES },
	{ "smtp/session_message_4k", begin_session, run_session, end_session, 0, 4096 },
	{ 0 },
};
