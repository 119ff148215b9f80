/*
 * A session fed whole and one fed in pieces must say the same and pass on the same bodies; and
 * none of them passes on what has to come under TLS, or after a login, before that.
 *
 *   input: step and whether to normalise, options, bytes
 */
#include "engine/smtp/session.h"

#include "engine/smtp/scan.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KEEP_MAX = 1 << 18 };

/* The octet of options. */
enum {
	WITH_STARTTLS = 1,
	TLS_REQUIRED = 2,
	AUTH_UNDER_TLS = 4,
	AUTH_REQUIRED = 8,
	WITH_LIMITS = 16,
	ONE_MESSAGE = 32,
	TLS_FIRST = 64,
	TLS_NOT_NOW = 128,
};

struct kept {
	size_t len;
	char at[KEEP_MAX];
};

static struct world {
	struct smtp_session *session;
	struct kept said, bodies; /* bodies: of the messages that were whole */
	size_t body_at;
	uint32_t tickets[64], ticket_count;
	bool open, checking, secured, logged_in, xclient;
	uint8_t options;
	enum smtp_auth_verdict verdict;
	struct smtp_scan scan;
	enum smtp_body kind;
} whole, pieces;

static void keep(struct kept *kept, struct span bytes)
{
	assert(kept->len + bytes.len <= KEEP_MAX);
	memcpy(kept->at + kept->len, bytes.at, bytes.len);
	kept->len += bytes.len;
}

static bool are_same(const struct kept *a, const struct kept *b)
{
	return span_equal(span_of(a->at, a->len), span_of(b->at, b->len));
}

static struct smtp_answer on_mail(void *context, const struct smtp_mail *mail)
{
	struct world *world = context;

	assert(!world->open);
	assert(world->secured || !(world->options & TLS_REQUIRED));
	assert(world->logged_in || world->xclient || !(world->options & AUTH_REQUIRED));
	world->open = true;
	world->body_at = world->bodies.len;
	world->kind = mail->body;
	return (struct smtp_answer){ 250, "2.1.0", "Ok" };
}

static struct smtp_answer on_rcpt(void *context, const struct smtp_rcpt *rcpt)
{
	struct world *world = context;

	assert(world->open && rcpt->recipient.len > 0);
	return (struct smtp_answer){ 250, "2.1.5", "Ok" };
}

static struct smtp_answer on_begin(void *context, const struct smtp_greeting *greeting)
{
	struct world *world = context;

	assert(world->open && greeting->name.len > 0);
	smtp_scan_init(&world->scan);
	return (struct smtp_answer){ 354, NULL, "" };
}

static void on_body(void *context, struct span bytes)
{
	struct world *world = context;

	assert(world->open && bytes.len > 0);
	keep(&world->bodies, bytes);
	smtp_scan_feed(&world->scan, bytes);
}

static void on_end(void *context, uint32_t ticket)
{
	struct world *world = context;

	assert(world->open);
	world->open = false;
	world->tickets[world->ticket_count++] = ticket;
	smtp_scan_finish(&world->scan);
	/* No bare CR or LF gets through. */
	assert(world->kind == SMTP_BODY_BINARYMIME ||
	       (!world->scan.bare_cr && !world->scan.bare_lf));
}

static void on_abort(void *context, const char *why)
{
	struct world *world = context;

	(void)why;
	assert(world->open);
	world->open = false;
	world->bodies.len = world->body_at;
}

/* Right if the password is not empty; now or later, by the name's length. */
static enum smtp_auth_verdict on_auth(void *context, const struct smtp_credentials *credentials)
{
	struct world *world = context;

	assert(!world->open && !world->checking && !world->logged_in);
	assert(world->secured || !(world->options & (AUTH_UNDER_TLS | TLS_REQUIRED)));
	assert(!memchr(credentials->user.at, 0, credentials->user.len));
	assert(!memchr(credentials->password.at, 0, credentials->password.len));
	world->verdict = credentials->password.len > 0 ? SMTP_AUTH_OK : SMTP_AUTH_WRONG;
	world->checking = credentials->user.len & 1;
	world->logged_in = !world->checking && world->verdict == SMTP_AUTH_OK;
	return world->checking ? SMTP_AUTH_LATER : world->verdict;
}

static struct smtp_answer on_xclient(void *context, const struct xclient *client)
{
	struct world *world = context;

	assert(!world->open && !world->checking && client->given != 0);
	if (client->address.port == 1)
		return (struct smtp_answer){ 421, "4.7.0", "Gone" };
	world->xclient = true; /* who is trusted to name a client names its login, too */
	world->logged_in = false;
	return (struct smtp_answer){ 220, NULL, "b" };
}

static struct smtp_answer on_starttls(void *context)
{
	struct world *world = context;

	assert(!world->secured && (world->options & WITH_STARTTLS));
	return world->options & TLS_NOT_NOW ? (struct smtp_answer){ 454, "4.7.0", "Not now" }
					    : (struct smtp_answer){ 220, "2.0.0", "Go" };
}

static const struct smtp_session_host host = {
	.mail = on_mail,
	.rcpt = on_rcpt,
	.begin = on_begin,
	.body = on_body,
	.end = on_end,
	.abort = on_abort,
	.starttls = on_starttls,
	.auth = on_auth,
	.xclient = on_xclient,
};

static void answer_all(struct world *world)
{
	static const struct smtp_answer queued = { 250, "2.0.0", "Queued" };

	if (world->checking) {
		world->checking = false;
		world->logged_in = world->verdict == SMTP_AUTH_OK;
		smtp_session_authenticated(world->session, world->verdict);
	}
	while (world->ticket_count > 0)
		smtp_session_answer(world->session, world->tickets[--world->ticket_count], &queued);
}

/* After STARTTLS the host would close for what is here already. Here the handshake is done as if
 * that came behind it, so that both worlds see the same. */
static void shake(struct world *world)
{
	if (!smtp_session_expects_tls(world->session))
		return;
	assert(!world->open && smtp_session_feed(world->session, span_text("NOOP\r\n")) == 0);
	smtp_session_secured(world->session);
	world->secured = true;
	world->logged_in = world->xclient = false;
}

static void run(struct world *world, struct span bytes, size_t step, bool normalise, uint8_t choice)
{
	struct smtp_session_options options = {
		.name = "b",
		.size_max = 1000,
		.recipients_max = 3,
		.errors_max = 10,
		.pending_max = 4,
		.pipelining = true,
		.chunking = true,
		.smtputf8 = true,
		.eightbit = true,
		.dsn = true,
		.binarymime = true,
		.xclient = true,
		.normalise = normalise,
		.starttls = choice & WITH_STARTTLS,
		.tls_required = choice & TLS_REQUIRED,
		.auth = choice & AUTH_UNDER_TLS ? SMTP_AUTH_TLS : SMTP_AUTH_ALWAYS,
		.auth_required = choice & AUTH_REQUIRED,
		.limits = choice & WITH_LIMITS,
		.messages_max = choice & ONE_MESSAGE ? 1 : 0,
	};

	world->said.len = world->bodies.len = 0;
	world->ticket_count = 0;
	world->open = world->checking = world->logged_in = world->xclient = false;
	world->options = choice;
	world->secured = choice & TLS_FIRST;
	world->session = smtp_session_create(&options, &host, world);
	if (world->secured)
		smtp_session_secured(world->session);
	smtp_session_greet(world->session, NULL);
	smtp_session_feed(world->session, span_text("EHLO a\r\n"));
	while (bytes.len > 0 && !smtp_session_finished(world->session)) {
		size_t taken = smtp_session_feed(
			world->session, span_of(bytes.at, bytes.len < step ? bytes.len : step));

		bytes = span_skip(bytes, taken);
		answer_all(world);
		struct span out = smtp_session_output(world->session);

		keep(&world->said, out);
		smtp_session_sent(world->session, out.len);
		shake(world);
	}
	if (world->open)
		world->bodies.len = world->body_at;
	smtp_session_destroy(world->session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3 || size > 4096)
		return 0;
	struct span bytes = span_of(data + 2, size - 2);

	run(&whole, bytes, SIZE_MAX, data[0] & 1, data[1]);
	run(&pieces, bytes, 1 + data[0] / 2, data[0] & 1, data[1]);
	assert(are_same(&whole.said, &pieces.said));
	assert(are_same(&whole.bodies, &pieces.bodies));
	return 0;
}
