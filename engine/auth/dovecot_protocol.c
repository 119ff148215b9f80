#include "engine/auth/dovecot_protocol.h"

#include <stdio.h>

#include "engine/smtp/base64.h"
#include "engine/smtp/command.h"
#include "os/check.h"

/* The next field; they are parted by TABs. */
static bool field_next(struct span *rest, struct span *out)
{
	const char *tab;

	if (!rest->at)
		return false;
	tab = memchr(rest->at, '\t', rest->len);
	*out = span_of(rest->at, tab ? (size_t)(tab - rest->at) : rest->len);
	*rest = tab ? span_skip(*rest, out->len + 1) : span_of(NULL, 0);
	return true;
}

/* Undoes the protocol's quoting; a name that can't be shown or is too long is none. */
static void user_take(struct span text, char out[static DOVECOT_USER_MAX + 1])
{
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++, len++) {
		if ((unsigned char)text.at[i] < ' ' || text.at[i] == 127 ||
		    len == DOVECOT_USER_MAX) {
			out[0] = '\0';
			return;
		}
		out[len] = text.at[i];
	}
	out[len] = '\0';
}

static bool field_is(struct span field, const char *name)
{
	return span_equal(field, span_text(name));
}

/* OK id ..., FAIL id ... */
static void verdict_parse(struct span rest, struct dovecot_reply *out)
{
	struct span field;
	uint64_t id;

	if (!field_next(&rest, &field) || !smtp_number_parse(field, &id) || id > UINT32_MAX) {
		out->line = DOVECOT_FOREIGN;
		return;
	}
	out->id = (uint32_t)id;
	while (field_next(&rest, &field)) {
		if (out->line == DOVECOT_OK && field.len > 5 && memcmp(field.at, "user=", 5) == 0)
			user_take(span_skip(field, 5), out->user);
		else if (out->line == DOVECOT_FAIL &&
			 (field_is(field, "temp") || field_is(field, "code=temp_fail")))
			out->line = DOVECOT_FAIL_TEMPORARY;
	}
}

void dovecot_reply_parse(struct span line, struct dovecot_reply *out)
{
	struct span rest = line, word = { 0 }, major = { 0 };

	*out = (struct dovecot_reply){ .line = DOVECOT_NOTHING };
	field_next(&rest, &word);
	if (field_is(word, "VERSION")) {
		if (!field_next(&rest, &major) || !field_is(major, "1"))
			out->line = DOVECOT_FOREIGN;
	} else if (field_is(word, "DONE")) {
		out->line = DOVECOT_DONE;
	} else if (field_is(word, "OK") || field_is(word, "FAIL")) {
		out->line = field_is(word, "OK") ? DOVECOT_OK : DOVECOT_FAIL;
		verdict_parse(rest, out);
	} else if (field_is(word, "CONT")) {
		/* PLAIN is over with one answer: there is nothing to go on with. */
		out->line = DOVECOT_FAIL;
		verdict_parse(rest, out);
	}
}

size_t dovecot_hello_write(uint32_t client_id, char out[static 64])
{
	return (size_t)snprintf(out, 64, "VERSION\t1\t1\nCPID\t%u\n", client_id);
}

static size_t append(char *to, struct span text)
{
	if (text.len > 0)
		memcpy(to, text.at, text.len);
	return text.len;
}

size_t dovecot_ask_write(uint32_t id, const struct smtp_credentials *credentials,
			 const struct os_address *client, bool secured,
			 char out[static DOVECOT_LINE_MAX])
{
	char plain[3 * DOVECOT_SECRET_MAX + 2], address[OS_ADDRESS_TEXT_MAX];
	size_t len = 0, used;

	if (credentials->authorize.len > DOVECOT_SECRET_MAX ||
	    credentials->user.len > DOVECOT_SECRET_MAX ||
	    credentials->password.len > DOVECOT_SECRET_MAX)
		return 0;
	len += append(plain, credentials->authorize);
	plain[len++] = '\0';
	len += append(plain + len, credentials->user);
	plain[len++] = '\0';
	len += append(plain + len, credentials->password);
	used = (size_t)snprintf(out, DOVECOT_LINE_MAX, "AUTH\t%u\tPLAIN\tservice=smtp\tnologin%s",
				id, secured ? "\tsecured" : "");
	if (client->family != AF_UNIX)
		used += (size_t)snprintf(out + used, DOVECOT_LINE_MAX - used, "\trip=%s",
					 os_address_text(client, address));
	used += append(out + used, span_text("\tresp="));
	assert(used + BASE64_TEXT_BYTES(sizeof(plain)) + 1 <= DOVECOT_LINE_MAX);
	base64_encode(span_of(plain, len), out + used);
	explicit_bzero(plain, sizeof(plain));
	used += BASE64_TEXT_BYTES(len);
	out[used++] = '\n';
	return used;
}
