/* Domains and reply texts by number. */
#include "queue/names.h"

#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"

enum { NAMES_BUCKETS_FIRST = 256 };

static const uint8_t names_record_type[NAMES_TYPE_COUNT] = {
	[NAMES_DEST] = FORMAT_DEST, [NAMES_TEXT] = FORMAT_TEXT
};

/* ── the table ────────────────────────────────────────────────────────────────────── */

static uint32_t names_hash(struct span text)
{
	return crc_of(text.at, text.len) * UINT32_C(0x9e3779b1);
}

static uint32_t *names_bucket(const struct names_table *table, struct span text)
{
	uint32_t mask = table->bucket_count - 1;

	for (uint32_t at = names_hash(text) & mask;; at = (at + 1) & mask) {
		uint32_t id = table->buckets[at];

		if (id == 0 ||
		    span_equal(span_of(table->entries[id].text, table->entries[id].len), text))
			return &table->buckets[at];
	}
}

static void names_rebucket(struct names_table *table, uint32_t id)
{
	const struct names_entry *entry = &table->entries[id];
	uint32_t *bucket;

	if (entry->text == NULL)
		return;
	bucket = names_bucket(table, span_of(entry->text, entry->len));
	if (*bucket == 0)
		*bucket = id;
}

static bool names_rehash(struct names_table *table, uint32_t bucket_count)
{
	uint32_t *old = table->buckets;
	uint32_t *buckets = calloc(bucket_count, sizeof(*buckets));

	if (buckets == NULL)
		return false;
	table->buckets = buckets;
	table->bucket_count = bucket_count;
	for (uint32_t id = 1; id < table->count; id++)
		names_rebucket(table, id);
	free(old);
	return true;
}

static bool names_extend(struct names_table *table, uint32_t count)
{
	if (count > table->capacity) {
		uint32_t capacity = table->capacity == 0 ? 64 : table->capacity;
		struct names_entry *grown;

		while (capacity < count)
			capacity *= 2;
		grown = realloc(table->entries, capacity * sizeof(*grown));
		if (grown == NULL)
			return false;
		memset(grown + table->capacity, 0, (capacity - table->capacity) * sizeof(*grown));
		table->entries = grown;
		table->capacity = capacity;
	}
	if (count > table->count)
		table->count = count;
	return true;
}

static bool names_insert(struct names_table *table, uint32_t id, struct span text)
{
	uint32_t *bucket;
	char *copy;

	if ((table->filled + 1) * 2 > table->bucket_count &&
	    !names_rehash(table, table->bucket_count * 2))
		return false;
	if (!names_extend(table, id + 1))
		return false;
	copy = malloc(text.len + 1);
	if (copy == NULL)
		return false;
	memcpy(copy, text.at, text.len);
	copy[text.len] = '\0';
	bucket = names_bucket(table, text);
	if (*bucket == 0) { /* else recovery knows two numbers for one text: the first serves */
		*bucket = id;
		table->filled++;
	}
	table->entries[id].text = copy;
	table->entries[id].len = (uint16_t)text.len;
	return true;
}

static uint32_t names_intern(struct names *names, enum names_type type, struct span text)
{
	struct names_table *table = &names->tables[type];
	uint32_t id = *names_bucket(table, text);

	if (id != 0)
		return id;
	id = table->count;
	if (type == NAMES_TEXT && id >= NAMES_TEXTS_MAX)
		return 0;
	return names_insert(table, id, text) ? id : 0;
}

/* ── defining ─────────────────────────────────────────────────────────────────────── */

/* As many units as a definition can have. */
union names_record {
	struct format_define define;
	char bytes[8 * JOURNAL_UNIT_BYTES];
};

static void names_make_record(const struct names *names, enum names_type type, uint32_t id,
			      union names_record *out)
{
	const struct names_entry *entry = &names->tables[type].entries[id];
	size_t bytes = offsetof(struct format_define, text) + entry->len;

	*out = (union names_record){
		.define = { .type = names_record_type[type], .bytes = entry->len, .id = id }
	};
	out->define.units = (uint8_t)((bytes + JOURNAL_UNIT_BYTES - 1) / JOURNAL_UNIT_BYTES);
	memcpy(out->bytes + offsetof(struct format_define, text), entry->text, entry->len);
}

static void names_define(struct names *names, enum names_type type, uint32_t id)
{
	union names_record record;

	names_make_record(names, type, id, &record);
	/* Read before the append: it may land in a newer file than this, never in an older. */
	names->tables[type].entries[id].journal = journal_sequence(names->journal);
	journal_append(names->journal, &record, record.define.units);
}

/* What the readers of the index are shown. */
static void names_publish(struct names *names, enum names_type type, uint32_t id)
{
	union names_record record;

	names_make_record(names, type, id, &record);
	names->tables[type].entries[id].published =
		index_publish_name(names->index, &record.define);
}

void names_use(struct names *names, enum names_type type, uint32_t id)
{
	struct names_entry *entry;

	if (id == 0)
		return;
	assert(id < names->tables[type].count);
	entry = &names->tables[type].entries[id];
	entry->uses++;
	if (entry->journal == 0)
		names_define(names, type, id);
	if (!entry->published)
		names_publish(names, type, id);
}

void names_drop(struct names *names, enum names_type type, uint32_t id)
{
	if (id == 0)
		return;
	assert(names->tables[type].entries[id].uses > 0);
	names->tables[type].entries[id].uses--;
}

bool names_clean(struct names *names, uint32_t sequence, uint32_t *at, uint32_t count)
{
	uint32_t dests = names->tables[NAMES_DEST].count;
	uint32_t all = dests + names->tables[NAMES_TEXT].count;

	for (; count > 0 && *at < all; count--, (*at)++) {
		enum names_type type = *at < dests ? NAMES_DEST : NAMES_TEXT;
		uint32_t id = type == NAMES_DEST ? *at : *at - dests;
		struct names_entry *entry = &names->tables[type].entries[id];

		if (entry->text == NULL || entry->journal == 0 || entry->journal > sequence)
			continue;
		if (entry->uses > 0)
			names_define(names, type, id);
		else
			entry->journal = 0;
	}
	return *at < all;
}

/* ── masking ──────────────────────────────────────────────────────────────────────── */

static bool names_is_break(char c)
{
	return strchr(" \t\r\n<>()[]{},;\"'", c) != NULL;
}

/* "5.7.1", "550": says what went wrong, and is the same in every reply. */
static bool names_is_code(struct span word)
{
	if (word.len > 8 || (word.at[0] != '2' && word.at[0] != '4' && word.at[0] != '5'))
		return false;
	for (size_t i = 0; i < word.len; i++)
		if ((word.at[i] < '0' || word.at[i] > '9') && word.at[i] != '.')
			return false;
	return word.len == 3 || (word.len >= 5 && word.at[1] == '.');
}

/* What a word becomes; the word itself if it is the same in every reply. */
static struct span names_mask_word(struct span word)
{
	bool digit = false;

	for (size_t i = 0; i < word.len; i++) {
		if (word.at[i] == '@')
			return span_text("@");
		digit |= word.at[i] >= '0' && word.at[i] <= '9';
	}
	return digit && !names_is_code(word) ? span_text("#") : word;
}

/* Writes at most `room` bytes of the masked text; returns how many. */
static size_t names_mask(struct span text, char *out, size_t room)
{
	size_t used = 0;

	for (size_t at = 0; at < text.len && used < room;) {
		size_t end = at;
		struct span part;

		while (end < text.len && !names_is_break(text.at[end]))
			end++;
		part = end > at ? names_mask_word(span_of(text.at + at, end - at))
				: span_of(text.at + at, 1);
		at = end > at ? end : at + 1;
		if (part.len > room - used)
			part.len = room - used;
		memcpy(out + used, part.at, part.len);
		used += part.len;
	}
	return used;
}

/* ── what the stream calls ────────────────────────────────────────────────────────── */

uint32_t names_dest(struct names *names, struct span domain)
{
	assert(domain.len <= NAMES_BYTES_MAX);
	return names_intern(names, NAMES_DEST, domain);
}

static size_t names_copy(struct span text, char *out, size_t room)
{
	size_t len = text.len < room ? text.len : room;

	memcpy(out, text.at, len);
	return len;
}

uint32_t names_text(struct names *names, struct span host, struct span text, bool ours)
{
	char bytes[NAMES_BYTES_MAX];
	size_t len = host.len < 255 ? host.len : 255;

	if (host.len == 0 && text.len == 0)
		return 0;
	if (len > 0)
		memcpy(bytes, host.at, len);
	bytes[len++] = '\0';
	len += ours ? names_copy(text, bytes + len, sizeof(bytes) - len)
		    : names_mask(text, bytes + len, sizeof(bytes) - len);
	return names_intern(names, NAMES_TEXT, span_of(bytes, len));
}

void names_split(struct span name, struct span *host_out, struct span *text_out)
{
	const char *end = memchr(name.at, '\0', name.len);

	*host_out = end != NULL ? span_of(name.at, (size_t)(end - name.at)) : (struct span){ 0 };
	*text_out = end != NULL ? span_skip(name, (size_t)(end + 1 - name.at)) : name;
}

struct span names_get(const struct names *names, enum names_type type, uint32_t id)
{
	const struct names_table *table = &names->tables[type];

	assert(id > 0 && id < table->count && table->entries[id].text != NULL);
	return span_of(table->entries[id].text, table->entries[id].len);
}

bool names_restore(struct names *names, enum names_type type, uint32_t id, struct span text,
		   uint32_t journal)
{
	struct names_table *table = &names->tables[type];

	if (id == 0 || text.len > NAMES_BYTES_MAX)
		return true;
	if (id < table->count && table->entries[id].text != NULL)
		return true;
	if (!names_insert(table, id, text))
		return false;
	table->entries[id].journal = journal;
	return true;
}

bool names_has(const struct names *names, enum names_type type, uint32_t id)
{
	const struct names_table *table = &names->tables[type];

	return id != 0 && id < table->count && table->entries[id].text != NULL;
}

bool names_set_next(struct names *names, enum names_type type, uint32_t next)
{
	return names_extend(&names->tables[type], next);
}

bool names_init(struct names *names, struct journal *journal, struct index *index)
{
	names->journal = journal;
	names->index = index;
	for (uint32_t type = 0; type < NAMES_TYPE_COUNT; type++)
		if (!names_rehash(&names->tables[type], NAMES_BUCKETS_FIRST) ||
		    !names_extend(&names->tables[type], 1))
			return false;
	return true;
}

void names_deinit(struct names *names)
{
	for (uint32_t type = 0; type < NAMES_TYPE_COUNT; type++) {
		struct names_table *table = &names->tables[type];

		for (uint32_t id = 1; id < table->count; id++)
			free(table->entries[id].text);
		free(table->entries);
		free(table->buckets);
	}
}
