/* A message into the drop directory: written whole under another name, then renamed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/inbound/drop_file.h"
#include "os/check.h"
#include "queue/envelope.h"
#include "tools/handover.h"

enum { KEPT_RECIPIENTS_MAX = 1000 }; /* of a file: the longest addresses fit its envelope */

/* ── the envelope ─────────────────────────────────────────────────────────────────── */

/* Of at most `max` recipients that are LATER, from *next on. */
static bool seal(struct envelope_builder *builder, const struct handover *handover, size_t *next,
		 uint32_t max, struct span *out)
{
	uint32_t count = 0;

	envelope_builder_reset(builder);
	envelope_set_sender(builder, smtp_address_span(&handover->sender));
	if (handover->envid)
		envelope_set(builder, FORMAT_ENVID, span_text(handover->envid));
	if (handover->ret)
		envelope_set(builder, FORMAT_RET, span_of(&handover->ret, 1));
	for (; *next < handover->count && count < max; ++*next) {
		const struct handover_recipient *one = &handover->recipients[*next];
		struct envelope_recipient recipient = {
			.address = smtp_address_span(&one->address),
			.domain = smtp_address_domain(&one->address),
			.notify = handover->notify,
		};

		if (one->state != HANDOVER_LATER)
			continue;
		envelope_add_recipient(builder, &recipient);
		count++;
	}
	return count > 0 && envelope_seal(builder, out);
}

/* ── the file ─────────────────────────────────────────────────────────────────────── */

static int write_all(int fd, const void *bytes, size_t count)
{
	const char *at = bytes;

	while (count > 0) {
		ssize_t put = write(fd, at, count);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		at += put;
		count -= (size_t)put;
	}
	return 0;
}

static int write_file(int fd, const struct handover *handover, struct span envelope)
{
	struct drop_head head;
	int error;

	drop_head_fill(&head, handover->utf8 ? DROP_UTF8 : 0, envelope, handover->message);
	error = write_all(fd, &head, sizeof(head));
	if (error == 0)
		error = write_all(fd, envelope.at, envelope.len);
	if (error == 0)
		error = write_all(fd, handover->message.at, handover->message.len);
	/* Whatever the umask is: the daemon has to read it. */
	if (error == 0 && fchmod(fd, 0644) != 0)
		error = -errno;
	if (error == 0 && fsync(fd) != 0)
		error = -errno;
	return error;
}

/* Makes the name durable. Who may not read the folder may not sync it: then all that the file
 * system holds is. */
static int sync_name(int folder, int file)
{
	int readable = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result;

	if (readable < 0)
		return syncfs(file) == 0 ? 0 : -errno;
	result = fsync(readable) == 0 ? 0 : -errno;
	close(readable);
	return result;
}

static int keep_one(int folder, const struct handover *handover, struct span envelope)
{
	char name[DROP_NAME_BYTES], fresh[sizeof(DROP_FRESH_PREFIX) + DROP_NAME_BYTES];
	unsigned char random[16];
	int fd, error;

	os_random(random, sizeof(random));
	drop_name_text(random, name);
	snprintf(fresh, sizeof(fresh), DROP_FRESH_PREFIX "%s", name);
	fd = openat(folder, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	error = write_file(fd, handover, envelope);
	if (error == 0 && renameat(folder, fresh, folder, name) != 0)
		error = -errno;
	if (error != 0)
		unlinkat(folder, fresh, 0);
	else
		error = sync_name(folder, fd);
	/* The second one fails for sure if the disk died under the first: queue/README.md, R1. */
	if (error == 0 && os_file_on_btrfs(fd))
		error = sync_name(folder, fd);
	close(fd);
	return error;
}

static void mark_kept(struct handover *handover, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		if (handover->recipients[i].state == HANDOVER_LATER)
			handover->recipients[i].state = HANDOVER_TAKEN;
}

int handover_keep(struct handover *handover, const struct config *config, const char **path)
{
	static char folder_path[DROP_PATH_BYTES];
	struct envelope_builder *builder = envelope_builder_create();
	uint32_t max = config->recipients_max < KEPT_RECIPIENTS_MAX ? config->recipients_max
								    : KEPT_RECIPIENTS_MAX;
	size_t first = 0, next = 0;
	struct span envelope;
	int folder, error = 0;

	assert(builder);
	*path = folder_path;
	if (!drop_folder_path(config, folder_path))
		folder = -ENAMETOOLONG;
	else /* it need not be readable */
		folder = open(folder_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		error = -errno;
	while (error == 0 && seal(builder, handover, &next, max, &envelope)) {
		error = keep_one(folder, handover, envelope);
		if (error == 0)
			mark_kept(handover, first, next);
		first = next;
	}
	if (folder >= 0)
		close(folder);
	envelope_builder_destroy(builder);
	return error;
}
