/*
 * drop - the drop directory: messages that sendmail kept while nobody listened come in as if
 * they had been submitted by their owner.
 *
 *   look ─► open ─► read, intake ─► durable ─► unlink, sync folder ─► queue_origin_gone()
 *             └──────┴── damaged, foreign: moved to bad/ (links and pipes: removed), one
 *                            line in the log
 *
 * Promise: a file becomes one message. The message carries ORIGIN(file), which MARK does not
 * pass while the file may be there; a start after a crash between the two first removes the
 * files of such messages (drop_folder_remove_taken()). What lies in the folder is believed in
 * nothing: no link is followed, no pipe waited for, no size trusted. What can't be read stays, is
 * told once, and tried again; it keeps no other file waiting. Non-promise: order. A file that is
 * refused for its content goes to bad/, not to its sender.
 *
 * Thread: the first worker; blocking calls run by os_offload().
 * Source: queue/README.md, R8; the file: drop_file.h.
 */
#ifndef ENGINE_DROP_H
#define ENGINE_DROP_H

#include "engine/worker.h"

struct drop; /* opaque */

/* Makes the folder unless it is there, and begins to look. NULL: nothing will be taken in, and
 * the log says why. */
struct drop *drop_create(struct worker *worker);
void drop_destroy(struct drop *drop); /* idle; accepts NULL */
/* Begins no further message. Accepts NULL. */
void drop_drain(struct drop *drop);
bool drop_idle(const struct drop *drop); /* accepts NULL */

#endif
