/*
 * client - see client.h. A session is one connection; how it talks and whether it breaks off is
 * drawn at its start.
 */
#include "tests/sim/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger.h"
#include "tests/sim/net.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

enum {
	LINE_BYTES = 1024,
	STREAM_MAX = 8,
	CHUNKS_MAX = 3,
	COMMAND_BYTES_MAX = 512,
	DROP_STEPS_MAX = 24,
	LINGER_S_MAX = 10,
};

#define PATIENCE_NS (660 * SIM_S)

enum manner {
	MANNER_CLASSIC,	  /* each command waits for its reply */
	MANNER_PIPELINED, /* MAIL, RCPT, DATA in one go */
	MANNER_FLIGHT,	  /* MAIL, RCPT, BDAT in one go */
	MANNER_STREAM,	  /* several of those ahead of the replies */
	MANNER_COUNT
};

struct client {
	struct sock *sock;
	enum manner manner;
	bool slow;
	uint32_t drop_in; /* steps until it breaks off; 0: it does not */
	bool finishes;	  /* sends a FIN behind its last words, and reads the replies */
	bool last;	  /* what it says now is the last */
	bool finished;
	char line[LINE_BYTES]; /* of the last reply */
	int code;
};

/* A growing text: what is sent in one go. */
struct flight {
	char *bytes;
	size_t used, room;
};

/* ── talking ──────────────────────────────────────────────────────────────────────── */

/* Counts a step; true: here it ends. */
static bool breaks_off(struct client *client)
{
	return client->drop_in > 0 && --client->drop_in == 0;
}

static bool send_slowly(struct client *client, const char *bytes, size_t count)
{
	while (count > 0) {
		size_t piece = 1 + sim_below(count < 4096 ? count : 4096);

		if (net_write(client->sock, bytes, piece) < 0)
			return false;
		bytes += piece;
		count -= piece;
		fiber_sleep(sim_below(200 * SIM_MS));
	}
	return true;
}

static bool send_bytes(struct client *client, const char *bytes, size_t count)
{
	if (breaks_off(client)) {
		size_t some = sim_below(count + 1);

		if (some > 0)
			net_write(client->sock, bytes, some);
		return false;
	}
	if (client->slow)
		return send_slowly(client, bytes, count);
	return count == 0 || net_write(client->sock, bytes, count) == 0;
}

static void finish(struct client *client)
{
	sim_trace("no more will be said");
	net_finish(client->sock);
	client->finished = true;
}

/* A flight has left. */
static void after_words(struct client *client)
{
	if (client->last && client->finishes)
		finish(client);
}

/* In good weather nothing excuses the daemon: what came whole before the FIN has its replies. */
static void check_silence(const struct client *client, int result)
{
	sim_trace("no reply: %d", result);
	if (client->finished && weather_is_clear())
		sim_finding("no reply to what came before a FIN: %d", result);
}

/* A whole reply: its code and last line stay in `client`. */
static bool read_reply(struct client *client)
{
	if (breaks_off(client))
		return false;
	do {
		int length = net_read_line(client->sock, client->line, sizeof(client->line),
					   PATIENCE_NS);

		if (length < 4) {
			check_silence(client, length);
			return false;
		}
	} while (client->line[3] == '-');
	client->code = atoi(client->line);
	return client->code != 421;
}

static bool command(struct client *client, const char *text)
{
	return send_bytes(client, text, strlen(text)) && read_reply(client);
}

/* One that may be the last. */
static bool final_command(struct client *client, const char *text)
{
	if (!send_bytes(client, text, strlen(text)))
		return false;
	after_words(client);
	return read_reply(client);
}

/* ── commands ─────────────────────────────────────────────────────────────────────── */

static void mail_command(const struct ledger_message *message, char out[COMMAND_BYTES_MAX])
{
	static const char *const options[] = { "", " RET=HDRS", " RET=FULL", " ENVID=e+2Bm" };
	const char *option = options[message->number % 4];

	if (message->null_sender)
		snprintf(out, COMMAND_BYTES_MAX, "MAIL FROM:<>%s\r\n", option);
	else
		snprintf(out, COMMAND_BYTES_MAX, "MAIL FROM:<m%u@" WORLD_SENDER_DOMAIN ">%s\r\n",
			 message->number, option);
}

static void rcpt_command(const struct ledger_recipient *to, char out[COMMAND_BYTES_MAX])
{
	static const char *const options[] = {
		[LEDGER_NOTIFY_DEFAULT] = "",
		[LEDGER_NOTIFY_NEVER] = " NOTIFY=NEVER",
		[LEDGER_NOTIFY_FAILURE] = " NOTIFY=FAILURE",
		[LEDGER_NOTIFY_ALL] = " NOTIFY=SUCCESS,FAILURE,DELAY",
	};

	snprintf(out, COMMAND_BYTES_MAX, "RCPT TO:<%s>%s\r\n", to->address, options[to->notify]);
}

/* ── a flight ─────────────────────────────────────────────────────────────────────── */

static void flight_add(struct flight *flight, const char *bytes, size_t count)
{
	if (flight->used + count > flight->room) {
		flight->room = 2 * (flight->used + count);
		flight->bytes = realloc(flight->bytes, flight->room);
		assert(flight->bytes);
	}
	memcpy(flight->bytes + flight->used, bytes, count);
	flight->used += count;
}

static void flight_text(struct flight *flight, const char *text)
{
	flight_add(flight, text, strlen(text));
}

static void flight_envelope(struct flight *flight, const struct ledger_message *message)
{
	char line[COMMAND_BYTES_MAX];

	mail_command(message, line);
	flight_text(flight, line);
	for (uint32_t i = 0; i < message->recipient_count; i++) {
		rcpt_command(&message->recipients[i], line);
		flight_text(flight, line);
	}
}

/* In 1 to CHUNKS_MAX chunks; returns how many. */
static uint32_t flight_bdat(struct flight *flight, const struct ledger_message *message)
{
	uint32_t chunks = (uint32_t)sim_between(1, CHUNKS_MAX);
	size_t bytes, at = 0;
	char *text = ledger_text(message, &bytes), line[64];

	for (uint32_t i = 0; i < chunks; i++) {
		bool last = i + 1 == chunks;
		size_t piece = last ? bytes - at : sim_below(bytes - at + 1);

		snprintf(line, sizeof(line), "BDAT %zu%s\r\n", piece, last ? " LAST" : "");
		flight_text(flight, line);
		flight_add(flight, text + at, piece);
		at += piece;
	}
	arena_free(text, bytes);
	return chunks;
}

/* With dots doubled, without the final one. */
static void flight_dotted(struct flight *flight, const struct ledger_message *message)
{
	size_t bytes, at = 0;
	char *text = ledger_text(message, &bytes);

	while (at < bytes) {
		const char *end = memchr(text + at, '\n', bytes - at);
		size_t length = (size_t)(end + 1 - text) - at;

		if (text[at] == '.')
			flight_add(flight, ".", 1);
		flight_add(flight, text + at, length);
		at += length;
	}
	arena_free(text, bytes);
}

static bool flight_send(struct client *client, struct flight *flight)
{
	bool sent = send_bytes(client, flight->bytes, flight->used);

	free(flight->bytes);
	*flight = (struct flight){ 0 };
	return sent;
}

/* ── one message ──────────────────────────────────────────────────────────────────── */

static bool read_envelope_replies(struct client *client, struct ledger_message *message)
{
	if (!read_reply(client))
		return false;
	for (uint32_t i = 0; i < message->recipient_count; i++) {
		if (!read_reply(client))
			return false;
		message->recipients[i].known = client->code == 250;
	}
	return true;
}

/* The rest of DATA, once 354 was said. */
static bool send_data(struct client *client, struct ledger_message *message)
{
	struct flight flight = { 0 };

	flight_dotted(&flight, message);
	if (!flight_send(client, &flight))
		return false;
	ledger_dotted(message);
	if (!final_command(client, ".\r\n"))
		return false;
	ledger_answered(message, client->code, client->line);
	return true;
}

/* The reply to DATA is there; anything but 354 ends the try. */
static bool go_on_with_data(struct client *client, struct ledger_message *message)
{
	if (client->code == 354)
		return send_data(client, message);
	ledger_answered(message, client->code, client->line);
	return command(client, "RSET\r\n");
}

static bool send_classic(struct client *client, struct ledger_message *message)
{
	char line[COMMAND_BYTES_MAX];

	mail_command(message, line);
	if (!command(client, line))
		return false;
	for (uint32_t i = 0; client->code == 250 && i < message->recipient_count; i++) {
		rcpt_command(&message->recipients[i], line);
		if (!command(client, line))
			return false;
		message->recipients[i].known = client->code == 250;
	}
	if (client->code == 250 && !command(client, "DATA\r\n"))
		return false;
	return go_on_with_data(client, message);
}

static bool send_pipelined(struct client *client, struct ledger_message *message)
{
	struct flight flight = { 0 };

	flight_envelope(&flight, message);
	flight_text(&flight, "DATA\r\n");
	if (!flight_send(client, &flight) || !read_envelope_replies(client, message) ||
	    !read_reply(client))
		return false;
	return go_on_with_data(client, message);
}

/* ── several ──────────────────────────────────────────────────────────────────────── */

/* Of chunks before the last, a refusal is repeated by the last one: that one counts. */
static bool read_flight_replies(struct client *client, struct ledger_message *message,
				uint32_t chunks)
{
	if (!read_envelope_replies(client, message))
		return false;
	for (uint32_t i = 0; i < chunks; i++)
		if (!read_reply(client))
			return false;
	ledger_answered(message, client->code, client->line);
	return true;
}

static bool send_stream(struct client *client, struct ledger_message *const *messages,
			uint32_t count)
{
	uint32_t chunks[STREAM_MAX];

	for (uint32_t i = 0; i < count; i++) {
		struct flight flight = { 0 };

		flight_envelope(&flight, messages[i]);
		chunks[i] = flight_bdat(&flight, messages[i]);
		ledger_dotted(messages[i]);
		if (!flight_send(client, &flight))
			return false;
	}
	after_words(client);
	for (uint32_t i = 0; i < count; i++)
		if (!read_flight_replies(client, messages[i], chunks[i]))
			return false;
	return true;
}

/* ── a session ────────────────────────────────────────────────────────────────────── */

static uint32_t take_messages(const struct client *client, struct ledger_message **messages)
{
	uint32_t wanted =
		client->manner == MANNER_STREAM ? (uint32_t)sim_between(2, STREAM_MAX) : 1;
	uint32_t count = 0;

	while (count < wanted && (messages[count] = ledger_next()))
		count++;
	return count;
}

static bool send_messages(struct client *client, struct ledger_message *const *messages,
			  uint32_t count)
{
	switch (client->manner) {
	case MANNER_CLASSIC:
		return send_classic(client, messages[0]);
	case MANNER_PIPELINED:
		return send_pipelined(client, messages[0]);
	default:
		return send_stream(client, messages, count);
	}
}

/* What got no reply is broken off, or in doubt; what got one may be another's by now. False: the
 * session is over. */
static bool work(struct client *client)
{
	struct ledger_message *messages[STREAM_MAX];
	uint32_t count = take_messages(client, messages), tries[STREAM_MAX];
	bool sound;

	for (uint32_t i = 0; i < count; i++)
		tries[i] = messages[i]->tries;
	sound = count > 0 && send_messages(client, messages, count);
	for (uint32_t i = 0; i < count; i++)
		if (messages[i]->state == LEDGER_SENDING && messages[i]->tries == tries[i])
			ledger_broken(messages[i]);
	return sound;
}

/* Most end well; the others at one of the next steps. */
static void draw_session(struct client *client)
{
	client->manner = (enum manner)sim_below(MANNER_COUNT);
	client->slow = sim_below(12) == 0;
	client->drop_in = weather_is_clear() || sim_below(5) > 0
				  ? 0
				  : 1 + (uint32_t)sim_below(DROP_STEPS_MAX);
	client->finishes = sim_below(6) == 0;
	client->last = client->finished = false;
}

static void hold_session(struct client *client)
{
	uint32_t rounds = (uint32_t)sim_between(1, 6);

	if (!read_reply(client) || client->code != 220)
		return;
	if (!command(client, "EHLO client.test\r\n"))
		return;
	while (rounds-- > 0) {
		client->last = rounds == 0;
		/* Not a word behind a message that was broken off: it would be read as its end. */
		if (!work(client))
			return;
		if (sim_below(4) == 0)
			fiber_sleep(sim_below(SIM_S));
	}
	client->last = true;
	if (!client->finished && sim_below(2) == 0)
		final_command(client, "QUIT\r\n");
}

/* Wherever it has stopped: says no more, and hears for a while what is still said. */
static void linger(struct client *client)
{
	uint64_t until = sim_now() + sim_between(1, LINGER_S_MAX) * SIM_S;
	char bytes[512];

	finish(client);
	while (sim_now() < until &&
	       net_read(client->sock, bytes, sizeof(bytes), until - sim_now()) > 0)
		;
}

static void client_run(void *context)
{
	struct os_address listener;
	uint64_t pause_ms = weather_is_clear() ? 500 : 1 + weather()->life_ms / 8;
	struct client client;

	(void)context;
	os_address_parse("127.0.0.1", 25, &listener);
	fiber_sleep(sim_below(pause_ms * SIM_MS));
	while (!ledger_all_sent()) {
		draw_session(&client);
		client.sock = net_connect(NULL, &listener);
		if (client.sock) {
			hold_session(&client);
			if (sim_below(8) == 0)
				linger(&client);
			net_close(client.sock, sim_below(4) == 0);
		}
		fiber_sleep(1 + sim_below(pause_ms * SIM_MS));
	}
}

void clients_start(void)
{
	for (uint32_t i = 0; i < weather()->clients; i++) {
		char name[32];

		snprintf(name, sizeof(name), "client%u", i);
		fiber_start(name, client_run, NULL);
	}
}
