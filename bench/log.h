/*
 * log - group commit with nothing around it: bytes into a file, told when they are durable.
 *
 *   log_add() ──► open group ──log_commit()──► the one write in flight ──► on_durable()
 *                     ▲ the next fills meanwhile
 *
 * One O_DIRECT write with RWF_DSYNC for each group, into blocks that were written before and
 * are used in a circle: the file is never read, and there is no recovery. A ceiling, no queue.
 *
 * Thread: the loop's.
 */
#ifndef BENCH_LOG_H
#define BENCH_LOG_H

#include "os/os.h"

struct log_group {
	char *bytes; /* aligned, reserved for LOG_GROUP_MAX, owned */
	size_t length;
	void **members; /* who waits for it; owned */
	size_t member_count, member_room;
};

struct log {
	/* For each member of a group: when it is sealed, and when it is durable. */
	void (*on_sealed)(void *member);
	void (*on_durable)(void *member);
	/* Private, but for the counts. */
	struct os_loop *loop;
	struct os_op op;
	int fd;
	uint64_t file_bytes, offset;
	struct log_group groups[2];
	int open_index;
	uint64_t group_count, byte_count;
};

/* Writes the file once from end to end; exits with a reason if that fails. */
void log_open(struct log *log, struct os_loop *loop, const char *name, uint64_t file_bytes);
/* Copies. */
void log_add(struct log *log, const void *bytes, size_t count);
/* `member` hears of the open group's end. */
void log_join(struct log *log, void *member);
/* Once a turn: starts the write unless one is in flight. */
void log_commit(struct log *log);

#endif
