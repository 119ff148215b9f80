/* stafette queue, mailq */
#include <getopt.h>
#include <stdlib.h>
#include <sysexits.h>

#include "os/os.h"
#include "tools/command.h"
#include "tools/print.h"
#include "tools/summary.h"

static const char help[] =
	"Usage: stafette queue [OPTIONS]\n"
	"Lists what is queued, as mailq does. Needs no daemon, and does not disturb one.\n\n"
	"  -j, --json             one JSON object a line (the fields of `postqueue -j`, and more)\n"
	"      --count            only the number of messages\n"
	"      --summary          recipients by domain and by reason\n"
	"Only what fits all of these (`*` stands for any characters):\n"
	"      --sender PATTERN   \"<>\" is the null sender\n"
	"      --recipient PATTERN\n"
	"      --domain PATTERN   of the recipients\n"
	"      --state STATES     active, deferred, hold, incoming; several with commas\n"
	"      --older AGE        90, 15m, 2h, 3d, 1w\n"
	"      --newer AGE        or --younger\n"
	"      --larger SIZE      512, 10k, 5M, 1G\n"
	"      --smaller SIZE\n"
	"      --reply TEXT       part of the last reply or of its host, in any case\n"
	"Where:\n"
	"  -S, --spool FOLDER\n"
	"  -c, --config FILE      of which spool; without both, that of " COMMAND_CONFIG "\n"
	"  -h, --help\n";

enum {
	OPTION_COUNT = 256,
	OPTION_SUMMARY,
	OPTION_SENDER,
	OPTION_RECIPIENT,
	OPTION_DOMAIN,
	OPTION_STATE,
	OPTION_OLDER,
	OPTION_NEWER,
	OPTION_LARGER,
	OPTION_SMALLER,
	OPTION_REPLY,
};

static const struct option options[] = {
	COMMAND_LONG,
	{ "json", no_argument, NULL, 'j' },
	{ "count", no_argument, NULL, OPTION_COUNT },
	{ "summary", no_argument, NULL, OPTION_SUMMARY },
	{ "sender", required_argument, NULL, OPTION_SENDER },
	{ "recipient", required_argument, NULL, OPTION_RECIPIENT },
	{ "domain", required_argument, NULL, OPTION_DOMAIN },
	{ "state", required_argument, NULL, OPTION_STATE },
	{ "older", required_argument, NULL, OPTION_OLDER },
	{ "newer", required_argument, NULL, OPTION_NEWER },
	{ "younger", required_argument, NULL, OPTION_NEWER },
	{ "larger", required_argument, NULL, OPTION_LARGER },
	{ "smaller", required_argument, NULL, OPTION_SMALLER },
	{ "reply", required_argument, NULL, OPTION_REPLY },
	{ 0 },
};

struct wish {
	const char *spool, *config; /* borrowed from argv */
	bool json, count, summary;
	struct filter filter;
};

/* False: `value` cannot be understood. */
static bool take_filter(struct filter *filter, int option, const char *value)
{
	switch (option) {
	case OPTION_SENDER:
		filter->sender = value;
		return true;
	case OPTION_RECIPIENT:
		filter->recipient = value;
		return true;
	case OPTION_DOMAIN:
		filter->domain = value;
		return true;
	case OPTION_REPLY:
		filter->reply = value;
		return true;
	case OPTION_STATE:
		return filter_parse_states(value, &filter->states);
	case OPTION_OLDER:
		return filter_parse_age(value, &filter->older_s);
	case OPTION_NEWER:
		return filter_parse_age(value, &filter->newer_s);
	case OPTION_LARGER:
		return filter_parse_size(value, &filter->larger_bytes);
	default:
		return filter_parse_size(value, &filter->smaller_bytes);
	}
}

/* -1: go on; else the code to exit with. */
static int take_option(struct wish *wish, int option, int index, char **argv)
{
	switch (option) {
	case 'h':
		fputs(help, stdout);
		return EX_OK;
	case '?':
	case ':':
		return command_bad_option(option, argv, "queue");
	case 'S':
		wish->spool = optarg;
		return -1;
	case 'c':
		wish->config = optarg;
		return -1;
	case 'j':
		wish->json = true;
		return -1;
	case OPTION_COUNT:
		wish->count = true;
		return -1;
	case OPTION_SUMMARY:
		wish->summary = true;
		return -1;
	default:
		if (take_filter(&wish->filter, option, optarg))
			return -1;
		return command_fail(EX_USAGE,
				    "--%s %s: not understood; `stafette queue --help` shows how",
				    options[index].name, optarg);
	}
}

static bool list(struct jobs *jobs, const struct wish *wish, uint32_t now_s)
{
	struct print_mailq mailq = { 0 };

	if (wish->json)
		return listing_messages(jobs, &wish->filter, now_s, print_json_message, NULL);
	if (!listing_messages(jobs, &wish->filter, now_s, print_mailq_message, &mailq))
		return false;
	print_mailq_end(&mailq);
	return true;
}

/* Slots alone are as fast as memory; messages are read only if the filter asks for them. */
static bool summarize(struct jobs *jobs, const struct wish *wish, uint32_t now_s)
{
	struct summary *summary = summary_create(!wish->count);
	bool good = summary != NULL;

	if (good && filter_needs_message(&wish->filter))
		good = listing_messages(jobs, &wish->filter, now_s, summary_message, summary);
	else if (good)
		good = listing_jobs(jobs, &wish->filter, now_s, summary_job, summary);
	if (good && wish->count && wish->json)
		printf("{\"messages\":%llu,\"recipients\":%llu}\n",
		       (unsigned long long)summary_messages(summary),
		       (unsigned long long)summary_recipients(summary));
	else if (good && wish->count)
		printf("%llu\n", (unsigned long long)summary_messages(summary));
	else if (good && wish->json)
		summary_print_json(summary);
	else if (good)
		summary_print(summary);
	summary_destroy(summary);
	return good;
}

static int run(const struct wish *wish)
{
	uint32_t now_s = os_wall_seconds(os_wall_now());
	char error[JOBS_ERROR_BYTES];
	struct command_place place;
	struct jobs *jobs;
	int code = command_place_find(&place, wish->spool, wish->config);

	if (code != 0)
		return code;
	jobs = jobs_open(place.spool, error, &code);
	command_place_release(&place);
	if (!jobs)
		return command_fail(code, "%s", error);
	jobs_complain(jobs);
	if (!(wish->count || wish->summary ? summarize(jobs, wish, now_s)
					   : list(jobs, wish, now_s)))
		code = command_fail(EX_OSERR, "no memory");
	jobs_close(jobs);
	return code;
}

int command_queue(int argc, char **argv)
{
	struct wish wish = { 0 };
	int option, index = 0;

	filter_init(&wish.filter);
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":j" COMMAND_SHORT, options, &index)) != -1) {
		int code = take_option(&wish, option, index, argv);

		if (code >= 0)
			return code;
	}
	if (wish.count && wish.summary)
		return command_fail(EX_USAGE, "queue: --count or --summary, not both");
	if (optind < argc)
		return command_fail(EX_USAGE, "%s: unexpected; for one message: `stafette show %s`",
				    argv[optind], argv[optind]);
	return run(&wish);
}
