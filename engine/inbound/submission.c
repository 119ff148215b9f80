#include "engine/inbound/submission.h"

#include <stdio.h>

#include "os/check.h"

static void pass(struct submission *submission, struct span bytes)
{
	if (bytes.len > 0)
		submission->sink(submission->context, bytes);
}

static void pass_start(struct submission *submission)
{
	pass(submission, span_of(submission->start, submission->start_len));
	submission->start_len = 0;
}

void submission_begin(struct submission *submission, const char *date, const char *message_id,
		      void (*sink)(void *context, struct span bytes), void *context)
{
	int written;

	submission->sink = sink;
	submission->context = context;
	submission->state = SUBMISSION_START;
	submission->any = submission->dropping = false;
	submission->has_date = submission->has_message_id = false;
	submission->start_len = 0;
	written = snprintf(submission->date, sizeof(submission->date), "Date: %s\r\n", date);
	assert(written > 0 && (size_t)written < sizeof(submission->date));
	written = snprintf(submission->message_id, sizeof(submission->message_id),
			   "Message-ID: <%s>\r\n", message_id);
	assert(written > 0 && (size_t)written < sizeof(submission->message_id));
}

/* ── the end of the header ────────────────────────────────────────────────────────── */

static void add_missing(struct submission *submission)
{
	if (!submission->has_date)
		pass(submission, span_text(submission->date));
	if (!submission->has_message_id)
		pass(submission, span_text(submission->message_id));
	submission->state = SUBMISSION_OVER;
}

/* An empty line, which is in `start`. */
static void end_by_empty_line(struct submission *submission)
{
	add_missing(submission);
	pass_start(submission);
}

/* What is in `start` is no field, so the body has begun without an empty line before it. */
static void end_by_body(struct submission *submission)
{
	add_missing(submission);
	pass(submission, span_text("\r\n"));
	pass_start(submission);
}

/* ── fields ───────────────────────────────────────────────────────────────────────── */

/* The name's end is here: `start` holds it, and the colon. */
static void field_begin(struct submission *submission)
{
	struct span name = span_of(submission->start, submission->start_len - 1);

	while (name.len > 0 && (name.at[name.len - 1] == ' ' || name.at[name.len - 1] == '\t'))
		name.len--;
	submission->any = true;
	submission->has_date |= span_equal_nocase(name, span_text("Date"));
	submission->has_message_id |= span_equal_nocase(name, span_text("Message-ID"));
	submission->dropping = span_equal_nocase(name, span_text("Bcc")) ||
			       span_equal_nocase(name, span_text("Resent-Bcc")) ||
			       span_equal_nocase(name, span_text("Return-Path"));
	submission->state = SUBMISSION_FIELD;
	if (submission->dropping)
		submission->start_len = 0;
	else
		pass_start(submission);
}

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

/* More of a field of a name that is none of those that matter. */
static void field_unknown(struct submission *submission)
{
	submission->any = true;
	submission->dropping = false;
	submission->state = SUBMISSION_FIELD;
	pass_start(submission);
}

static void field_continues(struct submission *submission)
{
	submission->state = SUBMISSION_FIELD;
	if (submission->dropping)
		submission->start_len = 0;
	else
		pass_start(submission);
}

/* One octet more of a line's start. */
static void start_take(struct submission *submission, char c)
{
	size_t len = submission->start_len;
	char first = len > 0 ? submission->start[0] : c;
	bool after_blank = len > 0 && blank(submission->start[len - 1]);

	submission->start[submission->start_len++] = c;
	if (first == '\r') {
		if (c == '\n')
			end_by_empty_line(submission);
		else if (len > 0)
			end_by_body(submission);
	} else if (blank(first)) {
		if (submission->any)
			field_continues(submission);
		else
			end_by_body(submission);
	} else if (c == ':' && len > 0) {
		field_begin(submission);
	} else if (c == ':' || (!blank(c) && after_blank) || (!blank(c) && (c <= ' ' || c > '~'))) {
		end_by_body(submission);
	} else if (submission->start_len == SUBMISSION_START_MAX) {
		field_unknown(submission);
	}
}

/* Up to the end of the line; how many octets that was. */
static size_t field_take(struct submission *submission, struct span bytes)
{
	const char *end = memchr(bytes.at, '\n', bytes.len);
	size_t len = end ? (size_t)(end + 1 - bytes.at) : bytes.len;

	if (!submission->dropping)
		pass(submission, span_of(bytes.at, len));
	if (end)
		submission->state = SUBMISSION_START;
	return len;
}

void submission_feed(struct submission *submission, struct span bytes)
{
	while (bytes.len > 0) {
		switch (submission->state) {
		case SUBMISSION_START:
			start_take(submission, *bytes.at);
			bytes = span_skip(bytes, 1);
			break;
		case SUBMISSION_FIELD:
			bytes = span_skip(bytes, field_take(submission, bytes));
			break;
		case SUBMISSION_OVER:
			pass(submission, bytes);
			return;
		}
	}
}

void submission_end(struct submission *submission)
{
	if (submission->state == SUBMISSION_OVER)
		return;
	/* A last field without a line end would swallow what is added. */
	if (submission->state == SUBMISSION_FIELD && !submission->dropping)
		pass(submission, span_text("\r\n"));
	if (submission->start_len > 0)
		end_by_body(submission);
	else
		add_missing(submission);
}
