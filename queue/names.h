/*
 * names - the domains and reply texts of a stream, each with a number that is never reused.
 *
 * Promise: a name that a job refers to is defined in the journal before that job's record.
 * Reply texts are masked: what differs from message to message (addresses, ids, numbers) is
 * replaced, so that a million equal refusals are one name.
 * Non-promise: the text kept is not the text that the peer sent; beyond NAMES_TEXTS_MAX new
 * texts are not kept at all.
 *
 * Thread: the owner of the stream.
 * Source: DEST and TEXT in queue/format.h; README.md (R10).
 */
#ifndef QUEUE_NAMES_H
#define QUEUE_NAMES_H

#include "queue/index.h"
#include "queue/journal.h"

enum {
	NAMES_TEXTS_MAX = 65536,
	NAMES_BYTES_MAX = 8 * JOURNAL_UNIT_BYTES - offsetof(struct format_define, text),
};

enum names_type { NAMES_DEST, NAMES_TEXT, NAMES_TYPE_COUNT };

struct names_entry {
	char *text; /* owned; NULL: this number is not in use in this epoch */
	uint16_t len;
	bool published;	  /* in the index */
	uint32_t journal; /* file of its last definition, or an older one; 0: to be defined */
	uint32_t uses;	  /* jobs that refer to it */
};

struct names_table {
	struct names_entry *entries; /* owned; by number, 0 is unused */
	uint32_t count, capacity;    /* count: 1 + the highest number */
	uint32_t *buckets;	     /* owned; open addressing, 0: empty */
	uint32_t bucket_count;	     /* a power of two */
	uint32_t filled;
};

struct names {
	struct names_table tables[NAMES_TYPE_COUNT];
	struct journal *journal; /* borrowed */
	struct index *index;	 /* borrowed */
};

/* False: no memory. */
bool names_init(struct names *names, struct journal *journal, struct index *index);
void names_deinit(struct names *names);

/* The number of a domain; made if it is new. 0: no memory. */
uint32_t names_dest(struct names *names, struct span domain);
/* The number of host and reply text; 0: too many texts, or both empty. A text of `ours` is kept
 * as it is: there are few of them, and they tell the operator where to look. */
uint32_t names_text(struct names *names, struct span host, struct span text, bool ours);
/* What names_text() was given, from what it made of it: both borrow from `name`. */
void names_split(struct span name, struct span *host_out, struct span *text_out);
struct span names_get(const struct names *names, enum names_type type, uint32_t id);

/* One more, or one less, job refers to it; `id` 0 is nothing. names_use() defines the name in
 * the journal if that is needed, so the job's record has to come after it. */
void names_use(struct names *names, enum names_type type, uint32_t id);
void names_drop(struct names *names, enum names_type type, uint32_t id);

/* As recovery found it: a name (journal 0: not yet defined), and the first number never used. */
bool names_restore(struct names *names, enum names_type type, uint32_t id, struct span text,
		   uint32_t journal);
/* The number has a name. */
bool names_has(const struct names *names, enum names_type type, uint32_t id);
bool names_set_next(struct names *names, enum names_type type, uint32_t next);
/* Cleaning: appends again what is in use and defined in `sequence` or before, looking at `count`
 * entries from *at on; false when there are no more. */
bool names_clean(struct names *names, uint32_t sequence, uint32_t *at, uint32_t count);

#endif
