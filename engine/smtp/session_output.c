/*
 * session_output - replies, in the order of the commands.
 *
 *   out   | 250 mail | 250 rcpt | 354 |                      may be sent
 *   pending                            ticket 7      ticket 8
 *   held                               | 250 250 354 | 221 |
 *
 * While a message waits for its verdict, all later replies are held behind it. What cannot be kept
 * ends what is said: a reply to a command gives way to a 421, if that can be; a verdict takes all
 * that stands behind it along, and nobody is told what became of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/smtp/session_private.h"
#include "os/check.h"

enum {
	BUFFER_MIN = 256,
	BUFFER_KEEP = 1024, /* an empty buffer above this is given back: most sessions are idle */
	PENDING_MIN = 4,
	PENDING_KEEP = 16,
};

/* False: no memory; nothing has changed then. */
static bool buffer_reserve(struct session_buffer *buffer, size_t more)
{
	if (buffer->size - buffer->end >= more)
		return true;
	if (buffer->start > 0) {
		memmove(buffer->bytes, buffer->bytes + buffer->start, buffer->end - buffer->start);
		buffer->end -= buffer->start;
		buffer->start = 0;
	}
	size_t size = buffer->size ? buffer->size : BUFFER_MIN;

	while (size - buffer->end < more)
		size *= 2;
	if (size == buffer->size)
		return true;

	char *grown = realloc(buffer->bytes, size);

	if (!grown)
		return false;
	buffer->bytes = grown;
	buffer->size = size;
	return true;
}

static bool buffer_append(struct session_buffer *buffer, struct span bytes)
{
	if (!buffer_reserve(buffer, bytes.len))
		return false;
	memcpy(buffer->bytes + buffer->end, bytes.at, bytes.len);
	buffer->end += bytes.len;
	return true;
}

static void buffer_skip(struct session_buffer *buffer, size_t count)
{
	assert(count <= buffer->end - buffer->start);
	buffer->start += count;
	if (buffer->start < buffer->end)
		return;
	buffer->start = buffer->end = 0;
	if (buffer->size > BUFFER_KEEP) {
		free(buffer->bytes);
		*buffer = (struct session_buffer){ .bytes = NULL };
	}
}

static struct session_pending *pending_at(const struct smtp_session *session, uint32_t ticket)
{
	return &session->pending[ticket & (session->pending_size - 1)];
}

static char *put(char *to, const char *end, const char *text)
{
	size_t len = strlen(text);

	if (len > (size_t)(end - to))
		len = (size_t)(end - to);
	memcpy(to, text, len);
	return to + len;
}

/* "250 2.1.0 text" CRLF; returns its length. */
static size_t reply_write(char out[static SESSION_REPLY_MAX], uint16_t code, const char *enhanced,
			  const char *text)
{
	char *at = out;
	const char *end = out + SESSION_REPLY_MAX - 2;

	assert(code >= 200 && code <= 599);
	*at++ = (char)('0' + code / 100);
	*at++ = (char)('0' + code / 10 % 10);
	*at++ = (char)('0' + code % 10);
	*at++ = ' ';
	if (enhanced) {
		at = put(at, end, enhanced);
		at = put(at, end, " ");
	}
	at = put(at, end, text);
	for (char *c = out; c < at; c++)
		*c = (uint8_t)*c < 32 ? ' ' : *c; /* one line, whatever the host says */
	*at++ = '\r';
	*at++ = '\n';
	return (size_t)(at - out);
}

/* Where it has its place; false: no memory. */
static bool keep(struct smtp_session *session, struct span lines)
{
	if (session->pending_count == 0)
		return buffer_append(&session->out, lines);
	if (!buffer_append(&session->held, lines))
		return false;
	pending_at(session, session->ticket_first + session->pending_count - 1)->held_bytes +=
		(uint32_t)lines.len;
	return true;
}

void session_reply_raw(struct smtp_session *session, struct span lines)
{
	if (session->lost || keep(session, lines))
		return;
	session->lost = true;
	/* What the buffer has left may do for this. */
	(void)!keep(session, span_text("421 4.3.2 Out of memory, try again later\r\n"));
	session_close(session, "out of memory");
}

void session_reply(struct smtp_session *session, uint16_t code, const char *enhanced,
		   const char *text)
{
	char line[SESSION_REPLY_MAX];

	session_reply_raw(session, span_of(line, reply_write(line, code, enhanced, text)));
}

static bool pending_grow(struct smtp_session *session)
{
	uint32_t size = session->pending_size ? session->pending_size * 2 : PENDING_MIN;
	struct session_pending *ring = calloc(size, sizeof(*ring));

	if (!ring)
		return false;
	for (uint32_t i = 0; i < session->pending_count; i++) {
		uint32_t ticket = session->ticket_first + i;

		ring[ticket & (size - 1)] = *pending_at(session, ticket);
	}
	free(session->pending);
	session->pending = ring;
	session->pending_size = size;
	return true;
}

bool session_reply_later(struct smtp_session *session, uint32_t *ticket_out)
{
	if (session->pending_count == session->pending_size && !pending_grow(session))
		return false;
	*ticket_out = session->ticket_first + session->pending_count++;
	*pending_at(session, *ticket_out) = (struct session_pending){ .reply = NULL };
	return true;
}

/* Nothing is said from that verdict on. */
static void pending_cut(struct smtp_session *session, uint32_t index)
{
	uint32_t held = 0;

	for (uint32_t i = 0; i < session->pending_count; i++) {
		struct session_pending *pending = pending_at(session, session->ticket_first + i);

		if (i < index) {
			held += pending->held_bytes;
		} else {
			free(pending->reply);
			pending->reply = NULL;
		}
	}
	session->held.end = session->held.start + held;
	session->pending_count = index;
	session->lost = true;
	session_close(session, "out of memory");
}

/* The first message's verdict goes out, and what was held behind it. False: no memory. */
static bool pending_pop(struct smtp_session *session, struct span verdict)
{
	struct session_pending *first = pending_at(session, session->ticket_first);
	uint32_t held = first->held_bytes;

	if (!buffer_reserve(&session->out, verdict.len + held))
		return false;
	buffer_append(&session->out, verdict);
	free(first->reply);
	first->reply = NULL;
	session->ticket_first++;
	session->pending_count--;
	if (held > 0) {
		buffer_append(&session->out,
			      span_of(session->held.bytes + session->held.start, held));
		buffer_skip(&session->held, held);
	}
	if (session->pending_count == 0 && session->pending_size > PENDING_KEEP) {
		free(session->pending);
		session->pending = NULL;
		session->pending_size = 0;
	}
	return true;
}

/* Empty: it is not known. */
static struct span verdict_of_first(const struct smtp_session *session)
{
	const char *reply = session->pending_count > 0
				    ? pending_at(session, session->ticket_first)->reply
				    : NULL;

	return span_text(reply ? reply : "");
}

void smtp_session_answer(struct smtp_session *session, uint32_t ticket,
			 const struct smtp_answer *answer)
{
	uint32_t index = ticket - session->ticket_first;

	if (session->lost && index >= session->pending_count)
		return; /* it stood behind what was lost */
	assert(index < session->pending_count && !pending_at(session, ticket)->reply);

	char line[SESSION_REPLY_MAX];
	size_t len = reply_write(line, answer->code, answer->enhanced, answer->text);
	struct span verdict = span_of(line, len);

	if (index > 0) {
		pending_at(session, ticket)->reply = strndup(line, len);
		if (!pending_at(session, ticket)->reply)
			pending_cut(session, index);
		return;
	}
	do {
		if (!pending_pop(session, verdict)) {
			/* It may fit without what was held. */
			(void)!buffer_append(&session->out, verdict);
			pending_cut(session, 0);
		}
		verdict = verdict_of_first(session);
	} while (verdict.len > 0);
}

struct span smtp_session_output(const struct smtp_session *session)
{
	const struct session_buffer *out = &session->out;

	return span_of(out->bytes ? out->bytes + out->start : "", out->end - out->start);
}

void smtp_session_sent(struct smtp_session *session, size_t count)
{
	if (count > 0)
		buffer_skip(&session->out, count);
}

static size_t buffer_bytes(const struct session_buffer *buffer)
{
	return buffer->end - buffer->start;
}

bool session_output_full(const struct smtp_session *session)
{
	return buffer_bytes(&session->out) + buffer_bytes(&session->held) >= SESSION_OUTPUT_MAX;
}

uint32_t smtp_session_pending(const struct smtp_session *session)
{
	return session->pending_count;
}

void session_output_free(struct smtp_session *session)
{
	for (uint32_t i = 0; i < session->pending_count; i++)
		free(pending_at(session, session->ticket_first + i)->reply);
	free(session->pending);
	free(session->out.bytes);
	free(session->held.bytes);
}
