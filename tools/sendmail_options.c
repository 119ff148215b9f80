/*
 * sendmail_options - see sendmail_options.h.
 */
#include "tools/sendmail_options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>

#include "os/check.h"
#include "queue/envelope.h"

/* '+': what follows the first recipient is a recipient, however it begins. */
static const char letters[] = "+:A:B:C:F:GIL:N:O:R:UV:X:b:cd::e:f:h:imno:p:q::r:stvx";

static const struct option long_options[] = {
	{ "help", no_argument, NULL, 1 },
	{ "version", no_argument, NULL, 2 },
	{ 0 },
};

static bool complain(char *error, const char *format, const char *text)
{
	snprintf(error, SENDMAIL_ERROR_BYTES, format, text);
	return false;
}

static bool set_mode(struct sendmail_options *options, const char *word, char *error)
{
	switch (word[0]) {
	case 'm':
		options->mode = SENDMAIL_SEND;
		return true;
	case 's':
		options->mode = SENDMAIL_SMTP;
		return true;
	case 'p':
		options->mode = SENDMAIL_LIST;
		return true;
	case 'i':
		options->mode = SENDMAIL_NOTHING;
		return true;
	case 'd':
	case 'D':
	case 'l':
		return complain(error, "-b%s: the daemon is stafetted(8)", word);
	default:
		return complain(error, "-b%s: there is no such mode here", word);
	}
}

static bool set_notify(struct sendmail_options *options, const char *list, char *error)
{
	static const struct {
		const char *word;
		uint8_t bit;
	} words[] = {
		{ "never", ENVELOPE_NOTIFY_NEVER },
		{ "success", ENVELOPE_NOTIFY_SUCCESS },
		{ "failure", ENVELOPE_NOTIFY_FAILURE },
		{ "delay", ENVELOPE_NOTIFY_DELAY },
	};
	uint8_t notify = 0;

	for (const char *at = list; *at != '\0';) {
		size_t len = strcspn(at, ",");
		size_t i = 0;

		while (i < array_count(words) &&
		       (strlen(words[i].word) != len || strncasecmp(at, words[i].word, len) != 0))
			i++;
		if (i == array_count(words))
			return complain(error, "-N %s: never, or some of success,failure,delay",
					list);
		notify |= words[i].bit;
		at += len + (at[len] == ',');
	}
	if (notify == 0 || (notify & ENVELOPE_NOTIFY_NEVER && notify != ENVELOPE_NOTIFY_NEVER))
		return complain(error, "-N %s: never stands alone", list);
	options->notify = notify;
	return true;
}

static bool set_ret(struct sendmail_options *options, const char *word, char *error)
{
	if (strcasecmp(word, "full") == 0)
		options->ret = 'F';
	else if (strcasecmp(word, "hdrs") == 0)
		options->ret = 'H';
	else
		return complain(error, "-R %s: full or hdrs", word);
	return true;
}

/* -oi and -O IgnoreDots mean -i; what else they set is another program's. */
static void set_old(struct sendmail_options *options, const char *text)
{
	if (strcmp(text, "i") == 0 || strncasecmp(text, "IgnoreDots", 10) == 0)
		options->dot_ends = false;
}

static bool is_null_sender(const char *text)
{
	return text[0] == '\0' || strcmp(text, "<>") == 0;
}

static bool set(struct sendmail_options *options, int letter, const char *value, char *error)
{
	switch (letter) {
	case 'C':
		options->config = value;
		return true;
	case 'F':
		options->full_name = value;
		return true;
	case 'N':
		return set_notify(options, value, error);
	case 'R':
		return set_ret(options, value, error);
	case 'V':
		options->envid = value;
		return true;
	case 'b':
		return set_mode(options, value, error);
	case 'f':
	case 'r':
		options->sender = is_null_sender(value) ? "" : value;
		return true;
	case 'i':
		options->dot_ends = false;
		return true;
	case 'O':
	case 'o':
		set_old(options, value);
		return true;
	case 'I':
	case 'q':
		options->mode = SENDMAIL_NOTHING;
		return true;
	case 't':
		options->from_header = true;
		return true;
	default: /* -A -B -G -L -U -X -c -d -e -h -m -n -p -s -v -x */
		return true;
	}
}

int sendmail_options_parse(int argc, char **argv, struct sendmail_options *out,
			   char error[static SENDMAIL_ERROR_BYTES])
{
	struct sendmail_options options = { .mode = SENDMAIL_SEND, .dot_ends = true };
	int letter;

	opterr = 0;
	optind = 0; /* glibc: from the beginning, also for a second list */
	while ((letter = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
		char given[3] = { '-', (char)optopt, '\0' };

		if (letter == 1 || letter == 2) {
			options.mode = letter == 1 ? SENDMAIL_HELP : SENDMAIL_VERSION;
		} else if (letter == ':' || letter == '?') {
			complain(error,
				 letter == ':'
					 ? "%s: a value must follow"
					 : "%s: no such option here (see stafette-sendmail(1))",
				 optopt != 0 ? given : argv[optind - 1]);
			return EX_USAGE;
		} else if (!set(&options, letter, optarg, error)) {
			return EX_USAGE;
		}
	}
	options.arguments = argv + optind;
	options.argument_count = argc - optind;
	*out = options;
	return EX_OK;
}
