#include "tools/listing.h"

#include <stdlib.h>

#include "os/check.h"
#include "queue/envelope.h"

enum { MOVED_TRIES = 3 };

/* Where a job was when it was chosen: small, since there may be ten million. */
struct entry {
	uint32_t segment, place;
	uint32_t slot;
	uint32_t message; /* the low half of its id: the slot may be another's meanwhile */
	uint16_t stream, first;
};

struct listing {
	struct jobs *jobs;
	const struct filter *filter;
	uint32_t now_s;
	struct entry *entries; /* owned */
	size_t entry_count, entry_size;
	struct listing_job *group; /* owned: the jobs of one message */
	size_t group_size;
	struct listing_recipient *recipients; /* owned */
	size_t recipient_size;
	bool no_memory;
};

/* ── jobs ─────────────────────────────────────────────────────────────────────────── */

/* Reads a slot, and looks whether the filter wants it. */
static bool read_job(struct listing *listing, uint16_t stream, uint64_t slot,
		     struct listing_job *out)
{
	struct jobs *jobs = listing->jobs;

	if (!jobs_read(jobs, stream, slot, &out->job))
		return false;
	out->stream = stream;
	out->slot = slot;
	out->domain = jobs_domain(jobs, stream, &out->job);
	out->reply = jobs_reply(jobs, stream, &out->job);
	out->state = filter_state(&out->job, jobs_live(jobs), listing->now_s);
	return filter_job(listing->filter, &out->job, out->domain, out->reply, jobs_live(jobs),
			  listing->now_s);
}

bool listing_jobs(struct jobs *jobs, const struct filter *filter, uint32_t now_s,
		  void (*each)(void *context, const struct listing_job *job), void *context)
{
	struct listing listing = { .jobs = jobs, .filter = filter, .now_s = now_s };
	struct listing_job job;

	for (uint16_t stream = 0; stream < jobs_streams(jobs); stream++) {
		uint64_t count = jobs_slots(jobs, stream);

		for (uint64_t slot = 0; slot < count; slot++)
			if (read_job(&listing, stream, slot, &job))
				each(context, &job);
	}
	return true;
}

/* `array` with room for `count` elements; false: no memory, and it is as it was. */
static bool reserve(struct listing *listing, void *array, size_t count, size_t *size,
		    size_t element_bytes)
{
	void **at = array;
	size_t wanted = *size ? *size : 64;

	if (count <= *size)
		return true;
	while (wanted < count)
		wanted *= 2;
	void *larger = realloc(*at, wanted * element_bytes);

	if (!larger) {
		listing->no_memory = true;
		return false;
	}
	*at = larger;
	*size = wanted;
	return true;
}

static void choose(void *context, const struct listing_job *job)
{
	struct listing *listing = context;

	if (reserve(listing, &listing->entries, listing->entry_count + 1, &listing->entry_size,
		    sizeof(*listing->entries)))
		listing->entries[listing->entry_count++] = (struct entry){
			.segment = job->job.segment,
			.place = job->job.place,
			.slot = (uint32_t)job->slot,
			.message = (uint32_t)job->job.message,
			.stream = job->stream,
			.first = job->job.first,
		};
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *left = a, *right = b;

	if (left->segment != right->segment)
		return left->segment < right->segment ? -1 : 1;
	if (left->place != right->place)
		return left->place < right->place ? -1 : 1;
	return (int)left->first - (int)right->first;
}

/* ── messages ─────────────────────────────────────────────────────────────────────── */

/* Reads the slot again. False: the job that was chosen is gone, or is not wanted any more. */
static bool reread_job(struct listing *listing, const struct entry *entry, struct listing_job *out)
{
	return read_job(listing, entry->stream, entry->slot, out) &&
	       (uint32_t)out->job.message == entry->message && out->job.first == entry->first;
}

/* Reads the message of a job, which may move meanwhile: then it is sought where the slot says
 * now. False: the job is gone. */
static bool read_message(struct listing *listing, const struct entry *entry,
			 struct reader_message *out, bool *readable_out)
{
	struct listing_job job;
	enum reader_status status;

	for (int i = 0; i < MOVED_TRIES; i++) {
		if (!reread_job(listing, entry, &job))
			return false;
		status = reader_message(jobs_reader(listing->jobs), job.job.message,
					job.job.segment, job.job.place, out);
		*readable_out = status == READER_OK;
		if (status != READER_GONE)
			break;
	}
	return true;
}

/* The jobs of the group as they are now, after the message was read. */
static size_t reread_group(struct listing *listing, const struct entry *entries, size_t count,
			   struct listing_message *message)
{
	size_t found = 0;

	if (!reserve(listing, &listing->group, count, &listing->group_size,
		     sizeof(*listing->group)))
		return 0;
	for (size_t i = 0; i < count; i++) {
		struct listing_job *job = &listing->group[found];

		if (!reread_job(listing, &entries[i], job))
			continue;
		if (found++ == 0 && !message->readable)
			message->id = job->job.message;
	}
	return found;
}

static bool add_recipient(struct listing *listing, struct listing_message *message,
			  struct span address, const struct listing_job *job)
{
	if (!filter_recipient(listing->filter, address) ||
	    !reserve(listing, &listing->recipients, message->recipient_count + 1,
		     &listing->recipient_size, sizeof(*listing->recipients)))
		return false;
	listing->recipients[message->recipient_count++] =
		(struct listing_recipient){ address, job };
	return true;
}

/* Both the recipients and the jobs go up. */
static void gather_recipients(struct listing *listing, struct listing_message *message)
{
	struct envelope_cursor cursor = { message->envelope };
	struct envelope_recipient recipient;
	size_t at = 0;

	for (uint32_t i = 0; envelope_next(&cursor, &recipient); i++) {
		while (at + 1 < message->job_count && message->jobs[at + 1].job.first <= i)
			at++;
		const struct format_job *job = &message->jobs[at].job;

		if (i >= job->first && i - job->first < 64 && job->pending >> (i - job->first) & 1)
			add_recipient(listing, message, recipient.address, &message->jobs[at]);
	}
}

/* Nobody knows who they are, but the operator has to see that they are there. */
static void gather_unknown(struct listing *listing, struct listing_message *message)
{
	for (size_t i = 0; i < message->job_count; i++)
		for (uint64_t left = message->jobs[i].job.pending; left != 0; left &= left - 1)
			add_recipient(listing, message, span_text(""), &message->jobs[i]);
}

static enum filter_state liveliest(const struct listing_message *message)
{
	static const enum filter_state order[] = { FILTER_ACTIVE, FILTER_INCOMING, FILTER_DEFERRED,
						   FILTER_HOLD };

	for (size_t i = 0; i < array_count(order); i++)
		for (size_t j = 0; j < message->job_count; j++)
			if (message->jobs[j].state == order[i])
				return order[i];
	return FILTER_HOLD;
}

/* False: nothing of it is wanted, or left. */
static bool make_message(struct listing *listing, const struct entry *entries, size_t count,
			 struct listing_message *out)
{
	struct reader_message read;

	*out = (struct listing_message){ 0 };
	/* While one of its jobs is there the message is. */
	while (!read_message(listing, entries, &read, &out->readable)) {
		entries++;
		if (--count == 0)
			return false;
	}
	if (out->readable) {
		out->id = read.head.id;
		out->arrival_us = read.head.arrival_us;
		out->bytes = read.head.body_bytes;
		out->envelope = read.envelope;
		out->sender = envelope_sender(read.envelope);
		if (!filter_message(listing->filter, out->sender, out->arrival_us, out->bytes,
				    listing->now_s))
			return false;
	} else if (filter_needs_message(listing->filter)) {
		return false;
	}
	out->job_count = reread_group(listing, entries, count, out);
	out->jobs = listing->group;
	if (out->job_count == 0)
		return false;
	if (out->readable)
		gather_recipients(listing, out);
	else
		gather_unknown(listing, out);
	out->recipients = listing->recipients;
	out->state = liveliest(out);
	return out->recipient_count > 0;
}

bool listing_messages(struct jobs *jobs, const struct filter *filter, uint32_t now_s,
		      void (*each)(void *context, const struct listing_message *message),
		      void *context)
{
	struct listing listing = { .jobs = jobs, .filter = filter, .now_s = now_s };
	struct listing_message message;
	size_t from = 0, to;

	listing_jobs(jobs, filter, now_s, choose, &listing);
	if (listing.entry_count > 0)
		qsort(listing.entries, listing.entry_count, sizeof(*listing.entries),
		      compare_entries);
	for (; from < listing.entry_count && !listing.no_memory; from = to) {
		const struct entry *entries = listing.entries;

		for (to = from + 1;
		     to < listing.entry_count && entries[to].segment == entries[from].segment &&
		     entries[to].place == entries[from].place;
		     to++)
			continue;
		if (make_message(&listing, &entries[from], to - from, &message))
			each(context, &message);
	}
	free(listing.entries);
	free(listing.group);
	free(listing.recipients);
	return !listing.no_memory;
}
