/*
 * Small files by others: passwords of smarthosts, and the status of a daemon; the first octet
 * chooses. A password is found as a slow reader finds it; a status that was read and written again
 * says the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/auth/credentials.h"
#include "engine/status.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void file_make(const char *name, struct span text, char path[static 64])
{
	int fd;

	snprintf(path, 64, "%s/%s", folder, name);
	fd = os_file_open(OS_CURRENT_FOLDER, path, OS_WRITE | OS_CREATE, 0600);
	assert(fd >= 0 && os_file_truncate(fd, 0) == 0);
	assert(os_file_write(fd, text.at, text.len, 0) == (ssize_t)text.len);
	os_file_close(fd);
}

/* ── passwords ────────────────────────────────────────────────────────────────────── */

/* Three words of a line, with blanks between them; the third may hold some. */
static bool line_slow(const char *line, char words[static 3][CREDENTIALS_WORD_MAX + 1])
{
	for (int i = 0; i < 3; i++) {
		size_t len = i < 2 ? strcspn(line, " \t") : strlen(line);

		if (len == 0 || len > CREDENTIALS_WORD_MAX || (i < 2 && line[len] == '\0'))
			return false;
		memcpy(words[i], line, len);
		words[i][len] = '\0';
		line += len;
		if (i < 2)
			line += strspn(line, " \t");
	}
	return true;
}

/* False: a line that is none. `found` is of that host and user, and of "*". */
static bool file_slow(const char *text, size_t count, const char *host, const char *user,
		      char found[static 2][CREDENTIALS_WORD_MAX + 1])
{
	found[0][0] = found[1][0] = '\0';
	for (size_t at = 0, end; at < count; at = end + 1) {
		char line[4096], words[3][CREDENTIALS_WORD_MAX + 1];
		size_t from = at, len;

		for (end = at; end < count && text[end] != '\n'; end++)
			;
		len = end - at;
		while (len > 0 && strchr(" \t\r", text[from]) && text[from]) {
			from++;
			len--;
		}
		while (len > 0 && strchr(" \t\r", text[from + len - 1]) && text[from + len - 1])
			len--;
		if (len == 0 || text[from] == '#')
			continue;
		memcpy(line, text + from, len);
		line[len] = '\0';
		if (!line_slow(line, words))
			return false;
		if (strcmp(words[1], user) != 0)
			continue;
		if (strcasecmp(words[0], host) == 0 && !found[0][0])
			strcpy(found[0], words[2]);
		if (strcmp(words[0], "*") == 0 && !found[1][0])
			strcpy(found[1], words[2]);
	}
	return true;
}

static void check_credentials(struct span text)
{
	char path[64], error[SECRET_FILE_ERROR_BYTES] = "";
	char slow[2][CREDENTIALS_WORD_MAX + 1];
	struct credentials *credentials;
	bool sound = file_slow(text.at, text.len, "h", "u", slow);

	file_make("credentials", text, path);
	credentials = credentials_load(path, error);
	assert((credentials != NULL) == sound);
	if (credentials) {
		const char *found = credentials_find(credentials, "H", "u");
		const char *expected = slow[0][0] ? slow[0] : slow[1];

		assert(found ? strcmp(found, expected) == 0 : expected[0] == '\0');
	} else {
		assert(strncmp(error, path, strlen(path)) == 0);
	}
	credentials_destroy(credentials);
}

/* ── the status ───────────────────────────────────────────────────────────────────── */

static void check_status(struct span text)
{
	static struct status status, again;
	char path[64];

	file_make(STATUS_FILE, text, path);
	if (status_read(folder, &status) != 0)
		return;
	assert(memchr(status.text, '\0', sizeof(status.text)));
	assert(status_write(folder, &status) == 0 && status_read(folder, &again) == 0);
	assert(again.process_id == status.process_id && again.began.ns == status.began.ns);
	assert(again.good == status.good && strcmp(again.text, status.text) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 4096)
		return 0;
	if (access(folder, F_OK) != 0) {
		folder_make();
	}
	if (data[0] & 1)
		check_status(span_of(data + 1, size - 1));
	else
		check_credentials(span_of(data + 1, size - 1));
	return 0;
}
