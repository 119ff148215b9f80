/*
 * ledger_log - what the daemon itself says: lines of its delivery log, and its notices.
 */
#include <stdio.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

/* Larger bodies may lie outside of the segments. */
enum { SPILLED_BYTES_LEAST = 128 << 10 };

/* Jobs get their records when they are a second old, and those are durable soon after. */
#define RECORDED_NS (10 * SIM_S)

/* ── the delivery log ─────────────────────────────────────────────────────────────── */

/* The text of `"key":"..."`; the world's own texts need no escapes. */
static bool field(const char *line, const char *key, char *out, size_t out_bytes)
{
	char pattern[32];
	const char *at, *end;

	snprintf(pattern, sizeof(pattern), "\"%s\":\"", key);
	at = strstr(line, pattern);
	if (!at)
		return false;
	at += strlen(pattern);
	end = strchr(at, '"');
	if (!end || (size_t)(end - at) >= out_bytes)
		return false;
	snprintf(out, out_bytes, "%.*s", (int)(end - at), at);
	return true;
}

static void said_delivered(const struct ledger_end *end, const char *id, const char *recipient)
{
	if (!end->copies)
		sim_finding("the log says that %s was delivered to %s, who did not get it", id,
			    recipient);
}

/* No doubtful clock may give it up, nor one that is right before its time. */
static void check_age(const struct ledger_message *message, const struct ledger_stored *stored,
		      uint32_t index)
{
	if (!ledger_may_expire(message, stored, sim_now()))
		sim_finding("%s expired for %s before its time", stored->id,
			    message->recipients[index].address);
}

static void said_failed(struct ledger_end *end, bool expired)
{
	end->said_failed++;
	end->said_failed_ns = sim_now();
	end->said_bounced |= !expired;
	end->said_failed_life = weather_life();
}

static void said_about_message(struct ledger_message *message, uint32_t index, const char *id,
			       const char *event)
{
	struct ledger_stored *stored = ledger_stored(message, id);
	struct ledger_end *end = &stored->ends[index];

	if (!stored->acknowledged && message->maybes == 0)
		sim_finding("the log has m%u as %s, but its client was refused", message->number,
			    id);
	if (strcmp(event, "delivered") == 0)
		said_delivered(end, id, message->recipients[index].address);
	else if (strcmp(event, "possible-duplicate") == 0)
		end->said_twice++;
	else if (strcmp(event, "bounced") == 0)
		said_failed(end, false);
	else if (strcmp(event, "expired") == 0) {
		check_age(message, stored, index);
		said_failed(end, true);
	}
}

static void log_line(const char *line)
{
	char event[32], id[LEDGER_ID_BYTES], recipient[96];
	struct ledger_message *message;
	struct ledger_report *report;
	uint32_t index;

	if (!field(line, "event", event, sizeof(event)) || !field(line, "id", id, sizeof(id)) ||
	    !field(line, "recipient", recipient, sizeof(recipient)))
		return;
	if (ledger_find(recipient, &message, &index)) {
		said_about_message(message, index, id, event);
		return;
	}
	report = ledger_report_by_id(id);
	if (report && strcmp(event, "possible-duplicate") == 0)
		report->end.said_twice++;
}

void ledger_log_line(const char *line, size_t bytes)
{
	static char copy[16384];

	while (bytes > 0) {
		const char *newline = memchr(line, '\n', bytes);
		size_t length = newline ? (size_t)(newline - line) : bytes;
		size_t next = newline ? length + 1 : length;

		snprintf(copy, sizeof(copy), "%.*s", (int)length, line);
		sim_trace("log: %s", copy);
		log_line(copy);
		line += next;
		bytes -= next;
	}
}

/* ── notices ──────────────────────────────────────────────────────────────────────── */

/* What recovery, the pool and the feeds say of bytes that are not as they were written; */
static const char *const damage_words[] = { "damage", "quarantine", "is missing", "explain" };
/* and the daemon of a disk or a machine that fails it. */
static const char *const failure_words[] = { "promised", "out of memory" };

static bool says(const char *line, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strstr(line, words[i]))
			return true;
	return false;
}

bool ledger_damage_told(void)
{
	return ledger_book()->damage_notices > 0;
}

/* Whose id the line has; NULL: none of the world's. */
static struct ledger_stored *find_named(const char *line)
{
	for (uint32_t i = 0; i < ledger_count(); i++)
		for (struct ledger_stored *at = ledger_message(i)->stored; at; at = at->next)
			if (strstr(line, at->id))
				return at;
	return NULL;
}

static void note_damaged(const char *line)
{
	struct ledger_stored *stored = find_named(line);

	if (!stored)
		return;
	stored->damaged = true;
	stored->envelope_lost |= strstr(line, "recipients without a record are lost") != NULL;
}

static void note_unread(const char *line)
{
	struct ledger_stored *stored;

	if (!strstr(line, "could not be read"))
		return;
	stored = find_named(line);
	if (stored)
		stored->unread = true;
	else
		ledger_book()->others_unread = true;
}

/* ── what nobody can name ─────────────────────────────────────────────────────────── */

/* It swallows those that meet it. */
static void add_gap(uint64_t file, uint64_t begin, uint64_t end)
{
	struct ledger_gap **at = &ledger_book()->gaps, *gap = arena_alloc(sizeof(*gap));

	while (*at) {
		struct ledger_gap *other = *at;

		if (other->file != file || other->begin > end || other->end < begin) {
			at = &other->next;
			continue;
		}
		begin = other->begin < begin ? other->begin : begin;
		end = other->end > end ? other->end : end;
		*at = other->next;
	}
	*gap = (struct ledger_gap){ ledger_book()->gaps, file, begin, end };
	ledger_book()->gaps = gap;
}

static void note_gap(const char *line)
{
	const char *at = strstr(line, "seg/");
	unsigned long long begin, end;
	unsigned int file;

	if (!at)
		return;
	if (sscanf(at, "seg/%8x: bytes %llu to %llu are damaged", &file, &begin, &end) == 3)
		add_gap(file, begin, end);
	else if (sscanf(at, "seg/%8x", &file) == 1 &&
		 (strstr(line, "is missing") || strstr(line, "explain")))
		add_gap(file, 0, WORLD_SEGMENT_BYTES);
}

/* How much of it lies in a segment: a large body has a file of its own. */
static uint64_t segment_bytes(const struct ledger_message *message)
{
	return message->body_bytes < SPILLED_BYTES_LEAST ? message->body_bytes : 0;
}

bool ledger_is_recorded(const struct ledger_stored *stored)
{
	const struct ledger_life *life = &ledger_book()->lives[stored->acknowledged_life];

	return stored->acknowledged && !life->disk_failed && !life->tight &&
	       !ledger_book()->journals_damaged && !ledger_book()->memory_fails &&
	       life->ended_ns > stored->acknowledged_ns + RECORDED_NS;
}

void ledger_lose(struct ledger_losses *losses, const struct ledger_message *message,
		 const struct ledger_stored *stored, uint32_t index)
{
	uint64_t bytes = segment_bytes(message);

	if (losses->last == stored)
		return;
	sim_trace("ledger: nothing is left of %s for %s", stored->id,
		  message->recipients[index].address);
	losses->last = stored;
	losses->address = message->recipients[index].address;
	losses->count++;
	losses->bytes += bytes;
	if (losses->largest_bytes < bytes)
		losses->largest_bytes = bytes;
}

/* Two messages reach into a gap from outside. */
void ledger_check_losses(const struct ledger_losses *losses, const char *what)
{
	uint64_t allowed = 0, gaps = 0;

	for (const struct ledger_gap *gap = ledger_book()->gaps; gap; gap = gap->next, gaps++)
		allowed += gap->end - gap->begin + 2 * losses->largest_bytes;
	if (losses->count == 0 || (gaps > 0 && losses->bytes <= allowed))
		return;
	sim_finding("%s for %s %s: %u such messages, and damage that was told excuses %llu bytes "
		    "of theirs, not %llu",
		    losses->last->id, losses->address, what, losses->count,
		    (unsigned long long)allowed, (unsigned long long)losses->bytes);
}

void ledger_notice(const char *line, size_t bytes)
{
	char copy[1024];
	bool is_damage;

	snprintf(copy, sizeof(copy), "%.*s", (int)bytes, line);
	sim_trace("said: %s", copy);
	if (strstr(copy, "delivery log"))
		ledger_book()->lines_lost = true;
	is_damage = says(copy, damage_words, array_count(damage_words));
	if ((is_damage || says(copy, failure_words, array_count(failure_words))) &&
	    disk_flips() + disk_failures() == 0 && !ledger_book()->reads_fail &&
	    !ledger_book()->memory_fails)
		sim_finding("the disk did nothing wrong, and the daemon says: %s", copy);
	if (strstr(copy, "are damaged") && disk_flips() == 0 && !ledger_book()->reads_fail &&
	    !ledger_book()->memory_fails)
		sim_finding("only writes failed, and the daemon says: %s", copy);
	note_unread(copy);
	if (!is_damage)
		return;
	ledger_book()->damage_notices++;
	ledger_book()->journals_damaged |= strstr(copy, "jnl/") != NULL;
	note_damaged(copy);
	note_gap(copy);
}
