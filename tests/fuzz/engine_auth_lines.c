/*
 * Lines about logins: Dovecot's answers, the file of users, and XCLIENT's argument; the first
 * octet chooses. What is understood of a line says the same when it is written again; and a user
 * who is set can log in, one who is taken out can't.
 *
 * crypt(3) is a stand-in: the password "right" has every hash.
 */
#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/auth/dovecot_protocol.h"
#include "engine/auth/users.h"
#include "engine/smtp/base64.h"
#include "engine/smtp/xclient.h"
#include "os/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HASH "$6$set$hash"

char *crypt_r(const char *phrase, const char *setting, struct crypt_data *data)
{
	strcpy(data->output, strcmp(phrase, "right") == 0 ? setting : "*0");
	return data->output;
}

/* No control characters, and an end. */
static void check_text(const char *text, size_t room)
{
	size_t len = strnlen(text, room);

	assert(len < room);
	for (size_t i = 0; i < len; i++)
		assert((unsigned char)text[i] >= ' ' && text[i] != 127);
}

/* ── Dovecot ──────────────────────────────────────────────────────────────────────── */

static void check_reply(struct span line)
{
	static const char *const words[] = {
		[DOVECOT_OK] = "OK", [DOVECOT_FAIL] = "FAIL", [DOVECOT_FAIL_TEMPORARY] = "FAIL"
	};
	struct dovecot_reply reply, again;
	char text[512];
	int len;

	dovecot_reply_parse(line, &reply);
	check_text(reply.user, sizeof(reply.user));
	assert(reply.user[0] == '\0' || reply.line == DOVECOT_OK);
	if (reply.line < DOVECOT_OK)
		return;
	len = snprintf(text, sizeof(text), "%s\t%u%s%s%s", words[reply.line], reply.id,
		       reply.user[0] ? "\tuser=" : "", reply.user,
		       reply.line == DOVECOT_FAIL_TEMPORARY ? "\ttemp" : "");
	dovecot_reply_parse(span_of(text, (size_t)len), &again);
	assert(again.line == reply.line && again.id == reply.id);
	assert(strcmp(again.user, reply.user) == 0);
}

/* What is asked for is one line, and holds the credentials. */
static void check_ask(struct span text)
{
	struct smtp_credentials credentials = { .user = span_of(text.at, text.len / 2),
						.password = span_skip(text, text.len / 2) };
	struct os_address client = { .family = AF_UNSPEC };
	char line[DOVECOT_LINE_MAX], plain[DOVECOT_LINE_MAX];
	const char *secret;
	size_t plain_len, len;

	assert(os_address_parse("2001:db8::1", 0, &client));
	len = dovecot_ask_write(7, &credentials, &client, text.len & 1, line);
	if (len == 0) {
		assert(text.len > DOVECOT_SECRET_MAX);
		return;
	}
	assert(memchr(line, '\n', len) == line + len - 1);
	secret = memmem(line, len, "\tresp=", 6);
	assert(secret);
	secret += 6;
	assert(base64_decode(span_of(secret, (size_t)(line + len - 1 - secret)), plain,
			     &plain_len));
	assert(plain_len == text.len + 2 && plain[0] == '\0');
	assert(span_equal(span_of(plain + 1, credentials.user.len), credentials.user));
}

/* ── users ────────────────────────────────────────────────────────────────────────── */

static enum users_status verify(const char *path, struct span name, const char *password)
{
	char error[SECRET_FILE_ERROR_BYTES] = "", *senders = NULL;
	enum users_status status = users_verify(path, name, password, &senders, error);

	assert(status != USERS_UNAVAILABLE && (status == USERS_OK || !senders));
	if (senders) {
		assert(!strchr(senders, '\n') && users_sender_allowed(senders, span_of("", 0)));
		users_sender_allowed(senders, name);
	}
	free(senders);
	return status;
}

static bool is_sound(const char *path)
{
	char error[SECRET_FILE_ERROR_BYTES] = "";
	bool sound = users_check(path, error);

	assert(sound == (error[0] == '\0'));
	return sound;
}

/* A name and LF, then the file. */
static void check_users(struct span text)
{
	const char *end = text.len > 0 ? memchr(text.at, '\n', text.len) : NULL;
	struct span name = span_of(text.at, end ? (size_t)(end - text.at) : 0);
	struct span rest = span_skip(text, name.len + (end ? 1 : 0));
	char path[64];
	bool sound;
	int fd;

	snprintf(path, sizeof(path), "/dev/shm/stafette-fuzz-users-%d", getpid());
	fd = os_file_open(OS_CURRENT_FOLDER, path, OS_WRITE | OS_CREATE_NEW, 0600);
	assert(fd >= 0 && os_file_write(fd, rest.at, rest.len, 0) == (ssize_t)rest.len);
	os_file_close(fd);
	sound = is_sound(path);
	verify(path, name, "right");
	assert(verify(path, name, "wrong") == USERS_WRONG);
	if (users_name_valid(name)) {
		assert(users_change(path, name, HASH) == 0);
		assert(verify(path, name, "right") == USERS_OK);
		assert(!sound || is_sound(path));
		assert(users_change(path, name, NULL) == 0);
		assert(verify(path, name, "right") == USERS_WRONG);
		assert(users_change(path, name, NULL) == -ENOENT);
		assert(!sound || is_sound(path));
	}
	unlink(path);
}

/* ── XCLIENT ──────────────────────────────────────────────────────────────────────── */

static size_t put_xtext(char *to, const char *name, const char *text)
{
	size_t len = (size_t)sprintf(to, " %s=", name);

	if (*text == '\0')
		return len + (size_t)sprintf(to + len, "[UNAVAILABLE]");
	for (; *text; text++)
		len += (size_t)sprintf(to + len, "+%02X", (unsigned char)*text);
	return len;
}

static void check_xclient(struct span argument)
{
	char text[4096], shown[OS_ADDRESS_TEXT_MAX];
	struct xclient client, again;
	size_t len = 0;

	if (xclient_parse(argument, &client))
		return;
	check_text(client.helo, sizeof(client.helo));
	check_text(client.login, sizeof(client.login));
	len += put_xtext(text, "HELO", client.helo);
	len += put_xtext(text + len, "LOGIN", client.login);
	len += (size_t)sprintf(text + len, " PROTO=%s PORT=%u", client.extended ? "ESMTP" : "SMTP",
			       client.address.port);
	if (client.address.family != AF_UNSPEC)
		len += (size_t)sprintf(text + len, " ADDR=%s%s",
				       client.address.family == AF_INET6 ? "IPV6:" : "",
				       os_address_text(&client.address, shown));
	assert(!xclient_parse(span_of(text, len), &again));
	assert(strcmp(client.helo, again.helo) == 0 && strcmp(client.login, again.login) == 0);
	assert(client.extended == again.extended && client.address.port == again.address.port);
	assert(client.address.family == again.address.family);
	assert(client.address.family == AF_UNSPEC ||
	       os_address_equal(&client.address, &again.address));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *copy = malloc(size ? size : 1); /* exact: a step beyond is seen */
	struct span text = span_of(copy, size > 0 ? size - 1 : 0);

	if (text.len > 0)
		memcpy(copy, data + 1, text.len);
	copy = realloc(copy, text.len ? text.len : 1);
	text.at = copy;
	switch (size > 0 ? data[0] % 3 : 0) {
	case 0:
		check_reply(text);
		check_ask(text);
		break;
	case 1:
		check_users(text);
		break;
	default:
		check_xclient(text);
	}
	free(copy);
	return 0;
}
