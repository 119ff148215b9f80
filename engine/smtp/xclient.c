/*
 * xclient - see xclient.h. A table of attributes; each has one function.
 */
#include "engine/smtp/xclient.h"

#include "engine/smtp/command.h"
#include "engine/smtp/params.h"
#include "os/check.h"

/* A value with its xtext undone; "" stands for what is not known. */
struct value {
	char text[XCLIENT_VALUE_MAX + 1];
	size_t len;
};

/* Names and address literals, as in EHLO. */
static bool host_valid(const struct value *value)
{
	for (size_t i = 0; i < value->len; i++) {
		char c = value->text[i];

		if (!((c | 32) >= 'a' && (c | 32) <= 'z') && !(c >= '0' && c <= '9') &&
		    !strchr("-_.:[]", c))
			return false;
	}
	return true;
}

static bool name_take(struct xclient *out, const struct value *value)
{
	(void)out; /* nobody here looks at a client's name in the DNS */
	return host_valid(value);
}

static bool helo_take(struct xclient *out, const struct value *value)
{
	memcpy(out->helo, value->text, value->len + 1);
	return host_valid(value);
}

/* "192.0.2.1" or "IPV6:2001:db8::1" */
static bool address_parse(const struct value *value, struct os_address *out)
{
	bool six = span_starts_nocase(span_of(value->text, value->len), "IPV6:");

	*out = (struct os_address){ .family = AF_UNSPEC };
	if (value->len == 0)
		return true;
	return !strchr(value->text, '%') && os_address_parse(value->text + (six ? 5 : 0), 0, out) &&
	       out->family == (six ? AF_INET6 : AF_INET);
}

static bool addr_take(struct xclient *out, const struct value *value)
{
	uint16_t port = out->address.port;

	if (!address_parse(value, &out->address))
		return false;
	os_address_unmap(&out->address); /* came to a dual-stack socket by IPv4 */
	out->address.port = port;
	return true;
}

static bool destaddr_take(struct xclient *out, const struct value *value)
{
	struct os_address address;

	(void)out; /* all of our addresses are one server */
	return address_parse(value, &address);
}

static bool port_parse(const struct value *value, uint16_t *out)
{
	uint64_t port = 0;

	if (value->len > 0 &&
	    (!smtp_number_parse(span_of(value->text, value->len), &port) || port > UINT16_MAX))
		return false;
	*out = (uint16_t)port;
	return true;
}

static bool port_take(struct xclient *out, const struct value *value)
{
	return port_parse(value, &out->address.port);
}

static bool destport_take(struct xclient *out, const struct value *value)
{
	uint16_t port;

	(void)out;
	return port_parse(value, &port);
}

static bool proto_take(struct xclient *out, const struct value *value)
{
	struct span text = span_of(value->text, value->len);

	out->extended = span_equal_nocase(text, span_text("ESMTP"));
	return out->extended || span_equal_nocase(text, span_text("SMTP"));
}

static bool login_take(struct xclient *out, const struct value *value)
{
	memcpy(out->login, value->text, value->len + 1);
	return true;
}

static const struct attribute {
	const char *name;
	enum xclient_attribute bit;
	bool (*take)(struct xclient *out, const struct value *value);
	const char *wrong;
} attributes[] = {
	{ "NAME", XCLIENT_NAME, name_take, "Bad NAME" },
	{ "ADDR", XCLIENT_ADDR, addr_take, "Bad ADDR" },
	{ "PORT", XCLIENT_PORT, port_take, "Bad PORT" },
	{ "PROTO", XCLIENT_PROTO, proto_take, "Bad PROTO" },
	{ "HELO", XCLIENT_HELO, helo_take, "Bad HELO" },
	{ "LOGIN", XCLIENT_LOGIN, login_take, "Bad LOGIN" },
	{ "DESTADDR", XCLIENT_DESTADDR, destaddr_take, "Bad DESTADDR" },
	{ "DESTPORT", XCLIENT_DESTPORT, destport_take, "Bad DESTPORT" },
};

static char hex_value(char c)
{
	return (char)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* NULL, or what is wrong. */
static const char *value_read(struct span text, struct value *out)
{
	out->len = 0;
	if (span_equal_nocase(text, span_text("[UNAVAILABLE]")) ||
	    span_equal_nocase(text, span_text("[TEMPUNAVAIL]")))
		text.len = 0;
	else if (!smtp_xtext_valid(text))
		return "Bad attribute value";
	for (size_t i = 0; i < text.len; i++) {
		char c = text.at[i];

		if (out->len == XCLIENT_VALUE_MAX)
			return "Attribute value too long";
		if (c == '+') {
			c = (char)(hex_value(text.at[i + 1]) << 4 | hex_value(text.at[i + 2]));
			i += 2;
		}
		out->text[out->len++] = c;
	}
	out->text[out->len] = '\0';
	return NULL;
}

static const char *attribute_read(struct span word, struct xclient *out)
{
	const char *equals = memchr(word.at, '=', word.len);
	struct span name = span_of(word.at, equals ? (size_t)(equals - word.at) : 0);
	struct value value;
	const char *wrong;
	size_t i = 0;

	if (!equals)
		return "Syntax: XCLIENT attribute=value ...";
	while (i < array_count(attributes) &&
	       !span_equal_nocase(name, span_text(attributes[i].name)))
		i++;
	if (i == array_count(attributes))
		return "Attribute not known";
	if (out->given & attributes[i].bit)
		return "Attribute given twice";
	out->given |= attributes[i].bit;
	wrong = value_read(span_skip(word, name.len + 1), &value);
	if (wrong)
		return wrong;
	return attributes[i].take(out, &value) ? NULL : attributes[i].wrong;
}

const char *xclient_parse(struct span argument, struct xclient *out)
{
	*out = (struct xclient){ .address.family = AF_UNSPEC };
	while (argument.len > 0) {
		const char *blank = memchr(argument.at, ' ', argument.len);
		size_t len = blank ? (size_t)(blank - argument.at) : argument.len;
		const char *wrong = len > 0 ? attribute_read(span_of(argument.at, len), out) : NULL;

		if (wrong)
			return wrong;
		argument = span_skip(argument, len + (blank != NULL));
	}
	return NULL;
}
