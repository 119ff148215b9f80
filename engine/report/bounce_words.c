/*
 * bounce_words - see bounce_words.h.
 */
#include "engine/report/bounce_words.h"

#include <stdio.h>

#include "engine/inbound/received.h"
#include "engine/smtp/reply.h"
#include "os/check.h"

enum {
	SHOWN_ADDRESS_MAX = 600,
	SHOWN_NAME_MAX = 255,
	SHOWN_LINES_MAX = 20, /* of a server's words */
};

const char *bounce_subject(enum bounce_kind kind)
{
	switch (kind) {
	case BOUNCE_FAILED:
		return "Your message could not be delivered";
	case BOUNCE_DELAYED:
		return "Your message is delayed";
	case BOUNCE_RELAYED:
		return "Your message was handed on";
	case BOUNCE_DELIVERED:
		return "Your message was delivered";
	case BOUNCE_KINDS:
		break;
	}
	return "";
}

/* ── what can be done ─────────────────────────────────────────────────────────────── */

/* By the subject and detail of the status; the first row that fits. */
static const struct advice {
	int subject, detail; /* -1: any */
	const char *text;
} advices[] = {
	{ 1, 2, "Check the part of the address after the @: no mail can be sent there." },
	{ 1, 10, "Check the part of the address after the @: that domain takes no mail." },
	{ 1, 7, "Your own address was refused. Ask your mail administrator." },
	{ 1, 8, "Your own address was refused. Ask your mail administrator." },
	{ 1, -1, "Check the address for a typing error, or ask the recipient for the right one." },
	{ 2, 1, "The mailbox is closed. Try to reach the recipient in another way." },
	{ 2, 2,
	  "The mailbox is full. Send the message again later, or tell the recipient in "
	  "another way." },
	{ 2, 3, "Send a smaller message, or share large files in another way." },
	{ 3, 4, "Send a smaller message, or share large files in another way." },
	{ 4, 4, "Check the part of the address after the @: no server for its mail was found." },
	{ 4, 6,
	  "The mail servers of that domain are set up wrongly. Tell the recipient in another "
	  "way." },
	{ 6, -1, "The server cannot take this kind of message. Send it in a simpler form." },
	{ 7, -1,
	  "The server refused the message by its rules. If it should not have, show this "
	  "report to your mail administrator." },
};

static const char *advice_for(const struct bounce_recipient *recipient, uint16_t status)
{
	int subject = smtp_enhanced_subject(status), detail = smtp_enhanced_detail(status);

	if (recipient->expired)
		return "You can send the message again, or try to reach the recipient in another "
		       "way.";
	for (size_t i = 0; i < array_count(advices); i++) {
		if (advices[i].subject == subject &&
		    (advices[i].detail == -1 || advices[i].detail == detail))
			return advices[i].text;
	}
	return "If this says nothing to you, show it to your mail administrator.";
}

/* ── a recipient ──────────────────────────────────────────────────────────────────── */

uint16_t bounce_status(const struct bounce_recipient *recipient)
{
	uint16_t status = recipient->enhanced, class = status / 10000;

	switch (recipient->kind) {
	case BOUNCE_RELAYED:
	case BOUNCE_DELIVERED:
		return class == 2 ? status : 20000;
	case BOUNCE_DELAYED:
		return class == 4 ? status : 40000;
	case BOUNCE_FAILED:
	case BOUNCE_KINDS:
		break;
	}
	if (class == 5 || class == 4) /* given up while the last answer was 4.x.x */
		return status;
	return recipient->expired ? 40407 : 50000;
}

/* The server's words, each line of theirs on a line of its own. */
static void write_reply(struct bounce_writer *writer, const struct bounce_recipient *recipient)
{
	struct span rest = recipient->text;

	for (uint32_t i = 0; i < SHOWN_LINES_MAX; i++) {
		const char *end = rest.len > 0 ? memchr(rest.at, '\n', rest.len) : NULL;
		struct span line =
			span_of(rest.at, end != NULL ? (size_t)(end - rest.at) : rest.len);
		char first[16];

		snprintf(first, sizeof(first), "        %03u ", recipient->reply % 1000);
		bounce_write_folded(writer, first, "            ", line);
		if (end == NULL)
			return;
		rest = span_skip(rest, line.len + 1);
	}
}

/* "The server mx.example.org SAID", or a form without a name. */
static void write_server_said(struct bounce_writer *writer,
			      const struct bounce_recipient *recipient, const char *said)
{
	bounce_text(writer, "    The server ");
	if (recipient->host.len > 0) {
		bounce_write_clean(writer, recipient->host, SHOWN_NAME_MAX, false);
		bounce_text(writer, " ");
	}
	bounce_line(writer, said);
}

static void write_reason(struct bounce_writer *writer, const struct bounce_recipient *recipient,
			 const char *said)
{
	if (recipient->reply != 0) {
		write_server_said(writer, recipient, said);
		write_reply(writer, recipient);
	} else if (recipient->text.len > 0) {
		bounce_write_folded(writer, "    Reason: ", "        ", recipient->text);
	}
}

static void write_failed(struct bounce_writer *writer, const struct bounce_recipient *recipient)
{
	if (recipient->expired) {
		bounce_line(writer, "    It could not be delivered in the time allowed.");
		write_reason(writer, recipient, "said last:");
	} else {
		write_reason(writer, recipient, "refused it, and said:");
	}
	bounce_write_folded(writer, "    ", "    ",
			    span_text(advice_for(recipient, bounce_status(recipient))));
}

static void write_delayed(struct bounce_writer *writer, const struct bounce_recipient *recipient)
{
	char date[RECEIVED_DATE_BYTES];

	write_reason(writer, recipient, "did not take it yet, and said:");
	if (recipient->until.us == 0)
		return;
	received_date(recipient->until, date);
	bounce_text(writer, "    It will be tried until ");
	bounce_text(writer, date);
	bounce_line(writer, ".");
}

static void write_recipient(struct bounce_writer *writer, const struct bounce_recipient *recipient)
{
	bounce_text(writer, "\r\n<");
	bounce_write_clean(writer, recipient->address, SHOWN_ADDRESS_MAX, true);
	bounce_line(writer, ">");
	switch (recipient->kind) {
	case BOUNCE_FAILED:
		write_failed(writer, recipient);
		break;
	case BOUNCE_DELAYED:
		write_delayed(writer, recipient);
		break;
	case BOUNCE_RELAYED:
		write_server_said(writer, recipient, "took the message.");
		break;
	case BOUNCE_DELIVERED:
		bounce_line(writer, "    It is in the mailbox.");
		break;
	case BOUNCE_KINDS:
		break;
	}
}

/* ── the whole text ───────────────────────────────────────────────────────────────── */

static void write_opening(struct bounce_writer *writer, enum bounce_kind kind)
{
	switch (kind) {
	case BOUNCE_FAILED:
		bounce_line(writer,
			    "could not be delivered to the recipients below, and will not be "
			    "tried");
		bounce_line(writer, "again. The other recipients, if any, are not concerned.");
		break;
	case BOUNCE_DELAYED:
		bounce_line(writer, "has not yet been delivered to the recipients below. THIS IS A "
				    "WARNING");
		bounce_line(writer, "ONLY: delivery goes on, and you need not send it again.");
		break;
	case BOUNCE_RELAYED:
		bounce_line(writer,
			    "was handed on for the recipients below, to servers that give no");
		bounce_line(writer,
			    "confirmation of delivery. You will hear of it again only if it "
			    "fails.");
		break;
	case BOUNCE_DELIVERED:
		bounce_line(writer, "was delivered to the recipients below.");
		break;
	case BOUNCE_KINDS:
		break;
	}
}

/* All recipients of a kind; `first`: nothing was said of the message yet. */
static bool write_kind(struct bounce_writer *writer, const struct bounce *bounce,
		       enum bounce_kind kind, bool first)
{
	char date[RECEIVED_DATE_BYTES];
	bool opened = false;

	for (uint32_t i = 0; i < bounce->recipient_count; i++) {
		if (bounce->recipients[i].kind != kind)
			continue;
		if (!opened) {
			received_date(bounce->arrival, date);
			bounce_text(writer, first ? "\r\nYour message of " : "\r\nThe message");
			bounce_line(writer, first ? date : "");
			write_opening(writer, kind);
			opened = true;
		}
		write_recipient(writer, &bounce->recipients[i]);
	}
	return opened;
}

void bounce_words(struct bounce_writer *writer, const struct bounce *bounce)
{
	bool said = false;

	bounce_text(writer, "This is the mail system at ");
	bounce_write_clean(writer, span_text(bounce->hostname), SHOWN_NAME_MAX, false);
	bounce_line(writer, ".");
	for (enum bounce_kind kind = 0; kind < BOUNCE_KINDS; kind++)
		said |= write_kind(writer, bounce, kind, !said);
	bounce_text(writer, "\r\nFor questions, give your mail administrator this number: ");
	bounce_line(writer, bounce->original_id);
}
