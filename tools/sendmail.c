/*
 * stafette sendmail, and `sendmail`: a message from standard input to the daemon, or into the
 * drop directory while nobody listens.
 */
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "engine/config/config.h"
#include "engine/idn.h"
#include "tools/command.h"
#include "tools/handover.h"
#include "tools/mail_address.h"
#include "tools/mail_message.h"
#include "tools/sendmail_options.h"
#include "tools/smtp_pipe.h"

enum { ENVID_BYTES_MAX = 100 };

static const char help[] =
	"Usage: sendmail [OPTIONS] [RECIPIENT ...]\n"
	"Submits the message on standard input to stafetted(8), or keeps it for the daemon.\n\n"
	"  -t            recipients are those of To:, Cc: and Bcc:\n"
	"  -i, -oi       a line of one dot does not end the message\n"
	"  -f ADDRESS    the sender; <> for none\n"
	"  -F NAME       the sender's full name, for a From: that is missing\n"
	"  -N WHEN       reports wanted: never, or some of success,failure,delay\n"
	"  -R PART       of the message in reports: full or hdrs\n"
	"  -V ID         goes into reports\n"
	"  -bs           SMTP on standard input and output\n"
	"  -bp           the queue, as mailq\n"
	"  -C FILE       the daemon's configuration (/etc/stafette/stafette.conf)\n"
	"  --help, --version\n";

/* What a message is made from. */
struct job {
	const struct sendmail_options *options;
	struct config *config;
	struct handover handover;
	struct mail_text given, message;
	char user[SMTP_ADDRESS_MAX]; /* user@hostname */
	char full_name[256];
	char envid[3 * ENVID_BYTES_MAX + 1];
	/* The first thing that is wrong with a recipient. */
	char complaint[1024];
};

/* ── addresses ────────────────────────────────────────────────────────────────────── */

/* A bare name is one of this host. */
static bool read_address(const struct job *job, const char *text, struct smtp_address *out)
{
	char whole[2 * SMTP_ADDRESS_MAX];
	struct smtp_address ascii;

	if (text[0] == '"' ? strstr(text, "\"@") != NULL : strchr(text, '@') != NULL)
		snprintf(whole, sizeof(whole), "%s", text);
	else
		snprintf(whole, sizeof(whole), "%s@%s", text, job->config->hostname);
	return smtp_address_parse(span_text(whole), true, out) == SMTP_ADDRESS_OK &&
	       (!out->utf8 || idn_address(out, &ascii));
}

static bool has_recipient(const struct handover *handover, const struct smtp_address *address)
{
	for (size_t i = 0; i < handover->count; i++)
		if (span_equal(smtp_address_span(&handover->recipients[i].address),
			       smtp_address_span(address)))
			return true;
	return false;
}

static void add_recipient(void *context, const char *text)
{
	struct job *job = context;
	struct handover *handover = &job->handover;
	struct handover_recipient *list;
	struct smtp_address address;

	if (!read_address(job, text, &address)) {
		if (!job->complaint[0])
			snprintf(job->complaint, sizeof(job->complaint), "%.200s: no address",
				 text);
		return;
	}
	/* Named twice, for instance in To: and Cc:. */
	if (has_recipient(handover, &address))
		return;
	list = reallocarray(handover->recipients, handover->count + 1, sizeof(*list));
	if (!list) {
		snprintf(job->complaint, sizeof(job->complaint), "no memory for recipients");
		return;
	}
	handover->recipients = list;
	list[handover->count++] = (struct handover_recipient){ .address = address };
	handover->utf8 |= address.utf8;
}

static bool add_field(void *context, struct span name, struct span value)
{
	struct job *job = context;

	if (!mail_addresses(value, add_recipient, job) && !job->complaint[0])
		snprintf(job->complaint, sizeof(job->complaint),
			 "%.*s: there is something in it that is no address", SPAN_ARG(name));
	return true;
}

static void add_arguments(struct job *job)
{
	for (int i = 0; i < job->options->argument_count; i++) {
		const char *text = job->options->arguments[i];

		if (!mail_addresses(span_text(text), add_recipient, job) && !job->complaint[0])
			snprintf(job->complaint, sizeof(job->complaint), "%.200s: no address",
				 text);
	}
}

/* ── who sends ────────────────────────────────────────────────────────────────────── */

/* Of the comment field of passwd, the part before the first comma; '&' is the user's name. */
static void read_full_name(struct job *job, const struct passwd *user)
{
	size_t len = 0;

	for (const char *at = user->pw_gecos; at && *at && *at != ','; at++) {
		if (len + strlen(user->pw_name) + 1 >= sizeof(job->full_name))
			break;
		if (*at != '&') {
			job->full_name[len++] = *at;
			continue;
		}
		memcpy(job->full_name + len, user->pw_name, strlen(user->pw_name));
		if (job->full_name[len] >= 'a' && job->full_name[len] <= 'z')
			job->full_name[len] = (char)(job->full_name[len] - 'a' + 'A');
		len += strlen(user->pw_name);
	}
	job->full_name[len] = '\0';
}

static void find_user(struct job *job)
{
	const struct passwd *user = getpwuid(getuid());

	if (user) {
		snprintf(job->user, sizeof(job->user), "%s@%s", user->pw_name,
			 job->config->hostname);
		read_full_name(job, user);
	} else {
		snprintf(job->user, sizeof(job->user), "uid%u@%s", (unsigned)getuid(),
			 job->config->hostname);
	}
	if (job->options->full_name)
		snprintf(job->full_name, sizeof(job->full_name), "%s", job->options->full_name);
}

struct sender_found {
	char address[MAIL_ADDRESS_BYTES];
	uint32_t count;
};

static void on_sender(void *context, const char *address)
{
	struct sender_found *found = context;

	snprintf(found->address, sizeof(found->address), "%s", address);
	found->count++;
}

static int set_sender(struct job *job)
{
	const char *given = job->options->sender;
	struct sender_found found = { 0 };

	if (given && given[0] == '\0')
		return EX_OK;
	if (!given)
		given = job->user;
	if (!mail_addresses(span_text(given), on_sender, &found) || found.count != 1 ||
	    !read_address(job, found.address, &job->handover.sender))
		return command_fail(EX_USAGE, "%s: no address to send from", given);
	job->handover.utf8 |= job->handover.sender.utf8;
	return EX_OK;
}

/* xtext: RFC 3461, 4. */
static int set_envid(struct job *job)
{
	const char *given = job->options->envid;
	char *to = job->envid;

	if (!given)
		return EX_OK;
	for (; *given && to < job->envid + ENVID_BYTES_MAX - 3; given++) {
		unsigned char octet = (unsigned char)*given;

		if (octet < '!' || octet > '~')
			return command_fail(EX_USAGE, "-V %s: printable ASCII without blanks",
					    job->options->envid);
		to += octet == '+' || octet == '=' ? sprintf(to, "+%02X", octet)
						   : sprintf(to, "%c", octet);
	}
	if (*given)
		return command_fail(EX_USAGE, "-V: longer than a report can tell");
	job->handover.envid = job->envid[0] ? job->envid : NULL;
	return EX_OK;
}

/* ── the message ──────────────────────────────────────────────────────────────────── */

static bool is_eightbit(const struct mail_text *text)
{
	for (size_t i = 0; i < text->len; i++)
		if ((unsigned char)text->bytes[i] > 127)
			return true;
	return false;
}

static int compose(struct job *job)
{
	const struct mail_recipient_fields fields = { add_field, job };
	char sender[SMTP_ADDRESS_MAX + 1], id[SMTP_ADDRESS_MAX];
	struct mail_identity identity = {
		.address = job->handover.sender.len > 0 ? sender : job->user,
		.full_name = job->full_name,
		.id = id,
		.now = os_wall_now(),
	};
	uint64_t random;

	snprintf(sender, sizeof(sender), "%.*s",
		 SPAN_ARG(smtp_address_span(&job->handover.sender)));
	os_random(&random, sizeof(random));
	snprintf(id, sizeof(id), "%llx.%016llx@%s", (unsigned long long)identity.now.us,
		 (unsigned long long)random, job->config->hostname);
	if (!mail_message_compose(span_of(job->given.bytes, job->given.len), &identity,
				  job->options->from_header ? &fields : NULL, &job->message))
		return command_fail(EX_OSERR, "no memory for the message");
	if (job->message.len > job->config->message_bytes_max)
		return command_fail(EX_DATAERR, "the message is longer than message_bytes_max");
	job->handover.message = span_of(job->message.bytes, job->message.len);
	job->handover.eightbit = is_eightbit(&job->message);
	return EX_OK;
}

static int prepare(struct job *job)
{
	int result, code;

	find_user(job);
	code = set_sender(job);
	if (code == EX_OK)
		code = set_envid(job);
	if (code != EX_OK)
		return code;
	job->handover.notify = job->options->notify;
	job->handover.ret = job->options->ret;
	add_arguments(job);
	if (job->handover.count == 0 && !job->complaint[0] && !job->options->from_header)
		return command_fail(EX_USAGE, "no recipient: name some, or use -t");
	result = mail_message_read(STDIN_FILENO, job->options->dot_ends,
				   job->config->message_bytes_max, &job->given);
	if (result == -EFBIG)
		return command_fail(EX_DATAERR, "the message is longer than message_bytes_max");
	if (result < 0)
		return command_fail(EX_IOERR, "standard input: %s", strerror(-result));
	code = compose(job);
	if (code != EX_OK)
		return code;
	/* All or nothing: who sends shall not have to find out who got it. */
	if (job->complaint[0])
		return command_fail(EX_DATAERR, "%s; nothing was sent", job->complaint);
	if (job->handover.count == 0)
		return command_fail(EX_DATAERR, "no recipient in To:, Cc: or Bcc:");
	return EX_OK;
}

/* ── sending ──────────────────────────────────────────────────────────────────────── */

static const struct handover_recipient *first_in(const struct handover *handover,
						 enum handover_state state)
{
	for (size_t i = 0; i < handover->count; i++)
		if (handover->recipients[i].state == state)
			return &handover->recipients[i];
	return NULL;
}

/* A refused recipient's code says whether it was that, or the message: RFC 3463. */
static int refusal_code(const char *reply)
{
	if (strncmp(reply, "552", 3) == 0)
		return EX_DATAERR;
	if (strncmp(reply, "550 5.1", 7) == 0 || strncmp(reply, "550 5.7", 7) == 0 ||
	    strncmp(reply, "553", 3) == 0 || strncmp(reply, "501 5.1", 7) == 0)
		return EX_NOUSER;
	return EX_UNAVAILABLE;
}

static int tell_refused(const struct handover *handover)
{
	const struct handover_recipient *one = first_in(handover, HANDOVER_REFUSED);
	size_t refused = 0;

	if (!one)
		return EX_OK;
	for (size_t i = 0; i < handover->count; i++)
		refused += handover->recipients[i].state == HANDOVER_REFUSED;
	return command_fail(refusal_code(one->reply), "%.*s: refused: %s%s",
			    SPAN_ARG(smtp_address_span(&one->address)), one->reply,
			    refused > 1 ? " (and others)" : "");
}

static int send_it(struct job *job)
{
	struct handover *handover = &job->handover;
	const struct handover_recipient *later;
	const char *folder = "";
	int error = 0;

	handover_send(handover, job->config, handover_connect(job->config));
	if (first_in(handover, HANDOVER_LATER))
		error = handover_keep(handover, job->config, &folder);
	later = first_in(handover, HANDOVER_LATER);
	if (later)
		return command_fail(EX_TEMPFAIL, "not sent: %s; nor kept in %s: %s", later->reply,
				    folder, strerror(-error));
	return tell_refused(handover);
}

static int send_message(const struct sendmail_options *options, struct config *config)
{
	struct job job = { .options = options, .config = config };
	int code;

	/* A terminal or a pipe that goes away stops nobody halfway: it is sent, or it is not. */
	signal(SIGPIPE, SIG_IGN);
	code = prepare(&job);
	if (code == EX_OK)
		code = send_it(&job);
	free(job.handover.recipients);
	mail_text_release(&job.given);
	mail_text_release(&job.message);
	return code;
}

static int speak_smtp(const struct config *config)
{
	int fd = handover_connect(config);

	signal(SIGPIPE, SIG_IGN);
	if (fd >= 0)
		return smtp_pipe_run(fd);
	printf("421 4.3.2 %s The daemon is not there, try again later\r\n", config->hostname);
	return EX_TEMPFAIL;
}

/* ── the command ──────────────────────────────────────────────────────────────────── */

static int list_queue(const char *config)
{
	char *arguments[] = { "mailq", "-c", (char *)config, NULL };

	optind = 0; /* glibc: a list of its own */
	return command_queue(config ? 3 : 1, arguments);
}

static int with_config(const struct sendmail_options *options)
{
	char error[2048] = "";
	struct config *config =
		config_load(command_config_path(options->config), error, sizeof(error));
	int code;

	if (!config)
		return command_fail(EX_CONFIG, "%s", error);
	code = options->mode == SENDMAIL_SMTP ? speak_smtp(config) : send_message(options, config);
	config_destroy(config);
	return code;
}

int command_sendmail(int argc, char **argv)
{
	char error[SENDMAIL_ERROR_BYTES];
	struct sendmail_options options;
	int code = sendmail_options_parse(argc, argv, &options, error);

	if (code != EX_OK)
		return command_fail(code, "%s", error);
	switch (options.mode) {
	case SENDMAIL_SEND:
	case SENDMAIL_SMTP:
		return with_config(&options);
	case SENDMAIL_LIST:
		return list_queue(options.config);
	case SENDMAIL_HELP:
		fputs(help, stdout);
		return EX_OK;
	case SENDMAIL_VERSION:
		puts("stafette " STAFETTE_VERSION);
		return EX_OK;
	case SENDMAIL_NOTHING:
		return EX_OK;
	}
	return EX_SOFTWARE;
}
