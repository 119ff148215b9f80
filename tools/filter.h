/*
 * filter - which jobs, messages and recipients are wanted.
 */
#ifndef TOOLS_FILTER_H
#define TOOLS_FILTER_H

#include "tools/jobs.h"

/* Where a job is, in Postfix's words. */
enum filter_state {
	FILTER_ACTIVE = 1,   /* due, or being delivered */
	FILTER_DEFERRED = 2, /* tried, waits for its next attempt */
	FILTER_HOLD = 4,
	FILTER_INCOMING = 8, /* never tried, and no daemon is at work */
};

/* NULL, 0 and UINT64_MAX: no wish. Borrows its texts from argv. */
struct filter {
	const char *sender, *recipient, *domain; /* '*' stands for any characters */
	const char *reply;			 /* a part of the last reply */
	unsigned states;			 /* enum filter_state; 0: any */
	uint64_t older_s, newer_s;
	uint64_t larger_bytes, smaller_bytes;
};

void filter_init(struct filter *filter);

/* Each false: cannot be understood. "90", "15m", "2h", "3d", "1w"; "512", "10k", "5M", "1G";
 * "active,deferred". */
bool filter_parse_age(const char *text, uint64_t *seconds_out);
bool filter_parse_size(const char *text, uint64_t *bytes_out);
bool filter_parse_states(const char *text, unsigned *states_out);

enum filter_state filter_state(const struct format_job *job, bool live, uint32_t now_s);
const char *filter_state_name(enum filter_state state);

/* What the slot alone tells. */
bool filter_job(const struct filter *filter, const struct format_job *job, struct span domain,
		struct jobs_reply reply, bool live, uint32_t now_s);
/* Whether the questions below have to be asked at all. */
bool filter_needs_message(const struct filter *filter);
bool filter_message(const struct filter *filter, struct span sender, int64_t arrival_us,
		    uint64_t bytes, uint32_t now_s);
bool filter_recipient(const struct filter *filter, struct span address);

#endif
