/*
 * reason - what a refusal is about (smtp_reply_reason).
 *
 * The words of the big receivers are asked first, since they misuse or omit the enhanced
 * codes; then the enhanced code; then the bare one.
 */
#include "engine/smtp/reply.h"
#include "os/check.h"

#define CODE(class, subject, detail) ((class) * 10000 + (subject)*100 + (detail))

static const struct phrase_rule {
	uint8_t class; /* of the reply's code; 0: any */
	const char *phrase;
	enum smtp_reason reason;
} phrases[] = {
	{ 4, "[TSS", SMTP_REASON_SLOW_DOWN }, /* Yahoo */
	{ 4, "4.7.500", SMTP_REASON_SLOW_DOWN },
	{ 4, "4.7.650", SMTP_REASON_SLOW_DOWN },
	{ 0, "greylist", SMTP_REASON_GREYLISTED },
	{ 0, "graylist", SMTP_REASON_GREYLISTED },
	{ 0, "grey-list", SMTP_REASON_GREYLISTED },
	{ 4, "too many recip", SMTP_REASON_TOO_MANY },
	{ 4, "too many conn", SMTP_REASON_SLOW_DOWN },
	{ 4, "rate limit", SMTP_REASON_SLOW_DOWN },
	{ 4, "too many messages", SMTP_REASON_SLOW_DOWN },
	{ 4, "too fast", SMTP_REASON_SLOW_DOWN },
	{ 4, "throttl", SMTP_REASON_SLOW_DOWN },
	{ 5, "mailbox unavailable", SMTP_REASON_NO_MAILBOX }, /* Microsoft's 550 5.5.0 */
	{ 5, "user unknown", SMTP_REASON_NO_MAILBOX },
	{ 5, "unknown user", SMTP_REASON_NO_MAILBOX },
	{ 5, "no such user", SMTP_REASON_NO_MAILBOX },
	{ 0, "over quota", SMTP_REASON_MAILBOX_FULL },
};

static const struct code_rule {
	uint16_t code; /* of the reply; 0: any */
	uint16_t enhanced_min, enhanced_max;
	enum smtp_reason reason;
} codes[] = {
	{ 0, CODE(4, 5, 3), CODE(4, 5, 3), SMTP_REASON_TOO_MANY },
	{ 0, CODE(4, 2, 1), CODE(4, 2, 1), SMTP_REASON_SLOW_DOWN }, /* Gmail: too fast */
	{ 0, CODE(4, 2, 2), CODE(4, 2, 2), SMTP_REASON_MAILBOX_FULL },
	{ 0, CODE(5, 2, 2), CODE(5, 2, 2), SMTP_REASON_MAILBOX_FULL },
	{ 0, CODE(4, 7, 28), CODE(4, 7, 28), SMTP_REASON_SLOW_DOWN }, /* Gmail: rates */
	{ 421, CODE(4, 7, 0), CODE(4, 7, 0), SMTP_REASON_SLOW_DOWN },
	{ 450, CODE(4, 7, 1), CODE(4, 7, 1), SMTP_REASON_GREYLISTED },
	{ 451, CODE(4, 7, 1), CODE(4, 7, 1), SMTP_REASON_GREYLISTED },
	{ 0, CODE(5, 1, 1), CODE(5, 1, 1), SMTP_REASON_NO_MAILBOX },
	{ 0, CODE(5, 1, 10), CODE(5, 1, 10), SMTP_REASON_NO_MAILBOX },
	{ 0, CODE(5, 2, 1), CODE(5, 2, 1), SMTP_REASON_NO_MAILBOX },
	{ 550, CODE(5, 4, 1), CODE(5, 4, 1), SMTP_REASON_NO_MAILBOX }, /* Microsoft */
	{ 0, CODE(4, 3, 2), CODE(4, 3, 2), SMTP_REASON_SITE_DOWN },
	{ 0, CODE(5, 3, 2), CODE(5, 3, 2), SMTP_REASON_SITE_DOWN },
	{ 0, CODE(4, 7, 0), CODE(4, 7, 99), SMTP_REASON_POLICY },
	{ 0, CODE(5, 7, 0), CODE(5, 7, 99), SMTP_REASON_POLICY },
	{ 0, CODE(4, 0, 0) + 9000, CODE(4, 0, 0) + 9999, SMTP_REASON_POLICY }, /* 4.7.100 ff. */
	{ 0, CODE(5, 0, 0) + 9000, CODE(5, 0, 0) + 9999, SMTP_REASON_POLICY },
	{ 421, 0, UINT16_MAX, SMTP_REASON_SITE_DOWN },
	{ 521, 0, UINT16_MAX, SMTP_REASON_SITE_DOWN },
	{ 556, 0, UINT16_MAX, SMTP_REASON_NO_MAILBOX },
	{ 452, 0, 0, SMTP_REASON_TOO_MANY },
	{ 452, CODE(4, 0, 0), CODE(4, 0, 0), SMTP_REASON_TOO_MANY },
	{ 552, 0, 0, SMTP_REASON_TOO_MANY }, /* RFC 5321, 4.5.3.1.10 */
	{ 552, CODE(5, 5, 3), CODE(5, 5, 3), SMTP_REASON_TOO_MANY },
};

static bool contains_nocase(struct span text, const char *phrase)
{
	for (; text.len > 0; text = span_skip(text, 1)) {
		if (span_starts_nocase(text, phrase))
			return true;
	}
	return false;
}

enum smtp_reason smtp_reply_reason(const struct smtp_reply *reply)
{
	if (reply->class != SMTP_REPLY_TRANSIENT && reply->class != SMTP_REPLY_PERMANENT)
		return SMTP_REASON_OTHER;
	for (size_t i = 0; i < array_count(phrases); i++) {
		if ((phrases[i].class == 0 || phrases[i].class == reply->code / 100) &&
		    contains_nocase(smtp_reply_text(reply), phrases[i].phrase))
			return phrases[i].reason;
	}
	for (size_t i = 0; i < array_count(codes); i++) {
		if ((codes[i].code == 0 || codes[i].code == reply->code) &&
		    reply->enhanced >= codes[i].enhanced_min &&
		    reply->enhanced <= codes[i].enhanced_max)
			return codes[i].reason;
	}
	return SMTP_REASON_OTHER;
}
