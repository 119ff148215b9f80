/*
 * mail_message - a message as a program hands it over, made fit for SMTP: line ends, and the
 * header fields that every message has.
 *
 *   standard input ── mail_message_read() ──► lines in CRLF ── mail_message_compose() ──► message
 *
 * Promise: the result has CRLF line ends only, one header, an empty line, the body; Bcc:,
 * Resent-Bcc: and Return-Path: are gone, and From:, Date:, Message-ID: and To: are there. What
 * was given otherwise stays as it was.
 * Non-promise: dots are not doubled, and long lines stay long.
 *
 * Thread: pure, but for reading the descriptor.
 * Source: RFC 5322, 3.6; RFC 6409, 8.
 */
#ifndef TOOLS_MAIL_MESSAGE_H
#define TOOLS_MAIL_MESSAGE_H

#include "engine/inbound/received.h"
#include "os/span.h"

/* Starts zeroed; mail_text_release() in the end. */
struct mail_text {
	char *bytes; /* owned */
	size_t len, room;
};

void mail_text_release(struct mail_text *text);
/* False: no memory. */
bool mail_text_add(struct mail_text *text, struct span bytes);

/* Until the end of `fd`, or with `dot_ends` until a line of one dot. 0; -EFBIG: longer than
 * `bytes_max`; or -errno. */
int mail_message_read(int fd, bool dot_ends, uint64_t bytes_max, struct mail_text *out);

/* What is added where it is missing. */
struct mail_identity {
	const char *address;   /* for From: */
	const char *full_name; /* may be NULL or "" */
	const char *id;	       /* for Message-ID:, with its domain */
	struct os_wall now;
};

/* Told of each field that names recipients: name for messages to people, value unfolded or not. */
struct mail_recipient_fields {
	bool (*field)(void *context, struct span name, struct span value);
	void *context;
};

/* `fields` NULL: nobody asks. False: `fields` said so, or no memory. */
bool mail_message_compose(struct span given, const struct mail_identity *identity,
			  const struct mail_recipient_fields *fields, struct mail_text *out);

#endif
