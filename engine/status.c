#include "engine/status.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASIDE STATUS_FILE ".new"

enum { FILE_BYTES = STATUS_TEXT_BYTES + 128 };

static int folder_open(const char *spool)
{
	return os_file_open(OS_CURRENT_FOLDER, spool, OS_READ | OS_FOLDER, 0);
}

static int file_write(int folder, const char *bytes, size_t count)
{
	int fd = os_file_open(folder, ASIDE, OS_WRITE | OS_CREATE, 0640);
	int result = fd < 0 ? fd : os_file_truncate(fd, 0);

	if (result == 0) {
		ssize_t put = os_file_write(fd, bytes, count, 0);

		result = put < 0 ? (int)put : (size_t)put < count ? -ENOSPC : 0;
	}
	if (fd >= 0)
		os_file_close(fd);
	return result;
}

int status_write(const char *spool, const struct status *status)
{
	int folder = folder_open(spool), result, count;
	char *bytes;

	if (folder < 0)
		return folder;
	count = asprintf(&bytes, "pid %" PRIu32 "\nbegan %" PRIu64 "\nresult %s\n%s",
			 status->process_id, status->began.ns, status->good ? "good" : "bad",
			 status->text);
	if (count < 0) {
		result = -ENOMEM;
	} else {
		result = file_write(folder, bytes, (size_t)count);
		free(bytes);
	}
	if (result == 0)
		result = os_rename(folder, ASIDE, folder, STATUS_FILE);
	os_file_close(folder);
	return result;
}

/* Past `key` and the number behind it, up to the end of the line; NULL: it is not there. */
static const char *number_read(const char *at, const char *key, uint64_t *out)
{
	size_t len = strlen(key);
	char *end;

	if (at == NULL || strncmp(at, key, len) != 0)
		return NULL;
	*out = strtoull(at + len, &end, 10);
	return end > at + len && *end == '\n' ? end + 1 : NULL;
}

static bool parse(const char *at, struct status *out)
{
	static const char good[] = "result good\n", bad[] = "result bad\n";
	uint64_t process_id;

	at = number_read(at, "pid ", &process_id);
	at = number_read(at, "began ", &out->began.ns);
	if (at == NULL || process_id > UINT32_MAX)
		return false;
	out->process_id = (uint32_t)process_id;
	out->good = strncmp(at, good, strlen(good)) == 0;
	if (!out->good && strncmp(at, bad, strlen(bad)) != 0)
		return false;
	snprintf(out->text, sizeof(out->text), "%s", at + strlen(out->good ? good : bad));
	return true;
}

int status_read(const char *spool, struct status *out)
{
	int folder = folder_open(spool), result;
	char *text = NULL;
	size_t count;

	if (folder < 0)
		return folder;
	result = os_file_load(folder, STATUS_FILE, FILE_BYTES, &text, &count);
	os_file_close(folder);
	if (result == 0 && !parse(text, out))
		result = -EBADMSG;
	free(text);
	return result;
}

void status_remove(const char *spool)
{
	int folder = folder_open(spool);

	if (folder < 0)
		return;
	os_unlink(folder, STATUS_FILE);
	os_file_close(folder);
}
