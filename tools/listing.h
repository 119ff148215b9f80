/*
 * listing - the jobs that a filter lets through, singly or gathered by message.
 */
#ifndef TOOLS_LISTING_H
#define TOOLS_LISTING_H

#include "tools/filter.h"

struct listing_job {
	uint16_t stream;
	uint64_t slot;
	struct format_job job;
	struct span domain;
	struct jobs_reply reply;
	enum filter_state state;
};

struct listing_recipient {
	struct span address; /* of an unreadable message: empty */
	const struct listing_job *job;
};

struct listing_message {
	uint64_t id;
	bool readable; /* false: of what follows only the recipients' jobs are known */
	int64_t arrival_us;
	uint64_t bytes;
	struct span sender, envelope;
	enum filter_state state; /* of its liveliest job */
	const struct listing_job *jobs;
	size_t job_count;
	const struct listing_recipient *recipients; /* pending ones */
	size_t recipient_count;
};

/* All is borrowed until `each` returns. Each false: no memory. */
bool listing_jobs(struct jobs *jobs, const struct filter *filter, uint32_t now_s,
		  void (*each)(void *context, const struct listing_job *job), void *context);
/* In order of place, which is that of arrival as long as nothing was moved. */
bool listing_messages(struct jobs *jobs, const struct filter *filter, uint32_t now_s,
		      void (*each)(void *context, const struct listing_message *message),
		      void *context);

#endif
