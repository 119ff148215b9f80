#include "tests/sim/memory.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "os/check.h"
#include "tests/sim/fiber.h"
#include "tests/sim/shared.h"
#include "tests/sim/weather.h"

enum {
	HEAP_BYTES = 64 << 20, /* most lives touch less */
	HUGE_PAGE_BYTES = 2 << 20,
};

void memory_prepare(void)
{
	void *heap;

	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, -1);
	heap = aligned_alloc(HUGE_PAGE_BYTES, HEAP_BYTES);
	assert(heap != NULL);
	madvise(heap, HEAP_BYTES, MADV_HUGEPAGE);
	free(heap);
}

static bool at_work; /* in this life, which is a process */
static int64_t bytes_at_first;

/* The index grows by many slots at once: that is no leak. */
static int64_t bytes_in_use(void)
{
	return (int64_t)mallinfo2().uordblks - (int64_t)shared_side_bytes();
}

void memory_open(void)
{
	at_work = true;
	bytes_at_first = bytes_in_use();
}

int64_t memory_grown_bytes(void)
{
	return bytes_in_use() - bytes_at_first;
}

static bool fails(size_t bytes)
{
	if (!at_work || weather()->memory_fails == 0 || !sim_chance(weather()->memory_fails))
		return false;
	sim_trace("memory: no %zu bytes", bytes);
	return true;
}

void *daemon_malloc(size_t bytes)
{
	return fails(bytes) ? NULL : malloc(bytes);
}

void *daemon_calloc(size_t count, size_t bytes)
{
	return fails(count * bytes) ? NULL : calloc(count, bytes);
}

void *daemon_realloc(void *at, size_t bytes)
{
	return fails(bytes) ? NULL : realloc(at, bytes);
}

void *daemon_aligned_alloc(size_t alignment, size_t bytes)
{
	return fails(bytes) ? NULL : aligned_alloc(alignment, bytes);
}

char *daemon_strdup(const char *text)
{
	return fails(strlen(text) + 1) ? NULL : strdup(text);
}

char *daemon_strndup(const char *text, size_t bytes)
{
	return fails(bytes) ? NULL : strndup(text, bytes);
}
