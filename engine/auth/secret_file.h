/*
 * secret_file - a small file that holds passwords or their hashes.
 *
 * Promise: one that others than its owner and its group can read, or that its group can change,
 * is not used. Its bytes are wiped by secret_file_free().
 *
 * Thread: blocks: start-up, tools, os_offload() and os_compute() only.
 */
#ifndef ENGINE_SECRET_FILE_H
#define ENGINE_SECRET_FILE_H

#include "os/os.h"

enum { SECRET_FILE_BYTES_MAX = 64 << 20, SECRET_FILE_ERROR_BYTES = 512 };

/* The whole of it, a NUL added, owned by the caller. False with the reason in `error`. */
bool secret_file_load(const char *path, char **bytes_out, size_t *count_out,
		      char error[static SECRET_FILE_ERROR_BYTES]);
void secret_file_free(char *bytes, size_t count); /* accepts NULL */

/* The next line of `rest`, without its end and without blanks around it; false: none is left. */
bool secret_file_line(struct span *rest, struct span *line_out);

#endif
