#include "tools/summary.h"

#include <stdlib.h>

#include "os/check.h"
#include "tools/idset.h"
#include "tools/print.h"

struct group {
	char *name; /* owned */
	uint64_t jobs, recipients, deferred, held;
};

/* Groups by name: open addressing, at most half full. */
struct table {
	struct group *groups; /* owned */
	size_t count, size;
	uint32_t *buckets; /* owned: 1 + index in `groups` */
	size_t bucket_count;
};

struct summary {
	struct table domains, reasons;
	bool grouped;
	struct idset messages;
	uint64_t recipients;
	bool no_memory;
};

struct summary *summary_create(bool grouped)
{
	struct summary *summary = calloc(1, sizeof(*summary));

	if (summary)
		summary->grouped = grouped;
	return summary;
}

static void table_deinit(struct table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->groups[i].name);
	free(table->groups);
	free(table->buckets);
}

void summary_destroy(struct summary *summary)
{
	if (!summary)
		return;
	table_deinit(&summary->domains);
	table_deinit(&summary->reasons);
	idset_deinit(&summary->messages);
	free(summary);
}

/* ── counting ─────────────────────────────────────────────────────────────────────── */

static uint64_t hash(const char *name)
{
	uint64_t value = UINT64_C(0xcbf29ce484222325);

	for (; *name; name++)
		value = (value ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	return value ^ value >> 32;
}

static uint32_t *bucket_of(const struct table *table, const char *name)
{
	size_t mask = table->bucket_count - 1;

	for (size_t i = (size_t)hash(name) & mask;; i = (i + 1) & mask) {
		uint32_t *at = &table->buckets[i];

		if (*at == 0 || strcmp(table->groups[*at - 1].name, name) == 0)
			return at;
	}
}

static bool table_grow(struct table *table)
{
	size_t size = table->size ? table->size * 2 : 64;
	struct group *groups = realloc(table->groups, size * sizeof(*groups));
	uint32_t *buckets = calloc(size * 2, sizeof(*buckets));

	if (groups)
		table->groups = groups;
	if (!groups || !buckets) {
		free(buckets);
		return false;
	}
	free(table->buckets);
	table->buckets = buckets;
	table->bucket_count = size * 2;
	table->size = size;
	for (size_t i = 0; i < table->count; i++)
		*bucket_of(table, table->groups[i].name) = (uint32_t)i + 1;
	return true;
}

/* NULL: no memory. */
static struct group *group_of(struct table *table, const char *name)
{
	if (table->count == table->size && !table_grow(table))
		return NULL;
	uint32_t *bucket = bucket_of(table, name);

	if (*bucket == 0) {
		char *copy = strdup(name);

		if (!copy)
			return NULL;
		table->groups[table->count++] = (struct group){ .name = copy };
		*bucket = (uint32_t)table->count;
	}
	return &table->groups[*bucket - 1];
}

static void count_in(struct summary *summary, struct table *table, const char *name,
		     const struct listing_job *job, uint64_t recipients)
{
	struct group *group = group_of(table, name);

	if (!group) {
		summary->no_memory = true;
		return;
	}
	group->jobs++;
	group->recipients += recipients;
	group->deferred += job->state == FILTER_DEFERRED ? recipients : 0;
	group->held += job->state == FILTER_HOLD ? recipients : 0;
}

/* By domain, and by what the last reply was: without the host, or each would stand alone. */
static void count_job(struct summary *summary, const struct listing_job *job, uint64_t recipients)
{
	struct listing_job bare = *job;
	char text[PRINT_REASON_BYTES];

	summary->recipients += recipients;
	if (!summary->grouped)
		return;
	snprintf(text, sizeof(text), "%.*s", SPAN_ARG(job->domain));
	count_in(summary, &summary->domains, text, job, recipients);
	bare.reply.host.len = 0;
	print_reason(&bare, text);
	count_in(summary, &summary->reasons, text[0] ? text : "not tried yet", job, recipients);
}

static void note_id(struct summary *summary, uint64_t id)
{
	summary->no_memory |= !idset_add(&summary->messages, id);
}

void summary_job(void *context, const struct listing_job *job)
{
	struct summary *summary = context;

	note_id(summary, job->job.message);
	count_job(summary, job, (uint64_t)__builtin_popcountll(job->job.pending));
}

void summary_message(void *context, const struct listing_message *message)
{
	struct summary *summary = context;
	size_t to;

	note_id(summary, message->id);
	for (size_t from = 0; from < message->recipient_count; from = to) {
		const struct listing_job *job = message->recipients[from].job;

		for (to = from; to < message->recipient_count && message->recipients[to].job == job;
		     to++)
			continue;
		count_job(summary, job, to - from);
	}
}

/* ── printing ─────────────────────────────────────────────────────────────────────── */

uint64_t summary_messages(const struct summary *summary)
{
	return summary->messages.count;
}

uint64_t summary_recipients(const struct summary *summary)
{
	return summary->recipients;
}

/* Most recipients first. */
static int compare_groups(const void *a, const void *b)
{
	const struct group *left = a, *right = b;

	if (left->recipients != right->recipients)
		return left->recipients > right->recipients ? -1 : 1;
	return strcmp(left->name, right->name);
}

/* The buckets are useless afterwards. */
static void table_sort(struct table *table)
{
	if (table->count > 0)
		qsort(table->groups, table->count, sizeof(*table->groups), compare_groups);
}

static void print_table(struct table *table, const char *title)
{
	table_sort(table);
	printf("%10s %10s %10s  %s\n", "recipients", "deferred", "held", title);
	for (size_t i = 0; i < table->count; i++) {
		const struct group *group = &table->groups[i];

		printf("%10llu %10llu %10llu  ", (unsigned long long)group->recipients,
		       (unsigned long long)group->deferred, (unsigned long long)group->held);
		print_text(stdout, span_text(group->name));
		putchar('\n');
	}
}

void summary_print(struct summary *summary)
{
	print_table(&summary->domains, "domain");
	putchar('\n');
	print_table(&summary->reasons, "reason");
	printf("\n%llu messages, %llu recipients\n", (unsigned long long)summary_messages(summary),
	       (unsigned long long)summary->recipients);
}

static void print_table_json(struct table *table, const char *by)
{
	table_sort(table);
	for (size_t i = 0; i < table->count; i++) {
		const struct group *group = &table->groups[i];
		json_t *line = json_pack(
			"{s:s, s:o, s:I, s:I, s:I, s:I}", "by", by, by,
			print_json_text(span_text(group->name)), "jobs", (json_int_t)group->jobs,
			"recipients", (json_int_t)group->recipients, "deferred",
			(json_int_t)group->deferred, "held", (json_int_t)group->held);

		print_json_line(line);
	}
}

void summary_print_json(struct summary *summary)
{
	print_table_json(&summary->domains, "domain");
	print_table_json(&summary->reasons, "reason");
}
