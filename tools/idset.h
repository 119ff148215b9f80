/*
 * idset - how many different message ids there are: a bitmap for each run of 32,768, found
 * by hash. Ids are leased in blocks, so a million of them fill a few dozen bitmaps.
 */
#ifndef TOOLS_IDSET_H
#define TOOLS_IDSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct idset_page;

struct idset {
	struct idset_page **pages; /* owned; open addressing, at most half full */
	size_t page_count, size;
	struct idset_page *last; /* where the last id went */
	uint64_t count;		 /* of different ids */
};

/* Starts zeroed. False: no memory. */
bool idset_add(struct idset *set, uint64_t id);
void idset_deinit(struct idset *set);

#endif
