/*
 * escape - one pass: runs of plain bytes are copied, the rest goes character by character.
 */
#include "engine/log/escape.h"

#include "os/check.h"

#define ESCAPE_MAX 6 /* \u00XX */

enum byte_class {
	BYTE_PLAIN,
	BYTE_QUOTED,  /* '"' and '\': with a backslash in JSON */
	BYTE_CONTROL, /* as \u00XX */
	BYTE_HIGH,    /* 0x80 and above: part of UTF-8, or raw */
};

static const uint8_t classes[256] = {
	[0 ... 31] = BYTE_CONTROL, ['"'] = BYTE_QUOTED,	      ['\\'] = BYTE_QUOTED,
	[127] = BYTE_CONTROL,	   [128 ... 255] = BYTE_HIGH,
};

static bool is_tail(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

/* Bytes of the valid and printable UTF-8 character at the start, which is not ASCII; 0: it is
 * none (overlong, surrogate, too large, cut short, or a C1 control). */
static size_t utf8_length(const char *text, size_t len)
{
	const uint8_t *at = (const uint8_t *)text;
	uint8_t second = len > 1 ? at[1] : 0;

	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		return is_tail(second) && !(at[0] == 0xc2 && second < 0xa0) ? 2 : 0;
	if ((at[0] & 0xf0) == 0xe0) {
		uint8_t low = at[0] == 0xe0 ? 0xa0 : 0x80, high = at[0] == 0xed ? 0x9f : 0xbf;

		return len > 2 && second >= low && second <= high && is_tail(at[2]) ? 3 : 0;
	}
	if (at[0] >= 0xf0 && at[0] <= 0xf4) {
		uint8_t low = at[0] == 0xf0 ? 0x90 : 0x80, high = at[0] == 0xf4 ? 0x8f : 0xbf;

		return len > 3 && second >= low && second <= high && is_tail(at[2]) &&
				       is_tail(at[3])
			       ? 4
			       : 0;
	}
	return 0;
}

/* The first character of `text` as it shall be written; its bytes in `out`, *taken of `text`. */
static size_t character(struct span text, bool json, char out[static ESCAPE_MAX], size_t *taken)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t byte = (uint8_t)text.at[0];
	size_t whole;

	*taken = 1;
	switch ((enum byte_class)classes[byte]) {
	case BYTE_PLAIN:
		out[0] = (char)byte;
		return 1;
	case BYTE_QUOTED:
		out[0] = '\\';
		out[json ? 1 : 0] = (char)byte;
		return json ? 2 : 1;
	case BYTE_HIGH:
		whole = utf8_length(text.at, text.len);
		if (whole > 0) {
			memcpy(out, text.at, whole);
			*taken = whole;
			return whole;
		}
		break;
	case BYTE_CONTROL:
		break;
	}
	out[0] = '\\';
	out[1] = 'u';
	out[2] = out[3] = '0';
	out[4] = digits[byte >> 4];
	out[5] = digits[byte & 15];
	return ESCAPE_MAX;
}

static size_t escape(struct span text, bool json, char *out, size_t room, size_t *used_out)
{
	size_t at = 0, used = 0;

	while (at < text.len) {
		size_t plain = 0, most = text.len - at < room - used ? text.len - at : room - used;
		size_t taken, count;
		char one[ESCAPE_MAX];

		while (plain < most && classes[(uint8_t)text.at[at + plain]] == BYTE_PLAIN)
			plain++;
		memcpy(out + used, text.at + at, plain);
		at += plain;
		used += plain;
		if (at == text.len)
			break;
		count = character(span_skip(text, at), json, one, &taken);
		if (used + count > room)
			break;
		memcpy(out + used, one, count);
		at += taken;
		used += count;
	}
	assert(used <= room);
	*used_out = used;
	return at;
}

size_t log_escape(struct span text, char *out, size_t room, size_t *used_out)
{
	return escape(text, true, out, room, used_out);
}

size_t log_escape_plain(struct span text, char *out, size_t room, size_t *used_out)
{
	return escape(text, false, out, room, used_out);
}
