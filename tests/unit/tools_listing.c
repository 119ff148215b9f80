/* A listing while jobs end: the test stands for the index and for the segments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "os/check.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "tools/listing.h"

enum { NOW_S = 1000, PLACE = 8 };

static struct {
	struct format_job slots[2];
	unsigned reads;
	void (*meanwhile)(void); /* called when each slot has been read once */
	struct span envelope;
	char listed[200];
} stage;

/* ── what the listing asks for ────────────────────────────────────────────────────── */

bool jobs_live(const struct jobs *jobs)
{
	(void)jobs;
	return true;
}

struct reader *jobs_reader(struct jobs *jobs)
{
	(void)jobs;
	return NULL;
}

uint16_t jobs_streams(const struct jobs *jobs)
{
	(void)jobs;
	return 1;
}

uint64_t jobs_slots(const struct jobs *jobs, uint16_t stream)
{
	(void)jobs;
	(void)stream;
	return array_count(stage.slots);
}

bool jobs_read(const struct jobs *jobs, uint16_t stream, uint64_t slot, struct format_job *out)
{
	(void)jobs;
	(void)stream;
	*out = stage.slots[slot];
	if (++stage.reads == array_count(stage.slots))
		stage.meanwhile();
	return out->state == FORMAT_WAITING;
}

struct span jobs_domain(struct jobs *jobs, uint16_t stream, const struct format_job *job)
{
	(void)jobs;
	(void)stream;
	(void)job;
	return span_text("a.test");
}

struct jobs_reply jobs_reply(struct jobs *jobs, uint16_t stream, const struct format_job *job)
{
	(void)jobs;
	(void)stream;
	(void)job;
	return (struct jobs_reply){ span_text(""), span_text("") };
}

enum reader_status reader_message(struct reader *reader, uint64_t id, uint32_t segment,
				  uint32_t place, struct reader_message *out)
{
	(void)reader;
	(void)segment;
	(void)place;
	*out = (struct reader_message){ .head = { .id = id }, .envelope = stage.envelope };
	return READER_OK;
}

/* ── what it tells ────────────────────────────────────────────────────────────────── */

static void note_message(void *context, const struct listing_message *message)
{
	(void)context;
	for (size_t i = 0; i < message->recipient_count; i++) {
		struct span address = message->recipients[i].address;
		size_t used = strlen(stage.listed);

		assert_true(used + address.len + 4 < sizeof(stage.listed));
		stage.listed[used++] = (char)('0' + message->id);
		stage.listed[used++] = ' ';
		memcpy(stage.listed + used, address.at, address.len);
		stage.listed[used + address.len] = '\n';
	}
}

static struct format_job job_of(uint64_t message, uint16_t first)
{
	return (struct format_job){ .type = FORMAT_JOB,
				    .state = FORMAT_WAITING,
				    .message = message,
				    .pending = 1,
				    .first = first,
				    .segment = 1,
				    .place = PLACE };
}

static void nothing(void)
{
}

static void end_first(void)
{
	stage.slots[0].state = FORMAT_DELIVERED;
}

static void end_both(void)
{
	stage.slots[0].state = stage.slots[1].state = FORMAT_DELIVERED;
}

static void reuse_first(void)
{
	stage.slots[0] = job_of(2, 0);
}

static struct listing_case {
	const char *name;
	void (*meanwhile)(void);
	const char *listed;
} cases[] = {
	{ "both jobs of a message are listed", nothing, "1 r@a.test\n1 r@b.test\n" },
	{ "a job that ends meanwhile does not hide the message's others", end_first,
	  "1 r@b.test\n" },
	{ "nor does one whose slot is another message's meanwhile", reuse_first, "1 r@b.test\n" },
	{ "a message whose jobs all end meanwhile is left out", end_both, "" },
};

static void add_recipient(struct envelope_builder *builder, const char *address)
{
	struct span whole = span_text(address);

	envelope_add_recipient(
		builder, &(struct envelope_recipient){ .address = whole,
						       .domain = span_skip(whole, strlen("r@")) });
}

static void test_listing(void **state)
{
	const struct listing_case *row = *state;
	struct envelope_builder *builder = envelope_builder_create();
	struct filter filter;

	memset(&stage, 0, sizeof(stage));
	stage.slots[0] = job_of(1, 0);
	stage.slots[1] = job_of(1, 1);
	stage.meanwhile = row->meanwhile;
	envelope_set_sender(builder, span_text("s@sender.test"));
	add_recipient(builder, "r@a.test");
	add_recipient(builder, "r@b.test");
	assert_true(envelope_seal(builder, &stage.envelope));
	filter_init(&filter);
	assert_true(listing_messages(NULL, &filter, NOW_S, note_message, NULL));
	assert_string_equal(stage.listed, row->listed);
	envelope_builder_destroy(builder);
}

int main(void)
{
	struct CMUnitTest tests[array_count(cases)];

	for (size_t i = 0; i < array_count(cases); i++)
		tests[i] =
			(struct CMUnitTest){ cases[i].name, test_listing, NULL, NULL, &cases[i] };
	return cmocka_run_group_tests_name("tools_listing", tests, NULL, NULL);
}
