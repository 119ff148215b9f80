/* The superblock: two copies, written in turn. */
#include "queue/super.h"

#include <errno.h>
#include <string.h>

#include "os/os.h"
#include "queue/crc.h"

enum { SUPER_COPIES = 2 };

#define SUPER_ID_BLOCK_BITS 24
#define SUPER_ID_NODE_SHIFT 56

int super_create(struct super *super)
{
	super->now.magic = FORMAT_SUPER_MAGIC;
	super->now.version = FORMAT_VERSION;
	super->now.generation = 0;
	super->next_sequence = (uint32_t)super->now.sequence_limit;
	/* Both copies, so that neither ever holds anything but a superblock of this spool. */
	for (uint32_t copy = 0; copy < SUPER_COPIES; copy++) {
		int error = super_store(super);

		if (error != 0)
			return error;
	}
	return 0;
}

int super_store(struct super *super)
{
	char page[FORMAT_PAGE_BYTES] = { 0 };
	struct format_super next = super->now;
	ssize_t wrote;
	int error;

	next.generation++;
	next.crc = crc_header(&next, sizeof(next), offsetof(struct format_super, crc));
	memcpy(page, &next, sizeof(next));
	wrote = os_file_write(super->fd, page, sizeof(page),
			      next.generation % SUPER_COPIES * FORMAT_PAGE_BYTES);
	if (wrote < 0)
		return (int)wrote;
	if (wrote != (ssize_t)sizeof(page))
		return -ENOSPC;
	error = os_file_sync(super->fd);
	if (error == 0)
		super->now.generation = next.generation;
	return error;
}

int super_lease_sequence(struct super *super, uint32_t *sequence_out)
{
	if (super->next_sequence == super->now.sequence_limit) {
		int error;

		if (super->now.sequence_limit + SUPER_SEQUENCES_AHEAD > UINT32_MAX)
			return -EOVERFLOW;
		super->now.sequence_limit += SUPER_SEQUENCES_AHEAD;
		error = super_store(super);
		if (error != 0) {
			super->now.sequence_limit -= SUPER_SEQUENCES_AHEAD;
			return error;
		}
	}
	*sequence_out = super->next_sequence++;
	return 0;
}

int super_lease_ids(struct super *super, uint64_t *first_out)
{
	uint64_t block = super->now.block_limit;
	int error;

	if (block >= UINT64_C(1) << 32)
		return -EOVERFLOW;
	super->now.block_limit = block + 1;
	error = super_store(super);
	if (error != 0) {
		super->now.block_limit = block;
		return error;
	}
	*first_out =
		(uint64_t)super->now.node << SUPER_ID_NODE_SHIFT | block << SUPER_ID_BLOCK_BITS;
	return 0;
}
