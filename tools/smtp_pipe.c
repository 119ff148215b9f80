/*
 * smtp_pipe - see smtp_pipe.h.
 */
#include "tools/smtp_pipe.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

static bool write_all(int fd, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t put = write(fd, bytes, count);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		bytes += put;
		count -= (size_t)put;
	}
	return true;
}

/* One piece. False: `from` has ended, or `to` takes no more. */
static bool move(int from, int to)
{
	char bytes[64 << 10];
	ssize_t got = read(from, bytes, sizeof(bytes));

	if (got < 0 && errno == EINTR)
		return true;
	return got > 0 && write_all(to, bytes, (size_t)got);
}

int smtp_pipe_run(int fd)
{
	struct pollfd ends[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
				  { .fd = fd, .events = POLLIN } };
	bool open = true;

	while (open) {
		if (poll(ends, 2, -1) < 0 && errno != EINTR)
			break;
		if (ends[0].revents && !move(STDIN_FILENO, fd)) {
			/* The last replies are still to come. */
			shutdown(fd, SHUT_WR);
			ends[0].fd = -1;
		}
		if (ends[1].revents)
			open = move(fd, STDOUT_FILENO);
	}
	close(fd);
	return EX_OK;
}
