/*
 * reply - see reply.h. A line that lies whole in the input is read where it is; only one that
 * the network has split is collected in `line`.
 */
#include "engine/smtp/reply.h"

#include <stdio.h>

#include "os/check.h"

void smtp_reply_reset(struct smtp_reply *reply)
{
	reply->code = reply->enhanced = 0;
	reply->codes_disagree = false;
	reply->class = SMTP_REPLY_MORE;
	reply->text_len = reply->line_len = reply->lines = 0;
	reply->text[0] = 0;
}

/* 1 to 3 digits from *at on; -1: none. */
static int number_read(const char **at, const char *end)
{
	const char *start = *at;
	int number = 0;

	while (*at < end && **at >= '0' && **at <= '9' && *at - start < 3)
		number = number * 10 + (*(*at)++ - '0');
	return *at == start ? -1 : number;
}

uint16_t smtp_enhanced_parse(struct span text)
{
	const char *at = text.at, *end = text.at + text.len;

	if (text.len < 5 || (*at != '2' && *at != '4' && *at != '5') || at[1] != '.')
		return 0;
	int class = *at - '0';

	at += 2;
	int subject = number_read(&at, end);

	if (subject < 0 || at == end || *at != '.')
		return 0;
	at++;
	int detail = number_read(&at, end);

	if (detail < 0 || (at < end && *at != ' ' && *at != '\t' && *at != '\n'))
		return 0;
	if (detail < 100)
		return subject > 19 ? 0 : (uint16_t)(class * 10000 + subject * 100 + detail);
	return subject > 7 ? 0 : (uint16_t)(class * 10000 + 2000 + subject * 1000 + detail);
}

uint16_t smtp_enhanced_subject(uint16_t enhanced)
{
	uint16_t rest = enhanced % 10000;

	return rest < 2000 ? rest / 100 : (uint16_t)((rest - 2000) / 1000);
}

uint16_t smtp_enhanced_detail(uint16_t enhanced)
{
	uint16_t rest = enhanced % 10000;

	return rest < 2000 ? rest % 100 : (uint16_t)((rest - 2000) % 1000);
}

const char *smtp_enhanced_text(uint16_t enhanced, char out[static 12])
{
	snprintf(out, 12, "%u.%u.%u", enhanced / 10000 % 10, smtp_enhanced_subject(enhanced) % 100,
		 smtp_enhanced_detail(enhanced) % 1000);
	return out;
}

/* Keeps the text of a line, as far as there is room. */
static void text_append(struct smtp_reply *reply, struct span text)
{
	size_t room = SMTP_REPLY_TEXT_MAX - reply->text_len;

	if (reply->lines > 0 && room > 0) {
		reply->text[reply->text_len++] = '\n';
		room--;
	}
	if (text.len > room)
		text.len = room;
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = (uint8_t)text.at[i];

		reply->text[reply->text_len++] =
			(char)((c < 32 && c != '\t') || c == 127 ? '?' : c);
	}
	reply->text[reply->text_len] = 0;
}

static enum smtp_reply_class class_of(uint16_t code)
{
	static const enum smtp_reply_class classes[] = {
		[2] = SMTP_REPLY_OK,
		[3] = SMTP_REPLY_GO_ON,
		[4] = SMTP_REPLY_TRANSIENT,
		[5] = SMTP_REPLY_PERMANENT,
	};

	return classes[code / 100];
}

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

/* One line without its CRLF. Its code replaces the last line's. */
static void line_take(struct smtp_reply *reply, struct span line)
{
	bool sound = line.len >= 3 && line.at[0] >= '2' && line.at[0] <= '5' && digit(line.at[1]) &&
		     digit(line.at[2]) && (line.len == 3 || line.at[3] == ' ' || line.at[3] == '-');

	if (!sound || reply->lines == SMTP_REPLY_LINES_MAX) {
		reply->class = SMTP_REPLY_MALFORMED;
		return;
	}

	uint16_t code =
		(uint16_t)((line.at[0] - '0') * 100 + (line.at[1] - '0') * 10 + (line.at[2] - '0'));
	bool last = line.len == 3 || line.at[3] == ' ';
	struct span text = line.len == 3 ? span_skip(line, 3) : span_skip(line, 4);

	if (reply->lines > 0 && code != reply->code)
		reply->codes_disagree = true;
	reply->code = code;
	if (reply->enhanced == 0)
		reply->enhanced = smtp_enhanced_parse(text);
	text_append(reply, text);
	reply->lines++;
	if (!last)
		return;
	reply->class = class_of(code);
	if (reply->enhanced / 10000 != code / 100)
		reply->enhanced = 0;
}

/* Bytes of a line whose end is not here yet. */
static void line_keep(struct smtp_reply *reply, struct span bytes)
{
	if (reply->line_len + bytes.len > SMTP_REPLY_LINE_MAX) {
		reply->class = SMTP_REPLY_MALFORMED;
		return;
	}
	memcpy(reply->line + reply->line_len, bytes.at, bytes.len);
	reply->line_len += (uint16_t)bytes.len;
}

size_t smtp_reply_feed(struct smtp_reply *reply, struct span bytes)
{
	size_t taken = 0;

	assert(reply->class == SMTP_REPLY_MORE);
	while (taken < bytes.len && reply->class == SMTP_REPLY_MORE) {
		struct span rest = span_skip(bytes, taken);
		const char *lf = memchr(rest.at, '\n', rest.len);
		struct span line = span_of(rest.at, lf ? (size_t)(lf + 1 - rest.at) : rest.len);

		taken += line.len;
		if (!lf || reply->line_len > 0 || line.len > SMTP_REPLY_LINE_MAX) {
			line_keep(reply, line);
			line = span_of(reply->line, reply->line_len);
		}
		if (!lf || reply->class != SMTP_REPLY_MORE)
			continue;
		reply->line_len = 0;
		if (line.len < 2 || line.at[line.len - 2] != '\r')
			reply->class = SMTP_REPLY_MALFORMED;
		else
			line_take(reply, span_of(line.at, line.len - 2));
	}
	return taken;
}

uint16_t smtp_reply_status(const struct smtp_reply *reply)
{
	if (reply->enhanced != 0)
		return reply->enhanced;
	switch (reply->code) {
	case 503:
		return 50501;
	case 535:
		return 50708;
	case 556:
		return 50110;
	default:
		return (uint16_t)(reply->code / 100 * 10000);
	}
}
