#include "engine/smtp/base64.h"

#include "os/check.h"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct span bytes, char *out)
{
	for (size_t i = 0; i < bytes.len; i += 3) {
		size_t have = bytes.len - i < 3 ? bytes.len - i : 3;
		uint32_t group = (uint32_t)(uint8_t)bytes.at[i] << 16;

		if (have > 1)
			group |= (uint32_t)(uint8_t)bytes.at[i + 1] << 8;
		if (have > 2)
			group |= (uint8_t)bytes.at[i + 2];
		*out++ = letters[group >> 18];
		*out++ = letters[(group >> 12) & 63];
		*out++ = have > 1 ? letters[(group >> 6) & 63] : '=';
		*out++ = have > 2 ? letters[group & 63] : '=';
	}
}

/* 0 to 63; -1: not a letter of ours. */
static int value_of(char letter)
{
	if (letter >= 'A' && letter <= 'Z')
		return letter - 'A';
	if (letter >= 'a' && letter <= 'z')
		return letter - 'a' + 26;
	if (letter >= '0' && letter <= '9')
		return letter - '0' + 52;
	return letter == '+' ? 62 : letter == '/' ? 63 : -1;
}

/* Of `digits` letters, 2 to 4; how many octets that makes, or -1. */
static int group_decode(const char *text, int digits, char *out)
{
	uint32_t group = 0;

	for (int i = 0; i < 4; i++) {
		int value = i < digits ? value_of(text[i]) : 0;

		if (value < 0)
			return -1;
		group = group << 6 | (uint32_t)value;
	}
	/* Bits that stand for nothing must be 0. */
	if ((digits == 2 && (group & 0xffff) != 0) || (digits == 3 && (group & 0xff) != 0))
		return -1;
	for (int i = 0; i < digits - 1; i++)
		out[i] = (char)(group >> (16 - 8 * i));
	return digits - 1;
}

bool base64_decode(struct span text, char *out, size_t *len_out)
{
	size_t len = 0;

	if (text.len % 4 != 0)
		return false;
	for (size_t i = 0; i < text.len; i += 4) {
		bool last = i + 4 == text.len;
		int digits = !last || text.at[i + 3] != '=' ? 4 : text.at[i + 2] != '=' ? 3 : 2;
		int count = group_decode(text.at + i, digits, out + len);

		if (count < 0)
			return false;
		len += (size_t)count;
	}
	*len_out = len;
	return true;
}
