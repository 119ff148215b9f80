/*
 * status - a small file in the spool: who the daemon is, and what became of its last reload.
 *
 * Promise: whole, or as it was before: it is written aside and renamed. It is gone after an
 * orderly end.
 * Non-promise: nothing is synced; after a crash it names a process that is no more.
 *
 * Thread: the daemon's main thread writes; anybody reads.
 */
#ifndef ENGINE_STATUS_H
#define ENGINE_STATUS_H

#include "os/os.h"

#define STATUS_FILE "daemon"

enum { STATUS_TEXT_BYTES = 8192 };

struct status {
	uint32_t process_id;
	struct os_mono began; /* the start, or when the last reload began to read */
	bool good;
	char text[STATUS_TEXT_BYTES]; /* lines: what is wrong, or worth knowing */
};

/* 0 or -errno. */
int status_write(const char *spool, const struct status *status);
/* 0 or -errno; -EBADMSG: that is no status. */
int status_read(const char *spool, struct status *out);
void status_remove(const char *spool);

#endif
