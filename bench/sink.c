/*
 * sink - an SMTP server that takes everything, forgets it, and counts.
 *
 *   bytes of one read ──► intake ──► commands, data ──► replies of all of them, one write
 *                                                    └─► held for --delay-ms, if asked
 *
 * Recipients decide by their local part what becomes of them: refuse* 550, defer* 451,
 * full* 452; those of a --greylist domain get 451 until their time has come.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "bench/intake.h"
#include "bench/options.h"
#include "bench/seen.h"
#include "bench/wire.h"
#include "bench/wire_tls.h"

#define LISTEN_MAX     16
#define GREYLIST_MAX   16
#define RECIPIENTS_MAX 1000
#define HEAD_BYTES     8192 /* of a message, where its X-Bench-Id is looked for */
#define SIZE_MAX_BYTES (64u << 20)

enum {
	HIDE_PIPELINING = 1,
	HIDE_SIZE = 2,
	HIDE_8BITMIME = 4,
	HIDE_SMTPUTF8 = 8,
	HIDE_CHUNKING = 16,
	HIDE_CODES = 32
};

static struct {
	struct os_address listen[LISTEN_MAX];
	int listen_count;
	struct greylist {
		struct span domain;
		uint64_t seconds;
	} greylist[GREYLIST_MAX];
	int greylist_count;
	unsigned hidden;
	uint64_t delay_ms, count;
	const char *ledger_name, *tls;
} options;

/* One loop, one thread: all of this is its own. */
static struct os_loop *loop;
static struct tls_contexts *contexts; /* NULL: in clear */
static FILE *ledger;
static bool ledger_written;    /* in this turn */
static struct seen taken;      /* (id, recipient) */
static struct seen greylisted; /* (sender, recipient) -> first try, ms */
static uint64_t messages, recipients, bytes_taken, duplicates, connections, unnamed;
static uint64_t open_count; /* of connections */

struct peer {
	struct wire wire;
	struct intake intake;
	bool greeted, has_sender, quit;
	bool last_chunk;
	uint32_t recipient_count;
	uint64_t sender_hash;
	struct buffer names; /* recipients, a NUL after each */
	struct buffer head;  /* the beginning of the message */
	struct buffer held;  /* replies whose time has not come */
	uint64_t held_count; /* entries of `delayed` that name us */
	bool ended;	     /* the wire has; we stay for them */
};

/* ── replies, late if asked ───────────────────────────────────────────────────────── */

/* What is held, in order of time: the delay is the same for all. A ring that grows. */
static struct {
	struct delay {
		struct peer *peer;
		struct os_mono due;
		size_t bytes;
	} * at;
	size_t first, count, room;
} delayed;

static void delay_push(struct delay delay)
{
	if (delayed.count == delayed.room) {
		size_t room = delayed.room ? delayed.room * 2 : 1024;
		struct delay *at = calloc(room, sizeof(*at));

		assert(at != NULL);
		for (size_t i = 0; i < delayed.count; i++)
			at[i] = delayed.at[(delayed.first + i) % delayed.room];
		free(delayed.at);
		delayed.at = at;
		delayed.first = 0;
		delayed.room = room;
	}
	delayed.at[(delayed.first + delayed.count++) % delayed.room] = delay;
}

static void peer_free_if_done(struct peer *peer)
{
	if (!peer->ended || peer->held_count > 0)
		return;
	buffer_free(&peer->names);
	buffer_free(&peer->head);
	buffer_free(&peer->held);
	free(peer);
	open_count--;
}

/* Lets out what is due; when to come again. */
static struct os_mono delayed_release(struct os_mono now)
{
	while (delayed.count > 0) {
		struct delay delay = delayed.at[delayed.first];
		struct peer *peer = delay.peer;

		if (delay.due.ns > now.ns)
			return delay.due;
		delayed.first = (delayed.first + 1) % delayed.room;
		delayed.count--;
		peer->held_count--;
		if (!peer->ended) {
			buffer_put(wire_out(&peer->wire), peer->held.at, delay.bytes);
			buffer_drop(&peer->held, delay.bytes);
			if (peer->quit && peer->held_count == 0)
				wire_finish(&peer->wire);
			else
				wire_flush(&peer->wire);
		} else {
			peer_free_if_done(peer);
		}
	}
	return (struct os_mono){ UINT64_MAX };
}

static struct buffer *reply_buffer(struct peer *peer)
{
	return options.delay_ms ? &peer->held : wire_out(&peer->wire);
}

/* The enhanced code is left out if it is not offered. */
static void reply(struct peer *peer, const char *code, const char *enhanced, const char *text)
{
	struct buffer *out = reply_buffer(peer);

	buffer_put(out, code, 3);
	buffer_put(out, " ", 1);
	if (enhanced[0] != '\0' && !(options.hidden & HIDE_CODES)) {
		buffer_put_text(out, enhanced);
		buffer_put(out, " ", 1);
	}
	buffer_put_text(out, text);
	buffer_put(out, "\r\n", 2);
}

/* ── transactions ─────────────────────────────────────────────────────────────────── */

static void transaction_reset(struct peer *peer)
{
	peer->has_sender = false;
	peer->recipient_count = 0;
	peer->names.length = 0;
	peer->head.length = 0;
}

/* Between < and >; false if there are none. */
static bool path_of(struct span line, struct span *out)
{
	const char *open = memchr(line.at, '<', line.len);
	const char *close = memrchr(line.at, '>', line.len);

	if (open == NULL || close == NULL || close < open)
		return false;
	*out = span_of(open + 1, (size_t)(close - open - 1));
	return true;
}

static void on_mail(struct peer *peer, struct span line)
{
	struct span path;

	if (!peer->greeted || peer->has_sender) {
		reply(peer, "503", "5.5.1", "not now");
	} else if (!path_of(line, &path)) {
		reply(peer, "501", "5.1.7", "no path");
	} else {
		peer->has_sender = true;
		peer->sender_hash = seen_hash(SEEN_HASH_START, path);
		reply(peer, "250", "2.1.0", "ok");
	}
}

static bool is_greylisted(const struct peer *peer, struct span path)
{
	const char *at = memrchr(path.at, '@', path.len);
	struct span domain = at ? span_skip(path, (size_t)(at + 1 - path.at)) : path;
	uint64_t now_ms = os_loop_mono(loop).ns / OS_NS_PER_MS;
	bool new;

	for (int i = 0; i < options.greylist_count; i++) {
		const struct greylist *row = &options.greylist[i];

		if (!span_equal_nocase(domain, row->domain))
			continue;
		return now_ms <
		       seen_note(&greylisted, seen_hash(peer->sender_hash, path), now_ms, &new) +
			       row->seconds * 1000;
	}
	return false;
}

static void on_rcpt(struct peer *peer, struct span line)
{
	struct span path;

	if (!peer->has_sender) {
		reply(peer, "503", "5.5.1", "MAIL first");
	} else if (!path_of(line, &path) || path.len == 0) {
		reply(peer, "501", "5.1.3", "no path");
	} else if (span_starts_nocase(path, "refuse")) {
		reply(peer, "550", "5.1.1", "no such user");
	} else if (span_starts_nocase(path, "defer")) {
		reply(peer, "451", "4.3.0", "not today");
	} else if (span_starts_nocase(path, "full")) {
		reply(peer, "452", "4.2.2", "mailbox full");
	} else if (is_greylisted(peer, path)) {
		reply(peer, "451", "4.7.1", "greylisted, come again");
	} else if (peer->recipient_count == RECIPIENTS_MAX) {
		reply(peer, "452", "4.5.3", "too many recipients");
	} else {
		buffer_put(&peer->names, path.at, path.len);
		buffer_put(&peer->names, "", 1);
		peer->recipient_count++;
		reply(peer, "250", "2.1.5", "ok");
	}
}

static void on_data_command(struct peer *peer)
{
	if (!peer->has_sender) {
		reply(peer, "503", "5.5.1", "MAIL first");
	} else if (peer->recipient_count == 0) {
		reply(peer, "554", "5.5.1", "no valid recipients");
	} else {
		peer->last_chunk = true;
		intake_expect_dot(&peer->intake);
		reply(peer, "354", "", "go on");
	}
}

/* The size is read even if the chunk is refused: its bytes come. */
static void on_bdat(struct peer *peer, struct span line)
{
	char text[64];
	char *end;
	uint64_t size;

	snprintf(text, sizeof(text), "%.*s", SPAN_ARG(line));
	size = strtoull(text + 4, &end, 10);
	if (end == text + 4 || size > SIZE_MAX_BYTES || (options.hidden & HIDE_CHUNKING)) {
		reply(peer, "501", "5.5.4", "unusable chunk");
		peer->quit = true; /* whatever follows cannot be told from commands */
		return;
	}
	peer->last_chunk = strcasestr(end, "LAST") != NULL;
	intake_expect_chunk(&peer->intake, size);
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static void on_message_bytes(struct intake *intake, struct span bytes)
{
	struct peer *peer = container_of(intake, struct peer, intake);
	size_t room = HEAD_BYTES - peer->head.length;

	bytes_taken += bytes.len;
	buffer_put(&peer->head, bytes.at, bytes.len < room ? bytes.len : room);
}

/* The value of the X-Bench-Id field; empty if there is none. */
static struct span message_id(const struct peer *peer)
{
	static const char field[] = "X-Bench-Id: ";
	struct span head = span_of(peer->head.at, peer->head.length);
	const char *found = memmem(head.at, head.len, field, sizeof(field) - 1);
	const char *end;

	if (found == NULL)
		return span_text("");
	found += sizeof(field) - 1;
	end = memchr(found, '\r', head.len - (size_t)(found - head.at));
	return end != NULL ? span_of(found, (size_t)(end - found)) : span_text("");
}

static void recipient_count(struct span id, const char *name)
{
	uint64_t hash = seen_hash(seen_hash(SEEN_HASH_START, id), span_text(name));
	bool new;

	recipients++;
	if (id.len == 0)
		return;
	seen_note(&taken, hash, 0, &new);
	duplicates += !new;
	ledger_written = ledger != NULL;
	if (ledger != NULL)
		fprintf(ledger, "%.*s %s\n", SPAN_ARG(id), name);
}

static void message_take(struct peer *peer)
{
	struct span id = message_id(peer);
	const char *name = peer->names.at;

	messages++;
	unnamed += id.len == 0;
	for (uint32_t i = 0; i < peer->recipient_count; i++) {
		recipient_count(id, name);
		name += strlen(name) + 1;
	}
	transaction_reset(peer);
	reply(peer, "250", "2.0.0", "taken");
	if (messages == options.count)
		atomic_store(&bench_stopping, true);
}

static void on_message_end(struct intake *intake)
{
	struct peer *peer = container_of(intake, struct peer, intake);

	if (peer->recipient_count == 0) {
		peer->head.length = 0;
		if (peer->last_chunk)
			transaction_reset(peer);
		reply(peer, "503", "5.5.1", "no valid recipients");
	} else if (!peer->last_chunk) {
		reply(peer, "250", "2.0.0", "chunk taken");
	} else {
		message_take(peer);
	}
}

/* ── commands ─────────────────────────────────────────────────────────────────────── */

static void on_ehlo(struct peer *peer)
{
	static const struct {
		unsigned hide;
		const char *line;
	} offers[] = {
		{ HIDE_PIPELINING, "250-PIPELINING\r\n" },
		{ HIDE_SIZE, "250-SIZE 67108864\r\n" },
		{ HIDE_8BITMIME, "250-8BITMIME\r\n" },
		{ HIDE_SMTPUTF8, "250-SMTPUTF8\r\n" },
		{ HIDE_CHUNKING, "250-CHUNKING\r\n" },
		{ HIDE_CODES, "250-ENHANCEDSTATUSCODES\r\n" },
	};
	struct buffer *out = reply_buffer(peer);

	peer->greeted = true;
	transaction_reset(peer);
	buffer_put_text(out, "250-sink.test\r\n");
	for (size_t i = 0; i < array_count(offers); i++)
		if (!(options.hidden & offers[i].hide))
			buffer_put_text(out, offers[i].line);
	buffer_put_text(out, "250 HELP\r\n");
}

static void on_command(struct intake *intake, struct span line)
{
	struct peer *peer = container_of(intake, struct peer, intake);

	if (peer->quit)
		return;
	if (span_starts_nocase(line, "RCPT TO:")) {
		on_rcpt(peer, line);
	} else if (span_starts_nocase(line, "MAIL FROM:")) {
		on_mail(peer, line);
	} else if (span_starts_nocase(line, "BDAT ")) {
		on_bdat(peer, line);
	} else if (span_equal_nocase(line, span_text("DATA"))) {
		on_data_command(peer);
	} else if (span_starts_nocase(line, "EHLO")) {
		on_ehlo(peer);
	} else if (span_starts_nocase(line, "HELO")) {
		peer->greeted = true;
		transaction_reset(peer);
		reply(peer, "250", "", "sink.test");
	} else if (span_starts_nocase(line, "RSET")) {
		transaction_reset(peer);
		reply(peer, "250", "2.0.0", "ok");
	} else if (span_starts_nocase(line, "NOOP")) {
		reply(peer, "250", "2.0.0", "ok");
	} else if (span_starts_nocase(line, "QUIT")) {
		reply(peer, "221", "2.0.0", "bye");
		peer->quit = true;
	} else {
		reply(peer, "500", "5.5.1", "what?");
	}
}

/* ── connections ──────────────────────────────────────────────────────────────────── */

/* Sends what was answered since the last time, now or later. */
static void peer_answer(struct peer *peer, size_t held_before)
{
	if (options.delay_ms != 0) {
		struct os_mono due = os_mono_add_ms(os_loop_mono(loop), options.delay_ms);

		if (peer->held.length == held_before)
			return;
		delay_push((struct delay){ peer, due, peer->held.length - held_before });
		peer->held_count++;
	} else if (peer->quit) {
		wire_finish(&peer->wire);
	} else {
		wire_flush(&peer->wire);
	}
}

static void on_bytes(struct wire *wire, struct span bytes)
{
	struct peer *peer = container_of(wire, struct peer, wire);
	size_t held_before = peer->held.length;

	if (!intake_feed(&peer->intake, bytes)) {
		reply(peer, "500", "5.5.2", "line too long");
		peer->quit = true;
	}
	peer_answer(peer, held_before);
}

static void on_end(struct wire *wire)
{
	struct peer *peer = container_of(wire, struct peer, wire);

	peer->ended = true;
	peer_free_if_done(peer);
}

struct listener {
	struct os_op op;
	int fd;
};

static void on_accept(struct os_op *op)
{
	struct listener *listener = container_of(op, struct listener, op);
	int fd = op->result;
	struct peer *peer;

	if (fd == -ECANCELED)
		return;
	os_accept(loop, op, listener->fd);
	if (fd < 0) {
		fprintf(stderr, "accept: %s\n", strerror(-fd));
		return;
	}
	peer = calloc(1, sizeof(*peer));
	assert(peer != NULL);
	peer->wire.on_bytes = on_bytes;
	peer->wire.on_end = on_end;
	peer->wire.tls = wire_tls_accept(contexts);
	peer->intake.on_command = on_command;
	peer->intake.on_data = on_message_bytes;
	peer->intake.on_end = on_message_end;
	connections++;
	open_count++;
	wire_start(&peer->wire, loop, fd);
	reply(peer, "220", "", "sink.test ESMTP");
	peer_answer(peer, 0);
}

/* ── the command line ─────────────────────────────────────────────────────────────── */

static const char usage[] =
	"usage: sink --listen HOST:PORT ... [options]\n"
	"  --delay-ms N                 each reply comes so much later\n"
	"  --greylist DOMAIN:SECONDS    451 for its recipients, at first\n"
	"  --count N                    end after N messages\n"
	"  --tls CHAIN,KEY              TLS from the first byte on, with these files\n"
	"  --ledger FILE                a line for each message and recipient: id, recipient\n"
	"  --no-pipelining --no-size --no-8bitmime --no-smtputf8 --no-chunking\n"
	"  --no-enhancedstatuscodes     extensions that are not offered\n";

enum { OPTION_HIDE = 256 }; /* + the bits of `hidden` */

static const struct option long_options[] = {
	{ "listen", 1, NULL, 'L' },
	{ "delay-ms", 1, NULL, 'D' },
	{ "greylist", 1, NULL, 'g' },
	{ "count", 1, NULL, 'n' },
	{ "ledger", 1, NULL, 'l' },
	{ "tls", 1, NULL, 'S' },
	{ "no-pipelining", 0, NULL, OPTION_HIDE + HIDE_PIPELINING },
	{ "no-size", 0, NULL, OPTION_HIDE + HIDE_SIZE },
	{ "no-8bitmime", 0, NULL, OPTION_HIDE + HIDE_8BITMIME },
	{ "no-smtputf8", 0, NULL, OPTION_HIDE + HIDE_SMTPUTF8 },
	{ "no-chunking", 0, NULL, OPTION_HIDE + HIDE_CHUNKING },
	{ "no-enhancedstatuscodes", 0, NULL, OPTION_HIDE + HIDE_CODES },
	{ NULL, 0, NULL, 0 },
};

static void greylist_add(const char *text)
{
	const char *colon = strrchr(text, ':');

	if (colon == NULL || options.greylist_count == GREYLIST_MAX)
		fail("--greylist DOMAIN:SECONDS, at most %d", GREYLIST_MAX);
	options.greylist[options.greylist_count++] = (struct greylist){
		.domain = span_of(text, (size_t)(colon - text)),
		.seconds = option_number("--greylist", colon + 1),
	};
}

static void option_set(int letter, const char *value)
{
	switch (letter) {
	case 'L':
		if (options.listen_count == LISTEN_MAX)
			fail("--listen: at most %d", LISTEN_MAX);
		options.listen[options.listen_count++] = option_address(value);
		break;
	case 'D':
		options.delay_ms = option_number("--delay-ms", value);
		break;
	case 'g':
		greylist_add(value);
		break;
	case 'n':
		options.count = option_number("--count", value);
		break;
	case 'l':
		options.ledger_name = value;
		break;
	case 'S':
		options.tls = value;
		break;
	default:
		if (letter < OPTION_HIDE)
			fail("%s", usage);
		options.hidden |= (unsigned)letter - OPTION_HIDE;
	}
}

static void options_read(int argc, char **argv)
{
	int letter;

	while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		option_set(letter, optarg);
	if (optind != argc || options.listen_count == 0)
		fail("%s", usage);
	if (options.ledger_name != NULL && (ledger = fopen(options.ledger_name, "ae")) == NULL)
		fail("%s: %s", options.ledger_name, strerror(errno));
}

/* The last replies go out before we end, but nobody is waited for longer than this. */
#define FAREWELL_MS 200

/* The ledger is whole after each turn, for those who read it meanwhile. */
static struct os_mono turn(struct os_mono until)
{
	os_loop_turn(loop, until);
	if (ledger_written)
		fflush(ledger);
	ledger_written = false;
	return delayed_release(os_loop_mono(loop));
}

static void run(void)
{
	struct os_mono next = { UINT64_MAX };
	struct os_mono end;

	while (!atomic_load_explicit(&bench_stopping, memory_order_relaxed))
		next = turn(next);
	end = os_mono_add_ms(os_mono_now(), FAREWELL_MS + options.delay_ms);
	while (open_count > 0 && os_mono_now().ns < end.ns)
		next = turn(next.ns < end.ns ? next : end);
}

int main(int argc, char **argv)
{
	static struct listener listeners[LISTEN_MAX];

	options_read(argc, argv);
	bench_start();
	loop = bench_loop();
	if (options.tls)
		contexts = wire_tls_contexts(options.tls);
	bench_stop_on_signal(loop);
	for (int i = 0; i < options.listen_count; i++) {
		listeners[i].op.done = on_accept;
		listeners[i].fd = os_listen(&options.listen[i], 4096);
		if (listeners[i].fd < 0)
			fail("cannot listen: %s", strerror(-listeners[i].fd));
		os_accept(loop, &listeners[i].op, listeners[i].fd);
	}
	run();
	if (ledger != NULL && fclose(ledger) != 0)
		fail("%s: %s", options.ledger_name, strerror(errno));
	printf("{\"messages\":%lu,\"recipients\":%lu,\"bytes\":%lu,\"duplicates\":%lu,"
	       "\"connections\":%lu,\"unnamed\":%lu}\n",
	       messages, recipients, bytes_taken, duplicates, connections, unnamed);
	return 0;
}
