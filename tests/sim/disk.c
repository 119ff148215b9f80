/*
 * disk - descriptors, the blocking calls of os.h on files, and the world's own hand.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/arena.h"
#include "tests/sim/disk_private.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger.h"
#include "tests/sim/weather.h"

#define DESCRIPTORS_MAX 4096
/* Away from 0 to 2, and from sockets. */
#define DESCRIPTOR_FIRST 1000
#define STANDARD_OUTPUT	 1
#define STANDARD_ERROR	 2
#define DELIVERY_LOG	 "/log/delivery.log"

/* Of this life. */
static struct disk_descriptor descriptors[DESCRIPTORS_MAX];

static struct disk_descriptor *descriptor_of(int fd)
{
	int index = fd - DESCRIPTOR_FIRST;

	return index >= 0 && index < DESCRIPTORS_MAX && descriptors[index].node != NULL
		       ? &descriptors[index]
		       : NULL;
}

static struct disk_node *node_of(int fd)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);

	return descriptor != NULL ? descriptor->node : NULL;
}

/* The lowest that is free, as the kernel does. */
static int descriptor_open(struct disk_node *node, int flags)
{
	for (int i = 0; i < DESCRIPTORS_MAX; i++) {
		if (descriptors[i].node != NULL)
			continue;
		descriptors[i] = (struct disk_descriptor){ .node = node, .flags = flags };
		node->open_count++;
		return DESCRIPTOR_FIRST + i;
	}
	return -EMFILE;
}

void disk_sleep(uint64_t delay_ns)
{
	if (fiber_self() != NULL)
		fiber_sleep(delay_ns);
}

/* ── the world's own hand ── */

void disk_create(void)
{
	static const char *const folders[] = { "spool", "etc", "log" };
	static const bool calm[] = { false, true, false };

	memset(descriptors, 0, sizeof(descriptors));
	tree_create();
	for (size_t i = 0; i < array_count(folders); i++)
		tree_make(disk->root, folders[i], true)->calm = calm[i];
	tree_sync(disk->root, disk->stamp);
}

/* Every file stands, nobody has it open. */
static void disk_close_all(void)
{
	memset(descriptors, 0, sizeof(descriptors));
	list_each(link, &disk->nodes) {
		struct disk_node *node = container_of(link, struct disk_node, link);

		node->open_count = node == disk->root;
		node->lines_bytes = node->size;
		tree_release(node);
	}
}

void disk_crash(bool power_cut)
{
	static const uint32_t moods[] = { 0, 100, 500, 900, 1000 };
	uint32_t keep_permille = moods[sim_below(array_count(moods))];

	disk_close_all();
	if (!power_cut && !disk->dead)
		return;
	disk->dead = false;
	tree_cut();
	list_each(link, &disk->nodes) {
		struct disk_node *node = container_of(link, struct disk_node, link);

		pages_cut(node, keep_permille);
		node->counted = true;
		node->lines_bytes = node->size;
	}
	disk->used_bytes = 0;
	list_each(link, &disk->nodes) {
		disk->used_bytes +=
			container_of(link, struct disk_node, link)->block_count * DISK_PAGE_BYTES;
	}
}

/* With the folders above. */
static struct disk_node *world_make(const char *path)
{
	struct disk_node *folder = disk->root, *node = disk->root;
	char part[DISK_NAME_BYTES], name[DISK_NAME_BYTES];

	while (*(path += strspn(path, "/")) != '\0') {
		size_t length = strcspn(path, "/");

		assert(length < sizeof(part));
		memcpy(part, path, length);
		part[length] = '\0';
		path += length;
		if (tree_walk(node, part, &folder, name, &node) != 0)
			sim_finding("the world cannot make %s", part);
		if (node == NULL) {
			node = tree_make(folder, part, *path == '/');
			tree_sync(folder, disk->stamp);
		}
	}
	return node;
}

void disk_put(const char *path, const void *bytes, size_t count)
{
	struct disk_node *node = world_make(path);

	assert(!node->folder);
	node->calm = true;
	node->mode = 0600;
	pages_truncate(node, 0);
	if (pages_grant(node, 0, count) != count)
		sim_finding("no room for %s", path);
	pages_write(node, bytes, count, 0, false);
	pages_sync(node, 0, UINT64_MAX, disk->stamp);
}

static struct disk_node *world_find(const char *path)
{
	struct disk_node *folder, *node;
	char name[DISK_NAME_BYTES];

	return tree_walk(disk->root, path, &folder, name, &node) == 0 ? node : NULL;
}

const char *disk_look(const char *path, size_t *count_out)
{
	static char *lent;
	struct disk_node *node = world_find(path);

	free(lent);
	lent = NULL;
	*count_out = 0;
	if (node == NULL || node->folder)
		return NULL;
	lent = malloc(node->size + 1);
	if (lent == NULL)
		sim_finding("no memory to look at %s", path);
	*count_out = node->size;
	for (size_t have = 0; have < node->size;)
		have += pages_read(node, lent + have, node->size - have, have, false);
	lent[node->size] = '\0';
	return lent;
}

static void node_usage(const struct disk_node *node, uint64_t *files, uint64_t *bytes)
{
	if (!node->folder) {
		++*files;
		*bytes += node->size;
	}
	for (const struct list *at = node->entries[DISK_LIVE].next; at != &node->entries[DISK_LIVE];
	     at = at->next)
		node_usage(container_of(at, struct disk_entry, link)->node, files, bytes);
}

void disk_usage(const char *folder, uint64_t *files_out, uint64_t *bytes_out)
{
	const struct disk_node *node = world_find(folder);

	*files_out = *bytes_out = 0;
	if (node != NULL)
		node_usage(node, files_out, bytes_out);
}

void disk_each_durable(const char *folder,
		       void (*each)(void *context, const char *name, const char *bytes,
				    size_t count),
		       void *context)
{
	const struct disk_node *node = world_find(folder);
	const struct list *head = node ? &node->entries[DISK_DURABLE] : NULL;

	for (const struct list *at = node ? head->next : NULL; at != head; at = at->next) {
		const struct disk_entry *entry = container_of(at, const struct disk_entry, link);
		size_t count;
		char *bytes = pages_durable(entry->node, &count);

		each(context, entry->name, bytes, count);
		free(bytes);
	}
}

uint32_t disk_open_count(const char **path_out)
{
	uint32_t count = 0;

	*path_out = NULL;
	for (int i = 0; i < DESCRIPTORS_MAX; i++) {
		if (descriptors[i].node == NULL)
			continue;
		*path_out = descriptors[i].node->label;
		count++;
	}
	return count;
}

uint64_t disk_flips(void)
{
	return disk->flips;
}

uint64_t disk_failures(void)
{
	return disk->failures;
}

/* ── for the loop ── */

/* 0, or why this cannot begin. Direct transfers are aligned. */
static int transfer_error(const struct disk_descriptor *descriptor, const void *bytes, size_t count,
			  uint64_t offset, int needed)
{
	if (descriptor == NULL || !(descriptor->flags & needed))
		return -EBADF;
	if (descriptor->node->folder)
		return -EISDIR;
	if ((descriptor->flags & OS_DIRECT) &&
	    (((uintptr_t)bytes | count | offset) % DISK_PAGE_BYTES) != 0)
		return -EINVAL;
	return 0;
}

struct disk_work *disk_begin_read(int fd, void *bytes, size_t count, uint64_t offset,
				  uint64_t *delay_ns_out)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);
	int error = transfer_error(descriptor, bytes, count, offset, OS_READ);

	return error == 0 ? work_begin_read(descriptor, bytes, count, offset, delay_ns_out)
			  : work_begin_failed(error, delay_ns_out);
}

struct disk_work *disk_begin_write(int fd, const void *bytes, size_t count, uint64_t offset,
				   int flags, uint64_t *delay_ns_out)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);
	int error = transfer_error(descriptor, bytes, count, offset, OS_WRITE);

	return error == 0 ? work_begin_write(descriptor, bytes, count, offset, flags, delay_ns_out)
			  : work_begin_failed(error, delay_ns_out);
}

struct disk_work *disk_begin_sync(int fd, uint64_t *delay_ns_out)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);

	return descriptor != NULL ? work_begin_sync(descriptor, delay_ns_out)
				  : work_begin_failed(-EBADF, delay_ns_out);
}

/* ── one file ── */

struct disk_node *disk_folder(int fd)
{
	return fd == OS_CURRENT_FOLDER ? disk->root : node_of(fd);
}

static int node_open_error(const struct disk_node *node, int flags)
{
	if (node == NULL)
		return flags & (OS_CREATE | OS_CREATE_NEW) ? 0 : -ENOENT;
	if (flags & OS_CREATE_NEW)
		return -EEXIST;
	if (node->folder && (flags & (OS_WRITE | OS_APPEND | OS_CREATE)))
		return -EISDIR;
	if (!node->folder && (flags & OS_FOLDER))
		return -ENOTDIR;
	return 0;
}

int os_file_open(int folder, const char *path, int flags, mode_t mode)
{
	struct disk_node *parent, *node;
	char name[DISK_NAME_BYTES];
	int error;

	disk_sleep(work_delay_ns());
	if (disk_folder(folder) == NULL && path[0] != '/')
		return -EBADF;
	if ((flags & OS_DIRECT) && weather()->no_direct)
		return -EINVAL;
	error = tree_walk(disk_folder(folder), path, &parent, name, &node);
	if (error == 0)
		error = node_open_error(node, flags);
	if (error == 0 && node == NULL && disk->dead)
		error = -EROFS;
	if (error == 0)
		error = work_name_error(node != NULL ? node : parent,
					node != NULL ? NAME_OPEN : NAME_CREATE);
	if (error != 0)
		return error;
	if (node == NULL) {
		node = tree_make(parent, name, false);
		node->mode = mode & 07777;
		node->log = strcmp(path, DELIVERY_LOG) == 0;
		sim_trace("disk: new file %s", node->label);
	}
	return descriptor_open(node, flags);
}

void os_file_close(int fd)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);
	struct disk_node *node;

	if (descriptor == NULL)
		return;
	node = descriptor->node;
	if (descriptor->busy_count > 0)
		sim_finding("%s is closed while the disk works on it", node->label);
	*descriptor = (struct disk_descriptor){ 0 };
	node->open_count--;
	tree_release(node);
}

ssize_t os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	uint64_t delay_ns;
	struct disk_work *work = disk_begin_read(fd, bytes, count, offset, &delay_ns);

	disk_sleep(delay_ns);
	return disk_finish(work);
}

ssize_t os_file_write(int fd, const void *bytes, size_t count, uint64_t offset)
{
	uint64_t delay_ns;
	struct disk_work *work = disk_begin_write(fd, bytes, count, offset, 0, &delay_ns);

	disk_sleep(delay_ns);
	return disk_finish(work);
}

/* Tells the whole lines in `bytes`, without their ends; how many bytes they are. */
static size_t tell_lines(const char *bytes, size_t count, void (*tell)(const char *, size_t))
{
	size_t from = 0;

	for (size_t at = 0; at < count; at++) {
		if (bytes[at] != '\n')
			continue;
		tell(bytes + from, at - from);
		from = at + 1;
	}
	return from;
}

static void log_tell(struct disk_node *node)
{
	size_t count = node->size - node->lines_bytes;
	char *lines = malloc(count + 1);

	if (lines == NULL)
		sim_finding("no memory for lines of the log");
	pages_read(node, lines, count, node->lines_bytes, false);
	node->lines_bytes += tell_lines(lines, count, ledger_log_line);
	free(lines);
}

/* At the end as it is now: one instant, so that appends don't mix. */
static ssize_t append_now(int fd, const char *bytes, size_t count)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);
	struct disk_node *node;

	if (descriptor == NULL || !(descriptor->flags & OS_APPEND))
		return -EBADF;
	node = descriptor->node;
	if (work_fails(node, disk->dead ? DISK_ALWAYS : weather()->write_fails, "append"))
		return -EIO;
	if (count == 0)
		return 0;
	if (sim_chance(weather()->short_writes))
		count = sim_between(1, count);
	count = pages_grant(node, node->size, count);
	if (count == 0)
		return -ENOSPC;
	pages_write(node, bytes, count, node->size, false);
	if (node->log)
		log_tell(node);
	return (ssize_t)count;
}

ssize_t os_file_append(int fd, const struct iovec *iov, int count)
{
	size_t total = 0, at = 0;
	ssize_t result;
	char *bytes;

	for (int i = 0; i < count; i++)
		total += iov[i].iov_len;
	bytes = calloc(1, total + 1);
	if (bytes == NULL)
		sim_finding("no memory for an append");
	for (int i = 0; i < count; at += iov[i].iov_len, i++)
		if (iov[i].iov_len > 0)
			memcpy(bytes + at, iov[i].iov_base, iov[i].iov_len);
	if (fd == STANDARD_OUTPUT || fd == STANDARD_ERROR) {
		size_t told = tell_lines(bytes, total, ledger_notice);

		if (told < total)
			ledger_notice(bytes + told, total - told);
		result = (ssize_t)total;
	} else {
		disk_sleep(work_delay_ns());
		result = append_now(fd, bytes, total);
	}
	free(bytes);
	return result;
}

int os_file_sync(int fd)
{
	uint64_t delay_ns;
	struct disk_work *work = disk_begin_sync(fd, &delay_ns);

	disk_sleep(delay_ns);
	return disk_finish(work);
}

bool os_file_on_btrfs(int fd)
{
	(void)fd;
	return weather()->on_btrfs;
}

bool os_file_on_tmpfs(int fd)
{
	(void)fd;
	return false;
}

int64_t os_file_size(int fd)
{
	const struct disk_node *node = node_of(fd);

	return node != NULL ? (int64_t)node->size : -EBADF;
}

int os_file_truncate(int fd, uint64_t bytes)
{
	const struct disk_descriptor *descriptor = descriptor_of(fd);
	int error;

	if (descriptor == NULL || !(descriptor->flags & (OS_WRITE | OS_APPEND)))
		return -EBADF;
	if (disk->dead)
		return -EROFS;
	error = work_name_error(descriptor->node, NAME_TRUNCATE);
	if (error == 0)
		pages_truncate(descriptor->node, bytes);
	return error;
}

int os_file_drop_cache(int fd)
{
	struct disk_node *node = node_of(fd);

	if (node == NULL)
		return -EBADF;
	pages_drop_cache(node);
	return 0;
}

int os_file_lock(int fd)
{
	struct disk_descriptor *descriptor = descriptor_of(fd);

	if (descriptor == NULL)
		return -EBADF;
	for (int i = 0; i < DESCRIPTORS_MAX; i++)
		if (descriptors[i].node == descriptor->node && descriptors[i].locked &&
		    &descriptors[i] != descriptor)
			return -EWOULDBLOCK;
	descriptor->locked = true;
	return 0;
}

int os_file_mode(int fd, uint32_t *mode_out)
{
	const struct disk_node *node = node_of(fd);

	if (node == NULL)
		return -EBADF;
	*mode_out = node->mode;
	return 0;
}

int os_file_set_mode(int fd, uint32_t mode)
{
	struct disk_node *node = node_of(fd);

	if (node == NULL)
		return -EBADF;
	node->mode = mode & 07777;
	return 0;
}

int os_file_resemble(int fd, int other_fd)
{
	const struct disk_node *other = node_of(other_fd);

	return other == NULL ? -EBADF : os_file_set_mode(fd, other->mode);
}

/* Nobody but the daemon makes files here, and none is old. */
int os_file_facts(int fd, struct os_file_facts *out)
{
	const struct disk_node *node = node_of(fd);

	if (node == NULL)
		return -EBADF;
	*out = (struct os_file_facts){ .inode = node->number,
				       .bytes = node->size,
				       .links = 1,
				       .regular = !node->folder,
				       .modified = os_wall_now() };
	return 0;
}

/* Nobody looks at owners here. */
int os_file_group(int fd, const char *group)
{
	(void)fd;
	(void)group;
	return 0;
}

int os_file_space(int fd, uint64_t *free_out, uint64_t *total_out)
{
	if (node_of(fd) == NULL)
		return -EBADF;
	*free_out = pages_room_bytes();
	*total_out = weather()->disk_bytes;
	return 0;
}

int os_file_load(int folder, const char *name, size_t bytes_max, char **out, size_t *count_out)
{
	int fd = os_file_open(folder, name, OS_READ, 0);
	const struct disk_node *node = node_of(fd);
	ssize_t got = -ENOMEM;
	char *bytes;

	if (node == NULL)
		return fd;
	if (node->size > bytes_max) {
		os_file_close(fd);
		return -EFBIG;
	}
	bytes = malloc(bytes_max + 1);
	if (bytes != NULL)
		got = os_file_read(fd, bytes, bytes_max, 0);
	os_file_close(fd);
	if (got < 0) {
		free(bytes);
		return (int)got;
	}
	bytes[got] = '\0';
	*out = bytes;
	*count_out = (size_t)got;
	return 0;
}
