#include "engine/auth/secret_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { MODE_TOO_OPEN = 037 }; /* anything for others; change or run for the group */

static bool complain(char error[static SECRET_FILE_ERROR_BYTES], const char *path, const char *why)
{
	snprintf(error, SECRET_FILE_ERROR_BYTES, "%s cannot be read: %s", path, why);
	return false;
}

/* Reads the open file. */
static int load(int fd, char **bytes_out, size_t *count_out)
{
	int64_t size = os_file_size(fd);
	char *bytes;
	ssize_t got;

	if (size < 0 || size > SECRET_FILE_BYTES_MAX)
		return size < 0 ? (int)size : -EFBIG;
	bytes = malloc((size_t)size + 1);
	if (!bytes)
		return -ENOMEM;
	got = os_file_read(fd, bytes, (size_t)size, 0);
	if (got < 0) {
		free(bytes);
		return (int)got;
	}
	bytes[got] = '\0';
	*bytes_out = bytes;
	*count_out = (size_t)got;
	return 0;
}

bool secret_file_load(const char *path, char **bytes_out, size_t *count_out,
		      char error[static SECRET_FILE_ERROR_BYTES])
{
	int fd = os_file_open(OS_CURRENT_FOLDER, path, OS_READ, 0);
	uint32_t mode;
	int result;

	if (fd < 0)
		return complain(error, path, strerror(-fd));
	result = os_file_mode(fd, &mode);
	if (result == 0 && (mode & MODE_TOO_OPEN)) {
		snprintf(error, SECRET_FILE_ERROR_BYTES,
			 "%s is too open (mode %04o) for what it holds. Say chmod 0640 %s", path,
			 mode & 07777, path);
		os_file_close(fd);
		return false;
	}
	if (result == 0)
		result = load(fd, bytes_out, count_out);
	os_file_close(fd);
	return result == 0 ? true : complain(error, path, strerror(-result));
}

void secret_file_free(char *bytes, size_t count)
{
	if (bytes)
		explicit_bzero(bytes, count);
	free(bytes);
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

bool secret_file_line(struct span *rest, struct span *line_out)
{
	const char *end;
	struct span line;

	if (rest->len == 0)
		return false;
	end = memchr(rest->at, '\n', rest->len);
	line = span_of(rest->at, end ? (size_t)(end - rest->at) : rest->len);
	*rest = span_skip(*rest, line.len + (end ? 1 : 0));
	while (line.len > 0 && blank(*line.at))
		line = span_skip(line, 1);
	while (line.len > 0 && blank(line.at[line.len - 1]))
		line.len--;
	*line_out = line;
	return true;
}
