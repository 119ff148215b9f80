/*
 * dns - see dns.h, and os_dns_* of os/os.h.
 */
#include "tests/sim/dns.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "os/backend.h"
#include "tests/sim/arena.h"
#include "tests/sim/fiber.h"
#include "tests/sim/weather.h"

enum {
	ANSWERS_MAX = 4,
	TIMEOUT_MS_DEFAULT = 5000,
	TRIES_DEFAULT = 3,
};

struct entry {
	struct entry *next;
	char *name;
	enum os_dns_type type;
	uint32_t answer_count, now;
	struct sim_dns_answer answers[ANSWERS_MAX];
};

static struct entry **entries; /* in the arena, with all that it leads to */

/* ── the table ────────────────────────────────────────────────────────────────────── */

void sim_dns_create(void)
{
	entries = arena_alloc(sizeof(struct entry *));
}

static struct entry *entry_find(const char *name, enum os_dns_type type)
{
	for (struct entry *entry = *entries; entry != NULL; entry = entry->next)
		if (entry->type == type && strcasecmp(entry->name, name) == 0)
			return entry;
	return NULL;
}

static bool name_exists(const char *name)
{
	for (const struct entry *entry = *entries; entry != NULL; entry = entry->next)
		if (strcasecmp(entry->name, name) == 0)
			return true;
	return false;
}

static void entry_clear(struct entry *entry)
{
	for (uint32_t i = 0; i < entry->answer_count; i++)
		arena_free((void *)entry->answers[i].records,
			   entry->answers[i].record_count * sizeof(struct os_dns_record));
	entry->answer_count = 0;
	entry->now = 0;
}

void sim_dns_also(const char *name, enum os_dns_type type, const struct sim_dns_answer *answer)
{
	struct entry *entry = entry_find(name, type);
	size_t bytes = answer->record_count * sizeof(struct os_dns_record);
	struct sim_dns_answer *copy;

	if (entry == NULL) {
		entry = arena_alloc(sizeof(*entry));
		entry->name = arena_strdup(name);
		entry->type = type;
		entry->next = *entries;
		*entries = entry;
	}
	assert(entry->answer_count < ANSWERS_MAX);
	copy = &entry->answers[entry->answer_count++];
	*copy = *answer;
	copy->records = bytes > 0 ? memcpy(arena_alloc(bytes), answer->records, bytes) : NULL;
}

void sim_dns_set(const char *name, enum os_dns_type type, const struct sim_dns_answer *answer)
{
	struct entry *entry = entry_find(name, type);

	if (entry != NULL)
		entry_clear(entry);
	sim_dns_also(name, type, answer);
}

/* ── the resolver ─────────────────────────────────────────────────────────────────── */

/* Of this life. */
static struct {
	uint64_t patience_ns;
	bool started, given_up;
	struct list open; /* of struct question */
} resolver;

struct question {
	struct list link;
	struct sim_event event;
	struct os_dns_query *query; /* borrowed until it is completed */
	bool fails;
};

static void answer_copy(struct os_dns_query *query, const struct sim_dns_answer *answer)
{
	query->status = answer->status;
	query->secure = answer->secure;
	query->ttl_s = answer->ttl_s;
	query->record_count = answer->record_count;
	if (answer->record_count == 0)
		return;
	query->records = calloc(answer->record_count, sizeof(*query->records));
	assert(query->records != NULL);
	memcpy(query->records, answer->records, answer->record_count * sizeof(*query->records));
}

/* The records of an answer come in any order. */
static void answer_shuffle(struct os_dns_query *query)
{
	for (uint32_t i = query->record_count; i > 1; i--) {
		uint32_t other = (uint32_t)sim_below(i);
		struct os_dns_record record = query->records[other];

		query->records[other] = query->records[i - 1];
		query->records[i - 1] = record;
	}
}

static void answer_note(const struct sim_dns_answer *answer)
{
	if (answer->first_ns != NULL && *answer->first_ns == 0)
		*answer->first_ns = sim_now();
}

static void question_answer(struct os_dns_query *query)
{
	static const struct sim_dns_answer no_name = { .status = OS_DNS_NXDOMAIN, .ttl_s = 60 };
	static const struct sim_dns_answer no_data = { .status = OS_DNS_NODATA, .ttl_s = 60 };
	struct entry *entry = entry_find(query->name, query->type);

	if (entry == NULL) {
		answer_copy(query, name_exists(query->name) ? &no_data : &no_name);
		return;
	}
	if (sim_chance(weather()->dns_changes))
		entry->now = (uint32_t)sim_below(entry->answer_count);
	answer_note(&entry->answers[entry->now]);
	answer_copy(query, &entry->answers[entry->now]);
	answer_shuffle(query);
}

static void question_end(struct question *question)
{
	struct os_dns_query *query = question->query;

	query->status = OS_DNS_FAILED;
	query->secure = false;
	query->ttl_s = 0;
	query->record_count = 0;
	query->records = NULL;
	if (!question->fails)
		question_answer(query);
	sim_trace("dns %s %d: status %d, %u records", query->name, (int)query->type,
		  (int)query->status, query->record_count);
	list_remove(&question->link);
	free(question);
	loop_return(query->op.loop, &query->op, 0);
}

static void on_answer(struct sim_event *event)
{
	question_end(container_of(event, struct question, event));
}

int os_dns_start(const struct os_dns_options *options)
{
	uint64_t timeout_ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_MS_DEFAULT;

	assert(!resolver.started);
	list_init(&resolver.open);
	resolver.patience_ns =
		timeout_ms * (options->tries ? options->tries : TRIES_DEFAULT) * OS_NS_PER_MS;
	resolver.started = true;
	return 0;
}

int os_dns_restart(const struct os_dns_options *options)
{
	(void)options; /* the servers here have no names */
	return 0;
}

void os_dns_give_up(void)
{
	resolver.given_up = true;
	list_each(node, &resolver.open) {
		struct question *question = container_of(node, struct question, link);

		sim_cancel_event(&question->event);
		question->fails = true;
		question_end(question);
	}
}

void os_dns_stop(void)
{
	if (resolver.started)
		os_dns_give_up();
	resolver.started = resolver.given_up = false;
}

void os_dns_ask(struct os_loop *loop, struct os_dns_query *query)
{
	struct question *question = calloc(1, sizeof(*question));
	uint64_t delay_ns = 2 * sim_between(1, 2 * (uint64_t)weather()->net_us) * SIM_US;

	assert(question != NULL && resolver.started &&
	       memchr(query->name, '\0', sizeof(query->name)) != NULL);
	loop_begin(loop, &query->op, OP_DNS);
	question->query = query;
	question->event.run = on_answer;
	question->fails = resolver.given_up || sim_chance(weather()->dns_fails);
	/* Either a word from the server, or none in all the time there is. */
	if (question->fails && !resolver.given_up && sim_below(2) == 0)
		delay_ns = resolver.patience_ns;
	list_init(&question->link);
	list_push_back(&resolver.open, &question->link);
	sim_after(&question->event, delay_ns);
}

void os_dns_release(struct os_dns_query *query)
{
	free(query->records);
	query->records = NULL;
	query->record_count = 0;
}
