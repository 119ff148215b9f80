#include "bench/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bench/options.h"

#define BLOCK_BYTES   4096
#define LOG_GROUP_MAX ((size_t)1 << 30)

static void on_written(struct os_op *op);

static void file_fill(struct log *log, const char *name)
{
	const size_t step = 1 << 20;
	char *zeroes = aligned_alloc(BLOCK_BYTES, step);

	assert(zeroes != NULL);
	memset(zeroes, 0, step);
	for (uint64_t at = 0; at < log->file_bytes; at += step)
		if (os_file_write(log->fd, zeroes, step, at) != (ssize_t)step)
			fail("%s: cannot be filled", name);
	if (os_file_sync(log->fd) != 0)
		fail("%s: cannot be synced", name);
	free(zeroes);
}

void log_open(struct log *log, struct os_loop *loop, const char *name, uint64_t file_bytes)
{
	log->loop = loop;
	log->op.done = on_written;
	log->file_bytes = (file_bytes + (1 << 20) - 1) >> 20 << 20;
	log->fd = os_file_open(OS_CURRENT_FOLDER, name, OS_WRITE | OS_CREATE | OS_DIRECT, 0600);
	if (log->fd == -EINVAL)
		log->fd = os_file_open(OS_CURRENT_FOLDER, name, OS_WRITE | OS_CREATE, 0600);
	if (log->fd < 0)
		fail("%s: %s", name, strerror(-log->fd));
	file_fill(log, name);
	for (int i = 0; i < 2; i++) {
		log->groups[i].bytes = mmap(NULL, LOG_GROUP_MAX, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (log->groups[i].bytes == MAP_FAILED)
			fail("no memory for the log");
	}
}

void log_add(struct log *log, const void *bytes, size_t count)
{
	struct log_group *group = &log->groups[log->open_index];

	if (group->length + count + BLOCK_BYTES > LOG_GROUP_MAX ||
	    group->length + count + BLOCK_BYTES > log->file_bytes)
		fail("a group does not fit into the log");
	memcpy(group->bytes + group->length, bytes, count);
	group->length += count;
}

void log_join(struct log *log, void *member)
{
	struct log_group *group = &log->groups[log->open_index];

	if (group->member_count == group->member_room) {
		group->member_room = group->member_room ? group->member_room * 2 : 64;
		group->members =
			realloc(group->members, group->member_room * sizeof(*group->members));
		assert(group->members != NULL);
	}
	group->members[group->member_count++] = member;
}

void log_commit(struct log *log)
{
	struct log_group *group = &log->groups[log->open_index];
	size_t padded = (group->length + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;

	if (log->op.busy || group->length == 0)
		return;
	memset(group->bytes + group->length, 0, padded - group->length);
	if (log->offset + padded > log->file_bytes)
		log->offset = 0;
	os_write(log->loop, &log->op, log->fd, group->bytes, padded, log->offset, OS_WRITE_DURABLE);
	log->offset += padded;
	log->open_index ^= 1;
	log->group_count++;
	log->byte_count += padded;
	group->length = padded;
	for (size_t i = 0; i < group->member_count; i++)
		log->on_sealed(group->members[i]);
}

static void on_written(struct os_op *op)
{
	struct log *log = container_of(op, struct log, op);
	struct log_group *group = &log->groups[log->open_index ^ 1];
	size_t count = group->member_count;

	if (op->result != (int32_t)group->length)
		fail("the log cannot be written: %d", op->result);
	group->length = 0;
	group->member_count = 0;
	for (size_t i = 0; i < count; i++)
		log->on_durable(group->members[i]);
}
