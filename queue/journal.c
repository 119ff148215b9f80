/* Records into chunks of journal files. */
#include "queue/journal.h"

#include <stdlib.h>
#include <string.h>

#include "queue/crc.h"

enum { JOURNAL_RETRY_MS = 1000, JOURNAL_SPARES = 2 };

struct journal_buffer {
	struct list link;
	struct os_mono since;
	struct journal_place done;
	uint64_t last; /* number of its last record */
	uint32_t used, records;
	char *bytes; /* 4096 aligned; owned */
};

static struct journal *journal_of(struct tape *tape)
{
	return container_of(tape, struct journal, tape);
}

static uint32_t journal_buffer_bytes(const struct journal *journal)
{
	uint32_t most = tape_chunk_bytes_max(&journal->tape);

	return most < JOURNAL_BUFFER_BYTES ? most : JOURNAL_BUFFER_BYTES;
}

/* ── buffers ──────────────────────────────────────────────────────────────────────── */

static struct journal_buffer *journal_buffer_create(struct journal *journal)
{
	struct journal_buffer *buffer = calloc(1, sizeof(*buffer));

	if (buffer == NULL)
		return NULL;
	list_init(&buffer->link);
	buffer->bytes = aligned_alloc(FORMAT_PAGE_BYTES, journal_buffer_bytes(journal));
	if (buffer->bytes != NULL)
		return buffer;
	free(buffer);
	return NULL;
}

/* Spare ones are there ahead, so that what is under way has a place when memory runs out. False:
 * there is no memory. */
static bool journal_stock(struct journal *journal)
{
	while (journal->spare_count < JOURNAL_SPARES) {
		struct journal_buffer *buffer = journal_buffer_create(journal);

		if (buffer == NULL)
			return false;
		list_push_back(&journal->spare, &buffer->link);
		journal->spare_count++;
	}
	return true;
}

static void journal_buffer_destroy(struct journal_buffer *buffer)
{
	if (buffer == NULL)
		return;
	free(buffer->bytes);
	free(buffer);
}

static struct journal_buffer *journal_buffer_take(struct journal *journal)
{
	struct list *node = list_pop_front(&journal->spare);
	struct journal_buffer *buffer;

	if (node != NULL) {
		buffer = container_of(node, struct journal_buffer, link);
		if (--journal->spare_count == 0)
			journal_stock(journal);
	} else {
		buffer = journal_buffer_create(journal);
	}
	/* An outcome without a place in memory can't be kept: nothing sane is left to do. That
	 * takes 4,096 of them after journal_is_short() said that no more may be begun. */
	assert(buffer != NULL);
	buffer->used = sizeof(struct format_chunk);
	buffer->records = 0;
	buffer->done = (struct journal_place){ 0 };
	return buffer;
}

static void journal_buffer_give(struct journal *journal, struct journal_buffer *buffer)
{
	if (journal->spare_count == JOURNAL_SPARES) {
		journal_buffer_destroy(buffer);
		return;
	}
	list_push_back(&journal->spare, &buffer->link);
	journal->spare_count++;
}

/* ── appending ────────────────────────────────────────────────────────────────────── */

uint64_t journal_append(struct journal *journal, const void *record, uint32_t units)
{
	uint32_t bytes = units * JOURNAL_UNIT_BYTES;
	struct journal_buffer *open = journal->open;

	assert(units >= 1 && units <= 8);
	if (open != NULL && open->used + bytes > journal_buffer_bytes(journal)) {
		list_push_back(&journal->full, &open->link);
		open = NULL;
	}
	if (open == NULL) {
		open = journal->open = journal_buffer_take(journal);
		open->since = journal->tape.loop == NULL ? os_mono_now()
							 : os_loop_mono(journal->tape.loop);
	}
	memcpy(open->bytes + open->used, record, bytes);
	open->used += bytes;
	open->records++;
	open->last = ++journal->appended;
	return open->last;
}

uint64_t journal_append_done(struct journal *journal, const struct format_job *job,
			     struct journal_place place)
{
	uint64_t number = journal_append(journal, job, 1);

	if (journal_place_before(journal->open->done, place))
		journal->open->done = place;
	return number;
}

uint32_t journal_sequence(const struct journal *journal)
{
	return journal->tape.file == NULL ? 1 : journal->tape.file->file.sequence;
}

/* ── writing ──────────────────────────────────────────────────────────────────────── */

static void journal_seal(struct tape *tape, char *chunk, uint32_t bytes, uint64_t offset)
{
	uint32_t sequence = tape->file->file.sequence;
	uint32_t at = sizeof(struct format_chunk);

	(void)offset;
	while (at < bytes) {
		struct format_define *record = (struct format_define *)(chunk + at);
		uint32_t units = record->type >= FORMAT_DEST ? record->units : 1;

		assert(units >= 1 && at + units * JOURNAL_UNIT_BYTES <= bytes);
		record->crc = crc_record(sequence, record, (size_t)units * JOURNAL_UNIT_BYTES, 0);
		at += units * JOURNAL_UNIT_BYTES;
	}
}

static void journal_opened(struct tape *tape, struct tape_file *file)
{
	journal_adopt(journal_of(tape), file, (struct journal_place){ 0 });
}

static void journal_written(struct tape *tape, enum queue_status status, uint64_t offset)
{
	struct journal *journal = journal_of(tape);
	struct journal_buffer *buffer = journal->writing;

	(void)offset;
	journal->writing = NULL;
	if (status != QUEUE_OK) {
		/* Goes first again when there is room, or never. */
		list_push_front(&journal->full, &buffer->link);
		if (status == QUEUE_SPACE) {
			journal->retry_at =
				os_mono_add_ms(os_loop_mono(tape->loop), JOURNAL_RETRY_MS);
			return;
		}
		journal->broken = true;
		journal->events->broken(journal);
		return;
	}
	struct journal_file *file = &journal->files[journal->file_count - 1];

	assert(file->tape == tape->file);
	if (journal_place_before(file->done, buffer->done))
		file->done = buffer->done;
	journal->durable = buffer->last;
	journal_buffer_give(journal, buffer);
	journal->events->durable(journal);
}

static const struct tape_events journal_tape_events = { journal_seal, journal_opened,
							journal_written };

static bool journal_open_is_due(const struct journal *journal, struct os_mono now)
{
	return journal->open != NULL &&
	       (journal->flushing ||
		now.ns >= os_mono_add_ms(journal->open->since, journal->sync_ms).ns);
}

void journal_turn(struct journal *journal, struct os_mono now)
{
	struct journal_buffer *buffer;
	struct list *node;

	journal_stock(journal);
	if (journal->broken || tape_busy(&journal->tape) || now.ns < journal->retry_at.ns)
		return;
	journal->retry_at.ns = 0;
	if (!journal_reserve_file(journal)) {
		journal->retry_at = os_mono_add_ms(now, JOURNAL_RETRY_MS);
		return;
	}
	node = list_pop_front(&journal->full);
	if (node != NULL) {
		buffer = container_of(node, struct journal_buffer, link);
	} else if (journal_open_is_due(journal, now)) {
		buffer = journal->open;
		journal->open = NULL;
	} else {
		return;
	}
	journal->writing = buffer;
	tape_write(&journal->tape, buffer->bytes, buffer->used, buffer->records);
}

struct os_mono journal_next(const struct journal *journal)
{
	if (journal->broken || tape_busy(&journal->tape))
		return (struct os_mono){ UINT64_MAX };
	if (journal->retry_at.ns != 0)
		return journal->retry_at;
	if (!list_empty(&journal->full))
		return (struct os_mono){ 0 };
	if (journal->open == NULL)
		return (struct os_mono){ UINT64_MAX };
	return journal->flushing ? (struct os_mono){ 0 }
				 : os_mono_add_ms(journal->open->since, journal->sync_ms);
}

void journal_flush(struct journal *journal, bool flush)
{
	journal->flushing = flush;
}

uint64_t journal_age_ms(const struct journal *journal, struct os_mono now)
{
	const struct journal_buffer *oldest = journal->writing;

	if (oldest == NULL && !list_empty(&journal->full))
		oldest = list_first(&journal->full, struct journal_buffer, link);
	if (oldest == NULL)
		oldest = journal->open;
	if (oldest == NULL || oldest->since.ns >= now.ns)
		return 0;
	return (now.ns - oldest->since.ns) / OS_NS_PER_MS;
}

/* ── files ────────────────────────────────────────────────────────────────────────── */

bool journal_reserve_file(struct journal *journal)
{
	uint32_t capacity = journal->file_capacity == 0 ? 16 : journal->file_capacity * 2;
	struct journal_file *grown;

	if (journal->file_count < journal->file_capacity)
		return true;
	grown = realloc(journal->files, capacity * sizeof(*grown));
	if (grown == NULL)
		return false;
	journal->files = grown;
	journal->file_capacity = capacity;
	return true;
}

bool journal_is_short(const struct journal *journal)
{
	return journal->spare_count == 0;
}

void journal_adopt(struct journal *journal, struct tape_file *tape, struct journal_place done)
{
	assert(journal->file_count < journal->file_capacity);
	assert(journal->file_count == 0 ||
	       journal->files[journal->file_count - 1].tape->file.sequence < tape->file.sequence);
	journal->files[journal->file_count++] = (struct journal_file){ tape, done };
}

struct tape_file *journal_drop_oldest(struct journal *journal)
{
	struct tape_file *tape = journal->files[0].tape;

	assert(journal->file_count > 1 && tape != journal->tape.file);
	journal->file_count--;
	memmove(journal->files, journal->files + 1, journal->file_count * sizeof(*journal->files));
	return tape;
}

bool journal_init(struct journal *journal, const struct journal_events *events, uint32_t sync_ms)
{
	journal->events = events;
	journal->sync_ms = sync_ms;
	list_init(&journal->full);
	list_init(&journal->spare);
	journal->tape.kind = FORMAT_JOURNAL;
	journal->tape.events = &journal_tape_events;
	return tape_init(&journal->tape) && journal_stock(journal);
}

void journal_start(struct journal *journal, struct os_loop *loop)
{
	tape_start(&journal->tape, loop);
}

static void journal_free_list(struct list *list)
{
	list_each(node, list) {
		list_remove(node);
		journal_buffer_destroy(container_of(node, struct journal_buffer, link));
	}
}

void journal_deinit(struct journal *journal)
{
	if (journal->events == NULL)
		return; /* never initialised */
	for (uint32_t i = 0; i < journal->file_count; i++) {
		os_file_close(journal->files[i].tape->file.fd);
		free(journal->files[i].tape);
	}
	free(journal->files);
	journal_free_list(&journal->full);
	journal_free_list(&journal->spare);
	journal_buffer_destroy(journal->open);
	journal_buffer_destroy(journal->writing);
	tape_deinit(&journal->tape);
}
