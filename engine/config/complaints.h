/*
 * complaints - what is wrong with the files that a configuration names: a line for each.
 *
 * Promise: all fit or the text ends early; it ends in a NUL.
 *
 * Thread: its owner's.
 */
#ifndef ENGINE_COMPLAINTS_H
#define ENGINE_COMPLAINTS_H

#include <stdbool.h>
#include <stddef.h>

struct complaints {
	char *text; /* borrowed */
	size_t bytes, used;
	bool any, memory;
};

/* Empties `text`, which has at least one byte. */
void complaints_init(struct complaints *complaints, char *text, size_t bytes);
__attribute__((format(printf, 2, 3))) void complaints_add(struct complaints *complaints,
							  const char *format, ...);
/* That there is no memory; said once. */
void complaints_add_memory(struct complaints *complaints);

#endif
