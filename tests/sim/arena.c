/*
 * arena - see arena.h.
 *
 *   header │ allocated ... │ free
 *          freed blocks of a class: a list through their first word
 */
#include "tests/sim/arena.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "os/check.h"
#include "tests/sim/fiber.h"

/* The same in every process: nothing can depend on it by accident. */
#define ARENA_AT ((void *)UINT64_C(0x200000000000))

enum {
	ALIGNMENT = 16,
	FINE_BYTES_MAX = 1024, /* up to here a class for each multiple of 16 */
	FINE_CLASSES = FINE_BYTES_MAX / ALIGNMENT,
	COARSE_CLASSES = 4 * 32, /* above, four for each power of two */
};

struct block {
	struct block *next;
};

struct arena {
	size_t bytes_max, used;
	struct block *freed[FINE_CLASSES + 1 + COARSE_CLASSES];
};

static struct arena *arena;

void arena_create(size_t bytes_max)
{
	void *at;

	assert(arena == NULL && bytes_max > sizeof(*arena));
	at = mmap(ARENA_AT, bytes_max, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	assert(at == ARENA_AT);
	arena = at;
	arena->bytes_max = bytes_max;
	arena->used = (sizeof(*arena) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void arena_reset(void)
{
	size_t bytes_max = arena->bytes_max;
	int failed = munmap(arena, bytes_max);

	assert(failed == 0);
	arena = NULL;
	arena_create(bytes_max);
}

/* Rounds *bytes up to what its class holds. */
static uint32_t class_of(size_t *bytes)
{
	uint32_t power, quarter;
	size_t step;

	if (*bytes <= FINE_BYTES_MAX) {
		uint32_t units = (uint32_t)((*bytes + ALIGNMENT - 1) / ALIGNMENT);

		units = units > 0 ? units : 1;
		*bytes = (size_t)units * ALIGNMENT;
		return units;
	}
	/* 2^power < bytes <= 2^(power + 1), in quarters of 2^power. */
	power = 63 - (uint32_t)__builtin_clzll(*bytes - 1);
	step = ((size_t)1 << power) / 4;
	quarter = (uint32_t)((*bytes - ((size_t)1 << power) + step - 1) / step);
	*bytes = ((size_t)1 << power) + quarter * step;
	assert(power >= 10 && power < 40);
	return FINE_CLASSES + 1 + (power - 10) * 4 + quarter - 1;
}

void *arena_alloc(size_t bytes)
{
	uint32_t class = class_of(&bytes);
	struct block *block = arena->freed[class];

	if (block != NULL) {
		arena->freed[class] = block->next;
		return memset(block, 0, bytes);
	}
	if (arena->bytes_max - arena->used < bytes)
		sim_finding("the arena is full: %zu bytes", arena->bytes_max);
	block = (struct block *)((char *)arena + arena->used);
	arena->used += bytes;
	return block;
}

void arena_free(void *at, size_t bytes)
{
	struct block *block = at;
	uint32_t class;

	if (block == NULL)
		return;
	class = class_of(&bytes);
	assert((char *)at >= (char *)(arena + 1) &&
	       (char *)at + bytes <= (char *)arena + arena->used);
	block->next = arena->freed[class];
	arena->freed[class] = block;
}

char *arena_strdup(const char *text)
{
	size_t bytes = strlen(text) + 1;

	return memcpy(arena_alloc(bytes), text, bytes);
}
