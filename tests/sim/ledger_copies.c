/*
 * ledger_copies - what peers take: messages, compared byte for byte, and reports, read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/near.h"
#include "tests/sim/net.h"
#include "tests/sim/signed.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

/* ── copies ───────────────────────────────────────────────────────────────────────── */

static void copy_add(struct ledger_end *end, bool sure, const struct ledger_reply *reply)
{
	struct ledger_copy **last = &end->copies, *copy = arena_alloc(sizeof(*copy));

	ledger_check_start();
	while (*last)
		last = &(*last)->next;
	*copy = (struct ledger_copy){
		.ns = sim_now(), .life = weather_life(), .sure = sure, .reply = reply
	};
	*last = copy;
	if (sure)
		ledger_book()->lives[weather_life()].last_sure_ns = sim_now();
	ledger_book()->deliveries++;
	ledger_book()->last_copy_ns = sim_now();
}

/* A copy after one that the daemon must know of: said at once, where the story shows it. One whose
 * 250 nobody hears may be older than that: a slow peer at last reads what was sent to it. */
static void check_earlier(const struct ledger_end *end, const char *id, const char *address)
{
	for (const struct ledger_copy *copy = end->copies; copy; copy = copy->next)
		if (copy->sure && copy->reply->heard && copy->life == weather_life())
			sim_finding("%s gets %s twice in one life of the daemon", address, id);
	if (end->failed > 0)
		sim_finding("%s gets %s, which was reported as failed", address, id);
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

/* Behind a Received: line and its folds; `text` if there is none. */
static const char *skip_received(const char *text, const char *end)
{
	static const char name[] = "Received: ";

	if ((size_t)(end - text) < sizeof(name) || memcmp(text, name, sizeof(name) - 1) != 0)
		return text;
	do {
		const char *line = memmem(text, (size_t)(end - text), "\r\n", 2);

		if (!line)
			return end;
		text = line + 2;
	} while (text < end && (*text == '\t' || *text == ' '));
	return text;
}

/* "by <host> (stafette) with ESMTP id <id>" of the topmost line. */
static void read_id(const char *text, const char *end, char id[static LEDGER_ID_BYTES])
{
	static const char words[] = " id ";
	const char *at = memmem(text, (size_t)(end - text), words, sizeof(words) - 1);

	if (!at || end - at < (ptrdiff_t)(sizeof(words) + LEDGER_ID_BYTES))
		sim_finding("a Received: line without an id");
	memcpy(id, at + sizeof(words) - 1, LEDGER_ID_BYTES - 1);
	id[LEDGER_ID_BYTES - 1] = '\0';
}

static void compare(const struct ledger_message *message, const char *rest, size_t bytes)
{
	size_t sent_bytes, at = 0;
	char *sent = ledger_text(message, &sent_bytes);

	while (at < bytes && at < sent_bytes && sent[at] == rest[at])
		at++;
	if (at < bytes || at < sent_bytes) {
		sim_trace("sent: %.*s", (int)sent_bytes, sent);
		sim_trace("taken: %.*s", (int)bytes, rest);
		sim_finding("m%u: differs from what was sent at byte %zu (%zu bytes, sent %zu)",
			    message->number, at, bytes, sent_bytes);
	}
	arena_free(sent, sent_bytes);
}

static void check_sender(const struct ledger_message *message, const char *sender)
{
	char expected[64] = "";

	if (!message->null_sender)
		snprintf(expected, sizeof(expected), "m%u@" WORLD_SENDER_DOMAIN, message->number);
	if (strcmp(expected, sender) != 0)
		sim_finding("m%u comes from <%s>", message->number, sender);
}

static struct ledger_message *find_message(const char *const *recipients, uint32_t count)
{
	struct ledger_message *first = NULL, *message;
	uint32_t index;

	for (uint32_t i = 0; i < count; i++) {
		if (!ledger_find(recipients[i], &message, &index))
			sim_finding("a message for <%s>, whom nobody sent to", recipients[i]);
		if (first && message != first)
			sim_finding("<%s> and <%s> in one transaction", recipients[0],
				    recipients[i]);
		first = message;
	}
	return first;
}

static void take_message(const char *sender, const char *const *recipients, uint32_t count,
			 const char *text, size_t bytes, bool sure,
			 const struct ledger_reply *reply)
{
	struct ledger_message *message = find_message(recipients, count);
	const char *end = text + bytes, *rest = skip_received(text, end);
	struct ledger_stored *stored;
	char id[LEDGER_ID_BYTES];

	read_id(text, rest, id);
	ledger_check_durable(id);
	check_sender(message, sender);
	compare(message, rest, (size_t)(end - rest));
	stored = ledger_stored(message, id);
	if (!stored->acknowledged && message->maybes == 0)
		sim_finding("m%u is delivered as %s, but its client was refused or has not sent it",
			    message->number, id);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t index;

		ledger_find(recipients[i], &message, &index);
		if (sure)
			check_earlier(&stored->ends[index], id, recipients[i]);
		copy_add(&stored->ends[index], sure, reply);
		message->recipients[index].deliveries++;
	}
}

/* ── reports ──────────────────────────────────────────────────────────────────────── */

struct ledger_report *ledger_report_by_id(const char *id)
{
	struct ledger_report *report = ledger_book()->reports;

	while (report && strcmp(report->id, id) != 0)
		report = report->next;
	return report;
}

static void copy_id(const char *text, const char *words, const char *what,
		    char id[static LEDGER_ID_BYTES])
{
	const char *at = strstr(text, words);

	if (!at || strlen(at) < strlen(words) + LEDGER_ID_BYTES)
		sim_finding("a report without %s", what);
	memcpy(id, at + strlen(words), LEDGER_ID_BYTES - 1);
	id[LEDGER_ID_BYTES - 1] = '\0';
}

static void count_failed(const struct ledger_message *message, const struct ledger_stored *stored,
			 uint32_t index)
{
	struct ledger_end *end = &stored->ends[index];

	if (!ledger_wants_report(message, index))
		sim_finding("m%u: an unwanted report about %s", message->number,
			    message->recipients[index].address);
	for (const struct ledger_copy *copy = end->copies; copy; copy = copy->next)
		if (!ledger_copy_excused(copy))
			sim_finding("%s got %s, and a report says that it failed",
				    message->recipients[index].address, stored->id);
	if (++end->failed > 1)
		sim_finding("a second report says that %s failed for %s", stored->id,
			    message->recipients[index].address);
	end->failed_ns = sim_now();
}

/* `delivered`: in a mailbox; else handed on. */
static void count_success(const struct ledger_message *message, const struct ledger_stored *stored,
			  uint32_t index, bool delivered)
{
	struct ledger_end *end = &stored->ends[index];
	uint16_t domain = message->recipients[index].domain;

	if (delivered != (world_plan()->domains[domain].kind == WORLD_LMTP))
		sim_finding("m%u: a report of the wrong kind of success for %s", message->number,
			    message->recipients[index].address);
	if (message->recipients[index].notify != LEDGER_NOTIFY_ALL || !end->copies)
		sim_finding("m%u: a report of success that nobody asked for, or of none",
			    message->number);
	if (++end->relayed > 1)
		sim_finding("a second report says that %s has reached %s", stored->id,
			    message->recipients[index].address);
}

static void count_delayed(const struct ledger_message *message, const struct ledger_stored *stored,
			  uint32_t index)
{
	uint8_t notify = message->recipients[index].notify;

	if (notify != LEDGER_NOTIFY_ALL && notify != LEDGER_NOTIFY_DEFAULT)
		sim_finding("m%u: an unwanted warning", message->number);
	if (++stored->ends[index].delayed > 1)
		sim_finding("a second warning that %s waits for %s", stored->id,
			    message->recipients[index].address);
}

/* One block of the delivery-status: from Final-Recipient: to Action:. */
static void read_block(struct ledger_message *about, const struct ledger_stored *stored,
		       const char *at)
{
	static const char action[] = "\r\nAction: ";
	const char *end = strstr(at, "\r\n"), *does = strstr(at, action);
	struct ledger_message *message;
	char address[96];
	uint32_t index;

	snprintf(address, sizeof(address), "%.*s", (int)(end - at), at);
	if (!does || !ledger_find(address, &message, &index) || message != about)
		sim_finding("m%u: a report names <%s>", about->number, address);
	does += sizeof(action) - 1;
	sim_trace("ledger: report about %s for %s: %.7s", stored->id, address, does);
	if (strncmp(does, "failed\r", 7) == 0)
		count_failed(message, stored, index);
	else if (strncmp(does, "relayed", 7) == 0)
		count_success(message, stored, index, false);
	else if (strncmp(does, "deliver", 7) == 0)
		count_success(message, stored, index, true);
	else if (strncmp(does, "delayed", 7) == 0)
		count_delayed(message, stored, index);
	else
		sim_finding("m%u: a report with the action %.10s", about->number, does);
}

static void read_report(struct ledger_message *about, const char *text)
{
	static const char final[] = "\r\nFinal-Recipient: rfc822; ";
	char original[LEDGER_ID_BYTES];
	const struct ledger_stored *stored;
	uint32_t blocks = 0;

	copy_id(text, "give your mail administrator this number: ", "the original's id", original);
	stored = ledger_stored(about, original);
	if (!stored->acknowledged && about->maybes == 0)
		sim_finding("m%u: a report about %s, which was not accepted", about->number,
			    original);
	for (const char *at = text; (at = strstr(at, final)); blocks++) {
		at += sizeof(final) - 1;
		read_block(about, stored, at);
	}
	if (blocks == 0)
		sim_finding("m%u: a report about nobody", about->number);
}

/* "m17@sender.test", to whom reports go. */
static struct ledger_message *addressee(const char *address)
{
	uint32_t number;
	char domain[WORLD_NAME_BYTES];

	if (sscanf(address, "m%u@%31s", &number, domain) != 2 ||
	    strcmp(domain, WORLD_SENDER_DOMAIN) != 0 || number >= ledger_count())
		sim_finding("a report for <%s>, who sent nothing", address);
	if (ledger_message(number)->null_sender)
		sim_finding("a report about m%u, which has no sender", number);
	return ledger_message(number);
}

static void take_report(const char *sender, const char *to, const char *text, size_t bytes,
			bool sure, const struct ledger_reply *reply)
{
	struct ledger_message *about = addressee(to);
	struct ledger_report *report;
	char *copy = arena_alloc(bytes + 1), id[LEDGER_ID_BYTES];

	memcpy(copy, text, bytes);
	copy[bytes] = '\0';
	if (sender[0] != '\0' || !strstr(copy, "\r\nAuto-Submitted: auto-replied\r\n"))
		sim_finding("m%u: a report from <%s>, or not marked as one", about->number, sender);
	copy_id(copy, "\r\nMessage-ID: <", "an id", id);
	ledger_check_durable(id);
	report = ledger_report_by_id(id);
	if (!report) {
		report = arena_alloc(sizeof(*report));
		snprintf(report->id, sizeof(report->id), "%s", id);
		report->number = about->number;
		report->next = ledger_book()->reports;
		ledger_book()->reports = report;
		read_report(about, copy);
	}
	arena_free(copy, bytes + 1);
	near_happens(NEAR_REPORT);
	if (report->number != about->number)
		sim_finding("the report %s goes to m%u and m%u", id, about->number, report->number);
	if (sure)
		check_earlier(&report->end, id, to);
	copy_add(&report->end, sure, reply);
}

/* ── the peers ────────────────────────────────────────────────────────────────────── */

void ledger_heard(struct ledger_reply *reply)
{
	reply->heard = true;
}

void ledger_concluded(struct ledger_reply *reply)
{
	reply->concluded_ns = sim_now();
}

struct ledger_reply *ledger_taken(const char *sender, const char *const *recipients, uint32_t count,
				  const char *text, size_t bytes, bool sure)
{
	struct ledger_reply *reply = arena_alloc(sizeof(*reply));
	const char *rest;

	assert(count > 0);
	sim_trace("ledger: taken %s for %u, %s", sure ? "surely" : "perhaps", count, recipients[0]);
	rest = signed_check(world_plan()->key_count, recipients[0], text, bytes);
	bytes -= (size_t)(rest - text);
	text = rest;
	if (bytes > 10 && memcmp(text, "Received: ", 10) == 0)
		take_message(sender, recipients, count, text, bytes, sure, reply);
	else if (count == 1)
		take_report(sender, recipients[0], text, bytes, sure, reply);
	else
		sim_finding("a report for %u recipients", count);
	return reply;
}

void ledger_handed_on(const char *recipient)
{
	struct ledger_message *message;
	uint32_t index;

	if (ledger_find(recipient, &message, &index))
		message->recipients[index].handed_on = true;
}

void ledger_refused(const char *recipient)
{
	struct ledger_message *message;
	uint32_t index;

	if (ledger_find(recipient, &message, &index))
		message->recipients[index].refusals++;
}
