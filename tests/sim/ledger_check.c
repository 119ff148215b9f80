/*
 * ledger_check - the rules of design.md 1, over all that the ledger has seen.
 */
#include <stdio.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/clock.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

enum {
	QUIET_S = 300, /* without a delivery, before all counts as done */
	OLD_S = 7200,  /* beyond expiry: whatever was to happen in this life has */
	OPEN_LINES = 8,
	FINAL_S = 60,	   /* what waits for the reply to its final dot may still come: world.c */
	ATTEMPTS_S = 1200, /* within these a waiting job is tried, whatever it waits for, */
	EXPIRE_SLACK_S = 10,
	NEXT_START_S = 120, /* comes within them */
	RECIPIENT_S = 60,   /* and has been: one that wants a transaction for each recipient */
};

/* ── excuses ──────────────────────────────────────────────────────────────────────── */

/* The time in which an outcome is known and not yet on the disk (R4): what gathers, what is being
 * written before it, and itself; no new final dot is sent when one is a second old. */
static uint64_t outcome_window_ns(const struct ledger_life *life)
{
	uint64_t disk_ns = weather()->disk_slow_us * SIM_US;

	if (life->tight)
		return SIM_NEVER; /* check_forgotten() */
	return world_plan()->outcome_sync_ms * SIM_MS + 8 * disk_ns + SIM_S;
}

/* Lines wait in memory for the log's thread. */
static uint64_t log_window_ns(void)
{
	return SIM_S + 8 * weather()->disk_slow_us * SIM_US;
}

/* What happened then need not have been on the disk when that life ended. A stop waits for what is
 * known, and with the end of a connection all is known. */
static bool may_be_forgotten(uint32_t number, uint64_t ns)
{
	const struct ledger_life *life = &ledger_book()->lives[number];

	if (!life->crashed && !life->disk_failed && !life->tight)
		return false;
	return life->ended_ns > 0 && life->ended_ns - ns <= outcome_window_ns(life);
}

/* In the life of its first copy nobody gets a second one (check_earlier()). Later ones may not know
 * of a 250 that had not been believed, or (LMTP) was not the last one of its transaction, when a
 * crash came: the outcome of a job is one record, made when that of all its recipients is known. */
bool ledger_copy_excused(const struct ledger_copy *copy)
{
	const struct ledger_reply *reply = copy->reply;

	if (!copy->sure || !reply->heard)
		return true;
	if (reply->concluded_ns == 0)
		return ledger_book()->lives[copy->life].crashed;
	if (ledger_book()->journals_damaged)
		return true; /* its record may have lain there */
	return may_be_forgotten(copy->life, reply->concluded_ns);
}

static bool line_may_be_lost(const struct ledger_copy *copy)
{
	const struct ledger_life *life = &ledger_book()->lives[copy->life];
	uint64_t said_ns = copy->reply->concluded_ns;

	if (said_ns == 0 || ledger_book()->lines_lost || life->disk_failed || life->tight)
		return true;
	/* What is tried before the daemon has noted by which clock is not suspected if that is
	 * another one at the next start. */
	if (clock_has_leapt(copy->ns, life->ended_ns + NEXT_START_S * SIM_S))
		return true;
	return life->ended_ns > 0 && life->ended_ns - said_ns <= log_window_ns();
}

bool ledger_wants_report(const struct ledger_message *message, uint32_t index)
{
	return !message->null_sender && message->recipients[index].notify != LEDGER_NOTIFY_NEVER;
}

/* ── ends ─────────────────────────────────────────────────────────────────────────── */

/* So late in the last life that nothing more can be expected. */
static bool is_late(void)
{
	const struct ledger_life *life = &ledger_book()->lives[weather_life()];

	if (weather_is_clear() &&
	    sim_now() > life->began_ns + (world_plan()->expire_s + OLD_S) * SIM_S)
		ledger_book()->late = true;
	return ledger_book()->late;
}

bool ledger_has_sure_copy(const struct ledger_end *end)
{
	for (const struct ledger_copy *copy = end->copies; copy; copy = copy->next)
		if (copy->sure)
			return true;
	return false;
}

/* This recipient needs nothing more. */
static bool end_reached(const struct ledger_message *message, const struct ledger_stored *stored,
			uint32_t index)
{
	const struct ledger_end *end = &stored->ends[index];

	if (ledger_has_sure_copy(end) || end->failed > 0)
		return true;
	if (stored->acknowledged && !message->recipients[index].known)
		return true;
	if (ledger_wants_report(message, index))
		return false;
	return end->said_failed > 0 || message->recipients[index].refusals > 0 || is_late();
}

/* What is damaged, or in doubt since a journal is, ends only by an operator's hand: then it is not
 * worth waiting for. The next life's index tells whether it is there (ledger_check()). */
static bool is_awaited(const struct ledger_message *message, const struct ledger_stored *stored,
		       uint32_t index)
{
	return !end_reached(message, stored, index) && !(ledger_damage_told() && is_late());
}

static bool all_ends_reached(const struct ledger_message *message)
{
	for (const struct ledger_stored *at = message->stored; at; at = at->next)
		for (uint32_t i = 0; i < message->recipient_count; i++)
			if (is_awaited(message, at, i))
				return false;
	return true;
}

bool ledger_settled(void)
{
	struct ledger_book *book = ledger_book();

	if (!ledger_all_sent())
		return false;
	for (; book->open_hint < book->count; book->open_hint++)
		if (!all_ends_reached(&book->messages[book->open_hint]))
			return false;
	return sim_now() > book->last_copy_ns + QUIET_S * SIM_S && !ledger_index_waits();
}

const char *ledger_open_text(void)
{
	static char text[2048];
	size_t used = 0;
	uint32_t lines = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < ledger_count() && lines < OPEN_LINES; i++) {
		const struct ledger_message *message = ledger_message(i);

		if (message->state == LEDGER_SENDING)
			used += (size_t)snprintf(text + used, sizeof(text) - used, "m%u is sent; ",
						 i),
				lines++;
		for (const struct ledger_stored *at = message->stored; at; at = at->next)
			for (uint32_t j = 0; j < message->recipient_count; j++)
				if (is_awaited(message, at, j) && lines++ < OPEN_LINES)
					used += (size_t)snprintf(text + used, sizeof(text) - used,
								 "%s for %s; ", at->id,
								 message->recipients[j].address);
	}
	return text;
}

/* ── the rules ────────────────────────────────────────────────────────────────────── */

/* One that nobody heard of may be older than `copy`, and only be taken later. */
static bool is_followed(const struct ledger_copy *copy)
{
	for (const struct ledger_copy *later = copy->next; later; later = later->next)
		if (later->sure)
			return true;
	return false;
}

static void note_forgotten(const struct ledger_copy *copy)
{
	struct ledger_life *life = &ledger_book()->lives[copy->life];
	uint64_t ns = copy->reply->concluded_ns;

	if (ns > 0 && (life->forgotten_ns == 0 || ns < life->forgotten_ns))
		life->forgotten_ns = ns;
}

/* On a full disk outcomes wait in memory for as long as it is full, and nothing more is sent when
 * one is a second old: the first that got lost stands at the end of all that was delivered. */
static void check_forgotten(void)
{
	for (uint32_t i = 0; i < weather_life(); i++) {
		const struct ledger_life *life = &ledger_book()->lives[i];
		uint64_t slack_ns = FINAL_S * SIM_S + SIM_S + 8 * weather()->disk_slow_us * SIM_US;

		if (life->forgotten_ns > 0 && life->last_sure_ns > life->forgotten_ns + slack_ns)
			sim_finding("life %u forgot a delivery %llu s before its last one", i,
				    (unsigned long long)((life->last_sure_ns - life->forgotten_ns) /
							 SIM_S));
	}
}

/* Each copy but the last was allowed to be forgotten, and the others are reported. */
static void check_copies(const struct ledger_end *end, const char *id, const char *address)
{
	uint32_t lines_due = 0, count = 0;

	for (const struct ledger_copy *copy = end->copies; copy; copy = copy->next, count++) {
		if (is_followed(copy) && !ledger_copy_excused(copy))
			sim_finding(
				"%s got %s again, %llu ms before its life ended", address, id,
				(unsigned long long)((ledger_book()->lives[copy->life].ended_ns -
						      copy->ns) /
						     SIM_MS));
		if (is_followed(copy))
			note_forgotten(copy);
		if (count > 0 && copy->sure && !line_may_be_lost(copy))
			lines_due++;
	}
	if (end->said_twice < lines_due)
		sim_finding("%s got %s %u times; the log reports %u possible duplicates", address,
			    id, count, end->said_twice);
}

bool ledger_has_cause(const struct ledger_message *message, uint32_t index, uint64_t failed_ns)
{
	const struct ledger_recipient *to = &message->recipients[index];
	const struct world_domain *domain = &world_plan()->domains[to->domain];

	return to->refusals > 0 || domain->kind == WORLD_NULL_MX || domain->kind == WORLD_MISSING ||
	       (domain->vanished_ns > 0 && failed_ns >= domain->vanished_ns);
}

/* By the clock that was believed. Nobody knows what the daemon held for its age when that made
 * small jumps. */
bool ledger_may_expire(const struct ledger_message *message, const struct ledger_stored *stored,
		       uint64_t failed_ns)
{
	uint64_t taken_ns = stored->acknowledged ? stored->acknowledged_ns : failed_ns;

	return ledger_book()->clock_jumps ||
	       clock_may_have_passed(message->first_ns, taken_ns, failed_ns,
				     world_plan()->expire_s - EXPIRE_SLACK_S);
}

/* Failed, by a report or by the log, for a reason that the world knows of: its age is none if the
 * log has another one. */
static void check_cause(const struct ledger_message *message, const struct ledger_stored *stored,
			uint32_t index)
{
	const struct ledger_end *end = &stored->ends[index];
	uint64_t failed_ns = end->failed > 0 ? end->failed_ns : end->said_failed_ns;

	if ((end->failed == 0 && end->said_failed == 0) ||
	    ledger_has_cause(message, index, failed_ns) ||
	    (!end->said_bounced && ledger_may_expire(message, stored, failed_ns)))
		return;
	sim_finding("%s %s for %s, who was never refused", stored->id,
		    end->said_bounced ? "bounced" : "failed", message->recipients[index].address);
}

/* The first copy that the peer said 250 to, if there is one. */
static const struct ledger_copy *first_sure(const struct ledger_end *end)
{
	const struct ledger_copy *copy = end->copies;

	while (copy && !copy->sure)
		copy = copy->next;
	return copy;
}

/* A success is reported to who asked for it, unless the host does so; or the disk fails under the
 * report or is full: it is delivered, and a second delivery would be worse; or a crash made it
 * forgotten, and the next attempt failed, which is reported. */
static void check_success(const struct ledger_message *message, const struct ledger_stored *stored,
			  uint32_t index)
{
	const struct ledger_recipient *to = &message->recipients[index];
	const struct ledger_end *end = &stored->ends[index];
	const struct ledger_copy *copy = first_sure(end);
	const struct ledger_life *life = copy ? &ledger_book()->lives[copy->life] : NULL;

	if (to->notify == LEDGER_NOTIFY_ALL && !message->null_sender && !to->handed_on && copy &&
	    end->relayed == 0 && !life->disk_failed && !life->tight &&
	    !(end->failed > 0 && ledger_copy_excused(copy)))
		sim_finding("%s reached %s, and nobody told the sender, who asks for it",
			    stored->id, to->address);
}

/* So is a delay, once it is tried in vain after that time: in the last life it surely is. */
static void check_delay(const struct ledger_message *message, const struct ledger_stored *stored,
			uint32_t index)
{
	const struct ledger_recipient *to = &message->recipients[index];
	const struct ledger_end *end = &stored->ends[index];
	const struct ledger_copy *copy = first_sure(end);
	uint64_t began_ns = ledger_book()->lives[weather_life() - 2].began_ns;
	/* Its report may be long on its way. */
	uint64_t failed_ns = end->said_failed > 0 ? end->said_failed_ns : end->failed_ns;
	uint64_t ended_ns = copy ? copy->ns : failed_ns;
	uint64_t due_ns = message->first_ns + world_plan()->warn_s * SIM_S;

	if (world_plan()->warn_s == 0 || message->null_sender || end->delayed > 0 ||
	    (to->notify != LEDGER_NOTIFY_DEFAULT && to->notify != LEDGER_NOTIFY_ALL) ||
	    ledger_book()->clock_jumps || ledger_book()->clock_leaps || message->tries > 1)
		return;
	due_ns = (due_ns > began_ns ? due_ns : began_ns) +
		 (ATTEMPTS_S + message->recipient_count * RECIPIENT_S) * SIM_S;
	if (ended_ns > due_ns)
		sim_finding("%s waited for %s for long, and its sender was not warned", stored->id,
			    to->address);
}

/* A report may be damaged, or in doubt, too: there is one for each message at most whose failure
 * was logged, or whose line a crash took, while a journal that can't be read leaves its report in
 * doubt. */
static bool is_in_held_report(const struct ledger_end *end, const struct ledger_stored *stored,
			      struct ledger_losses *losses)
{
	if (end->said_failed == 0 && !ledger_book()->journals_damaged)
		return false;
	losses->unreported += losses->last_unreported != stored;
	losses->last_unreported = stored;
	return losses->unreported <= ledger_book()->others_held;
}

static void check_end(const struct ledger_message *message, const struct ledger_stored *stored,
		      uint32_t index, struct ledger_losses *losses)
{
	const struct ledger_end *end = &stored->ends[index];
	const char *address = message->recipients[index].address;

	if (!end_reached(message, stored, index) && !end->held && !stored->envelope_lost &&
	    !is_in_held_report(end, stored, losses)) {
		if (end->said_failed == 0 && ledger_is_recorded(stored))
			sim_finding("%s for %s is in no job, and it had a record", stored->id,
				    address);
		ledger_lose(losses, message, stored, index);
	}
	check_copies(end, stored->id, address);
	check_cause(message, stored, index);
	/* Without memory for such a report it is not made; who failed is reported later. One that
	 * is damaged is held, or lay in a gap, and of a damaged message there is none. */
	if (!ledger_book()->memory_fails && ledger_book()->others_held == 0 &&
	    !ledger_book()->gaps && !ledger_book()->journals_damaged && !stored->damaged) {
		check_success(message, stored, index);
		check_delay(message, stored, index);
	}
	/* A failure that nobody is told of in a report may be forgotten like a delivery. */
	if (end->said_failed > 0 && !may_be_forgotten(end->said_failed_life, end->said_failed_ns))
		for (const struct ledger_copy *copy = end->copies; copy; copy = copy->next)
			if (!ledger_copy_excused(copy))
				sim_finding("%s got %s, and the log says that it failed", address,
					    stored->id);
}

static void check_message(const struct ledger_message *message, struct ledger_losses *losses)
{
	uint32_t unknown = 0;

	for (const struct ledger_stored *at = message->stored; at; at = at->next) {
		unknown += !at->acknowledged;
		for (uint32_t i = 0; i < message->recipient_count; i++)
			check_end(message, at, i, losses);
	}
	if (unknown > message->maybes)
		sim_finding("m%u was stored %u times more than its client allowed", message->number,
			    unknown - message->maybes);
	if (message->state == LEDGER_UNSENT && message->stored)
		sim_finding("m%u was never sent", message->number);
}

static void check_reports(void)
{
	for (const struct ledger_report *at = ledger_book()->reports; at; at = at->next) {
		char address[96];

		snprintf(address, sizeof(address), "m%u@" WORLD_SENDER_DOMAIN, at->number);
		check_copies(&at->end, at->id, address);
	}
}

void ledger_check(void)
{
	struct ledger_losses losses = { 0 };

	for (uint32_t i = 0; i < ledger_count(); i++)
		check_message(ledger_message(i), &losses);
	ledger_check_losses(&losses, "was neither delivered nor reported");
	check_reports();
	check_forgotten();
	ledger_check_spool();
}
