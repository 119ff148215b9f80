/*
 * client_flight - transactions to commands.
 *
 *   pipelining and BDAT   RSET? MAIL RCPT.. BDAT n LAST body | next flight ...
 *   pipelining and DATA   RSET? MAIL RCPT.. DATA --354-- body dot | next flight ...
 *   neither               each command waits for the reply to the last
 */
#include <stdio.h>

#include "engine/smtp/client_private.h"
#include "engine/smtp/utf8.h"
#include "os/check.h"

static bool has(const struct smtp_client *client, uint32_t extension)
{
	return (client->extensions & extension) == extension;
}

static bool pipelining(const struct smtp_client *client)
{
	return client->options.pipelining && has(client, SMTP_HAS_PIPELINING);
}

static bool chunking(const struct smtp_client *client)
{
	return client->options.chunking && has(client, SMTP_HAS_CHUNKING);
}

bool client_takes_binary(const struct smtp_client *client)
{
	return chunking(client) && has(client, SMTP_HAS_BINARYMIME);
}

uint32_t client_depth(const struct smtp_client *client)
{
	uint32_t depth = client->options.depth_max;

	if (!client->proven || !pipelining(client) || depth < 1)
		return 1;
	/* With DATA only one flight can go ahead of a final reply. */
	return !chunking(client) && depth > 2 ? 2 : depth;
}

static void text(struct smtp_client *client, const char *words)
{
	output_text(client, span_text(words));
}

static void number(struct smtp_client *client, uint64_t rest)
{
	char digits[20];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + rest % 10);
	while ((rest /= 10) > 0);
	output_text(client, span_of(digits + at, sizeof(digits) - at));
}

/* A value that is ours to write into a command: what we parsed or made, never with a line end. */
static void value(struct smtp_client *client, const char *before, struct span span,
		  const char *after)
{
	assert(span.len == 0 ||
	       (!memchr(span.at, '\n', span.len) && !memchr(span.at, '\r', span.len)));
	text(client, before);
	output_text(client, span);
	text(client, after);
}

static void hello(struct smtp_client *client, const char *verb, enum step_kind kind)
{
	value(client, verb, span_text(client->options.hello), "\r\n");
	output_step(client, kind, NULL, 0);
	client->state = SMTP_CLIENT_HELLO;
}

void client_hello(struct smtp_client *client)
{
	hello(client, client->options.lmtp ? "LHLO " : "EHLO ", STEP_EHLO);
}

void client_helo(struct smtp_client *client)
{
	hello(client, "HELO ", STEP_HELO);
}

void client_starttls(struct smtp_client *client)
{
	text(client, "STARTTLS\r\n");
	output_step(client, STEP_STARTTLS, NULL, 0);
	client->state = SMTP_CLIENT_STARTTLS;
}

static void mail_write(struct smtp_client *client, struct smtp_transaction *transaction)
{
	value(client, "MAIL FROM:<", transaction->sender, ">");
	if (has(client, SMTP_HAS_SIZE)) {
		text(client, " SIZE=");
		number(client, smtp_transaction_bytes(transaction));
	}
	if (transaction->binary)
		text(client, " BODY=BINARYMIME");
	else if (transaction->eightbit && has(client, SMTP_HAS_8BITMIME))
		text(client, " BODY=8BITMIME");
	if (transaction->utf8_said)
		text(client, " SMTPUTF8");
	if (has(client, SMTP_HAS_DSN) && transaction->ret)
		text(client, transaction->ret == 'F' ? " RET=FULL" : " RET=HDRS");
	if (has(client, SMTP_HAS_DSN) && transaction->envid.len > 0)
		value(client, " ENVID=", transaction->envid, "");
	text(client, "\r\n");
	output_step(client, STEP_MAIL, transaction, 0);
}

static void notify_write(struct smtp_client *client, uint8_t notify)
{
	static const char *const names[] = { "NEVER", "SUCCESS", "FAILURE", "DELAY" };
	const char *before = " NOTIFY=";

	for (size_t i = 0; i < array_count(names); i++) {
		if (!(notify & 1 << i))
			continue;
		text(client, before);
		text(client, names[i]);
		before = ",";
	}
}

/* Those behind were held back. */
static uint32_t rcpt_count(const struct smtp_client *client,
			   const struct smtp_transaction *transaction)
{
	uint32_t max = client->limits.rcpt_max;

	return max > 0 && max < transaction->recipient_count ? max : transaction->recipient_count;
}

/* As RFC 6533 has it: bücher as b\x{FC}cher where SMTPUTF8 was not said. */
static void orcpt_write(struct smtp_client *client, const struct smtp_transaction *transaction,
			struct span orcpt)
{
	if (orcpt.len == 0)
		return;
	text(client, " ORCPT=");
	while (orcpt.len > 0) {
		size_t len = transaction->utf8_said ? orcpt.len : smtp_utf8_ascii(orcpt);
		uint32_t code;
		char escape[16];

		value(client, "", span_of(orcpt.at, len), "");
		orcpt = span_skip(orcpt, len);
		if (orcpt.len == 0)
			return;
		orcpt = span_skip(orcpt, smtp_utf8_decode(orcpt, &code));
		snprintf(escape, sizeof(escape), "\\x{%X}", code);
		text(client, escape);
	}
}

static void rcpt_write(struct smtp_client *client, struct smtp_transaction *transaction)
{
	uint32_t index = transaction->issued++;
	const struct smtp_client_recipient *recipient = &transaction->recipients[index];

	value(client, "RCPT TO:<", recipient->address, ">");
	if (has(client, SMTP_HAS_DSN)) {
		notify_write(client, recipient->notify);
		orcpt_write(client, transaction, recipient->orcpt);
	}
	text(client, "\r\n");
	output_step(client, STEP_RCPT, transaction, index);
}

/* Who has failed before it began (no SMTPUTF8) is passed over. */
static void rcpt_next(struct smtp_client *client, struct smtp_transaction *transaction)
{
	if (transaction->recipients[transaction->issued].verdict == SMTP_PENDING) {
		rcpt_write(client, transaction);
	} else {
		transaction->issued++;
		transaction->answered++;
	}
	if (transaction->issued == rcpt_count(client, transaction))
		transaction->stage = ISSUE_BODY;
}

static void bdat_write(struct smtp_client *client, struct smtp_transaction *transaction)
{
	text(client, "BDAT ");
	number(client, smtp_transaction_bytes(transaction));
	text(client, " LAST\r\n");
	output_text(client, transaction->prefix);
	output_body(client, transaction, false);
	output_step(client, STEP_FINAL, transaction, 0);
	output_ends(client, transaction);
}

void client_content(struct smtp_client *client, struct smtp_transaction *transaction)
{
	assert(client->issuing == transaction && transaction->stage == ISSUE_CONTENT);
	if (transaction->accepted > 0 && smtp_transaction_bytes(transaction) > 0) {
		output_text(client, transaction->prefix);
		output_body(client, transaction, transaction->dot_lines);
		if (transaction->no_final_crlf)
			text(client, "\r\n");
	}
	/* Nobody accepted, and yet 354: a lone dot, so that nothing can be delivered. */
	text(client, ".\r\n");
	output_step(client, STEP_FINAL, transaction, 0);
	output_ends(client, transaction);
	transaction->stage = ISSUE_DONE;
	client->issuing = NULL;
}

/* Issues the next command; false: it has to wait. */
static bool issue_one(struct smtp_client *client, struct smtp_transaction *transaction)
{
	uint32_t ahead_max = client->options.recipients_per_flight_max;

	if (transaction->stage < ISSUE_CONTENT && transaction->open == 0)
		transaction->stage = ISSUE_DONE; /* everyone is refused already */
	if (transaction->stage == ISSUE_DONE)
		return true;
	if (!pipelining(client) && client->step_count > 0)
		return false;
	switch (transaction->stage) {
	case ISSUE_RSET:
		text(client, "RSET\r\n");
		output_step(client, STEP_RSET, transaction, 0);
		transaction->stage = ISSUE_MAIL;
		return true;
	case ISSUE_MAIL:
		mail_write(client, transaction);
		transaction->stage = ISSUE_RCPT;
		return true;
	case ISSUE_RCPT:
		if (ahead_max > 0 && transaction->issued - transaction->answered >= ahead_max)
			return false;
		rcpt_next(client, transaction);
		return true;
	case ISSUE_BODY:
		if (chunking(client)) {
			bdat_write(client, transaction);
			transaction->stage = ISSUE_DONE;
			return true;
		}
		text(client, "DATA\r\n");
		output_step(client, STEP_DATA, transaction, 0);
		transaction->stage = ISSUE_CONTENT;
		return true;
	default:
		return false; /* the body waits for 354 */
	}
}

/* The next transaction takes its turn, if one may. */
static struct smtp_transaction *flight_begin(struct smtp_client *client)
{
	if (client->state != SMTP_CLIENT_READY || list_empty(&client->waiting) ||
	    client->active_count >= client_depth(client))
		return NULL;
	struct smtp_transaction *transaction =
		list_first(&client->waiting, struct smtp_transaction, link);

	list_remove(&transaction->link);
	client->waiting_count--;
	transaction->stage = client->dirty || client->active_count > 0 ? ISSUE_RSET : ISSUE_MAIL;
	client->dirty = false;
	list_push_back(&client->active, &transaction->link);
	client->active_count++;
	output_begin(client, transaction);
	return transaction;
}

void client_issue(struct smtp_client *client)
{
	while (client->state == SMTP_CLIENT_READY && !client->starved) {
		if (!client->issuing)
			client->issuing = flight_begin(client);
		struct smtp_transaction *transaction = client->issuing;

		if (!transaction || !issue_one(client, transaction) || client->starved)
			break;
		if (transaction->stage != ISSUE_DONE)
			continue;
		client->issuing = NULL;
		client_finish(client, transaction);
	}
	if (client->state != SMTP_CLIENT_READY || !client->quitting || client->starved ||
	    client->active_count + client->waiting_count > 0)
		return;
	text(client, "QUIT\r\n");
	output_step(client, STEP_QUIT, NULL, 0);
	client->state = SMTP_CLIENT_QUITTING;
}
