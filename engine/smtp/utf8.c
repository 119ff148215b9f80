/*
 * utf8 - see utf8.h. The second octet's range carries all the special cases.
 */
#include "engine/smtp/utf8.h"

#include "os/check.h"

static const struct utf8_form {
	uint8_t first_min, first_max, second_min, second_max, length;
} forms[] = {
	{ 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
	{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, /* no surrogates */
	{ 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
	{ 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
};

/* The length of the sequence at `at`; 0: malformed. */
static size_t sequence_length(const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < array_count(forms); i++) {
		const struct utf8_form *form = &forms[i];

		if (at[0] < form->first_min || at[0] > form->first_max)
			continue;
		if (len < form->length || at[1] < form->second_min || at[1] > form->second_max)
			return 0;
		for (size_t k = 2; k < form->length; k++) {
			if ((at[k] & 0xc0) != 0x80)
				return 0;
		}
		return form->length;
	}
	return 0;
}

bool smtp_utf8_valid(struct span text)
{
	const uint8_t *at = (const uint8_t *)text.at;

	for (size_t i = 0; i < text.len;) {
		size_t length = at[i] < 0x80 ? 1 : sequence_length(at + i, text.len - i);

		if (length == 0)
			return false;
		i += length;
	}
	return true;
}

size_t smtp_utf8_ascii(struct span text)
{
	size_t len = 0;

	for (uint64_t word; text.len - len >= sizeof(word); len += sizeof(word)) {
		memcpy(&word, text.at + len, sizeof(word));
		if (word & UINT64_C(0x8080808080808080))
			break;
	}
	while (len < text.len && (uint8_t)text.at[len] < 0x80)
		len++;
	return len;
}

size_t smtp_utf8_decode(struct span text, uint32_t *code_out)
{
	const uint8_t *at = (const uint8_t *)text.at;
	size_t length;
	uint32_t code;

	assert(text.len > 0);
	if (at[0] < 0x80) {
		*code_out = at[0];
		return 1;
	}
	length = sequence_length(at, text.len);
	if (length == 0) {
		*code_out = 0xfffd;
		return 1;
	}
	code = at[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++)
		code = code << 6 | (at[i] & 0x3f);
	*code_out = code;
	return length;
}
