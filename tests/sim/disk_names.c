/*
 * disk_names - the blocking calls of os.h on names in folders.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk_private.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger.h"
#include "tests/sim/near.h"

/* What a name is after the time that it takes to find it. */
struct place {
	struct disk_node *folder, *node; /* no node: there is none of the name */
	char name[DISK_NAME_BYTES];
};

static int place_find(int folder, const char *path, struct place *place)
{
	struct disk_node *start = disk_folder(folder);

	if (start == NULL && path[0] != '/')
		return -EBADF;
	return tree_walk(start, path, &place->folder, place->name, &place->node);
}

static bool is_folder(const struct disk_node *folder, const char *name)
{
	const char *last = strrchr(folder->label, '/');

	return last != NULL && strcmp(last + 1, name) == 0;
}

static void tell_move(const struct place *from, const struct place *to)
{
	bool journal = is_folder(from->folder, "jnl");

	if (is_folder(from->folder, "free")) {
		near_happens(NEAR_TAKEN);
	} else if (is_folder(to->folder, "free")) {
		ledger_recycled(journal, from->name);
		near_happens(journal ? NEAR_JOURNAL_FREED : NEAR_SEGMENT_FREED);
	}
}

int os_rename(int from_folder, const char *from, int to_folder, const char *to)
{
	struct place old, new;
	int error;

	disk_sleep(work_delay_ns());
	error = place_find(from_folder, from, &old);
	if (error == 0)
		error = place_find(to_folder, to, &new);
	if (error == 0 && old.node == NULL)
		error = -ENOENT;
	if (error != 0 || old.node == new.node)
		return error;
	/* The daemon moves files only. */
	if (old.node->folder || (new.node != NULL &&new.node->folder))
		return -EISDIR;
	if (disk->dead)
		return -EROFS;
	error = work_name_error(old.node, NAME_RENAME);
	if (error != 0)
		return error;
	sim_trace("disk: %s becomes %s", old.node->label, to);
	tree_move(old.folder, old.name, new.folder, new.name, old.node);
	tell_move(&old, &new);
	return 0;
}

int os_unlink(int folder, const char *name)
{
	struct place place;
	int error;

	disk_sleep(work_delay_ns());
	error = place_find(folder, name, &place);
	if (error != 0)
		return error;
	if (place.node == NULL)
		return -ENOENT;
	if (place.node->folder)
		return -EISDIR;
	if (disk->dead)
		return -EROFS;
	error = work_name_error(place.node, NAME_UNLINK);
	if (error != 0)
		return error;
	sim_trace("disk: unlink of %s", place.node->label);
	tree_remove(place.folder, place.name, place.node);
	if (is_folder(place.folder, "big"))
		near_happens(NEAR_BIG_GONE);
	if (is_folder(place.folder, "drop"))
		near_happens(NEAR_DROP_GONE);
	return 0;
}

int os_mkdir(int folder, const char *name, mode_t mode)
{
	struct place place;
	int error;

	(void)mode;
	disk_sleep(work_delay_ns());
	error = place_find(folder, name, &place);
	if (error != 0)
		return error;
	if (place.node != NULL)
		return place.node->folder ? 0 : -ENOTDIR;
	if (disk->dead)
		return -EROFS;
	error = work_name_error(place.folder, NAME_MKDIR);
	if (error == 0)
		tree_make(place.folder, place.name, true);
	return error;
}

/* The world makes the spool's folder: nothing is left to be synced. */
int os_mkdir_durable(const char *path, mode_t mode)
{
	return os_mkdir(OS_CURRENT_FOLDER, path, mode);
}

struct names {
	char (*at)[DISK_NAME_BYTES];
	size_t count;
};

/* In any order, as the kernel gives them; the caller frees. */
static struct names names_of(const struct disk_node *folder)
{
	const struct list *head = &folder->entries[DISK_LIVE];
	struct names names = { 0 };
	size_t count = 0;

	for (const struct list *at = head->next; at != head; at = at->next)
		count++;
	names.at = calloc(count + 1, DISK_NAME_BYTES);
	if (names.at == NULL)
		sim_finding("no memory for a list of names");
	for (const struct list *at = head->next; at != head; at = at->next) {
		size_t place = sim_below(names.count + 1);

		memcpy(names.at[names.count], names.at[place], DISK_NAME_BYTES);
		memcpy(names.at[place], container_of(at, const struct disk_entry, link)->name,
		       DISK_NAME_BYTES);
		names.count++;
	}
	return names;
}

int os_folder_list(int folder, int (*each)(void *context, const char *name), void *context)
{
	const struct disk_node *node;
	size_t shown_count;
	struct names names;
	int result = 0, error;

	disk_sleep(work_delay_ns());
	node = disk_folder(folder);
	if (node == NULL)
		return -EBADF;
	if (!node->folder)
		return -ENOTDIR;
	names = names_of(node);
	error = work_name_error(node, NAME_LIST);
	shown_count = error == 0 ? names.count : sim_below(names.count + 1);
	for (size_t i = 0; i < shown_count && result == 0; i++)
		result = each(context, names.at[i]);
	free(names.at);
	return result != 0 ? result : error;
}
