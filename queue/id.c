/*
 * Message ids as people read them: 64 bits as 13 characters of Crockford base32, the first
 * of which carries four bits.
 */
#include "queue/queue.h"

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

enum { ID_DIGITS = QUEUE_ID_TEXT_BYTES - 1 };

void queue_id_text(uint64_t id, char out[static QUEUE_ID_TEXT_BYTES])
{
	for (int i = ID_DIGITS - 1; i >= 0; i--, id >>= 5)
		out[i] = digits[id & 31];
	out[ID_DIGITS] = 0;
}

/* Any case; I and L read as 1, O as 0, as Crockford has it. -1: no digit. */
static int digit_value(char c)
{
	if (c >= 'a' && c <= 'z')
		c = (char)(c - 'a' + 'A');
	if (c == 'I' || c == 'L')
		return 1;
	if (c == 'O')
		return 0;
	const char *found = c ? strchr(digits, c) : NULL;

	return found ? (int)(found - digits) : -1;
}

bool queue_id_parse(struct span text, uint64_t *id_out)
{
	uint64_t id = 0;

	if (text.len != ID_DIGITS || digit_value(text.at[0]) > 15)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		int value = digit_value(text.at[i]);

		if (value < 0)
			return false;
		id = id << 5 | (uint64_t)value;
	}
	*id_out = id;
	return true;
}
