/*
 * session_body - the octets of a message, by DATA or BDAT.
 *
 * A message that cannot be taken any more is read to its end all the same, so that its octets
 * are never taken for commands; then comes the refusal. Only so much is read for nothing.
 */
#include <stdio.h>

#include "engine/smtp/session_private.h"
#include "os/check.h"

static bool refused(const struct smtp_session *session)
{
	return session->refusal.code != 0;
}

/* From now on the body is thrown away; the host hears no more of it. */
static void body_refuse(struct smtp_session *session, const struct smtp_answer *answer)
{
	session->refusal = *answer;
	if (session->open)
		session->host->abort(session->context, answer->text);
	session->open = false;
}

static void bare_refuse(struct smtp_session *session)
{
	body_refuse(session, &(struct smtp_answer){ 550, "5.6.0", "Bare CR or LF in the message" });
}

static void oversize_refuse(struct smtp_session *session)
{
	body_refuse(session, &(struct smtp_answer){ 552, "5.3.4", "Message too big" });
}

static void refusal_say(struct smtp_session *session)
{
	struct smtp_answer answer = session->refusal;

	session->refusal.code = 0;
	session_reply(session, answer.code, answer.enhanced, answer.text);
}

/* False: too much was read for nothing; the session is closed. */
static bool body_take(struct smtp_session *session, struct span piece)
{
	uint64_t size_max = session->options.size_max;

	session->body_bytes += piece.len;
	if (size_max > 0 && session->body_bytes > size_max) {
		/* Also after a bare line end: the answer is the same however the octets came. */
		oversize_refuse(session);
		if (session->body_bytes > size_max + SESSION_OVERSIZE_MAX) {
			refusal_say(session);
			session_close(session, NULL);
			return false;
		}
	}
	if (!refused(session) && session->decoder.bare && !session->decoder.normalise &&
	    !session->binary)
		bare_refuse(session);
	if (!refused(session) && piece.len > 0)
		session->host->body(session->context, piece);
	return true;
}

/* The message is whole: its reply, or its place among the replies. */
static void message_end(struct smtp_session *session)
{
	uint32_t ticket;

	session->mode = SESSION_COMMAND;
	if (refused(session)) {
		refusal_say(session);
	} else if (!session_reply_later(session, &ticket)) {
		session_reply(session, 452, "4.3.1", "Out of memory, try again later");
	} else {
		session->errors = 0;
		session->open = false;
		session->host->end(session->context, ticket);
	}
	session_reset(session, NULL);
}

static void body_begin(struct smtp_session *session, bool dots)
{
	smtp_dot_decoder_init(&session->decoder, dots, session->options.normalise);
	session->body_bytes = 0;
}

/* Asks the host; false: the transaction is off, and the answer is *answer_out. */
static bool host_begin(struct smtp_session *session, struct smtp_answer *answer_out)
{
	struct smtp_greeting greeting = {
		.extended = session->extended,
		.name = span_text(session->hello),
	};

	*answer_out = session->host->begin(session->context, &greeting);
	if (answer_out->code == 354 || answer_out->code == 250)
		return true;
	session->open = false;
	return false;
}

void session_data_begin(struct smtp_session *session)
{
	struct smtp_answer answer;

	if (!host_begin(session, &answer)) {
		session_reply(session, answer.code, answer.enhanced, answer.text);
		session_reset(session, NULL);
		return;
	}
	body_begin(session, true);
	session->mode = SESSION_DATA;
	session_reply(session, 354, NULL, "End data with <CR><LF>.<CR><LF>");
}

size_t session_data_feed(struct smtp_session *session, struct span bytes)
{
	size_t taken = 0;

	while (taken < bytes.len && !session->paused && !session->decoder.done) {
		struct span piece;

		taken += smtp_dot_decode(&session->decoder, span_skip(bytes, taken), &piece);
		if (piece.len > 0 && !body_take(session, piece))
			return taken;
	}
	if (session->decoder.done)
		message_end(session);
	return taken;
}

/* The last octet of a chunk was read. */
static void chunk_end(struct smtp_session *session)
{
	char text[64];

	session->mode = SESSION_COMMAND;
	if (session->chunk_last && !refused(session)) {
		struct span rest = session->binary ? span_text("")
						   : smtp_dot_decoder_finish(&session->decoder);

		if (!body_take(session, rest))
			return;
	}
	if (session->chunk_last && session->stage != SESSION_START) {
		message_end(session);
		return;
	}
	if (refused(session)) {
		refusal_say(session);
		if (session->stage > SESSION_READY)
			session->stage = SESSION_BDAT_FAILED;
		return;
	}
	session->stage = SESSION_BDAT;
	snprintf(text, sizeof(text), "%llu octets received",
		 (unsigned long long)session->chunk_bytes);
	session_reply(session, 250, "2.0.0", text);
}

/* Why this chunk cannot be taken; NULL: it can. */
static const char *chunk_out_of_order(const struct smtp_session *session)
{
	switch (session->stage) {
	case SESSION_START:
		return "EHLO first";
	case SESSION_READY:
		return "MAIL first";
	case SESSION_MAIL:
		return "No valid recipients";
	case SESSION_BDAT_FAILED:
		return "An earlier chunk was refused: RSET first";
	default:
		return NULL;
	}
}

/* Not so if the client pipelined it behind a MAIL or RCPTs that we refused. */
static bool chunk_is_mistake(const struct smtp_session *session)
{
	return session->stage != SESSION_MAIL && !session->wake;
}

void session_bdat_begin(struct smtp_session *session, uint64_t size, bool last)
{
	const char *why = chunk_out_of_order(session);
	struct smtp_answer answer;

	if (why && chunk_is_mistake(session)) {
		uint32_t errors_max = session->options.errors_max;

		/* The last mistake that is borne: this chunk is not eaten any more. */
		if (errors_max > 0 && session->errors + 1 >= errors_max) {
			session_mistake(session, 503, "5.5.1", why);
			return;
		}
		session->errors++;
	}
	session->chunk_bytes = session->chunk_left = size;
	session->chunk_last = last;
	if (session->stage != SESSION_BDAT)
		body_begin(session, false);
	if (why)
		body_refuse(session, &(struct smtp_answer){ 503, "5.5.1", why });
	else if (session->stage == SESSION_RCPT && !host_begin(session, &answer))
		body_refuse(session, &answer);

	uint64_t size_max = session->options.size_max;

	if (!refused(session) && size_max > 0 &&
	    (size > size_max || session->body_bytes > size_max - size))
		oversize_refuse(session);
	if (refused(session) && size > size_max + SESSION_OVERSIZE_MAX) {
		refusal_say(session);
		session_close(session, NULL);
		return;
	}
	session->mode = SESSION_CHUNK;
	if (size == 0)
		chunk_end(session);
}

size_t session_chunk_feed(struct smtp_session *session, struct span bytes)
{
	size_t taken = 0;

	if (bytes.len > session->chunk_left)
		bytes.len = session->chunk_left;
	while (taken < bytes.len && !session->paused) {
		struct span piece = span_skip(bytes, taken);
		size_t count = piece.len;

		if (!session->binary && !refused(session))
			count = smtp_dot_decode(&session->decoder, piece, &piece);
		taken += count;
		session->chunk_left -= count;
		if (refused(session))
			continue;
		if (!body_take(session, piece))
			return taken;
	}
	if (session->chunk_left == 0)
		chunk_end(session);
	return taken;
}
