/*
 * submission - what a submission server does to a header, while it streams through.
 *
 *   session ──► submission_feed() ──► sink: DKIM, the queue
 *
 * Promise: adds Date: and Message-ID: at the end of the header where they are missing; drops
 * Bcc:, Resent-Bcc: and Return-Path:, folded lines included. All other octets pass as they are
 * and in their order, the body untouched. A message that begins without a header gets one.
 * However the octets are cut, the result is the same.
 * Non-promise: addresses and dates are not looked at, Resent- blocks stay whole.
 *
 * Thread: pure.
 * Source: RFC 6409, 8; RFC 5322, 3.6.3.
 */
#ifndef ENGINE_SUBMISSION_H
#define ENGINE_SUBMISSION_H

#include <stdbool.h>

#include "os/span.h"

enum { SUBMISSION_START_MAX = 32, SUBMISSION_ADDED_MAX = 384 };

enum submission_state {
	SUBMISSION_START, /* at the start of a line, or within a field's name */
	SUBMISSION_FIELD, /* in a field, up to its line end */
	SUBMISSION_OVER,  /* the header is */
};

struct submission {
	void (*sink)(void *context, struct span bytes);
	void *context;
	enum submission_state state;
	bool any;      /* a field has been there */
	bool dropping; /* the field under way */
	bool has_date, has_message_id;
	char start[SUBMISSION_START_MAX]; /* of a line, as long as it is not known what it is */
	size_t start_len;
	char date[SUBMISSION_ADDED_MAX], message_id[SUBMISSION_ADDED_MAX]; /* to be added */
};

/* Copies the texts: "Sun, 22 Nov 2026 01:04:35 +0000" and what stands between < and >. */
void submission_begin(struct submission *submission, const char *date, const char *message_id,
		      void (*sink)(void *context, struct span bytes), void *context);
void submission_feed(struct submission *submission, struct span bytes);
/* The message is whole. */
void submission_end(struct submission *submission);

#endif
