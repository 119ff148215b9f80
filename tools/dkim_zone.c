#include "tools/dkim_zone.h"

#include <stdio.h>

#include "engine/dkim/record.h"

enum { STRING_MAX = 255, RECORD_BYTES_MAX = 4096 };

void dkim_zone_print(const char *domain, const char *selector, const struct dkim_key *key)
{
	struct dkim_text record;

	dkim_text_init(&record, RECORD_BYTES_MAX);
	dkim_record_write(key, &record);
	printf("%s._domainkey.%s. TXT", selector, domain);
	for (size_t at = 0; at < record.len; at += STRING_MAX) {
		size_t rest = record.len - at;

		printf(" \"%.*s\"", (int)(rest < STRING_MAX ? rest : STRING_MAX), record.at + at);
	}
	putchar('\n');
	dkim_text_deinit(&record);
}
