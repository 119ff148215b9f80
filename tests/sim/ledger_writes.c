/*
 * ledger_writes - what the daemon writes into its spool, read on its way to the disk: where START
 * is durable, and which messages are.
 *
 * Durable is what the disk has said so of, also when it is dead: the daemon cannot know better.
 */
#include <string.h>

#include "os/check.h"
#include "queue/format.h"
#include "queue/queue.h"
#include "tests/sim/arena.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/shared.h"
#include "tests/sim/weather.h"

enum { STREAMS_MAX = 64 };

/* Of this life: the journal that a stream writes, and whether START was durable in one. */
static struct {
	uint32_t sequence;
	bool started;
} journals[STREAMS_MAX];

static bool is_in(const char *name, const char *folder)
{
	return strncmp(name, folder, strlen(folder)) == 0;
}

/* A write begins with the header of a file or of a chunk; its bytes are the daemon's, aligned. */
static const struct format_chunk *chunk_of(const void *bytes, size_t count)
{
	const struct format_chunk *chunk = bytes;

	if (count < sizeof(*chunk) || chunk->magic != FORMAT_CHUNK_MAGIC)
		return NULL;
	return chunk;
}

/* ── START ────────────────────────────────────────────────────────────────────────── */

static void note_journal(const void *bytes, size_t count)
{
	const struct format_file *header = bytes;

	if (count < sizeof(*header) || header->magic != FORMAT_FILE_MAGIC ||
	    header->kind != FORMAT_JOURNAL)
		return;
	assert(header->stream < STREAMS_MAX);
	journals[header->stream].sequence = header->sequence;
}

static bool has_start(const struct format_chunk *chunk)
{
	const char *at = (const char *)(chunk + 1), *end = (const char *)chunk + chunk->bytes;

	while (at < end) {
		const struct format_define *record = (const struct format_define *)at;
		const struct format_start *start = (const struct format_start *)at;

		if (record->type == FORMAT_START && start->epoch == chunk->epoch)
			return true;
		at += record->type >= FORMAT_DEST ? record->units * sizeof(*record)
						  : sizeof(*record);
	}
	return false;
}

static void note_start(const struct format_chunk *chunk)
{
	for (uint32_t i = 0; i < STREAMS_MAX; i++)
		if (journals[i].sequence == chunk->sequence && !journals[i].started)
			journals[i].started = has_start(chunk);
}

void ledger_check_start(void)
{
	uint32_t started = 0;

	for (uint32_t i = 0; i < STREAMS_MAX; i++)
		started += journals[i].started;
	if (started < shared_stream_count())
		sim_finding("something is delivered, and START is durable in %u journals of %u",
			    started, shared_stream_count());
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static struct ledger_written *find_written(uint64_t id)
{
	struct ledger_written *written = ledger_book()->written;

	while (written && written->id != id)
		written = written->next;
	return written;
}

static void note_message(uint64_t id, bool durable)
{
	struct ledger_written *written = find_written(id);

	if (!written) {
		written = arena_alloc(sizeof(*written));
		*written = (struct ledger_written){ .next = ledger_book()->written,
						    .id = id,
						    .life = weather_life() };
		ledger_book()->written = written;
	}
	written->durable |= durable;
}

static size_t aligned(size_t bytes)
{
	return (bytes + FORMAT_RECORD_ALIGN - 1) / FORMAT_RECORD_ALIGN * FORMAT_RECORD_ALIGN;
}

static size_t message_bytes(const struct format_message *message)
{
	size_t body_at = aligned(sizeof(*message) + message->envelope_bytes);
	const struct format_big *big = (const struct format_big *)((const char *)message + body_at);

	if (!(message->flags & FORMAT_BIG))
		return aligned(body_at + message->body_bytes);
	return aligned(body_at + sizeof(*big) + big->crc_count * sizeof(uint32_t));
}

static void note_messages(const struct format_chunk *chunk, bool durable)
{
	const char *at = (const char *)(chunk + 1);

	for (uint32_t i = 0; i < chunk->records; i++) {
		const struct format_message *message = (const struct format_message *)at;

		assert(message->magic == FORMAT_MESSAGE_MAGIC);
		note_message(message->id, durable);
		at += message_bytes(message);
	}
}

/* What an earlier life began to write may be there, and recovery makes it durable. */
void ledger_check_durable(const char *text)
{
	const struct ledger_written *written;
	uint64_t id;

	if (!queue_id_parse(span_of(text, strlen(text)), &id))
		sim_finding("'%s' is delivered, which is no id", text);
	written = find_written(id);
	if (!written)
		sim_finding("%s is delivered, and was never written", text);
	if (written->life == weather_life() && !written->durable)
		sim_finding("%s is delivered before it is durable", text);
}

/* ── the disk ─────────────────────────────────────────────────────────────────────── */

void ledger_writing(const char *name, const void *bytes, size_t count)
{
	const struct format_chunk *chunk = chunk_of(bytes, count);

	if (is_in(name, "jnl/"))
		note_journal(bytes, count);
	else if (is_in(name, "seg/") && chunk)
		note_messages(chunk, false);
}

void ledger_written(const char *name, const void *bytes, size_t count)
{
	const struct format_chunk *chunk = chunk_of(bytes, count);

	if (!chunk || count < chunk->bytes)
		return; /* cut short: it is written again elsewhere */
	if (is_in(name, "jnl/"))
		note_start(chunk);
	else if (is_in(name, "seg/"))
		note_messages(chunk, true);
}
