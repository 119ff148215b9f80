/* Messages found in segments: the jobs that they make, and the reports that they are. */
#include "os/check.h"
#include "os/os.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "queue/recover_private.h"

/* ── messages ─────────────────────────────────────────────────────────────────────── */

static uint16_t flags_of_message(uint16_t flags)
{
	return (uint16_t)((flags & FORMAT_BIG ? FORMAT_JOB_BIG : 0) |
			  (flags & FORMAT_8BIT ? FORMAT_JOB_NEEDS_8BIT : 0) |
			  (flags & FORMAT_UTF8 ? FORMAT_JOB_NEEDS_UTF8 : 0) |
			  (flags & FORMAT_NEEDS_TLS ? FORMAT_JOB_NEEDS_TLS : 0));
}

void recover_first_state(const struct format_message *message, struct recovered_place place,
			 uint32_t first, uint32_t count, uint32_t dest, struct format_job *out)
{
	assert(count >= 1 && count <= FORMAT_JOB_RECIPIENTS_MAX && first <= UINT16_MAX);
	*out = (struct format_job){
		.type = FORMAT_JOB,
		.state = FORMAT_WAITING,
		.flags = flags_of_message(message->flags),
		.message = message->id,
		.pending = UINT64_MAX >> (64 - count),
		.version = 1,
		.first = (uint16_t)first,
		.segment = place.segment,
		.place = place.place,
		.due_s = (uint32_t)(message->arrival_us / OS_US_PER_S),
		.expiry_s = message->expiry_s,
		.dest = dest,
		.class_id = message->class_id,
	};
}

static void note_damaged(struct recover_work *work, struct recovered_place place, uint64_t id,
			 enum found_message found)
{
	char text[QUEUE_ID_TEXT_BYTES];

	queue_id_text(id, text);
	work->out->damaged = true;
	recover_problem(&work->out->problems, RECOVERED_MESSAGE_DAMAGE,
			"message %s at seg/%08x byte %llu: %s", text, place.segment,
			(unsigned long long)place.place * FORMAT_RECORD_ALIGN,
			found == FOUND_ENVELOPE_DAMAGED
				? "the envelope is damaged; recipients without a record are lost"
				: "the body is damaged; its recipients are held");
	if (recover_list_extend(work, &work->damaged, work->damaged_count, &work->damaged_size,
				sizeof(*work->damaged)))
		work->damaged[work->damaged_count++] = (struct recover_damaged){ place, found };
}

static void make_job(struct recover_work *work, const struct scan_message *message,
		     struct recovered_place place, const struct envelope_job_cursor *job,
		     enum recover_decision decision)
{
	uint32_t dest = recover_domain_id(&work->domains, &work->replay, job->domain,
					  &work->out->next_name[FORMAT_DEST]);
	struct recovered_job *made =
		dest ? replay_add(&work->replay, message->head.id, (uint16_t)job->first) : NULL;

	if (!made) {
		work->status = RECOVER_NO_MEMORY;
		return;
	}
	recover_first_state(&message->head, place, job->first, job->count, dest, &made->job);
	made->job.flags |= recover_decision_flags(decision);
	made->unrecorded = true;
}

static void take_jobs(struct recover_work *work, const struct scan_message *message,
		      struct recovered_place place)
{
	enum recover_decision decision = recover_decide(
		FOUND_NO_RECORD, message->body_good ? FOUND_SOUND : FOUND_BODY_DAMAGED,
		recover_journal_state(work));
	struct envelope_job_cursor cursor = { .rest = message->envelope };

	recover_raise_next(work->out, FORMAT_CLASS, message->head.class_id);
	while (work->status == RECOVER_OK && envelope_next_job(&cursor)) {
		struct recovered_job *known =
			replay_find(&work->replay, message->head.id, (uint16_t)cursor.first);

		if (!known) {
			make_job(work, message, place, &cursor, decision);
		} else if (known->job.state == FORMAT_WAITING &&
			   !recover_find_segment(work, known->job.segment)) {
			/* One id names one message: here are its bytes. */
			known->job.segment = place.segment;
			known->job.place = place.place;
			recover_change(known);
		}
	}
}

static void take_file(struct recover_work *work, const struct format_origin *origin)
{
	struct recovered *out = work->out;

	if (recover_list_extend(work, &out->origins, out->origin_count, &work->origin_size,
				sizeof(*out->origins)))
		out->origins[out->origin_count++] = *origin;
}

static void take_reports(struct recover_work *work, struct span envelope)
{
	struct envelope_cursor cursor = { envelope };
	struct format_origin origin;

	while (envelope_next_origin(&cursor, &origin))
		if (origin.kind == FORMAT_ORIGIN_FILE)
			take_file(work, &origin);
		else if (recover_list_extend(work, &work->reports, work->report_count,
					     &work->report_size, sizeof(*work->reports)))
			work->reports[work->report_count++] = origin;
}

void recover_take_message(struct recover_work *work, uint32_t sequence,
			  const struct scan_message *message)
{
	struct recovered_place place = { sequence,
					 (uint32_t)(message->offset / FORMAT_RECORD_ALIGN) };

	if (!message->envelope.at || !message->body_good)
		note_damaged(work, place, message->head.id,
			     message->envelope.at ? FOUND_BODY_DAMAGED : FOUND_ENVELOPE_DAMAGED);
	if (!message->envelope.at ||
	    (!work->out->journal_damaged && recovered_before(place, work->out->mark)))
		return;
	work->out->messages_scanned++;
	take_jobs(work, message, place);
	take_reports(work, message->envelope);
}

/* ── reports: R8 ──────────────────────────────────────────────────────────────────── */

/* The consequence of a durable report, unless it is recorded already. */
void recover_complete_report(struct recover_work *work, const struct format_origin *origin)
{
	struct recovered_job *job = replay_find(&work->replay, origin->message, origin->first);
	bool settles =
		origin->kind == FORMAT_ORIGIN_BOUNCE || origin->kind == FORMAT_ORIGIN_SUCCESS;

	if (!job || job->job.state != FORMAT_WAITING)
		return;
	if (settles && job->job.pending & origin->recipients)
		job->job.pending &= ~origin->recipients;
	else if (origin->kind == FORMAT_ORIGIN_DELAY && !(job->job.flags & FORMAT_JOB_WARNED))
		job->job.flags |= FORMAT_JOB_WARNED;
	else
		return;
	if (job->job.pending == 0)
		job->job.state =
			origin->kind == FORMAT_ORIGIN_BOUNCE ? FORMAT_BOUNCED : FORMAT_DELIVERED;
	recover_change(job);
}
