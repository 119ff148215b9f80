/*
 * escape - one pass: runs of plain bytes are copied, the rest goes character by character.
 */
#include "engine/log/escape.h"

#include "os/check.h"

#define ESCAPE_MAX 6 /* \uXXXX */

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

/* Bytes of the valid UTF-8 character at the start, which is not ASCII; 0: it is none (overlong,
 * surrogate, too large, or cut short). */
static size_t utf8_length(const char *text, size_t len)
{
	const uint8_t *at = (const uint8_t *)text;
	uint8_t second = len > 1 ? at[1] : 0;

	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		return is_tail(second) ? 2 : 0;
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

/* What that character is, if it has two or three bytes; 0: more. */
static uint32_t utf8_code(const char *text, size_t length)
{
	const uint8_t *at = (const uint8_t *)text;

	return length == 2   ? (at[0] & 0x1fu) << 6 | (at[1] & 0x3fu)
	       : length == 3 ? (at[0] & 0x0fu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3fu)
			     : 0;
}

/* What moves the cursor, ends a line for some readers, or turns the order of what stands beside
 * it: C1 controls, marks of direction, U+2028 and U+2029, U+FEFF. */
static bool is_unseen(uint32_t code)
{
	return (code >= 0x80 && code < 0xa0) || code == 0x200e || code == 0x200f ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
	       code == 0xfeff;
}

static size_t code_escape(uint32_t code, char out[static ESCAPE_MAX])
{
	static const char digits[] = "0123456789abcdef";

	out[0] = '\\';
	out[1] = 'u';
	for (int i = 0; i < 4; i++)
		out[2 + i] = digits[code >> (12 - 4 * i) & 15];
	return ESCAPE_MAX;
}

/* The first character of `text` as it shall be written; its bytes in `out`, *taken of `text`. */
static size_t character(struct span text, bool json, char out[static ESCAPE_MAX], size_t *taken)
{
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
		if (whole == 0)
			break;
		*taken = whole;
		if (is_unseen(utf8_code(text.at, whole)))
			return code_escape(utf8_code(text.at, whole), out);
		memcpy(out, text.at, whole);
		return whole;
	case BYTE_CONTROL:
		break;
	}
	return code_escape(byte, out);
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
