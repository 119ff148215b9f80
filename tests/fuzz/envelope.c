/* Envelopes from hostile bytes: what passes the check can be read to its end, and its jobs cover
 * each recipient exactly once. */
#include "queue/envelope.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(struct span envelope)
{
	struct envelope_cursor cursor = { envelope };
	struct envelope_recipient recipient;
	struct format_origin origin;
	struct envelope_job_cursor job = { .rest = envelope };
	struct span last = { NULL, 0 };
	uint32_t count = 0, covered = 0, last_count = 0;

	assert(envelope_sender(envelope).at != NULL);
	while (envelope_next(&cursor, &recipient)) {
		assert(recipient.domain.at + recipient.domain.len ==
		       recipient.address.at + recipient.address.len);
		count++;
	}
	assert(count == envelope_count(envelope));
	cursor.rest = envelope;
	while (envelope_next_origin(&cursor, &origin))
		continue;
	while (envelope_next_job(&job)) {
		assert(job.first == covered && job.count >= 1 &&
		       job.count <= FORMAT_JOB_RECIPIENTS_MAX);
		/* The same domain again only after a full job. */
		assert(!last.at || !span_equal(last, job.domain) ||
		       last_count == FORMAT_JOB_RECIPIENTS_MAX);
		covered += job.count;
		last = job.domain;
		last_count = job.count;
	}
	assert(covered == count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(size ? size : 1); /* exact: a step beyond is seen */

	if (size > 0)
		memcpy(copy, data, size);
	if (envelope_check(span_of(copy, size)))
		walk(span_of(copy, size));
	free(copy);
	return 0;
}
