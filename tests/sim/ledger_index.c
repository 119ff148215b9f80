/*
 * ledger_index - the daemon's own index, read as its tools read it while it lives, against what the
 * ledger knows at that moment.
 *
 * A job names its recipients by their place in the envelope, which has those that were known,
 * sorted by domain: the order of the world's own names.
 */
#include <string.h>

#include "os/check.h"
#include "queue/format.h"
#include "queue/queue.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/shared.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

enum {
	DUE_SLACK_S = 5, /* rounded up, and the clock drifts */
	NO_ROOM_S = 60,	 /* as outcome.c has them */
	UNREAD_S = 300,
	JUMPS_S = 3600, /* from one end of what the clock may be wrong by to the other */
};

struct look {
	uint32_t now_s;
	uint32_t jobs, waiting; /* waiting: not held */
	uint32_t others; /* of no message whose client knows its id: reports are among them */
};

/* ── what is there ────────────────────────────────────────────────────────────────── */

static void forget_look(void)
{
	for (uint32_t i = 0; i < ledger_count(); i++) {
		const struct ledger_message *message = ledger_message(i);

		for (struct ledger_stored *at = message->stored; at; at = at->next)
			for (uint32_t j = 0; j < message->recipient_count; j++)
				at->ends[j].queued = at->ends[j].held = false;
	}
}

static struct ledger_stored *find_stored(const char *id, const struct ledger_message **message_out)
{
	*message_out = NULL;
	for (uint32_t i = 0; i < ledger_count(); i++) {
		*message_out = ledger_message(i);
		for (struct ledger_stored *at = (*message_out)->stored; at; at = at->next)
			if (strcmp(at->id, id) == 0)
				return at;
	}
	return NULL;
}

/* Of those that were known. */
static uint32_t place_in_envelope(const struct ledger_message *message, uint32_t index)
{
	const struct ledger_recipient *all = message->recipients;
	uint32_t place = 0;

	for (uint32_t i = 0; i < message->recipient_count; i++)
		place += all[i].known && (all[i].domain < all[index].domain ||
					  (all[i].domain == all[index].domain && i < index));
	return place;
}

/* A copy whose client does not know of it may be from a try with other recipients: any job of its
 * id is for all of them. */
static bool is_pending(const struct format_job *job, const struct ledger_message *message,
		       const struct ledger_stored *stored, uint32_t index)
{
	uint32_t place;

	if (!stored->acknowledged)
		return true;
	place = place_in_envelope(message, index);
	return message->recipients[index].known && place >= job->first &&
	       place < job->first + 64u && (job->pending >> (place - job->first) & 1) != 0;
}

static void note_stored(const struct format_job *job, const struct ledger_message *message,
			struct ledger_stored *stored)
{
	bool anybody = false;

	for (uint32_t i = 0; i < message->recipient_count; i++) {
		if (!is_pending(job, message, stored, i))
			continue;
		anybody = stored->ends[i].queued = true;
		stored->ends[i].held = (job->flags & FORMAT_JOB_HELD) != 0;
	}
	if (!anybody)
		sim_finding("%s waits for nobody that it was sent to", stored->id);
}

/* A clock that was set is not believed at once. What waits for room for its report, or could not be
 * read, has a time of its own. */
static uint32_t due_latest_s(uint32_t now_s, const struct ledger_stored *stored)
{
	uint32_t delay_s = world_plan()->retry_cap_s * 3 / 2;
	bool unread = stored && stored->unread;

	/* Nobody may have known whose it was when that was said. */
	if (!stored || !stored->acknowledged)
		unread |= ledger_book()->others_unread;
	if (delay_s < NO_ROOM_S)
		delay_s = NO_ROOM_S;
	if (unread && delay_s < UNREAD_S)
		delay_s = UNREAD_S;
	/* What was put off by a clock that was ahead waits for that time: queue/expiry.h. */
	if (ledger_book()->clock_leaps)
		return UINT32_MAX;
	return now_s + delay_s + DUE_SLACK_S + (ledger_book()->clock_jumps ? JUMPS_S : 0);
}

static void note_job(void *context, const struct format_job *job)
{
	struct look *look = context;
	const struct ledger_message *message;
	struct ledger_stored *stored;
	char id[QUEUE_ID_TEXT_BYTES];

	queue_id_text(job->message, id);
	stored = find_stored(id, &message);
	look->jobs++;
	look->others += !stored || !stored->acknowledged;
	if (job->state != FORMAT_WAITING || job->pending == 0)
		sim_finding("%s is in the queue with state %u, and waits for nobody", id,
			    job->state);
	if ((job->flags & FORMAT_JOB_HELD) == 0) {
		look->waiting++;
		if (job->due_s > due_latest_s(look->now_s, stored))
			sim_finding("%s is not due for %u s", id, job->due_s - look->now_s);
	} else if (!stored) {
		ledger_book()->others_held++;
	}
	if (stored)
		note_stored(job, message, stored);
}

/* ── what must be ─────────────────────────────────────────────────────────────────── */

/* For a reason that the world knows of; if the log said so, check_cause() asks for it. */
static bool may_have_failed(const struct ledger_message *message,
			    const struct ledger_stored *stored, uint32_t index)
{
	const struct ledger_end *end = &stored->ends[index];

	return end->said_failed > 0 || ledger_has_cause(message, index, sim_now()) ||
	       ledger_may_expire(message, stored, sim_now());
}

/* Whether a report about it has to be on its way. */
static bool check_stored(const struct ledger_message *message, const struct ledger_stored *stored,
			 struct ledger_losses *losses)
{
	bool reported = false;

	for (uint32_t i = 0; i < message->recipient_count; i++) {
		const struct ledger_end *end = &stored->ends[i];

		if (!message->recipients[i].known || end->queued || ledger_has_sure_copy(end) ||
		    end->failed > 0 || stored->envelope_lost)
			continue;
		if (!may_have_failed(message, stored, i))
			ledger_lose(losses, message, stored, i);
		else
			reported |= ledger_wants_report(message, i);
	}
	return reported;
}

/* Each recipient that has no end yet waits in the queue, or a report about it does. */
static void check_waiting(const struct look *look)
{
	struct ledger_losses losses = { 0 };
	uint32_t reports = 0;

	for (uint32_t i = 0; i < ledger_count(); i++) {
		const struct ledger_message *message = ledger_message(i);

		for (const struct ledger_stored *at = message->stored; at; at = at->next)
			reports += at->acknowledged && check_stored(message, at, &losses);
	}
	ledger_check_losses(&losses, "is not in the queue");
	if (reports > look->others && !ledger_damage_told())
		sim_finding("%u messages are to be reported as failed, and only %u others wait",
			    reports, look->others);
}

/* What is held waits for the operator, who was told. */
static void check_empty(const struct look *look)
{
	if (look->waiting > 0)
		sim_finding("all has come to its end, and %u jobs wait in the queue",
			    look->waiting);
	if (look->jobs > 0 && !ledger_damage_told())
		sim_finding("%u jobs are held, and the daemon has not said why", look->jobs);
}

static void count_waiting(void *context, const struct format_job *job)
{
	*(uint32_t *)context += (job->flags & FORMAT_JOB_HELD) == 0;
}

bool ledger_index_waits(void)
{
	uint32_t waiting = 0;

	shared_each_job(count_waiting, &waiting);
	return waiting > 0;
}

void ledger_index_seen(bool is_done)
{
	struct look look = { .now_s = (uint32_t)(os_wall_now().us / OS_US_PER_S) };

	forget_look();
	ledger_book()->others_held = 0;
	if (!shared_each_job(note_job, &look))
		return;
	sim_trace("%u jobs are in the queue, %u of them held", look.jobs, look.jobs - look.waiting);
	check_waiting(&look);
	if (is_done)
		check_empty(&look);
}
