#include "tools/filter.h"

#include <ctype.h>
#include <stdlib.h>

#include "os/check.h"

void filter_init(struct filter *filter)
{
	*filter = (struct filter){ .smaller_bytes = UINT64_MAX, .newer_s = UINT64_MAX };
}

/* ── options ──────────────────────────────────────────────────────────────────────── */

struct unit {
	char letter; /* 0: none given */
	uint64_t factor;
};

static bool parse_number(const char *text, const struct unit *units, size_t unit_count,
			 uint64_t *out)
{
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	unsigned long long number = strtoull(text, &end, 10);

	for (size_t i = 0; i < unit_count; i++)
		if (*end == units[i].letter && (*end == 0 || end[1] == 0))
			return !__builtin_mul_overflow(number, units[i].factor, out);
	return false;
}

bool filter_parse_age(const char *text, uint64_t *seconds_out)
{
	static const struct unit units[] = { { 0, 1 },	    { 's', 1 },	    { 'm', 60 },
					     { 'h', 3600 }, { 'd', 86400 }, { 'w', 604800 } };

	return parse_number(text, units, array_count(units), seconds_out);
}

bool filter_parse_size(const char *text, uint64_t *bytes_out)
{
	static const struct unit units[] = { { 0, 1 },	       { 'k', 1 << 10 }, { 'K', 1 << 10 },
					     { 'm', 1 << 20 }, { 'M', 1 << 20 }, { 'g', 1 << 30 },
					     { 'G', 1 << 30 } };

	return parse_number(text, units, array_count(units), bytes_out);
}

static const struct {
	enum filter_state state;
	const char *name;
} states[] = {
	{ FILTER_ACTIVE, "active" },
	{ FILTER_DEFERRED, "deferred" },
	{ FILTER_HOLD, "hold" },
	{ FILTER_INCOMING, "incoming" },
};

const char *filter_state_name(enum filter_state state)
{
	for (size_t i = 0; i < array_count(states); i++)
		if (states[i].state == state)
			return states[i].name;
	return "?";
}

bool filter_parse_states(const char *text, unsigned *states_out)
{
	unsigned found = 0;

	while (*text) {
		size_t len = strcspn(text, ","), i = 0;

		while (i < array_count(states) &&
		       !span_equal_nocase(span_of(text, len), span_text(states[i].name)))
			i++;
		if (i == array_count(states))
			return false;
		found |= states[i].state;
		text += len + (text[len] == ',');
	}
	*states_out = found;
	return found != 0;
}

/* ── matching ─────────────────────────────────────────────────────────────────────── */

static bool same_letter(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* '*' stands for any characters; the rest without case. Goes back only to the last '*'. */
static bool glob(const char *pattern, struct span text)
{
	const char *star = NULL;
	size_t at = 0, star_at = 0;

	while (at < text.len) {
		if (*pattern == '*') {
			star = pattern++;
			star_at = at;
		} else if (*pattern && same_letter(*pattern, text.at[at])) {
			pattern++;
			at++;
		} else if (star) {
			pattern = star + 1;
			at = ++star_at;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == 0;
}

static bool contains(struct span text, const char *part)
{
	size_t len = strlen(part);

	for (size_t at = 0; at + len <= text.len; at++)
		if (strncasecmp(text.at + at, part, len) == 0)
			return true;
	return false;
}

enum filter_state filter_state(const struct format_job *job, bool live, uint32_t now_s)
{
	/* With a reason, but no attempt: its site was down already. */
	bool waited = job->attempts > 0 || job->text != 0;

	if (job->flags & FORMAT_JOB_HELD)
		return FILTER_HOLD;
	if (waited && (job->due_s > now_s || !live))
		return FILTER_DEFERRED;
	return live ? FILTER_ACTIVE : FILTER_INCOMING;
}

bool filter_job(const struct filter *filter, const struct format_job *job, struct span domain,
		struct jobs_reply reply, bool live, uint32_t now_s)
{
	if (filter->states && !(filter->states & filter_state(job, live, now_s)))
		return false;
	if (filter->domain && !glob(filter->domain, domain))
		return false;
	return !filter->reply || contains(reply.text, filter->reply) ||
	       contains(reply.host, filter->reply);
}

bool filter_needs_message(const struct filter *filter)
{
	return filter->sender || filter->recipient || filter->older_s > 0 ||
	       filter->newer_s != UINT64_MAX || filter->larger_bytes > 0 ||
	       filter->smaller_bytes != UINT64_MAX;
}

bool filter_message(const struct filter *filter, struct span sender, int64_t arrival_us,
		    uint64_t bytes, uint32_t now_s)
{
	int64_t age = (int64_t)now_s - arrival_us / 1000000;
	uint64_t age_s = age > 0 ? (uint64_t)age : 0;

	return (!filter->sender || glob(filter->sender, sender) ||
		(sender.len == 0 && glob(filter->sender, span_text("<>")))) &&
	       age_s >= filter->older_s && age_s <= filter->newer_s &&
	       bytes >= filter->larger_bytes && bytes <= filter->smaller_bytes;
}

bool filter_recipient(const struct filter *filter, struct span address)
{
	return !filter->recipient || glob(filter->recipient, address);
}
