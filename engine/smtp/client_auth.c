/*
 * client_auth - logging in to a smarthost: PLAIN where it is offered, else LOGIN.
 *
 *   AUTH PLAIN response ──► 235        AUTH LOGIN ──► 334, name ──► 334, password ──► 235
 *
 * Source: RFC 4954; RFC 4616.
 */
#include "engine/smtp/base64.h"
#include "engine/smtp/client_private.h"
#include "os/check.h"

enum {
	WORD_MAX = 255,
	PLAIN_MAX = 2 * WORD_MAX + 2,
	/* What fits into a command line with "AUTH PLAIN " and CRLF: RFC 5321, 4.5.3.1.4. */
	INITIAL_MAX = 512 - 13,
};

static void text(struct smtp_client *client, const char *words)
{
	output_text(client, span_text(words));
}

/* What is a secret is wiped when it was sent. */
static void response(struct smtp_client *client, struct span bytes)
{
	char encoded[BASE64_TEXT_BYTES(PLAIN_MAX)];

	assert(bytes.len <= PLAIN_MAX);
	base64_encode(bytes, encoded);
	output_secret(client, span_of(encoded, BASE64_TEXT_BYTES(bytes.len)));
	explicit_bzero(encoded, sizeof(encoded));
	text(client, "\r\n");
}

static struct span user(const struct smtp_client *client)
{
	return span_text(client->options.auth_user);
}

static struct span password(const struct smtp_client *client)
{
	return span_text(client->options.auth_password);
}

/* NUL user NUL password */
static size_t plain_len(const struct smtp_client *client)
{
	return user(client).len + password(client).len + 2;
}

static void plain_response(struct smtp_client *client)
{
	char plain[PLAIN_MAX];
	size_t len = 0;

	plain[len++] = '\0';
	memcpy(plain + len, user(client).at, user(client).len);
	len += user(client).len;
	plain[len++] = '\0';
	memcpy(plain + len, password(client).at, password(client).len);
	len += password(client).len;
	response(client, span_of(plain, len));
	explicit_bzero(plain, sizeof(plain));
}

static void begin(struct smtp_client *client)
{
	bool initial = BASE64_TEXT_BYTES(plain_len(client)) <= INITIAL_MAX;

	client->state = SMTP_CLIENT_AUTH;
	if (!(client->extensions & SMTP_HAS_AUTH_PLAIN)) {
		text(client, "AUTH LOGIN\r\n");
		output_step(client, STEP_AUTH_LOGIN, NULL, 0);
	} else if (!initial) {
		text(client, "AUTH PLAIN\r\n");
		output_step(client, STEP_AUTH_PLAIN, NULL, 0);
	} else {
		text(client, "AUTH PLAIN ");
		plain_response(client);
		output_step(client, STEP_AUTH_FINAL, NULL, 0);
	}
}

void client_auth(struct smtp_client *client)
{
	const struct smtp_client_options *options = &client->options;

	if (!options->auth_user || client->logged_in)
		client_ready(client);
	else if (!options->secured && !options->auth_in_clear)
		client_end_auth(client,
				"we log in only under TLS, and the server does not offer it");
	else if (!(client->extensions & (SMTP_HAS_AUTH_PLAIN | SMTP_HAS_AUTH_LOGIN)))
		client_end_auth(client, "the server offers neither AUTH PLAIN nor LOGIN");
	else
		begin(client);
}

/* Other limits may hold now (RFC 9422); who tells none is not asked again. */
static void logged_in(struct smtp_client *client)
{
	client->logged_in = true;
	if (client->limits.mail_max > 0 || client->limits.rcpt_max > 0)
		client_hello(client);
	else
		client_ready(client);
}

void client_on_auth(struct smtp_client *client, const struct step *step)
{
	enum smtp_reply_class class = client->reply.class;

	if (class == SMTP_REPLY_PERMANENT) {
		client_end_auth(client, "the server does not let us log in");
	} else if (class == SMTP_REPLY_TRANSIENT) {
		client_end(client, "logging in is not possible now", &client->reply);
	} else if (class == SMTP_REPLY_OK) {
		logged_in(client);
	} else if (step->kind == STEP_AUTH_PLAIN) {
		plain_response(client);
		output_step(client, STEP_AUTH_FINAL, NULL, 0);
	} else if (step->kind == STEP_AUTH_LOGIN) {
		response(client, user(client));
		output_step(client, STEP_AUTH_USER, NULL, 0);
	} else if (step->kind == STEP_AUTH_USER) {
		response(client, password(client));
		output_step(client, STEP_AUTH_FINAL, NULL, 0);
	} else {
		client_end(client, "AUTH asks for more than a password", &client->reply);
	}
}
