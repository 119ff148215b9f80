/*
 * recover_private - what recover*.c share with one another, and with the tests of the table.
 */
#ifndef QUEUE_RECOVER_PRIVATE_H
#define QUEUE_RECOVER_PRIVATE_H

#include "queue/reader.h"
#include "queue/recover.h"
#include "queue/recover_names.h"
#include "queue/replay.h"
#include "queue/scan.h"

void recover_problem(struct recovered_problems *problems, enum recovered_problem_kind kind,
		     const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ── found states of a job; each a bit, so that a row of the table may name several ── */

enum found_record {
	FOUND_NO_RECORD = 1,
	FOUND_WAITING = 2, /* the newest record: recipients are pending */
	FOUND_FINAL = 4,
};

enum found_message {
	FOUND_UNSEEN = 1, /* not scanned: before MARK, or in a COLD segment */
	FOUND_SOUND = 2,
	FOUND_BODY_DAMAGED = 4,
	FOUND_ENVELOPE_DAMAGED = 8,
	FOUND_NO_SEGMENT = 16, /* its file is not there, or ends before it */
};

enum found_journal {
	FOUND_JOURNAL_SOUND = 1,
	FOUND_JOURNAL_DAMAGED = 2, /* below its durable end, or a file is missing */
};

enum recover_decision {
	DECIDE_SETTLED,	       /* nothing is to be done */
	DECIDE_MAKE,	       /* the job in its first state */
	DECIDE_MAKE_IN_DOUBT,  /* likewise, held: it may have been delivered */
	DECIDE_MAKE_DAMAGED,   /* likewise, held: the body can't be sent */
	DECIDE_QUARANTINE,     /* recipients unknown: only the operator can help */
	DECIDE_KEEP,	       /* as recorded */
	DECIDE_KEEP_DUPLICATE, /* as recorded, but a newer record may be lost */
	DECIDE_KEEP_DAMAGED,   /* as recorded, held: it can't be sent */
};

enum recover_decision recover_decide(enum found_record record, enum found_message message,
				     enum found_journal journal);
/* What the decision adds to the job's flags. */
uint16_t recover_decision_flags(enum recover_decision decision);

/* ── one stream under recovery ────────────────────────────────────────────────────── */

struct recover_damaged {
	struct recovered_place place;
	enum found_message found;
};

struct recover_work {
	const struct recovered_spool *spool;
	const struct recover_options *options;
	struct recovered *out;
	struct replay replay;
	struct scan scan;
	struct recover_domains domains;
	struct reader *reader;
	struct format_origin *reports; /* owned: of messages past MARK */
	size_t report_count, report_size;
	size_t origin_size;		 /* of out->origins */
	struct recover_damaged *damaged; /* owned; sorted by place when all are scanned */
	size_t damaged_count, damaged_size;
	uint64_t *defined; /* owned: type << 32 | id of the names in the journals, sorted */
	size_t defined_count;
	size_t last_segment; /* where recover_find_segment() looks first */
	enum recover_status status;
};

/* The state is no longer what the journals say. */
void recover_change(struct recovered_job *job);
enum found_journal recover_journal_state(const struct recover_work *work);
/* Room in `*array` (of `size` elements) for one after `count`; false: work->status says why. */
bool recover_list_extend(struct recover_work *work, void *array, size_t count, size_t *size,
			 size_t element_bytes);

/* recover_owner.c: gives `lost`, which has lost its header, a stream. */
void recover_find_owner(struct recovered_spool *spool, struct recovered_file *lost);

/* recover_files.c; each leaves its failure in work->status. */
bool recover_collect_files(struct recover_work *work);
void recover_replay_journals(struct recover_work *work);
void recover_note_references(struct recover_work *work);
void recover_scan_segments(struct recover_work *work);
/* NULL: there is no such segment. */
struct recovered_segment *recover_find_segment(struct recover_work *work, uint32_t sequence);
void recover_raise_next(struct recovered *out, uint8_t type, uint32_t id);

/* recover_messages.c */
void recover_take_message(struct recover_work *work, uint32_t sequence,
			  const struct scan_message *message);
void recover_complete_report(struct recover_work *work, const struct format_origin *origin);

#endif
