/*
 * handover - the SMTP client of sendmail: one command, one reply. See handover.h.
 */
#include "tools/handover.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/check.h"
#include "queue/envelope.h"

enum {
	LINE_BYTES = 2048,
	SEND_BYTES = 64 << 10,
	WAIT_S = 600, /* the longest of RFC 5321, 4.5.3.2: the reply to the data */
};

/* ── connecting ───────────────────────────────────────────────────────────────────── */

static socklen_t socket_address(const struct os_address *from, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof(*out));
	out->ss_family = from->family;
	if (from->family == AF_UNIX) {
		struct sockaddr_un *to = (struct sockaddr_un *)out;

		snprintf(to->sun_path, sizeof(to->sun_path), "%s", from->path);
		return sizeof(*to);
	}
	if (from->family == AF_INET) {
		struct sockaddr_in *to = (struct sockaddr_in *)out;

		to->sin_port = htons(from->port);
		memcpy(&to->sin_addr, from->ip, 4);
		if (to->sin_addr.s_addr == htonl(INADDR_ANY))
			to->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*to);
	}
	struct sockaddr_in6 *to = (struct sockaddr_in6 *)out;

	to->sin6_port = htons(from->port);
	to->sin6_scope_id = from->scope_id;
	memcpy(&to->sin6_addr, from->ip, 16);
	if (IN6_IS_ADDR_UNSPECIFIED(&to->sin6_addr))
		to->sin6_addr = in6addr_loopback;
	return sizeof(*to);
}

static int connect_to(const struct os_address *address)
{
	struct timeval patience = { .tv_sec = WAIT_S };
	struct sockaddr_storage to;
	socklen_t len = socket_address(address, &to);
	int fd = socket(address->family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&to, len) == 0)
		return fd;
	int error = -errno;

	close(fd);
	return error;
}

/* UNIX sockets first: who they let in is trusted. Then loopback, then anything. */
static int rank_of(const struct config_listener *listener)
{
	const struct os_address *address = &listener->address;
	static const uint8_t none[16], loopback6[16] = { [15] = 1 };

	if (listener->tls == CONFIG_LISTENER_IMPLICIT || listener->tls == CONFIG_LISTENER_REQUIRE ||
	    listener->auth_required || listener->proxy_protocol)
		return -1;
	if (address->family == AF_UNIX)
		return 0;
	if (address->family == AF_INET)
		return address->ip[0] == 127 || memcmp(address->ip, none, 4) == 0 ? 1 : 2;
	return memcmp(address->ip, none, 16) == 0 || memcmp(address->ip, loopback6, 16) == 0 ? 1
											     : 2;
}

int handover_connect(const struct config *config)
{
	int error = -ECONNREFUSED;

	for (int rank = 0; rank <= 2; rank++)
		for (uint32_t i = 0; i < config->listener_count; i++) {
			if (rank_of(&config->listeners[i]) != rank)
				continue;
			int fd = connect_to(&config->listeners[i].address);

			if (fd >= 0)
				return fd;
			error = fd;
		}
	return error;
}

/* ── commands and replies ─────────────────────────────────────────────────────────── */

struct link {
	int fd;
	bool lost;
	char in[LINE_BYTES];
	size_t in_len;
	char out[SEND_BYTES];
	size_t out_len;
	/* The last reply. */
	int code;
	char text[HANDOVER_REPLY_BYTES]; /* its last line */
	bool eightbit, utf8, dsn;	 /* offered */
};

static void lose(struct link *link, const char *why)
{
	link->lost = true;
	link->code = 421;
	snprintf(link->text, sizeof(link->text), "%s", why);
}

static void flush(struct link *link)
{
	size_t done = 0;

	while (done < link->out_len && !link->lost) {
		ssize_t put = send(link->fd, link->out + done, link->out_len - done, MSG_NOSIGNAL);

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			lose(link, "the connection broke");
	}
	link->out_len = 0;
}

static void put(struct link *link, struct span bytes)
{
	while (bytes.len > 0) {
		size_t room = sizeof(link->out) - link->out_len;
		size_t part = bytes.len < room ? bytes.len : room;

		memcpy(link->out + link->out_len, bytes.at, part);
		link->out_len += part;
		bytes = span_skip(bytes, part);
		if (link->out_len == sizeof(link->out))
			flush(link);
	}
}

static bool has_line(const struct link *link)
{
	return memchr(link->in, '\n', link->in_len) != NULL;
}

/* One line, without its end, in `line`. */
static bool read_line(struct link *link, char line[static LINE_BYTES])
{
	while (!link->lost && !has_line(link)) {
		size_t room = sizeof(link->in) - link->in_len;
		ssize_t got = room > 0 ? recv(link->fd, link->in + link->in_len, room, 0) : 0;

		if (got > 0)
			link->in_len += (size_t)got;
		else if (got == 0 || errno != EINTR)
			lose(link, "the daemon closed the connection");
	}
	if (link->lost)
		return false;
	size_t len = (size_t)((char *)memchr(link->in, '\n', link->in_len) - link->in);

	memcpy(line, link->in, len);
	line[len > 0 && line[len - 1] == '\r' ? len - 1 : len] = '\0';
	link->in_len -= len + 1;
	memmove(link->in, link->in + len + 1, link->in_len);
	return true;
}

static void note_extension(struct link *link, const char *text)
{
	link->eightbit |= strcasecmp(text, "8BITMIME") == 0;
	link->utf8 |= strcasecmp(text, "SMTPUTF8") == 0;
	link->dsn |= strcasecmp(text, "DSN") == 0;
}

/* The code; what can't be read counts as 421. */
static int read_reply(struct link *link)
{
	char line[LINE_BYTES];

	flush(link);
	while (read_line(link, line)) {
		if (strlen(line) < 3 || strspn(line, "0123456789") != 3 || line[0] < '2') {
			lose(link, "what listens there does not speak SMTP");
			break;
		}
		link->code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
		snprintf(link->text, sizeof(link->text), "%.200s", line);
		if (line[3] != '-')
			break;
		note_extension(link, line + 4);
	}
	/* It closes after this one. */
	if (link->code == 421)
		link->lost = true;
	return link->code;
}

__attribute__((format(printf, 2, 3))) static int command(struct link *link, const char *format, ...)
{
	char line[LINE_BYTES];
	va_list arguments;
	int len;

	if (link->lost)
		return link->code;
	va_start(arguments, format);
	len = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	assert(len > 0 && (size_t)len < sizeof(line));
	put(link, span_of(line, (size_t)len));
	return read_reply(link);
}

/* ── a transaction ────────────────────────────────────────────────────────────────── */

static void settle(struct handover_recipient *recipient, const struct link *link)
{
	recipient->state = link->code / 100 == 2   ? HANDOVER_TAKEN
			   : link->code / 100 == 5 ? HANDOVER_REFUSED
						   : HANDOVER_LATER;
	snprintf(recipient->reply, sizeof(recipient->reply), "%s", link->text);
}

/* Recipients in the open transaction have the state TAKEN until the data says otherwise. */
static void settle_range(struct handover *handover, size_t first, size_t end,
			 enum handover_state which, const struct link *link)
{
	for (size_t i = first; i < end; i++)
		if (handover->recipients[i].state == which)
			settle(&handover->recipients[i], link);
}

static int say_mail(struct link *link, const struct handover *handover)
{
	char ret[16] = "", envid[256] = "";

	if (link->dsn && handover->ret)
		snprintf(ret, sizeof(ret), " RET=%s", handover->ret == 'F' ? "FULL" : "HDRS");
	if (link->dsn && handover->envid)
		snprintf(envid, sizeof(envid), " ENVID=%s", handover->envid);
	return command(link, "MAIL FROM:<%.*s>%s%s%s%s\r\n",
		       SPAN_ARG(smtp_address_span(&handover->sender)),
		       link->eightbit && handover->eightbit ? " BODY=8BITMIME" : "",
		       link->utf8 && handover->utf8 ? " SMTPUTF8" : "", ret, envid);
}

static int say_rcpt(struct link *link, const struct handover *handover,
		    const struct handover_recipient *recipient)
{
	uint8_t notify = link->dsn ? handover->notify : 0;
	char words[64] = "";

	if (notify & ENVELOPE_NOTIFY_NEVER)
		snprintf(words, sizeof(words), " NOTIFY=NEVER");
	else if (notify)
		snprintf(words, sizeof(words), " NOTIFY%s%s%s",
			 notify & ENVELOPE_NOTIFY_SUCCESS ? ",SUCCESS" : "",
			 notify & ENVELOPE_NOTIFY_FAILURE ? ",FAILURE" : "",
			 notify & ENVELOPE_NOTIFY_DELAY ? ",DELAY" : "");
	if (notify && !(notify & ENVELOPE_NOTIFY_NEVER))
		words[sizeof(" NOTIFY") - 1] = '=';
	return command(link, "RCPT TO:<%.*s>%s\r\n",
		       SPAN_ARG(smtp_address_span(&recipient->address)), words);
}

static void say_body(struct link *link, struct span message)
{
	while (message.len > 0 && !link->lost) {
		const char *end = memchr(message.at, '\n', message.len);
		size_t len = end ? (size_t)(end - message.at) + 1 : message.len;

		if (message.at[0] == '.')
			put(link, span_text("."));
		put(link, span_of(message.at, len));
		message = span_skip(message, len);
	}
}

/* RCPT for all from `first` on, as many as go into one transaction; returns the next. */
static size_t say_recipients(struct link *link, struct handover *handover, size_t first,
			     uint32_t max)
{
	uint32_t taken = 0;
	size_t at = first;

	while (at < handover->count && taken < max) {
		struct handover_recipient *recipient = &handover->recipients[at];

		/* A full transaction: the others go into the next. */
		if (say_rcpt(link, handover, recipient) == 452 && taken > 0)
			break;
		settle(recipient, link);
		taken += recipient->state == HANDOVER_TAKEN;
		at++;
	}
	return at;
}

static bool any(const struct handover *handover, size_t first, size_t end,
		enum handover_state state)
{
	for (size_t i = first; i < end; i++)
		if (handover->recipients[i].state == state)
			return true;
	return false;
}

static size_t transaction(struct link *link, struct handover *handover, size_t first,
			  uint32_t recipients_max)
{
	size_t end;

	if (say_mail(link, handover) / 100 != 2) {
		settle_range(handover, first, handover->count, HANDOVER_WAITING, link);
		return handover->count;
	}
	end = say_recipients(link, handover, first, recipients_max);
	if (!any(handover, first, end, HANDOVER_TAKEN)) {
		command(link, "RSET\r\n");
		return end;
	}
	if (command(link, "DATA\r\n") == 354) {
		say_body(link, handover->message);
		put(link, span_text(".\r\n"));
		read_reply(link);
	} else if (link->code / 100 == 2) {
		lose(link, "what listens there says to have a message that was not sent");
	}
	settle_range(handover, first, end, HANDOVER_TAKEN, link);
	return end;
}

void handover_send(struct handover *handover, const struct config *config, int fd)
{
	struct link *link = calloc(1, sizeof(*link));
	size_t next = 0;

	assert(link);
	link->fd = fd;
	if (fd < 0)
		lose(link, "the daemon is not there");
	else if (read_reply(link) / 100 == 2)
		command(link, "EHLO %s\r\n", config->hostname);
	if (link->code / 100 != 2)
		settle_range(handover, 0, handover->count, HANDOVER_WAITING, link);
	else
		while (next < handover->count)
			next = transaction(link, handover, next, config->recipients_max);
	if (!link->lost)
		command(link, "QUIT\r\n");
	if (fd >= 0)
		close(fd);
	free(link);
}
