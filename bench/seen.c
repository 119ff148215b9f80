#include "bench/seen.h"

#include <stdlib.h>

#include "os/check.h"

#define ROOM_FIRST (1 << 16)

static struct seen_slot *slot_of(const struct seen *seen, uint64_t key)
{
	size_t mask = seen->room - 1;
	size_t at = (key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & mask;

	while (seen->slots[at].key != 0 && seen->slots[at].key != key)
		at = (at + 1) & mask;
	return &seen->slots[at];
}

static void seen_grow(struct seen *seen)
{
	struct seen old = *seen;

	seen->room = old.room ? old.room * 2 : ROOM_FIRST;
	seen->slots = calloc(seen->room, sizeof(*seen->slots));
	assert(seen->slots != NULL);
	for (size_t i = 0; i < old.room; i++)
		if (old.slots[i].key != 0)
			*slot_of(seen, old.slots[i].key) = old.slots[i];
	free(old.slots);
}

uint64_t seen_note(struct seen *seen, uint64_t key, uint64_t value, bool *new_out)
{
	struct seen_slot *slot;

	key += key == 0;
	if (seen->count * 2 >= seen->room)
		seen_grow(seen);
	slot = slot_of(seen, key);
	*new_out = slot->key == 0;
	if (*new_out) {
		*slot = (struct seen_slot){ key, value };
		seen->count++;
	}
	return slot->value;
}

uint64_t seen_hash(uint64_t hash, struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		hash = (hash ^ (unsigned char)text.at[i]) * UINT64_C(1099511628211);
	return (hash ^ 0xff) * UINT64_C(1099511628211);
}
