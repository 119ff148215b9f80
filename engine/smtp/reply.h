/*
 * reply - a server's reply, collected line by line and understood.
 *
 * Promise: bounded: at most SMTP_REPLY_LINES_MAX lines are kept and SMTP_REPLY_TEXT_MAX bytes
 * of text; what is beyond is read and dropped. The code of the last line decides; the enhanced
 * code comes from the first line with a valid one, and one whose class disagrees with the
 * code's first digit is ignored.
 *
 * Thread: pure.
 * Source: RFC 5321, 4.2; RFC 2034; RFC 3463; RFC 5248.
 */
#ifndef ENGINE_SMTP_REPLY_H
#define ENGINE_SMTP_REPLY_H

#include "os/check.h"
#include "os/span.h"

enum {
	SMTP_REPLY_TEXT_MAX = 2048,
	SMTP_REPLY_LINE_MAX = 4096, /* longer: malformed */
	SMTP_REPLY_LINES_MAX = 128, /* more: malformed */
};

enum smtp_reply_class {
	SMTP_REPLY_MORE,      /* not complete */
	SMTP_REPLY_OK,	      /* 2xx */
	SMTP_REPLY_GO_ON,     /* 3xx */
	SMTP_REPLY_TRANSIENT, /* 4xx */
	SMTP_REPLY_PERMANENT, /* 5xx */
	SMTP_REPLY_MALFORMED, /* protocol error: close */
};

struct smtp_reply {
	uint16_t code;
	uint16_t enhanced;   /* see smtp_enhanced_parse(); 0: none */
	bool codes_disagree; /* between lines: logged */
	enum smtp_reply_class class;
	uint16_t text_len;
	/* The lines without their three digits (an enhanced code stays), joined by '\n'; control
	 * characters are '?'. Terminated. */
	char text[SMTP_REPLY_TEXT_MAX + 1];
	/* private: */
	char line[SMTP_REPLY_LINE_MAX];
	uint16_t line_len, lines;
};
static_assert(SMTP_REPLY_LINE_MAX < UINT16_MAX, "line_len counts a line");

/* Cheap: the buffers are not touched. */
void smtp_reply_reset(struct smtp_reply *reply);
/* Takes bytes up to the end of one reply; returns how many; reply->class tells whether it is
 * complete. Then reset before the next. */
size_t smtp_reply_feed(struct smtp_reply *reply, struct span bytes);

/* "5.1.1"; without one, x.0.0 or what the bare code says (503 5.5.1, 535 5.7.8, 556 5.1.10). */
uint16_t smtp_reply_status(const struct smtp_reply *reply);
const char *smtp_enhanced_text(uint16_t enhanced, char out[static 12]);
/*
 * An enhanced code at the start of `text`, as class * 10000 + subject * 100 + detail; one with
 * a detail above 99 (Microsoft's 5.7.606) as class * 10000 + 2000 + subject * 1000 + detail.
 * 0: not an enhanced code, or one that no receiver has (subject above 19, or above 7 with such
 * a detail).
 */
uint16_t smtp_enhanced_parse(struct span text);
uint16_t smtp_enhanced_subject(uint16_t enhanced);
uint16_t smtp_enhanced_detail(uint16_t enhanced);

static inline struct span smtp_reply_text(const struct smtp_reply *reply)
{
	return (struct span){ reply->text, reply->text_len };
}

/* What a refusal is about; decides what the site and the queue do. */
enum smtp_reason {
	SMTP_REASON_OTHER,
	SMTP_REASON_SLOW_DOWN, /* rate or connection limits: narrow, back off */
	SMTP_REASON_GREYLISTED,
	SMTP_REASON_TOO_MANY,  /* recipients in this transaction: the rest at once in another */
	SMTP_REASON_SITE_DOWN, /* 421, system not accepting mail */
	SMTP_REASON_MAILBOX_FULL,
	SMTP_REASON_NO_MAILBOX,
	SMTP_REASON_POLICY,
};
enum smtp_reason smtp_reply_reason(const struct smtp_reply *reply);

#endif
