/*
 * peer_data - the message: DATA without its dots, BDAT by count; and when it was taken.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/ledger.h"
#include "tests/sim/peer_private.h"
#include "tests/sim/weather.h"

enum {
	TEXT_LINE_MAX = 1000, /* with CRLF: RFC 5321, 4.5.3.1.6 */
	SLOW_READ_MS = 20,
};

/* A message that was taken, while its 250 is under way. */
struct parcel {
	struct net_watch watch;
	struct peer_message message;
	struct ledger_reply *reply;
};

/* Reports are never refused for good: nobody would hear what became of the message. */
static bool is_report(const struct peer_message *message)
{
	return message->sender[0] == 0;
}

/* ── who has it ───────────────────────────────────────────────────────────────────── */

static struct ledger_reply *taken(struct peer_message *message, bool sure)
{
	struct ledger_reply *reply;

	sim_trace("taken from <%s> for %u, %zu bytes, %s", message->sender, message->count,
		  message->bytes, sure ? "and said so" : "unheard");
	reply = ledger_taken(message->sender, (const char *const *)message->recipients,
			     message->count, message->text, message->bytes, sure);
	message_reset(message);
	return reply;
}

static void on_settled(struct net_watch *watch, bool arrived)
{
	struct parcel *parcel = container_of(watch, struct parcel, watch);

	parcel->reply = taken(&parcel->message, arrived);
	if (!arrived)
		free(parcel);
}

static void on_heard(struct net_watch *watch, bool heard)
{
	struct parcel *parcel = container_of(watch, struct parcel, watch);

	if (heard) {
		ledger_heard(parcel->reply);
		ledger_concluded(parcel->reply);
	}
	free(parcel);
}

static bool take(struct peer_session *session)
{
	struct parcel *parcel = malloc(sizeof(*parcel));
	bool go_on;

	assert(parcel);
	parcel->watch = (struct net_watch){ .settled = on_settled, .heard = on_heard };
	parcel->message = session->message;
	session->message = (struct peer_message){ 0 };
	session->taken_count++;
	go_on = session_reply(session, 250, "2.0.0", "taken");
	if (go_on)
		net_watch(session->sock, &parcel->watch);
	else
		on_settled(&parcel->watch, false);
	return go_on;
}

static bool refuse(struct peer_session *session, uint16_t code)
{
	struct peer_message *message = &session->message;

	if (code >= 500)
		for (uint32_t i = 0; i < message->count; i++)
			ledger_refused(message->recipients[i]);
	message_reset(message);
	return session_reply(session, code, code < 500 ? "4.3.0" : "5.6.0",
			     "the message is not taken");
}

/* A fault between the end of the message and its reply. A peer that says nothing clear may have
 * taken it all the same. */
static bool end_badly(struct peer_session *session, enum peer_fault fault)
{
	bool whole = fault == FAULT_LATE || fault == FAULT_AFTER;
	bool go_on;

	if (whole) {
		if (fault == FAULT_LATE)
			fiber_sleep(sim_between(SIM_S, PEER_LATE_S_MAX * SIM_S));
		go_on = take(session);
		return go_on && fault == FAULT_LATE;
	}
	if (fault == FAULT_421 || sim_below(2) == 0) {
		message_reset(&session->message);
	} else {
		session->taken_count++;
		taken(&session->message, false);
	}
	return session_fault(session, fault, 250, "2.0.0", "taken");
}

/* The whole message is here. */
static bool message_end(struct peer_session *session)
{
	const struct peer_message *message = &session->message;
	uint64_t declared = message->declared_bytes;
	enum peer_fault fault;

	if (declared > 0 && declared != message->bytes && declared + 2 != message->bytes)
		session_breach(session, "SIZE is not the size of the message", "");
	if (session->peer->traits.lmtp)
		return session_lmtp_end(session);
	fault = peer_fault_draw();
	if (fault != FAULT_NONE)
		return end_badly(session, fault);
	if (!weather_is_clear() && sim_chance(weather()->drop_at_dot)) {
		taken(&session->message, false);
		session->reset = sim_below(2) == 0;
		return false;
	}
	if (!weather_is_clear() && sim_chance(weather()->peer_faults))
		return refuse(session, !is_report(message) && sim_below(4) == 0 ? 554 : 451);
	return take(session);
}

/* ── the text ─────────────────────────────────────────────────────────────────────── */

static void text_append(struct peer_message *message, const char *bytes, size_t count)
{
	if (message->size - message->bytes < count) {
		message->size = (message->bytes + count) * 2;
		message->text = realloc(message->text, message->size);
		assert(message->text);
	}
	if (count > 0)
		memcpy(message->text + message->bytes, bytes, count);
	message->bytes += count;
}

/* Lines end with CRLF, and neither of the two stands alone; no NUL; length; 8 bits if offered. */
static void text_check(const struct peer_session *session)
{
	const struct peer_message *message = &session->message;
	size_t line = 0;

	for (size_t i = 0; i < message->bytes; i++) {
		char c = message->text[i];

		if (c == '\n' && (i == 0 || message->text[i - 1] != '\r'))
			session_breach(session, "a bare LF in a message", "");
		if (c == '\r' && (i + 1 == message->bytes || message->text[i + 1] != '\n'))
			session_breach(session, "a bare CR in a message", "");
		if (c == 0)
			session_breach(session, "a NUL in a message", "");
		if ((c & 0x80) && !(session->offers & PEER_8BITMIME))
			session_breach(session, "8-bit text without 8BITMIME", "");
		if (i + 1 - line > TEXT_LINE_MAX)
			session_breach(session, "a line of a message is too long", "");
		if (c == '\n')
			line = i + 1;
	}
}

static void read_pause(const struct peer_session *session)
{
	if (session->peer->traits.reads_slowly)
		fiber_sleep(sim_below(SLOW_READ_MS * SIM_MS));
}

/* Where, within a message, the connection is dropped: SIM_NEVER if it is not. */
static uint64_t drop_draw(void)
{
	if (weather_is_clear() || !sim_chance(weather()->peer_faults))
		return SIM_NEVER;
	return sim_below(4096);
}

/* One line of DATA with its CRLF is at the front of the input: true if it was the final dot. */
static bool line_take(struct peer_session *session, struct span line)
{
	if (line.at[0] == '.') {
		if (line.len == 3)
			return true;
		if (line.at[1] != '.')
			session_breach(session, "a dot at the front of a line is not doubled", "");
		line = span_skip(line, 1);
	}
	text_append(&session->message, line.at, line.len);
	return false;
}

/* All whole lines of the input; true: the final dot was among them. */
static bool lines_take(struct peer_session *session)
{
	for (;;) {
		const char *begin = session->input + session->input_begin;
		size_t len = session->input_end - session->input_begin;
		const char *end = len > 0 ? memchr(begin, '\n', len) : NULL;

		if (!end) {
			if (len > TEXT_LINE_MAX + 1)
				session_breach(session, "a line of a message is too long", "");
			return false;
		}
		if (end == begin || end[-1] != '\r')
			session_breach(session, "a bare LF in a message", "");
		len = (size_t)(end + 1 - begin);
		session->input_begin += len;
		if (line_take(session, span_of(begin, len)))
			return true;
	}
}

bool session_data(struct peer_session *session)
{
	uint64_t drop = drop_draw();
	bool wanted = session->message.count > 0;

	while (!lines_take(session)) {
		if (session->message.bytes >= drop) {
			session->reset = sim_below(2) == 0;
			return false;
		}
		read_pause(session);
		if (!session_fill(session))
			return false;
	}
	text_check(session);
	if (wanted)
		return message_end(session);
	if (session->message.bytes > 0)
		session_breach(session, "a message for nobody", "");
	message_reset(&session->message);
	return session_say(session, 554, "5.5.1", "no valid recipients");
}

/* The octets of a chunk; false: the connection is over. */
static bool chunk_read(struct peer_session *session, uint64_t bytes)
{
	uint64_t drop = drop_draw();

	while (bytes > 0) {
		size_t there = session->input_end - session->input_begin;

		if (there > bytes)
			there = bytes;
		text_append(&session->message, session->input + session->input_begin, there);
		session->input_begin += there;
		bytes -= there;
		if (session->message.bytes >= drop) {
			session->reset = sim_below(2) == 0;
			return false;
		}
		if (bytes == 0)
			break;
		read_pause(session);
		if (!session_fill(session))
			return false;
	}
	return true;
}

bool session_bdat(struct peer_session *session, uint64_t bytes, bool last)
{
	struct peer_message *message = &session->message;
	bool lie = session->peer->traits.chunking_lie && !is_report(message);

	if (!chunk_read(session, bytes))
		return false;
	if (!(session->offers & PEER_PIPELINING) && session_more(session))
		session_breach(session, "pipelining was not offered", "behind BDAT");
	if (message->count == 0 || lie) {
		uint16_t code = lie ? 502 : 503;

		for (uint32_t i = 0; i < message->count; i++)
			ledger_refused(message->recipients[i]);
		message->bytes = 0;
		return session_reply(session, code, "5.5.1",
				     lie ? "command not implemented" : "no valid recipients");
	}
	if (!last)
		return session_say(session, 250, "2.0.0", "go on");
	text_check(session);
	return message_end(session);
}
