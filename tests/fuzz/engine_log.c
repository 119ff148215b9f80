/*
 * Whatever a peer says, the escaped text is printable ASCII or valid UTF-8, fits its room, and
 * says the same whether it is taken at once or in parts.
 */
#include <jansson.h>
#include <stdlib.h>

#include "engine/log/escape.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void check_json(const char *inside, size_t used)
{
	char *line = malloc(used + 2);
	json_error_t error;
	json_t *text;

	line[0] = line[used + 1] = '"';
	memcpy(line + 1, inside, used);
	text = json_loadb(line, used + 2, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	assert(json_is_string(text));
	json_decref(text);
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	size_t room = count > 0 ? bytes[0] : 0, used, taken, all;
	struct span text = span_of(bytes, count);
	char *whole = malloc(6 * count + 1), *part = malloc(room + 1);

	taken = log_escape(text, whole, 6 * count, &all);
	assert(taken == count);
	check_json(whole, all);
	for (size_t i = 0; i < all; i++)
		assert((uint8_t)whole[i] >= ' ' && whole[i] != 0x7f);
	taken = log_escape(text, part, room, &used);
	assert(taken <= count && used <= room && memcmp(part, whole, used) == 0);
	check_json(part, used);
	log_escape_plain(text, whole, 6 * count, &all);
	for (size_t i = 0; i < all; i++)
		assert((uint8_t)whole[i] >= ' ' && whole[i] != 0x7f);
	free(whole);
	free(part);
	return 0;
}
