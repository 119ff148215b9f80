/*
 * drop_folder - the drop directory itself: made, opened, and rid of what was taken in.
 *
 *   DIR/        in the spool or elsewhere: anybody may leave mail, nobody else sees what is there
 *   DIR/bad/    what is no message of ours; its owner's alone
 *
 * Promise: what is made has DROP_FOLDER_MODE, and everybody gets through the spool to it. What
 * was there before keeps its mode; if that is a danger, the log says so. One that the
 * configuration names and nobody but its owner can fill is refused: nothing of others is moved.
 *
 * Thread: the first worker's, at its start; drop_folder_remove_taken() is main's. They block.
 * Source: drop.h, drop_file.h.
 */
#ifndef ENGINE_DROP_FOLDER_H
#define ENGINE_DROP_FOLDER_H

#include "engine/config/config.h"
#include "queue/format.h"

/* The folder at `path`, made unless it is there: a descriptor, the caller's, or -errno, and the
 * log says why. */
int drop_folder_open(const struct config *config, const char *path);
/* What is damaged goes where nobody else gets at it: bad/ in `folder`, a descriptor, the
 * caller's. -1: there is no such place, and the log says so. */
int drop_folder_open_bad(int folder, const char *path);

/* After a crash: removes the files of these messages durably; context: struct config. 0 or
 * -errno. */
int drop_folder_remove_taken(void *context, const struct format_origin *files, size_t count);

#endif
