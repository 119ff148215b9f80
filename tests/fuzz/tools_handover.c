/*
 * What the daemon, or whoever listens there, says to sendmail(1). Every recipient has an outcome
 * at the end, TAKEN only after a message that was sent whole, and however the replies are cut, all
 * is the same.
 *
 *   input: how it is cut, what is asked for, replies
 */
#include <errno.h>
#include <stdlib.h>

#include "os/check.h"
#include "queue/envelope.h"
#include "tools/handover.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECIPIENTS = 5, FD = 1000, SAID_MAX = 1 << 14 };

/* The second octet. */
enum { TWO_AT_ONCE = 1, EIGHTBIT = 2, UTF8 = 4, NOTIFY_SOME = 8, NOTIFY_NEVER = 16, ENVID = 32 };

static struct world {
	struct handover_recipient recipients[RECIPIENTS];
	char said[SAID_MAX];
	size_t said_len;
	struct span replies;
	size_t cut;
	uint32_t bodies; /* sent whole */
	bool closed;
} whole, pieces, *now;

static const char body[] = "From: a\r\n\r\n..\r\n.\r\n";
static const char sent_body[] = "From: a\r\n\r\n...\r\n..\r\n.\r\n";

ssize_t __wrap_recv(int fd, void *at, size_t room, int flags);
ssize_t __wrap_send(int fd, const void *at, size_t count, int flags);
int __wrap_close(int fd);
int __real_close(int fd);

ssize_t __wrap_recv(int fd, void *at, size_t room, int flags)
{
	size_t len = now->replies.len < now->cut ? now->replies.len : now->cut;

	assert(fd == FD && !now->closed && flags == 0 && room > 0);
	len = len < room ? len : room;
	if (len > 0)
		memcpy(at, now->replies.at, len);
	now->replies = span_skip(now->replies, len);
	return (ssize_t)len;
}

ssize_t __wrap_send(int fd, const void *at, size_t count, int flags)
{
	size_t len = count < now->cut ? count : now->cut;

	(void)flags;
	assert(fd == FD && !now->closed && count > 0 && now->said_len + len <= SAID_MAX);
	memcpy(now->said + now->said_len, at, len);
	now->said_len += len;
	return (ssize_t)len;
}

int __wrap_close(int fd)
{
	if (fd != FD)
		return __real_close(fd);
	assert(!now->closed);
	now->closed = true;
	return 0;
}

static void check(struct world *world)
{
	uint32_t bodies = 0;
	const char *at = world->said;

	while ((at = memmem(at, world->said_len - (size_t)(at - world->said), sent_body,
			    strlen(sent_body)))) {
		bodies++;
		at++;
	}
	assert(world->closed);
	for (size_t i = 0; i < RECIPIENTS; i++) {
		const struct handover_recipient *recipient = &world->recipients[i];

		assert(recipient->state != HANDOVER_WAITING);
		assert(recipient->state != HANDOVER_TAKEN || bodies > 0);
		assert(memchr(recipient->reply, '\0', sizeof(recipient->reply)));
		assert(!strchr(recipient->reply, '\n'));
		assert(recipient->state != HANDOVER_REFUSED || recipient->reply[0] == '5');
	}
}

static void run(struct world *world, struct span replies, size_t cut, uint8_t what)
{
	char hostname[] = "a.example";
	struct config config = { .hostname = hostname,
				 .recipients_max = what & TWO_AT_ONCE ? 2 : 100 };
	struct handover handover = {
		.recipients = world->recipients,
		.count = RECIPIENTS,
		.message = span_text(body),
		.eightbit = what & EIGHTBIT,
		.utf8 = what & UTF8,
		.notify = (uint8_t)((what & NOTIFY_SOME
					     ? ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE
					     : 0) |
				    (what & NOTIFY_NEVER ? ENVELOPE_NOTIFY_NEVER : 0)),
		.ret = what & ENVID ? 'F' : 0,
		.envid = what & ENVID ? "id+2B" : NULL,
	};

	memset(world, 0, sizeof(*world));
	for (size_t i = 0; i < RECIPIENTS; i++)
		assert(!smtp_address_parse(span_text("r@x.example"), true,
					   &world->recipients[i].address));
	world->replies = replies;
	world->cut = cut;
	now = world;
	handover_send(&handover, &config, FD);
	check(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > 8192)
		return 0;
	struct span replies = span_of(data + 2, size - 2);

	run(&whole, replies, SIZE_MAX, data[1]);
	run(&pieces, replies, 1 + data[0], data[1]);
	assert(whole.said_len == pieces.said_len);
	assert(memcmp(whole.said, pieces.said, whole.said_len) == 0);
	for (size_t i = 0; i < RECIPIENTS; i++) {
		assert(whole.recipients[i].state == pieces.recipients[i].state);
		assert(strcmp(whole.recipients[i].reply, pieces.recipients[i].reply) == 0);
	}
	return 0;
}
