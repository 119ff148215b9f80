/*
 * client_reply - what a reply means for the step that it answers.
 *
 * The one place where 421 and nonsense are told from answers; what is left for the steps'
 * functions is 2xx, 3xx, 4xx and 5xx.
 */
#include "engine/smtp/client_private.h"
#include "engine/smtp/command.h"
#include "os/check.h"

static const struct extension {
	const char *keyword;
	uint32_t bit;
} extensions[] = {
	{ "PIPELINING", SMTP_HAS_PIPELINING },
	{ "SIZE", SMTP_HAS_SIZE },
	{ "8BITMIME", SMTP_HAS_8BITMIME },
	{ "SMTPUTF8", SMTP_HAS_SMTPUTF8 },
	{ "CHUNKING", SMTP_HAS_CHUNKING },
	{ "DSN", SMTP_HAS_DSN },
	{ "STARTTLS", SMTP_HAS_STARTTLS },
	{ "BINARYMIME", SMTP_HAS_BINARYMIME },
	{ "ENHANCEDSTATUSCODES", SMTP_HAS_ENHANCED },
};

/* "PLAIN LOGIN ...", in any order. */
static void mechanisms_take(struct smtp_client *client, struct span words)
{
	while (words.len > 0) {
		const char *blank = memchr(words.at, ' ', words.len);
		size_t len = blank ? (size_t)(blank - words.at) : words.len;

		if (span_equal_nocase(span_of(words.at, len), span_text("PLAIN")))
			client->extensions |= SMTP_HAS_AUTH_PLAIN;
		else if (span_equal_nocase(span_of(words.at, len), span_text("LOGIN")))
			client->extensions |= SMTP_HAS_AUTH_LOGIN;
		words = span_skip(words, blank ? len + 1 : len);
	}
}

static void extension_take(struct smtp_client *client, struct span line)
{
	size_t word = 0;

	while (word < line.len && line.at[word] != ' ')
		word++;
	if (span_equal_nocase(span_of(line.at, word), span_text("AUTH")))
		mechanisms_take(client, span_skip(line, word));
	if (span_equal_nocase(span_of(line.at, word), span_text("LIMITS")))
		client->limits = smtp_limits_parse(span_skip(line, word));
	for (size_t i = 0; i < array_count(extensions); i++) {
		if (!span_equal_nocase(span_of(line.at, word), span_text(extensions[i].keyword)))
			continue;
		client->extensions |= extensions[i].bit;
		if (extensions[i].bit == SMTP_HAS_SIZE && word < line.len &&
		    !smtp_number_parse(span_skip(line, word + 1), &client->size_max))
			client->size_max = 0;
	}
}

/* Every line of EHLO's reply but the first, which is the peer's name. */
static void extensions_read(struct smtp_client *client)
{
	struct span text = smtp_reply_text(&client->reply);
	const char *lf;

	client->extensions = 0;
	client->size_max = 0;
	client->limits = (struct smtp_limits){ 0 };
	while (text.len > 0 && (lf = memchr(text.at, '\n', text.len))) {
		text = span_skip(text, (size_t)(lf + 1 - text.at));
		lf = text.len > 0 ? memchr(text.at, '\n', text.len) : NULL;
		extension_take(client, span_of(text.at, lf ? (size_t)(lf - text.at) : text.len));
	}
}

static void protocol_error(struct smtp_client *client, const char *why)
{
	client_end(client, why, &client->reply);
}

static bool ok(const struct smtp_client *client)
{
	return client->reply.class == SMTP_REPLY_OK;
}

static bool refused(const struct smtp_client *client)
{
	return client->reply.class == SMTP_REPLY_TRANSIENT ||
	       client->reply.class == SMTP_REPLY_PERMANENT;
}

static void on_greeting(struct smtp_client *client, const struct step *step)
{
	(void)step;
	if (!ok(client))
		client_end(client, "greeting refused", &client->reply);
	else
		client_hello(client);
}

void client_ready(struct smtp_client *client)
{
	client->state = SMTP_CLIENT_READY;
	client->host->ready(client->context);
}

static void tls_or_ready(struct smtp_client *client)
{
	const struct smtp_client_options *options = &client->options;

	if (!options->tls || options->secured)
		client_auth(client);
	else if (client->extensions & SMTP_HAS_STARTTLS)
		client_starttls(client);
	else if (options->tls_required)
		client_end_tls(client, CLIENT_TLS_MISSING,
			       "TLS is required, and the server does not offer it", NULL);
	else
		client_auth(client);
}

/* Refused, the connection stays of use to whom clear text will do. */
static void on_starttls(struct smtp_client *client, const struct step *step)
{
	(void)step;
	if (ok(client))
		client->shaking = true;
	else if (!refused(client))
		protocol_error(client, "STARTTLS answered by 3xx");
	else if (client->options.tls_required)
		client_end_tls(client, CLIENT_TLS_MISSING,
			       "TLS is required, and the server refused it", &client->reply);
	else
		client_auth(client);
}

static void on_ehlo(struct smtp_client *client, const struct step *step)
{
	uint16_t code = client->reply.code;

	(void)step;
	if (ok(client)) {
		extensions_read(client);
		tls_or_ready(client);
	} else if (client->logged_in && refused(client)) {
		client_ready(client); /* what it told before stands */
	} else if (client->reply.class == SMTP_REPLY_PERMANENT && code != 521 && code != 554 &&
		   !client->options.lmtp && !client->options.tls_required &&
		   !client->options.auth_user) {
		client_helo(client);
	} else {
		client_end(client, "hello refused", &client->reply);
	}
}

static void on_helo(struct smtp_client *client, const struct step *step)
{
	(void)step;
	if (ok(client))
		client_auth(client);
	else
		client_end(client, "hello refused", &client->reply);
}

static void on_rset(struct smtp_client *client, const struct step *step)
{
	(void)step;
	if (!ok(client))
		protocol_error(client, "RSET refused");
}

static void on_mail(struct smtp_client *client, const struct step *step)
{
	if (refused(client)) {
		step->transaction->mail_deferred = client->reply.class == SMTP_REPLY_TRANSIENT;
		client_verdict_all(client, step->transaction, &client->reply);
	} else if (ok(client)) {
		client->dirty = true;
	} else {
		protocol_error(client, "MAIL answered by 3xx");
	}
}

/* Not this recipient's fault: the server takes no more of them in one transaction. */
static bool too_many(const struct smtp_client *client, const struct smtp_transaction *transaction)
{
	return transaction->accepted > 0 &&
	       smtp_reply_reason(&client->reply) == SMTP_REASON_TOO_MANY;
}

static void on_rcpt(struct smtp_client *client, const struct step *step)
{
	struct smtp_transaction *transaction = step->transaction;
	struct smtp_client_recipient *recipient = &transaction->recipients[step->recipient];
	enum smtp_verdict verdict = SMTP_DEFERRED;

	transaction->answered++;
	if (!ok(client) && !refused(client)) {
		protocol_error(client, "RCPT answered by 3xx");
		return;
	}
	if (recipient->verdict != SMTP_PENDING)
		return; /* MAIL was refused */
	if (ok(client)) {
		transaction->accepted++;
		return;
	}
	if (too_many(client, transaction))
		verdict = SMTP_NOT_SENT;
	else if (client->reply.class == SMTP_REPLY_PERMANENT)
		verdict = SMTP_FAILED;
	client_verdict(client, transaction, recipient, verdict, &client->reply);
}

static void on_data(struct smtp_client *client, const struct step *step)
{
	struct smtp_transaction *transaction = step->transaction;

	if (client->reply.class == SMTP_REPLY_GO_ON) {
		if (client->options.lmtp && transaction->accepted == 0)
			protocol_error(client, "354 without a recipient"); /* how many replies? */
		else
			client_content(client, transaction);
	} else if (refused(client)) {
		client_verdict_all(client, transaction, &client->reply);
		transaction->stage = ISSUE_DONE;
		client->issuing = NULL;
	} else {
		protocol_error(client, "DATA answered by 2xx");
	}
}

/* LMTP: the next recipient whose reply is due; NULL: none. */
static struct smtp_client_recipient *recipient_next(const struct step *step)
{
	struct smtp_transaction *transaction = step->transaction;

	for (uint32_t i = step->recipient; i < transaction->recipient_count; i++) {
		if (transaction->recipients[i].verdict == SMTP_PENDING)
			return &transaction->recipients[i];
	}
	return NULL;
}

static enum smtp_verdict final_verdict(const struct smtp_client *client)
{
	return ok(client)				     ? SMTP_DELIVERED
	       : client->reply.class == SMTP_REPLY_PERMANENT ? SMTP_FAILED
							     : SMTP_DEFERRED;
}

static void on_final(struct smtp_client *client, const struct step *step)
{
	struct smtp_transaction *transaction = step->transaction;
	enum smtp_verdict verdict = final_verdict(client);

	if (!ok(client) && !refused(client)) {
		protocol_error(client, "message answered by 3xx");
		return;
	}
	client->proven |= ok(client) && transaction->accepted > 0;
	client->dirty = !ok(client);
	for (uint32_t i = 0; i < transaction->recipient_count; i++) {
		struct smtp_client_recipient *recipient = &transaction->recipients[i];

		if (recipient->verdict != SMTP_PENDING)
			continue;
		client_verdict(client, transaction, recipient, verdict, &client->reply);
		if (client->options.lmtp)
			break; /* each has its own reply */
	}
}

static void on_quit(struct smtp_client *client, const struct step *step)
{
	(void)step;
	client_end(client, "quit", &client->reply);
}

static void (*const on_step[STEP_COUNT])(struct smtp_client *, const struct step *) = {
	[STEP_GREETING] = on_greeting,
	[STEP_EHLO] = on_ehlo,
	[STEP_HELO] = on_helo,
	[STEP_STARTTLS] = on_starttls,
	[STEP_RSET] = on_rset,
	[STEP_MAIL] = on_mail,
	[STEP_AUTH_PLAIN] = client_on_auth,
	[STEP_AUTH_LOGIN] = client_on_auth,
	[STEP_AUTH_USER] = client_on_auth,
	[STEP_AUTH_FINAL] = client_on_auth,
	[STEP_RCPT] = on_rcpt,
	[STEP_DATA] = on_data,
	[STEP_FINAL] = on_final,
	[STEP_QUIT] = on_quit,
};

/* 421: an answer to the step, as far as it is one, and the end of all that follows. */
static void closing(struct smtp_client *client, const struct step *step)
{
	struct smtp_client_recipient *recipient = NULL;

	if (step && (step->kind == STEP_MAIL || step->kind == STEP_DATA ||
		     (step->kind == STEP_FINAL && !client->options.lmtp)))
		client_verdict_all(client, step->transaction, &client->reply);
	else if (step && step->kind == STEP_RCPT)
		recipient = &step->transaction->recipients[step->recipient];
	else if (step && step->kind == STEP_FINAL)
		recipient = recipient_next(step);
	if (recipient && recipient->verdict == SMTP_PENDING)
		client_verdict(client, step->transaction, recipient, SMTP_DEFERRED, &client->reply);
	client_end(client, "the peer is closing", &client->reply);
}

/* LMTP's final step stays until each accepted recipient has its reply. */
static bool step_is_over(const struct smtp_client *client, const struct step *step)
{
	return step->kind != STEP_FINAL || !client->options.lmtp || !recipient_next(step);
}

bool smtp_reply_is_auth(uint16_t code)
{
	return code == 530 || code == 534 || code == 535 || code == 538;
}

/* Not the message's fault, and no reason to bounce the queue. */
static bool is_about_us(const struct smtp_client *client, const struct step *step)
{
	return client->options.smarthost && smtp_reply_is_auth(client->reply.code) &&
	       (step->kind == STEP_MAIL || step->kind == STEP_RCPT);
}

static void step_run(struct smtp_client *client, const struct step *step)
{
	struct smtp_transaction *transaction = step->transaction;

	if (transaction && step->kind != STEP_RSET)
		transaction->heard = true;
	if (is_about_us(client, step))
		client->reply.class = SMTP_REPLY_TRANSIENT;
	on_step[step->kind](client, step);
	if (client->state == SMTP_CLIENT_ENDED)
		return;
	if (step_is_over(client, step)) {
		client->step_first++;
		client->step_count--;
		if (transaction) {
			transaction->steps--;
			client_finish(client, transaction);
		}
	}
	client_issue(client);
}

void client_reply(struct smtp_client *client)
{
	const struct step *first = output_step_first(client);
	/* A copy: the ring may move while the host submits. */
	struct step step = first ? *first : (struct step){ .transaction = NULL };

	if (client->reply.class == SMTP_REPLY_MALFORMED)
		client_end(client, "malformed reply", NULL);
	else if (client->reply.code == 421)
		closing(client, first ? &step : NULL);
	else if (!first)
		protocol_error(client, "a reply to nothing");
	else
		step_run(client, &step);
	smtp_reply_reset(&client->reply);
}
