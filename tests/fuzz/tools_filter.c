/* What an operator types to choose jobs, and patterns against hostile addresses; and a set of ids
 * beside a slow one. */
#include "tools/filter.h"

#include <stdlib.h>

#include "tools/idset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_set(const uint8_t *data, size_t size)
{
	struct idset set = { 0 };
	uint64_t ids[64], count = 0;
	size_t different = 0;

	for (size_t at = 0; at + 8 <= size && count < array_count(ids); at += 8) {
		bool seen = false;

		memcpy(&ids[count], data + at, 8);
		for (size_t i = 0; i < count; i++)
			seen |= ids[i] == ids[count];
		different += !seen;
		assert(idset_add(&set, ids[count++]));
		assert(set.count == different);
	}
	idset_deinit(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct format_job job = { .state = FORMAT_WAITING, .reply = 450 };
	struct filter filter;
	uint64_t number;
	unsigned states;

	memcpy(text, data, size);
	text[size] = '\0';
	size_t first = strlen(text);
	struct span rest = span_of(text + (first < size ? first + 1 : size),
				   first < size ? size - first - 1 : 0);

	filter_parse_age(text, &number);
	filter_parse_size(text, &number);
	if (filter_parse_states(text, &states))
		assert(states > 0 && states < 16);
	filter_init(&filter);
	filter.sender = filter.recipient = filter.domain = filter.reply = text;
	filter_recipient(&filter, rest);
	filter_message(&filter, rest, 1, 2, 3);
	filter_job(&filter, &job, rest, (struct jobs_reply){ rest, rest }, true, 7);
	if (strcmp(text, "*") == 0)
		assert(filter_recipient(&filter, rest));
	if (rest.len == 0 && !strchr(text, '*'))
		assert(filter_recipient(&filter, span_text(text)));
	check_set(data, size);
	free(text);
	return 0;
}
