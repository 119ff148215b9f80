/*
 * shared - the shared memory of os/os.h on memory of this life alone: nobody looks.
 *
 * What is reserved and not grown faults, as it does in the real one.
 */
#include <errno.h>
#include <sys/mman.h>

#include "os/os.h"

enum {
	PAGE_BYTES = 4096,
	DESCRIPTOR = 1 << 20, /* of none of the disk's and the network's */
};

static size_t pages_of(size_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

int os_shared_create(struct os_shared *shared, const char *name, size_t bytes_max, mode_t mode)
{
	void *at = mmap(NULL, pages_of(bytes_max), PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)name, (void)mode;
	if (at == MAP_FAILED)
		return -ENOMEM;
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
	if (shared->at != NULL)
		munmap(shared->at, shared->bytes_max);
	*shared = (struct os_shared){ .fd = -1 };
}

void os_shared_unlink(const char *name)
{
	(void)name;
}
