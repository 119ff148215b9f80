/*
 * ledger_log - what the daemon itself says: lines of its delivery log, and its notices.
 */
#include <stdio.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/weather.h"

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

static void said_failed(struct ledger_end *end)
{
	end->said_failed++;
	end->said_failed_ns = sim_now();
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
	else if (strcmp(event, "bounced") == 0 || strcmp(event, "expired") == 0)
		said_failed(end);
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

/* What recovery, the pool and the feeds say of bytes that are not as they were written. */
static const char *const damage_words[] = { "damage",  "quarantine", "is missing",
					    "explain", "promised",   "out of memory" };

static void name_damaged(const char *line)
{
	for (uint32_t i = 0; i < ledger_count(); i++)
		for (struct ledger_stored *at = ledger_message(i)->stored; at; at = at->next)
			at->named |= strstr(line, at->id) != NULL;
}

void ledger_notice(const char *line, size_t bytes)
{
	char copy[1024];

	snprintf(copy, sizeof(copy), "%.*s", (int)bytes, line);
	sim_trace("said: %s", copy);
	if (strstr(copy, "delivery log"))
		ledger_book()->lines_lost = true;
	for (size_t i = 0; i < array_count(damage_words); i++) {
		if (!strstr(copy, damage_words[i]))
			continue;
		if (disk_flips() + disk_failures() == 0 && !ledger_book()->reads_fail &&
		    !ledger_book()->memory_fails)
			sim_finding("the disk did nothing wrong, and the daemon says: %s", copy);
		ledger_book()->damage_notices++;
		name_damaged(copy);
		return;
	}
}
