/*
 * shared - see shared.h: on memory of this life alone.
 *
 * What is reserved and not grown faults, as it does in the real one.
 */
#include "tests/sim/shared.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "os/os.h"
#include "queue/index.h"

enum {
	PAGE_BYTES = 4096,
	DESCRIPTOR = 1 << 20, /* of none of the disk's and the network's */
	TABLES_MAX = 256,
};

/* Borrowed: tables of slots, until they are closed. */
static const struct index_header *tables[TABLES_MAX];
static uint64_t slots_bytes; /* of all of them */
static bool closing;

static void table_add(const void *at, const char *name)
{
	const char *end = strstr(name, ".slots");

	for (int i = 0; end != NULL && i < TABLES_MAX; i++) {
		if (tables[i] != NULL)
			continue;
		tables[i] = at;
		return;
	}
}

static void table_remove(const void *at)
{
	for (int i = 0; i < TABLES_MAX; i++)
		if (at != NULL && tables[i] == at) {
			tables[i] = NULL;
			closing = true;
		}
}

static void table_each(const struct index_header *table,
		       void (*each)(void *context, const struct format_job *job), void *context)
{
	const struct format_job *jobs = (const struct format_job *)(table + 1);
	uint64_t used = atomic_load_explicit(&table->used, memory_order_relaxed);

	for (uint64_t i = 0; i < used; i++)
		if (jobs[i].state != 0)
			each(context, &jobs[i]);
}

bool shared_each_job(void (*each)(void *context, const struct format_job *job), void *context)
{
	for (int i = 0; !closing && i < TABLES_MAX; i++)
		if (tables[i] != NULL)
			table_each(tables[i], each, context);
	return !closing;
}

uint32_t shared_stream_count(void)
{
	uint32_t count = 0;

	for (int i = 0; !closing && i < TABLES_MAX; i++)
		count += tables[i] != NULL;
	return count;
}

uint64_t shared_side_bytes(void)
{
	return slots_bytes / sizeof(struct format_job) * sizeof(struct index_side);
}

static bool is_table(const void *at)
{
	for (int i = 0; i < TABLES_MAX; i++)
		if (tables[i] == at)
			return true;
	return false;
}

static size_t pages_of(size_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

int os_shared_create(struct os_shared *shared, const char *name, size_t bytes_max, mode_t mode)
{
	void *at = mmap(NULL, pages_of(bytes_max), PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)mode;
	if (at == MAP_FAILED)
		return -ENOMEM;
	table_add(at, name);
	*shared = (struct os_shared){
		.at = at,
		.bytes_max = pages_of(bytes_max),
		.fd = DESCRIPTOR,
	};
	return 0;
}

int os_shared_grow(struct os_shared *shared, size_t bytes)
{
	bytes = pages_of(bytes);
	if (bytes <= shared->bytes)
		return 0;
	if (bytes > shared->bytes_max || mprotect(shared->at, bytes, PROT_READ | PROT_WRITE) != 0)
		return -ENOMEM;
	if (is_table(shared->at))
		slots_bytes += bytes - shared->bytes;
	shared->bytes = bytes;
	return 0;
}

/* Only tools read it. */
int os_shared_open(struct os_shared *shared, const char *name)
{
	(void)shared, (void)name;
	return -ENOENT;
}

void os_shared_close(struct os_shared *shared)
{
	table_remove(shared->at);
	if (shared->at != NULL)
		munmap(shared->at, shared->bytes_max);
	*shared = (struct os_shared){ .fd = -1 };
}

void os_shared_unlink(const char *name)
{
	(void)name;
}

/* Nothing of it outlives a life. */
int os_shared_list(int (*each)(void *context, const char *name), void *context)
{
	(void)each, (void)context;
	return 0;
}

bool os_shared_is_orphan(const struct os_shared *shared)
{
	(void)shared;
	return false;
}
