#include "engine/dkim/dkim.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/dkim/header.h"
#include "os/check.h"
#include "queue/format.h"

enum {
	/* The next relay may hold it as long as we may, and its reader may look at it later. */
	EXPIRES_AFTER_S = 7 * 86400,
	OUTCOME_BYTES = IDN_DOMAIN_BYTES + CONFIG_DKIM_KEYS_MAX * 65,
	OCTETS_MAX = 2 * DKIM_HEADER_BYTES_MAX,
};

/* What is signed with one key. */
struct task {
	const struct dkim_key *key;
	struct dkim_text field; /* "DKIM-Signature: ... b=", then all of it */
	uint8_t digest[DKIM_DIGEST_BYTES];
};

struct dkim {
	struct dkim_set *set;		  /* a reference; NULL: none */
	const struct dkim_domain *domain; /* whose keys; NULL: not known yet, or it is not signed */
	bool header_read;
	struct dkim_header header;
	struct dkim_body body;
	struct dkim_hash *hash;
	struct dkim_text names, octets; /* h= and what it stands for */
	struct task tasks[CONFIG_DKIM_KEYS_MAX];
	uint32_t task_count;
	struct dkim_text prefix;
	char outcome[OUTCOME_BYTES];
};

struct dkim *dkim_create(void)
{
	struct dkim *dkim = calloc(1, sizeof(*dkim));

	if (!dkim)
		return NULL;
	dkim_header_init(&dkim->header);
	dkim_text_init(&dkim->names, DKIM_HEADER_BYTES_MAX);
	dkim_text_init(&dkim->octets, OCTETS_MAX);
	dkim_text_init(&dkim->prefix, FORMAT_PREFIX_BYTES_MAX);
	for (uint32_t i = 0; i < CONFIG_DKIM_KEYS_MAX; i++)
		dkim_text_init(&dkim->tasks[i].field, FORMAT_PREFIX_BYTES_MAX);
	dkim->hash = dkim_hash_create();
	if (dkim->hash)
		return dkim;
	dkim_destroy(dkim);
	return NULL;
}

void dkim_destroy(struct dkim *dkim)
{
	if (!dkim)
		return;
	dkim_keys_release(dkim->set);
	dkim_header_deinit(&dkim->header);
	dkim_text_deinit(&dkim->names);
	dkim_text_deinit(&dkim->octets);
	dkim_text_deinit(&dkim->prefix);
	for (uint32_t i = 0; i < CONFIG_DKIM_KEYS_MAX; i++)
		dkim_text_deinit(&dkim->tasks[i].field);
	dkim_hash_destroy(dkim->hash);
	free(dkim);
}

void dkim_let_go(struct dkim *dkim)
{
	dkim_keys_release(dkim->set);
	dkim->set = NULL;
	dkim->domain = NULL;
}

void dkim_begin(struct dkim *dkim, struct dkim_set *set)
{
	dkim_let_go(dkim);
	dkim->set = set;
	dkim->header_read = false;
	dkim->task_count = 0;
	dkim->outcome[0] = '\0';
	dkim_header_reset(&dkim->header);
	dkim_text_reset(&dkim->names);
	dkim_text_reset(&dkim->octets);
	dkim_text_reset(&dkim->prefix);
}

/* ── as it comes in ───────────────────────────────────────────────────────────────── */

static void refuse(struct dkim *dkim, const char *why)
{
	snprintf(dkim->outcome, sizeof(dkim->outcome), "none: %s", why);
	dkim->domain = NULL;
}

static void on_body(void *context, struct span bytes)
{
	dkim_hash_add(context, bytes);
}

/* Which keys: those of the domain that have not signed it already. */
static void choose(struct dkim *dkim, const struct dkim_domain *domain)
{
	const char *why = domain ? "already signed" : "no key for the domain of From:";

	dkim->domain = domain;
	for (uint32_t i = 0; domain && i < domain->selector_count; i++) {
		const struct dkim_selector *selector = &domain->selectors[i];

		if (dkim_header_has(&dkim->header, domain->name, selector->name))
			continue;
		dkim->tasks[dkim->task_count].key = selector->key;
		dkim_text_reset(&dkim->tasks[dkim->task_count].field);
		dkim->task_count++;
	}
	if (dkim->task_count == 0)
		refuse(dkim, why);
}

static void read_header(struct dkim *dkim)
{
	const char *why = dkim_header_read(&dkim->header);

	dkim->header_read = true;
	if (why)
		refuse(dkim, why);
	else
		choose(dkim, dkim_keys_find(dkim->set, dkim->header.from));
	if (!dkim->domain)
		return;
	dkim_hash_begin(dkim->hash);
	dkim_body_init(&dkim->body, dkim->domain->body, on_body, dkim->hash);
}

void dkim_feed(struct dkim *dkim, struct span bytes)
{
	if (!dkim->header_read) {
		bytes = span_skip(bytes, dkim_header_feed(&dkim->header, bytes));
		if (!dkim->header.whole)
			return;
		read_header(dkim);
	}
	if (dkim->domain)
		dkim_body_feed(&dkim->body, bytes);
}

/* ── signing ──────────────────────────────────────────────────────────────────────── */

/* RFC 6376, 3.7: the fields, then this one without its signature and last CRLF. */
static void write_task(struct dkim *dkim, struct task *task, struct dkim_tags *tags)
{
	struct dkim_text *octets = &dkim->octets;
	size_t before = octets->len;

	tags->algorithm = dkim_key_algorithm(task->key);
	dkim_tags_write(tags, &task->field);
	dkim_canon_field(dkim->domain->header, dkim_text_span(&task->field), octets);
	dkim_hash_begin(dkim->hash);
	dkim_hash_add(dkim->hash, dkim_text_span(octets));
	dkim_hash_end(dkim->hash, task->digest);
	octets->len = before;
}

/* The selector of the task's key. */
static const char *selector_of(const struct dkim *dkim, const struct task *task)
{
	uint32_t i = 0;

	while (dkim->domain->selectors[i].key != task->key)
		i++;
	return dkim->domain->selectors[i].name;
}

enum dkim_work dkim_end(struct dkim *dkim, int64_t now_s, int64_t keep_s)
{
	uint8_t body_hash[DKIM_DIGEST_BYTES];
	enum dkim_work work = DKIM_BRIEF;

	if (!dkim->header_read)
		read_header(dkim);
	if (!dkim->domain)
		return DKIM_NOTHING;
	dkim_body_end(&dkim->body);
	dkim_hash_end(dkim->hash, body_hash);
	if (!dkim_header_select(&dkim->header, dkim->domain->header, &dkim->names, &dkim->octets)) {
		refuse(dkim, "too many header fields");
		return DKIM_NOTHING;
	}
	struct dkim_tags tags = {
		.header = dkim->domain->header,
		.body = dkim->domain->body,
		.domain = dkim->domain->name,
		.signed_s = now_s,
		.expires_s = keep_s + EXPIRES_AFTER_S,
		.names = dkim_text_span(&dkim->names),
		.body_hash = body_hash,
	};

	for (uint32_t i = 0; i < dkim->task_count; i++) {
		tags.selector = selector_of(dkim, &dkim->tasks[i]);
		write_task(dkim, &dkim->tasks[i], &tags);
		if (dkim_key_kind(dkim->tasks[i].key) == DKIM_RSA)
			work = DKIM_LONG;
	}
	return work;
}

void dkim_sign(struct dkim *dkim)
{
	size_t used;

	assert(dkim->domain);
	used = (size_t)snprintf(dkim->outcome, sizeof(dkim->outcome), "%s", dkim->domain->name);
	for (uint32_t i = 0; i < dkim->task_count; i++) {
		struct task *task = &dkim->tasks[i];
		uint8_t signature[DKIM_SIGNATURE_BYTES_MAX];
		size_t bytes = dkim_key_sign(task->key, task->digest, signature);

		if (bytes == 0 || task->field.failed || dkim->octets.failed)
			continue;
		dkim_tags_sign(span_of(signature, bytes), &task->field);
		dkim_text_add(&dkim->prefix, dkim_text_span(&task->field));
		used += (size_t)snprintf(dkim->outcome + used, sizeof(dkim->outcome) - used, " %s",
					 selector_of(dkim, task));
	}
	if (dkim->prefix.len > 0 && !dkim->prefix.failed)
		return;
	dkim_text_reset(&dkim->prefix);
	refuse(dkim, "no memory");
}

struct span dkim_prefix(const struct dkim *dkim)
{
	return dkim_text_span(&dkim->prefix);
}

const char *dkim_outcome(const struct dkim *dkim)
{
	return dkim->outcome;
}
