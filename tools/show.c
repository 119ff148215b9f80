/* stafette show: one message, all there is to know. */
#include <getopt.h>
#include <stdlib.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "os/os.h"
#include "queue/envelope.h"
#include "queue/queue.h"
#include "tools/command.h"
#include "tools/print.h"

static const char help[] =
	"Usage: stafette show [OPTIONS] ID\n"
	"Shows one queued message: envelope, state, history from the delivery log, content.\n\n"
	"      --content      only the message itself, as it will be sent (on a terminal without\n"
	"                     what could control it)\n"
	"      --no-content   everything but that\n"
	"      --log FILE     where the history is; else the configuration's delivery log\n"
	"  -S, --spool FOLDER\n"
	"  -c, --config FILE  of which spool; without both, that of " COMMAND_CONFIG "\n"
	"  -h, --help\n";

enum { OPTION_CONTENT = 256, OPTION_NO_CONTENT, OPTION_LOG };

static const struct option options[] = {
	COMMAND_LONG,
	{ "content", no_argument, NULL, OPTION_CONTENT },
	{ "no-content", no_argument, NULL, OPTION_NO_CONTENT },
	{ "log", required_argument, NULL, OPTION_LOG },
	{ 0 },
};

struct wish {
	const char *spool, *config, *log; /* borrowed from argv */
	bool only_content, no_content;
	uint64_t id;
};

/* The jobs of the message, in order of their first recipient. */
struct found {
	uint64_t id;
	struct listing_job *jobs; /* owned */
	size_t count;
	bool no_memory;
};

static void find_job(void *context, const struct listing_job *job)
{
	struct found *found = context;
	struct listing_job *larger;

	if (job->job.message != found->id)
		return;
	larger = realloc(found->jobs, (found->count + 1) * sizeof(*larger));
	found->no_memory |= !larger;
	if (!larger)
		return;
	found->jobs = larger;
	larger[found->count++] = *job;
}

static int compare_jobs(const void *a, const void *b)
{
	const struct listing_job *left = a, *right = b;

	return (int)left->job.first - (int)right->job.first;
}

/* ── the envelope ─────────────────────────────────────────────────────────────────── */

static void print_time(const char *label, int64_t seconds)
{
	time_t when = (time_t)seconds;
	struct tm local;
	char text[64] = "?";

	if (localtime_r(&when, &local))
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &local);
	printf("%-12s %s\n", label, text);
}

static void print_entry(const char *label, struct span envelope, enum format_entry_type type)
{
	struct span value = envelope_get(envelope, type);

	if (!value.at)
		return;
	printf("%-12s ", label);
	print_text(stdout, value);
	putchar('\n');
}

static void print_envelope(const struct reader_message *message)
{
	const struct format_message *head = &message->head;
	struct span sender = envelope_sender(message->envelope);

	printf("%-12s ", "sender");
	print_text(stdout, sender.len > 0 ? sender : span_text("<>"));
	putchar('\n');
	print_time("arrived", head->arrival_us / 1000000);
	print_time("expires", head->expiry_s);
	printf("%-12s %llu bytes, %u recipients\n", "size", (unsigned long long)head->body_bytes,
	       head->recipients);
	print_entry("client", message->envelope, FORMAT_CLIENT);
	print_entry("user", message->envelope, FORMAT_AUTH);
	print_entry("envid", message->envelope, FORMAT_ENVID);
	print_entry("ret", message->envelope, FORMAT_RET);
}

/* ── recipients ───────────────────────────────────────────────────────────────────── */

static void print_notify(uint8_t notify)
{
	static const char *const names[] = { "never", "success", "failure", "delay" };
	const char *between = "  notify=";

	for (int i = 0; i < 4; i++)
		if (notify & 1 << i) {
			printf("%s%s", between, names[i]);
			between = ",";
		}
}

static const struct listing_job *job_of(const struct found *found, uint32_t index)
{
	for (size_t i = found->count; i > 0; i--)
		if (found->jobs[i - 1].job.first <= index)
			return index - found->jobs[i - 1].job.first < 64 ? &found->jobs[i - 1]
									 : NULL;
	return NULL;
}

static void print_job(const struct listing_job *job)
{
	char reason[PRINT_REASON_BYTES];

	print_reason(job, reason);
	printf("  attempts %u", job->job.attempts);
	if (reason[0]) {
		fputs(", ", stdout);
		print_text(stdout, span_text(reason));
	}
	putchar('\n');
	if (job->state == FILTER_DEFERRED)
		print_time("  next", job->job.due_s);
	if (job->job.flags & FORMAT_JOB_MAYBE_DUPLICATE)
		puts("  an earlier delivery may be unrecorded: the next one may be a duplicate");
}

/* Settled ones as well: what became of them stands in the history. A job's line follows its
 * last recipient. */
static void print_recipients(const struct found *found, struct span envelope)
{
	struct envelope_cursor cursor = { envelope };
	struct envelope_recipient recipient;
	const struct listing_job *last = NULL;

	puts("\nRecipients");
	for (uint32_t i = 0; envelope_next(&cursor, &recipient); i++) {
		const struct listing_job *job = job_of(found, i);
		bool pending = job && job->job.pending >> (i - job->job.first) & 1;

		if (last && job != last)
			print_job(last);
		last = job;
		printf("  %-9s ", pending ? filter_state_name(job->state) : "settled");
		print_text(stdout, recipient.address);
		print_notify(recipient.notify);
		putchar('\n');
	}
	if (last)
		print_job(last);
}

/* ── history and content ──────────────────────────────────────────────────────────── */

/* Lines of the delivery log that name the id. */
static void print_history(const char *path, const char *id)
{
	FILE *log = fopen(path, "r");
	const char *head = "\nHistory\n";
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	if (!log) {
		command_fail(0, "%s: no history: the log can't be read; --log names another", path);
		return;
	}
	while ((len = getline(&line, &size, log)) >= 0) {
		if (!memmem(line, (size_t)len, id, strlen(id)))
			continue;
		fputs(head, stdout);
		head = "";
		fwrite(line, 1, (size_t)len, stdout);
	}
	free(line);
	fclose(log);
}

static void print_raw(void *context, struct span piece)
{
	(void)context;
	if (piece.len > 0)
		fwrite(piece.at, 1, piece.len, stdout);
}

static bool is_layout(char c)
{
	return c == '\t' || c == '\r' || c == '\n';
}

/* For a terminal: nothing in a message shall move its cursor. */
static void print_lines(void *context, struct span piece)
{
	(void)context;
	while (piece.len > 0) {
		size_t plain = 0;

		while (plain < piece.len && !is_layout(piece.at[plain]))
			plain++;
		print_text(stdout, span_of(piece.at, plain));
		piece = span_skip(piece, plain);
		if (piece.len == 0)
			break;
		if (*piece.at != '\r')
			putchar(*piece.at);
		piece = span_skip(piece, 1);
	}
}

/* Whether it went or is damaged is the same from here: its place is used again. */
static const struct {
	int code;
	const char *why;
} reading_failures[] = {
	[-READER_GONE] = { EX_DATAERR, "it is damaged, or was delivered or moved meanwhile" },
	[-READER_DAMAGED] = { EX_DATAERR, "it is damaged, or was delivered or moved meanwhile" },
	[-READER_NO_MEMORY] = { EX_OSERR, "no memory" },
	[-READER_UNREADABLE] = { EX_IOERR,
				 "try again; the limit of open files or the kernel's log may "
				 "tell why" },
};

static int fail_reading(enum reader_status status, const struct found *found)
{
	const struct format_job *job = &found->jobs[0].job;

	return command_fail(reading_failures[-status].code,
			    "the message can't be read at seg/%08x byte %llu: %s", job->segment,
			    (unsigned long long)job->place * FORMAT_RECORD_ALIGN,
			    reading_failures[-status].why);
}

static int print_content(struct jobs *jobs, const struct reader_message *message,
			 const struct found *found)
{
	struct span prefix = envelope_get(message->envelope, FORMAT_PREFIX);
	void (*print)(void *, struct span) = isatty(STDOUT_FILENO) ? print_lines : print_raw;
	enum reader_status status;

	print(NULL, prefix);
	status = reader_body(jobs_reader(jobs), message, print, NULL);
	return status == READER_OK ? EX_OK : fail_reading(status, found);
}

/* ── the command ──────────────────────────────────────────────────────────────────── */

/* By any of its jobs. */
static enum reader_status read_message(struct jobs *jobs, const struct found *found,
				       struct reader_message *out)
{
	enum reader_status status = READER_GONE;

	for (size_t i = 0; status != READER_OK && i < found->count; i++) {
		const struct format_job *job = &found->jobs[i].job;

		status = reader_message(jobs_reader(jobs), job->message, job->segment, job->place,
					out);
	}
	return status;
}

static int print_message(struct jobs *jobs, const struct wish *wish, const struct found *found,
			 const char *log, const char *id)
{
	struct reader_message message;
	enum reader_status status = read_message(jobs, found, &message);

	if (!wish->only_content) {
		printf("%-12s %s\n", "id", id);
		if (status == READER_OK) {
			print_envelope(&message);
			print_recipients(found, message.envelope);
		}
		if (log)
			print_history(log, id);
	}
	if (status != READER_OK)
		return fail_reading(status, found);
	if (wish->no_content)
		return EX_OK;
	if (!wish->only_content)
		puts("\nContent");
	return print_content(jobs, &message, found);
}

static int print_gone(const struct wish *wish, const char *log, const char *id)
{
	if (log && !wish->only_content)
		print_history(log, id);
	return command_fail(EX_NOINPUT, "%s is not in the queue%s", id,
			    log ? "" : "; --log FILE shows what became of it");
}

static int run(const struct wish *wish)
{
	uint32_t now_s = os_wall_seconds(os_wall_now());
	struct found found = { .id = wish->id };
	char error[JOBS_ERROR_BYTES], id[QUEUE_ID_TEXT_BYTES];
	struct command_place place;
	struct filter filter;
	struct jobs *jobs;
	const char *log;
	int code = command_place_find(&place, wish->spool, wish->config);

	if (code != 0)
		return code;
	log = wish->log ? wish->log : place.log;
	queue_id_text(wish->id, id);
	filter_init(&filter);
	jobs = jobs_open(place.spool, error, &code);
	if (jobs) {
		listing_jobs(jobs, &filter, now_s, find_job, &found);
		if (found.count > 0)
			qsort(found.jobs, found.count, sizeof(*found.jobs), compare_jobs);
		code = found.count > 0 ? print_message(jobs, wish, &found, log, id)
				       : print_gone(wish, log, id);
	} else {
		command_fail(code, "%s", error);
	}
	jobs_close(jobs);
	free(found.jobs);
	command_place_release(&place);
	return code;
}

/* -1: go on; else the code to exit with. */
static int take_option(struct wish *wish, int option, char **argv)
{
	switch (option) {
	case 'h':
		fputs(help, stdout);
		return EX_OK;
	case 'S':
		wish->spool = optarg;
		return -1;
	case 'c':
		wish->config = optarg;
		return -1;
	case OPTION_CONTENT:
		wish->only_content = true;
		return -1;
	case OPTION_NO_CONTENT:
		wish->no_content = true;
		return -1;
	case OPTION_LOG:
		wish->log = optarg;
		return -1;
	default:
		return command_bad_option(option, argv, "show");
	}
}

int command_show(int argc, char **argv)
{
	struct wish wish = { 0 };
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":" COMMAND_SHORT, options, NULL)) != -1) {
		int code = take_option(&wish, option, argv);

		if (code >= 0)
			return code;
	}
	if (wish.only_content && wish.no_content)
		return command_fail(EX_USAGE, "show: --content or --no-content, not both");
	if (optind + 1 != argc)
		return command_fail(
			EX_USAGE,
			"usage: stafette show [OPTIONS] ID; `stafette queue` lists the ids");
	if (!queue_id_parse(span_text(argv[optind]), &wish.id))
		return command_fail(EX_USAGE,
				    "%s is no message id: those have 13 letters and digits",
				    argv[optind]);
	return run(&wish);
}
