#include "tools/print.h"

#include <stdlib.h>
#include <time.h>

#include "engine/log/escape.h"
#include "os/check.h"
#include "queue/queue.h"

/* ── texts ────────────────────────────────────────────────────────────────────────── */

void print_text(FILE *to, struct span text)
{
	char shown[512];
	size_t used;

	while (text.len > 0) {
		text = span_skip(text, log_escape_plain(text, shown, sizeof(shown), &used));
		fwrite(shown, 1, used, to);
	}
}

/* "4.7.1" of format_job's number; "" for 0. */
static void print_enhanced(uint16_t enhanced, char out[static 12])
{
	out[0] = 0;
	if (enhanced != 0)
		snprintf(out, 12, "%u.%u.%u", enhanced / 10000u, enhanced / 100u % 100u,
			 enhanced % 100u);
}

/* "name@domain", or for an unreadable envelope what is known. */
static void print_address(FILE *to, const struct listing_recipient *recipient)
{
	if (recipient->address.len > 0) {
		print_text(to, recipient->address);
		return;
	}
	assert(recipient->job);
	fputs("(unreadable)@", to);
	print_text(to, recipient->job->domain);
}

/* The length of the UTF-8 sequence at the beginning; 0: there is none. */
static size_t utf8_len(struct span text)
{
	const unsigned char *at = (const unsigned char *)text.at;
	uint32_t code = at[0];
	size_t len = code < 0x80 ? 1 : code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2;

	if (len == 1)
		return 1;
	if (code < 0xc2 || code > 0xf4 || text.len < len)
		return 0;
	code &= 0x7fu >> len;
	for (size_t i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3f);
	}
	return code > 0x10ffff || (code >= 0xd800 && code < 0xe000) || (len == 3 && code < 0x800) ||
			       (len == 4 && code < 0x10000)
		       ? 0
		       : len;
}

json_t *print_json_text(struct span text)
{
	json_t *good = json_stringn(text.at ? text.at : "", text.len);
	char *mended, *end;

	assert(text.at || text.len == 0);
	if (good || text.len == 0)
		return good;
	mended = end = malloc(text.len * 3 + 1);
	if (!mended)
		return json_string("");
	while (text.len > 0) {
		size_t len = utf8_len(text);

		memcpy(end, len ? text.at : "\xef\xbf\xbd", len ? len : 3);
		end += len ? len : 3;
		text = span_skip(text, len ? len : 1);
	}
	good = json_stringn(mended, (size_t)(end - mended));
	free(mended);
	return good;
}

/* ── why it is still here ─────────────────────────────────────────────────────────── */

static const char *held_reason(uint16_t flags)
{
	if (flags & FORMAT_JOB_DAMAGED)
		return "held: the message cannot be read from the disk";
	if (flags & FORMAT_JOB_IN_DOUBT)
		return "held: may have been delivered already";
	return "held";
}

/* Most servers say it themselves. */
static bool begins_with(struct span text, const char *enhanced)
{
	size_t len = strlen(enhanced);

	return text.len > len && memcmp(text.at, enhanced, len) == 0 && text.at[len] == ' ';
}

void print_reason(const struct listing_job *job, char out[static PRINT_REASON_BYTES])
{
	const struct jobs_reply *reply = &job->reply;
	char code[8] = "", enhanced[12];

	out[0] = 0;
	print_enhanced(job->job.enhanced, enhanced);
	if (begins_with(reply->text, enhanced))
		enhanced[0] = 0;
	if (job->job.reply != 0)
		snprintf(code, sizeof(code), "%u ", job->job.reply);
	if (job->job.flags & FORMAT_JOB_HELD)
		snprintf(out, PRINT_REASON_BYTES, "%s", held_reason(job->job.flags));
	else if (reply->host.len > 0 && job->job.reply != 0)
		snprintf(out, PRINT_REASON_BYTES, "host %.*s said: %s%s%s%.*s",
			 SPAN_ARG(reply->host), code, enhanced, enhanced[0] ? " " : "",
			 SPAN_ARG(reply->text));
	else if (job->job.reply == 0)
		snprintf(out, PRINT_REASON_BYTES, "%.*s%s%.*s", SPAN_ARG(reply->host),
			 reply->host.len > 0 ? ": " : "", SPAN_ARG(reply->text));
	else
		snprintf(out, PRINT_REASON_BYTES, "%s%s%s%.*s", code, enhanced,
			 enhanced[0] ? " " : "", SPAN_ARG(reply->text));
}

/* ── mailq ────────────────────────────────────────────────────────────────────────── */

enum { REASON_COLUMN = 76, ADDRESS_COLUMN = 41 };

static void mailq_sender(const struct listing_message *message)
{
	char mark = message->state == FILTER_ACTIVE ? '*'
		    : message->state == FILTER_HOLD ? '!'
						    : ' ';
	char id[QUEUE_ID_TEXT_BYTES + 1], date[32] = "unknown";
	time_t seconds = (time_t)(message->arrival_us / 1000000);
	struct tm local;

	queue_id_text(message->id, id);
	id[QUEUE_ID_TEXT_BYTES - 1] = mark;
	id[QUEUE_ID_TEXT_BYTES] = 0;
	if (message->readable && localtime_r(&seconds, &local))
		strftime(date, sizeof(date), "%a %b %e %H:%M:%S ", &local);
	printf("%-11s %7llu %20.20s ", id, (unsigned long long)message->bytes, date);
	if (!message->readable)
		fputs("(unreadable)", stdout);
	else if (message->sender.len == 0)
		fputs("MAILER-DAEMON", stdout);
	else
		print_text(stdout, message->sender);
	putchar('\n');
}

void print_mailq_message(void *context, const struct listing_message *message)
{
	struct print_mailq *mailq = context;
	char reason[PRINT_REASON_BYTES];
	const struct listing_job *last = NULL;

	if (mailq->messages++ == 0)
		puts("-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------");
	mailq->bytes += message->bytes;
	mailq_sender(message);
	for (size_t i = 0; i < message->recipient_count; i++) {
		const struct listing_recipient *recipient = &message->recipients[i];

		if (recipient->job != last) {
			int padding;

			print_reason(recipient->job, reason);
			padding = REASON_COLUMN - (int)strlen(reason);
			if (reason[0]) {
				printf("%*s(", padding > 0 ? padding : 0, "");
				print_text(stdout, span_text(reason));
				puts(")");
			}
			last = recipient->job;
		}
		printf("%*s", ADDRESS_COLUMN, "");
		print_address(stdout, recipient);
		putchar('\n');
	}
	putchar('\n');
}

void print_mailq_end(const struct print_mailq *mailq)
{
	if (mailq->messages == 0)
		puts("Mail queue is empty");
	else
		printf("-- %llu Kbytes in %llu Request%s.\n",
		       (unsigned long long)mailq->bytes / 1024, (unsigned long long)mailq->messages,
		       mailq->messages == 1 ? "" : "s");
}

/* ── JSON ─────────────────────────────────────────────────────────────────────────── */

/* null: no attempt got as far as a reply or an error. */
static json_t *json_reply(const struct listing_job *job)
{
	char enhanced[12];

	if (job->job.reply == 0 && job->job.enhanced == 0 && job->reply.text.len == 0)
		return json_null();
	print_enhanced(job->job.enhanced, enhanced);
	return json_pack("{s:i, s:s, s:o, s:o}", "code", (int)job->job.reply, "enhanced", enhanced,
			 "text", print_json_text(job->reply.text), "host",
			 print_json_text(job->reply.host));
}

static json_t *json_flags(uint16_t flags)
{
	static const struct {
		uint16_t flag;
		const char *name;
	} names[] = {
		{ FORMAT_JOB_HELD, "held" },
		{ FORMAT_JOB_WARNED, "warned" },
		{ FORMAT_JOB_IN_DOUBT, "in-doubt" },
		{ FORMAT_JOB_MAYBE_DUPLICATE, "maybe-duplicate" },
		{ FORMAT_JOB_DAMAGED, "damaged" },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < array_count(names); i++)
		if (flags & names[i].flag)
			json_array_append_new(list, json_string(names[i].name));
	return list;
}

static json_t *json_recipient(const struct listing_recipient *recipient)
{
	const struct listing_job *job = recipient->job;
	char reason[PRINT_REASON_BYTES];
	json_t *object = json_object();

	json_object_set_new(object, "address",
			    recipient->address.len > 0 ? print_json_text(recipient->address)
						       : json_null());
	print_reason(job, reason);
	if (reason[0])
		json_object_set_new(object, "delay_reason", print_json_text(span_text(reason)));
	json_object_set_new(object, "state", json_string(filter_state_name(job->state)));
	json_object_set_new(object, "attempts", json_integer(job->job.attempts));
	json_object_set_new(object, "next_attempt", json_integer(job->job.due_s));
	json_object_set_new(object, "expires", json_integer(job->job.expiry_s));
	json_object_set_new(object, "site", print_json_text(job->domain));
	json_object_set_new(object, "flags", json_flags(job->job.flags));
	json_object_set_new(object, "last_reply", json_reply(job));
	return object;
}

static void note_extremes(json_t *object, const struct listing_message *message)
{
	const struct format_job *first = &message->jobs[0].job;
	uint32_t next = first->due_s, expires = first->expiry_s;
	uint16_t attempts = first->attempts;

	for (size_t i = 1; i < message->job_count; i++) {
		const struct format_job *job = &message->jobs[i].job;

		next = job->due_s < next ? job->due_s : next;
		expires = job->expiry_s < expires ? job->expiry_s : expires;
		attempts = job->attempts > attempts ? job->attempts : attempts;
	}
	json_object_set_new(object, "attempts", json_integer(attempts));
	json_object_set_new(object, "next_attempt", json_integer(next));
	json_object_set_new(object, "expires", json_integer(expires));
}

/* What is beyond ASCII stands within strings, where \uXXXX means the same. */
void print_json_line(json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);

	print_text(stdout, span_text(text ? text : "null"));
	putchar('\n');
	free(text);
	json_decref(object);
}

/* Owned by the caller. */
static json_t *print_json(const struct listing_message *message)
{
	json_t *object = json_object(), *recipients = json_array();
	struct span sender = message->sender.len > 0 ? message->sender : span_text("MAILER-DAEMON");
	char id[QUEUE_ID_TEXT_BYTES];

	queue_id_text(message->id, id);
	json_object_set_new(object, "queue_name", json_string(filter_state_name(message->state)));
	json_object_set_new(object, "queue_id", json_string(id));
	json_object_set_new(object, "arrival_time", json_integer(message->arrival_us / 1000000));
	json_object_set_new(object, "message_size", json_integer((json_int_t)message->bytes));
	json_object_set_new(object, "forced_expire", json_false());
	json_object_set_new(object, "sender",
			    message->readable ? print_json_text(sender) : json_null());
	note_extremes(object, message);
	json_object_set_new(object, "site", print_json_text(message->recipients[0].job->domain));
	json_object_set_new(object, "last_reply", json_reply(message->recipients[0].job));
	for (size_t i = 0; i < message->recipient_count; i++)
		json_array_append_new(recipients, json_recipient(&message->recipients[i]));
	json_object_set_new(object, "recipients", recipients);
	return object;
}

void print_json_message(void *context, const struct listing_message *message)
{
	(void)context;
	print_json_line(print_json(message));
}
