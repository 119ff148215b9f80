/*
 * params - see params.h. A table of keywords for each command; each has one function.
 */
#include "engine/smtp/params.h"

#include "engine/smtp/command.h"
#include "engine/smtp/utf8.h"
#include "os/check.h"

enum { ENVID_MAX = 100, ORCPT_MAX = 500, AUTH_MAX = 500 };

/* One keyword[=value]; `value.at` is NULL without "=". */
struct param {
	struct span keyword, value;
};

/* What a parameter is put into. */
struct target {
	struct smtp_mail *mail;
	struct smtp_rcpt *rcpt;
	bool utf8;
	const struct smtp_session_options *options;
};

struct param_rule {
	const char *keyword;
	size_t offered_at; /* of the bool in the options; SIZE_MAX: always offered */
	enum smtp_params_status (*take)(struct target *target, struct span value);
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool smtp_xtext_valid(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.at[i] < 33 || text.at[i] > 126 || text.at[i] == '=')
			return false;
		if (text.at[i] != '+')
			continue;
		if (text.len - i < 3)
			return false;
		int high = hex_digit(text.at[i + 1]), low = hex_digit(text.at[i + 2]);

		/* A control character would end up in the headers of a report. */
		if (high < 2 || low < 0 || (high == 7 && low == 15))
			return false;
		i += 2;
	}
	return text.len > 0;
}

static enum smtp_params_status size_take(struct target *target, struct span value)
{
	if (!value.at)
		return SMTP_PARAMS_BAD;
	return smtp_number_parse(value, &target->mail->size) ? SMTP_PARAMS_OK : SMTP_PARAMS_BAD;
}

static enum smtp_params_status body_take(struct target *target, struct span value)
{
	if (span_equal_nocase(value, span_text("7BIT")))
		target->mail->body = SMTP_BODY_7BIT;
	else if (span_equal_nocase(value, span_text("8BITMIME")))
		target->mail->body = SMTP_BODY_8BITMIME;
	else if (span_equal_nocase(value, span_text("BINARYMIME")) && target->options->binarymime &&
		 target->options->chunking)
		target->mail->body = SMTP_BODY_BINARYMIME;
	else
		return SMTP_PARAMS_BAD;
	return SMTP_PARAMS_OK;
}

static enum smtp_params_status utf8_take(struct target *target, struct span value)
{
	if (value.at)
		return SMTP_PARAMS_BAD;
	target->mail->utf8 = true;
	return SMTP_PARAMS_OK;
}

static enum smtp_params_status ret_take(struct target *target, struct span value)
{
	if (span_equal_nocase(value, span_text("FULL")))
		target->mail->ret = 'F';
	else if (span_equal_nocase(value, span_text("HDRS")))
		target->mail->ret = 'H';
	else
		return SMTP_PARAMS_BAD;
	return SMTP_PARAMS_OK;
}

bool smtp_envid_valid(struct span value)
{
	return value.len <= ENVID_MAX && smtp_xtext_valid(value);
}

static enum smtp_params_status envid_take(struct target *target, struct span value)
{
	if (!smtp_envid_valid(value))
		return SMTP_PARAMS_BAD;
	target->mail->envid = value;
	return SMTP_PARAMS_OK;
}

static enum smtp_params_status auth_take(struct target *target, struct span value)
{
	if (value.len > AUTH_MAX ||
	    (!span_equal(value, span_text("<>")) && !smtp_xtext_valid(value)))
		return SMTP_PARAMS_BAD;
	target->mail->auth = value;
	return SMTP_PARAMS_OK;
}

bool smtp_notify_valid(uint8_t notify)
{
	return notify < 16 && (!(notify & 1) || notify == 1); /* NEVER stands alone */
}

static enum smtp_params_status notify_take(struct target *target, struct span value)
{
	static const char *const names[] = { "NEVER", "SUCCESS", "FAILURE", "DELAY" };
	uint8_t notify = 0;

	for (bool more = true; more;) {
		const char *comma = value.len > 0 ? memchr(value.at, ',', value.len) : NULL;
		struct span word =
			span_of(value.at, comma ? (size_t)(comma - value.at) : value.len);
		size_t i = 0;

		while (i < array_count(names) && !span_equal_nocase(word, span_text(names[i])))
			i++;
		if (i == array_count(names) || notify & 1 << i)
			return SMTP_PARAMS_BAD;
		notify |= (uint8_t)(1 << i);
		more = comma != NULL;
		if (more)
			value = span_skip(value, word.len + 1);
	}
	if (!smtp_notify_valid(notify))
		return SMTP_PARAMS_BAD;
	target->rcpt->notify = notify;
	return SMTP_PARAMS_OK;
}

/* utf-8 addresses may come as they are in an SMTPUTF8 transaction (RFC 6533, 3). */
static bool unitext_valid(struct span text)
{
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = (uint8_t)text.at[i];

		if (c < 33 || c == 127 || c == '+' || c == '=')
			return false;
	}
	return text.len > 0 && smtp_utf8_valid(text);
}

bool smtp_orcpt_valid(struct span value, bool utf8)
{
	const char *semicolon = value.len > 0 ? memchr(value.at, ';', value.len) : NULL;

	if (!semicolon || value.len > ORCPT_MAX)
		return false;
	struct span type = span_of(value.at, (size_t)(semicolon - value.at));
	struct span address = span_skip(value, type.len + 1);

	for (size_t i = 0; i < type.len; i++) {
		char c = type.at[i];

		if (!((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9') && c != '-')
			return false;
	}
	if (type.len == 0)
		return false;
	return (utf8 && span_equal_nocase(type, span_text("utf-8")) && unitext_valid(address)) ||
	       smtp_xtext_valid(address);
}

static enum smtp_params_status orcpt_take(struct target *target, struct span value)
{
	if (!smtp_orcpt_valid(value, target->utf8))
		return SMTP_PARAMS_BAD;
	target->rcpt->orcpt = value;
	return SMTP_PARAMS_OK;
}

#define OFFERED(field) offsetof(struct smtp_session_options, field)

static const struct param_rule mail_rules[] = {
	{ "SIZE", SIZE_MAX, size_take },
	{ "BODY", OFFERED(eightbit), body_take },
	{ "SMTPUTF8", OFFERED(smtputf8), utf8_take },
	{ "RET", OFFERED(dsn), ret_take },
	{ "ENVID", OFFERED(dsn), envid_take },
	{ "AUTH", SIZE_MAX, auth_take },
};

static const struct param_rule rcpt_rules[] = {
	{ "NOTIFY", OFFERED(dsn), notify_take },
	{ "ORCPT", OFFERED(dsn), orcpt_take },
};

static bool offered(const struct param_rule *rule, const struct smtp_session_options *options)
{
	return rule->offered_at == SIZE_MAX ||
	       *(const bool *)((const char *)options + rule->offered_at);
}

/* The next word of `text`, cut off it. False: nothing is left. */
static bool param_next(struct span *text, struct param *out)
{
	size_t len = 0;

	while (text->len > 0 && *text->at == ' ')
		*text = span_skip(*text, 1);
	while (len < text->len && text->at[len] != ' ')
		len++;
	if (len == 0)
		return false;

	const char *equals = memchr(text->at, '=', len);
	size_t keyword = equals ? (size_t)(equals - text->at) : len;

	out->keyword = span_of(text->at, keyword);
	out->value = equals ? span_of(equals + 1, len - keyword - 1) : span_of(NULL, 0);
	*text = span_skip(*text, len);
	return true;
}

static enum smtp_params_status params_take(struct span text, const struct param_rule *rules,
					   size_t count, struct target *target)
{
	uint32_t seen = 0;
	struct param param;

	if (text.len > 0 && *text.at != ' ')
		return SMTP_PARAMS_BAD;
	while (param_next(&text, &param)) {
		size_t i = 0;

		while (i < count && !span_equal_nocase(param.keyword, span_text(rules[i].keyword)))
			i++;
		if (i == count || !offered(&rules[i], target->options))
			return SMTP_PARAMS_UNKNOWN;
		if (seen & 1u << i || rules[i].take(target, param.value) != SMTP_PARAMS_OK)
			return SMTP_PARAMS_BAD;
		seen |= 1u << i;
	}
	return SMTP_PARAMS_OK;
}

enum smtp_params_status smtp_params_mail(struct span text,
					 const struct smtp_session_options *options,
					 struct smtp_mail *mail)
{
	struct target target = { .mail = mail, .options = options };

	mail->size = 0;
	mail->body = SMTP_BODY_7BIT;
	mail->utf8 = false;
	mail->ret = 0;
	mail->envid = mail->auth = span_of("", 0);
	return params_take(text, mail_rules, array_count(mail_rules), &target);
}

enum smtp_params_status smtp_params_rcpt(struct span text,
					 const struct smtp_session_options *options, bool utf8,
					 struct smtp_rcpt *rcpt)
{
	struct target target = { .rcpt = rcpt, .utf8 = utf8, .options = options };

	rcpt->notify = 0;
	rcpt->orcpt = span_of("", 0);
	return params_take(text, rcpt_rules, array_count(rcpt_rules), &target);
}
