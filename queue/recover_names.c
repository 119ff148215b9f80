#include "queue/recover_names.h"

#include <stdlib.h>

#include "os/check.h"

/* ── domains by text ──────────────────────────────────────────────────────────────── */

static uint64_t text_hash(struct span text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.at[i]) * UINT64_C(0x100000001b3);
	return hash ^ hash >> 32;
}

static struct span name_text(const struct replay *replay, uint32_t index)
{
	const struct replay_name *name = &replay->names[index];

	return span_of(replay->arena + name->at, name->len);
}

/* The bucket of the domain, or the empty one where it belongs. */
static uint32_t *domain_bucket(const struct recover_domains *domains, const struct replay *replay,
			       struct span domain)
{
	size_t mask = domains->bucket_count - 1;

	for (size_t i = (size_t)text_hash(domain) & mask;; i = (i + 1) & mask) {
		uint32_t *at = &domains->buckets[i];

		if (*at == 0 || span_equal(name_text(replay, *at - 1), domain))
			return at;
	}
}

/* From all DEST definitions read so far: at first use, and when the table is half full. */
static bool domains_build(struct recover_domains *domains, const struct replay *replay)
{
	size_t count = 1024;

	while (count < replay->name_count * 4)
		count *= 2;
	uint32_t *buckets = calloc(count, sizeof(*buckets));

	if (!buckets)
		return false;
	free(domains->buckets);
	*domains = (struct recover_domains){ .buckets = buckets, .bucket_count = count };
	for (size_t i = 0; i < replay->name_count; i++) {
		if (replay->names[i].type != FORMAT_DEST)
			continue;
		uint32_t *at = domain_bucket(domains, replay, name_text(replay, (uint32_t)i));

		domains->used += *at == 0;
		*at = (uint32_t)i + 1;
	}
	return true;
}

void recover_domains_deinit(struct recover_domains *domains)
{
	free(domains->buckets);
	*domains = (struct recover_domains){ 0 };
}

uint32_t recover_domain_id(struct recover_domains *domains, struct replay *replay,
			   struct span domain, uint32_t *next_id)
{
	if (domains->used * 2 >= domains->bucket_count && !domains_build(domains, replay))
		return 0;
	uint32_t *at = domain_bucket(domains, replay, domain);

	if (*at == 0) {
		replay_add_name(replay, FORMAT_DEST, (*next_id)++, 0, 0, domain);
		if (replay->no_memory)
			return 0;
		*at = (uint32_t)replay->name_count;
		domains->used++;
	}
	return replay->names[*at - 1].id;
}

/* ── the names that win ───────────────────────────────────────────────────────────── */

/* Of one name the newest comes last: made by this recovery, or of the highest journal. */
static int compare_names(const void *a, const void *b)
{
	const struct replay_name *left = a, *right = b;

	if (left->type != right->type)
		return (int)left->type - (int)right->type;
	if (left->id != right->id)
		return left->id < right->id ? -1 : 1;
	return (left->at > right->at) - (left->at < right->at);
}

static bool same_name(const struct replay_name *a, const struct replay_name *b)
{
	return a->type == b->type && a->id == b->id;
}

bool recover_names_take(struct replay *replay, struct recovered *out)
{
	size_t count = replay->name_count;

	if (count == 0)
		return true;
	out->names = malloc(count * sizeof(*out->names));
	if (!out->names)
		return false;
	out->arena = replay->arena;
	replay->arena = NULL;
	qsort(replay->names, count, sizeof(*replay->names), compare_names);
	for (size_t i = 0; i < count; i++) {
		const struct replay_name *name = &replay->names[i];

		if (i + 1 < count && same_name(name, name + 1))
			continue;
		out->names[out->name_count++] = (struct recovered_name){
			.type = name->type,
			.id = name->id,
			.until_s = name->until_s,
			.journal = name->journal,
			.text = span_of(out->arena + name->at, name->len),
		};
	}
	return true;
}
