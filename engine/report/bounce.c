/*
 * bounce - see bounce.h. First a plan (what can be shown, in which encoding, which boundary),
 * then the parts in order.
 */
#include "engine/report/bounce.h"

#include <stdio.h>

#include "engine/inbound/received.h"
#include "engine/report/bounce_words.h"
#include "engine/report/bounce_writer.h"
#include "engine/smtp/reply.h"
#include "engine/smtp/scan.h"
#include "engine/smtp/utf8.h"
#include "os/check.h"
#include "queue/envelope.h"

enum {
	ADDRESS_MAX = 600, /* more than an envelope takes */
	NAME_MAX_BYTES = 255,
	ENVID_MAX = 400,
	ID_MAX = 32,
	XTEXT_MAX = 1024,
};

struct plan {
	enum bounce_kind gravest;
	bool utf8_sender;    /* To: needs SMTPUTF8 */
	bool utf8_addresses; /* of recipients: charset and type of the first two parts */
	bool whole;	     /* the third part is the message; else its headers */
	bool shown_eightbit; /* the third part has octets above 127 */
	struct span shown;   /* at == NULL: there is no third part */
	char boundary[ID_MAX + 32];
};

bool bounce_wanted(enum bounce_kind kind, struct span sender, uint8_t notify)
{
	static const uint8_t asked_for[] = {
		[BOUNCE_FAILED] = ENVELOPE_NOTIFY_FAILURE,
		[BOUNCE_DELAYED] = ENVELOPE_NOTIFY_DELAY,
		[BOUNCE_RELAYED] = ENVELOPE_NOTIFY_SUCCESS,
		[BOUNCE_DELIVERED] = ENVELOPE_NOTIFY_SUCCESS,
	};

	assert((size_t)kind < array_count(asked_for));
	if (sender.len == 0 || (notify & ENVELOPE_NOTIFY_NEVER) != 0)
		return false;
	if (notify == 0)
		return kind == BOUNCE_FAILED || kind == BOUNCE_DELAYED;
	return (notify & asked_for[kind]) != 0;
}

/* ── the plan ─────────────────────────────────────────────────────────────────────── */

/* The headers with their last CRLF, without the empty line, and no more than is shown. */
static struct span find_headers(struct span body)
{
	size_t at = 0, limit = body.len < BOUNCE_HEADERS_MAX ? body.len : BOUNCE_HEADERS_MAX;

	while (at < limit) {
		const char *end = memchr(body.at + at, '\n', limit - at);
		size_t next = end != NULL ? (size_t)(end - body.at) + 1 : limit;
		size_t len = next - at;

		if (end != NULL && (len == 1 || (len == 2 && body.at[at] == '\r')))
			break;
		if (end == NULL && limit < body.len)
			break; /* a line that the limit cut */
		at = next;
	}
	return span_of(body.at, at);
}

/* It may stand in a report as it is. */
static bool body_sound(struct span body)
{
	struct smtp_scan scan;

	smtp_scan_init(&scan);
	smtp_scan_feed(&scan, body);
	smtp_scan_finish(&scan);
	return !scan.nul && !scan.bare_cr && !scan.bare_lf && !scan.long_line;
}

/* One that the shown text does not hold, so that no message can end its part. */
static void choose_boundary(struct plan *plan, const char *id)
{
	uint32_t number = 0;

	assert(strlen(id) <= ID_MAX);
	do {
		snprintf(plan->boundary, sizeof(plan->boundary), "=_report_%s_%u", id, number++);
	} while (plan->shown.len > 0 && memmem(plan->shown.at, plan->shown.len, plan->boundary,
					       strlen(plan->boundary)) != NULL);
}

static bool utf8_shown(struct span text)
{
	return text.len <= ADDRESS_MAX && bounce_eightbit(text) && smtp_utf8_valid(text);
}

static void make_plan(struct plan *plan, const struct bounce *bounce)
{
	bool complete = bounce->body.len == bounce->body_bytes;

	*plan = (struct plan){ .gravest = BOUNCE_DELIVERED,
			       .utf8_sender = utf8_shown(bounce->sender) };
	for (uint32_t i = 0; i < bounce->recipient_count; i++) {
		if (bounce->recipients[i].kind < plan->gravest)
			plan->gravest = bounce->recipients[i].kind;
		plan->utf8_addresses |= utf8_shown(bounce->recipients[i].address) ||
					utf8_shown(bounce->recipients[i].orcpt);
	}
	if (bounce->body.at != NULL) {
		plan->whole = plan->gravest == BOUNCE_FAILED && bounce->ret == 'F' && complete &&
			      bounce->body.len <= BOUNCE_BODY_MAX && body_sound(bounce->body);
		plan->shown = plan->whole ? bounce->body : find_headers(bounce->body);
		plan->shown_eightbit = bounce_eightbit(plan->shown);
	}
	choose_boundary(plan, bounce->id);
}

/* ── fields ───────────────────────────────────────────────────────────────────────── */

static void write_field(struct bounce_writer *writer, const char *name, struct span value,
			size_t len_max, bool utf8)
{
	bounce_text(writer, name);
	bounce_write_clean(writer, value, len_max, utf8);
	bounce_text(writer, "\r\n");
}

static void write_date(struct bounce_writer *writer, const char *name, struct os_wall when)
{
	char date[RECEIVED_DATE_BYTES];

	if (when.us == 0)
		return;
	received_date(when, date);
	bounce_text(writer, name);
	bounce_line(writer, date);
}

static int hex_digit(char octet)
{
	if (octet >= '0' && octet <= '9')
		return octet - '0';
	if (octet >= 'A' && octet <= 'F')
		return octet - 'A' + 10;
	return -1;
}

/* "+2B" becomes "+"; what is malformed stays as it is. */
static struct span decode_xtext(struct span text, char out[static XTEXT_MAX])
{
	size_t len = 0;

	for (size_t i = 0; i < text.len && len < XTEXT_MAX; i++) {
		int high = -1, low = -1;

		if (text.at[i] == '+' && text.len - i > 2) {
			high = hex_digit(text.at[i + 1]);
			low = hex_digit(text.at[i + 2]);
		}
		if (high >= 0 && low >= 0) {
			out[len++] = (char)(high * 16 + low);
			i += 2;
		} else {
			out[len++] = text.at[i];
		}
	}
	return span_of(out, len);
}

static size_t put_utf8(uint32_t code, char out[static 4])
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xc0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xe0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3f));
		out[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3f));
	out[2] = (char)(0x80 | (code >> 6 & 0x3f));
	out[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/* How long "\x{20AC}" at the start of `text` is; 0: there is none. RFC 6533, 3. */
static size_t embedded_char(struct span text, uint32_t *code_out)
{
	uint32_t code = 0;
	size_t i = 3;

	if (text.len < 5 || memcmp(text.at, "\\x{", 3) != 0)
		return 0;
	for (; i < text.len && i < 9; i++) {
		bool lower = text.at[i] >= 'a' && text.at[i] <= 'f';
		int digit = hex_digit((char)(lower ? text.at[i] - 'a' + 'A' : text.at[i]));

		if (digit < 0)
			break;
		code = code * 16 + (uint32_t)digit;
	}
	if (i == 3 || i == text.len || text.at[i] != '}' || code > 0x10ffff)
		return 0;
	*code_out = code;
	return i + 1;
}

/* The address as it is meant; only where UTF-8 may stand. */
static struct span decode_embedded(struct span text, char out[static XTEXT_MAX])
{
	size_t len = 0;

	while (text.len > 0 && len + 4 <= XTEXT_MAX) {
		uint32_t code;
		size_t used = embedded_char(text, &code);

		if (used > 0)
			len += put_utf8(code, out + len);
		else
			out[len++] = text.at[0];
		text = span_skip(text, used > 0 ? used : 1);
	}
	return span_of(out, len);
}

static void write_content(struct bounce_writer *writer, const char *type, bool eightbit)
{
	bounce_text(writer, "Content-Type: ");
	bounce_line(writer, type);
	if (eightbit)
		bounce_line(writer, "Content-Transfer-Encoding: 8bit");
}

/* "Name: <address>" or "Name: <id@host>". */
static void write_bracketed(struct bounce_writer *writer, const char *name, struct span value,
			    bool utf8)
{
	bounce_text(writer, name);
	bounce_write_clean(writer, value, ADDRESS_MAX, utf8);
	bounce_line(writer, ">");
}

static void write_headers(struct bounce_writer *writer, const struct bounce *bounce,
			  const struct plan *plan)
{
	struct span hostname = span_text(bounce->hostname);

	write_date(writer, "Date: ", bounce->now);
	write_bracketed(writer, "From: \"Mail Delivery System\" <MAILER-DAEMON@", hostname, false);
	write_bracketed(writer, "To: <", bounce->sender, true);
	bounce_text(writer, "Subject: ");
	bounce_line(writer, bounce_subject(plan->gravest));
	bounce_text(writer, "Message-ID: <");
	bounce_text(writer, bounce->id);
	write_bracketed(writer, ".report@", hostname, false);
	bounce_line(writer, "Auto-Submitted: auto-replied");
	bounce_line(writer, "MIME-Version: 1.0");
	bounce_text(
		writer,
		"Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"");
	bounce_text(writer, plan->boundary);
	bounce_line(writer, "\"");
	if (plan->utf8_addresses || plan->shown_eightbit)
		bounce_line(writer, "Content-Transfer-Encoding: 8bit");
	bounce_text(writer, "\r\nThis report is in MIME format.\r\n");
}

/* Begins a part, or (`last`) ends the report. */
static void write_boundary(struct bounce_writer *writer, const struct plan *plan, bool last)
{
	bounce_text(writer, "\r\n--");
	bounce_text(writer, plan->boundary);
	bounce_line(writer, last ? "--" : "");
}

/* ── message/delivery-status ──────────────────────────────────────────────────────── */

/* ORCPT is type;address, the address in xtext unless the type is utf-8. That has a form of its
 * own for ASCII, which stays where only ASCII may stand. */
static void write_original_recipient(struct bounce_writer *writer,
				     const struct bounce_recipient *recipient, bool utf8)
{
	char decoded[XTEXT_MAX];
	struct span orcpt = recipient->orcpt;

	if (orcpt.len == 0)
		return;
	if (!span_starts_nocase(orcpt, "utf-8;"))
		orcpt = decode_xtext(orcpt, decoded);
	else if (utf8)
		orcpt = decode_embedded(orcpt, decoded);
	write_field(writer, "Original-Recipient: ", orcpt, ADDRESS_MAX, utf8);
}

/* The server's words with code and, as they stand in them, the enhanced codes. */
static void write_diagnostic(struct bounce_writer *writer, const struct bounce_recipient *recipient)
{
	char first[40];

	if (recipient->reply == 0)
		return;
	snprintf(first, sizeof(first), "Diagnostic-Code: smtp; %03u ", recipient->reply % 1000);
	bounce_write_folded(writer, first, "    ", recipient->text);
}

static void write_status_block(struct bounce_writer *writer,
			       const struct bounce_recipient *recipient, bool utf8)
{
	static const char *const actions[] = {
		[BOUNCE_FAILED] = "Action: failed",
		[BOUNCE_DELAYED] = "Action: delayed",
		[BOUNCE_RELAYED] = "Action: relayed",
		[BOUNCE_DELIVERED] = "Action: delivered",
	};
	char status[12];

	bounce_text(writer, "\r\n");
	write_original_recipient(writer, recipient, utf8);
	write_field(writer,
		    utf8_shown(recipient->address) ? "Final-Recipient: utf-8; "
						   : "Final-Recipient: rfc822; ",
		    recipient->address, ADDRESS_MAX, utf8);
	bounce_line(writer, actions[recipient->kind]);
	bounce_text(writer, "Status: ");
	bounce_line(writer, smtp_enhanced_text(bounce_status(recipient), status));
	if (recipient->host.len > 0)
		write_field(writer, "Remote-MTA: dns; ", recipient->host, NAME_MAX_BYTES, false);
	write_diagnostic(writer, recipient);
	write_date(writer, "Last-Attempt-Date: ", recipient->tried);
	if (recipient->kind == BOUNCE_DELAYED)
		write_date(writer, "Will-Retry-Until: ", recipient->until);
}

static void write_status(struct bounce_writer *writer, const struct bounce *bounce,
			 const struct plan *plan)
{
	char decoded[XTEXT_MAX];
	bool utf8 = plan->utf8_addresses;

	write_content(writer, utf8 ? "message/global-delivery-status" : "message/delivery-status",
		      utf8);
	bounce_text(writer, "\r\n");
	write_field(writer, "Reporting-MTA: dns; ", span_text(bounce->hostname), NAME_MAX_BYTES,
		    false);
	if (bounce->envid.len > 0)
		write_field(writer, "Original-Envelope-Id: ", decode_xtext(bounce->envid, decoded),
			    ENVID_MAX, false);
	write_date(writer, "Arrival-Date: ", bounce->arrival);
	for (uint32_t i = 0; i < bounce->recipient_count; i++)
		write_status_block(writer, &bounce->recipients[i], utf8);
}

/* ── the message, or its headers ──────────────────────────────────────────────────── */

/* Headers may come from a message that is not sound: each line is cut and cleaned. */
static void write_header_lines(struct bounce_writer *writer, struct span rest)
{
	while (rest.len > 0) {
		const char *end = memchr(rest.at, '\n', rest.len);
		size_t len = end != NULL ? (size_t)(end - rest.at) : rest.len;
		struct span line = span_of(rest.at, len < BOUNCE_LINE_MAX ? len : BOUNCE_LINE_MAX);

		rest = span_skip(rest, len + (end != NULL));
		while (line.len > 0 && line.at[line.len - 1] == '\r')
			line.len--;
		for (size_t i = 0; i < line.len; i++) {
			bool stray = line.at[i] == '\r' || line.at[i] == '\0';

			bounce_write(writer, stray ? span_text("?") : span_of(line.at + i, 1));
		}
		bounce_text(writer, "\r\n");
	}
}

static void write_shown(struct bounce_writer *writer, const struct bounce *bounce,
			const struct plan *plan)
{
	bool global = bounce->utf8 && plan->shown_eightbit;

	if (plan->whole) {
		write_content(writer, global ? "message/global" : "message/rfc822",
			      plan->shown_eightbit);
		bounce_text(writer, "\r\n");
		bounce_write(writer, plan->shown);
		if (!writer->line_start)
			bounce_text(writer, "\r\n");
		return;
	}
	write_content(writer, global ? "message/global-headers" : "text/rfc822-headers",
		      plan->shown_eightbit);
	bounce_text(writer, "\r\n");
	write_header_lines(writer, plan->shown);
}

/* ── the whole ────────────────────────────────────────────────────────────────────── */

void bounce_compose(const struct bounce *bounce, bounce_append *append, void *context,
		    struct bounce_result *result_out)
{
	struct bounce_writer writer;
	struct plan plan;

	assert(bounce->sender.len > 0 && bounce->recipient_count > 0);
	make_plan(&plan, bounce);
	bounce_writer_init(&writer, append, context);
	write_headers(&writer, bounce, &plan);
	write_boundary(&writer, &plan, false);
	write_content(&writer,
		      plan.utf8_addresses ? "text/plain; charset=utf-8"
					  : "text/plain; charset=us-ascii",
		      plan.utf8_addresses);
	bounce_text(&writer, "\r\n");
	bounce_words(&writer, bounce);
	write_boundary(&writer, &plan, false);
	write_status(&writer, bounce, &plan);
	if (plan.shown.at != NULL) {
		write_boundary(&writer, &plan, false);
		write_shown(&writer, bounce, &plan);
	}
	write_boundary(&writer, &plan, true);
	bounce_writer_finish(&writer);
	*result_out = writer.result;
	result_out->utf8 = plan.utf8_sender;
}
