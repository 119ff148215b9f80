/*
 * disk_tree - folders, and what is not yet durable in them.
 *
 * The live tree is what the daemon sees; the durable one follows it, change by change. A
 * change is on the disk when each folder that it touches was synced. A later change of the same
 * file or name cannot be there without the earlier one: that is what makes a tree legal.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/arena.h"
#include "tests/sim/disk_private.h"
#include "tests/sim/fiber.h"
#include "tests/sim/weather.h"

/* More than this are not left open: the file system commits the oldest. */
#define CHANGES_MAX 256

struct disk_state *disk;

/* ── entries ── */

static struct disk_entry *entry_find(struct disk_node *folder, enum disk_view view,
				     const char *name)
{
	list_each(link, &folder->entries[view]) {
		struct disk_entry *entry = container_of(link, struct disk_entry, link);

		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

static void entry_add(struct disk_node *folder, enum disk_view view, const char *name,
		      struct disk_node *node)
{
	struct disk_entry *entry = arena_alloc(sizeof(*entry));

	list_init(&entry->link);
	entry->node = node;
	memcpy(entry->name, name, strlen(name) + 1);
	list_push_back(&folder->entries[view], &entry->link);
	node->links[view]++;
}

static void entry_free(struct disk_entry *entry, enum disk_view view)
{
	struct disk_node *node = entry->node;

	list_remove(&entry->link);
	arena_free(entry, sizeof(*entry));
	node->links[view]--;
	tree_release(node);
}

static void entry_remove(struct disk_node *folder, enum disk_view view, const char *name)
{
	struct disk_entry *entry = entry_find(folder, view, name);

	if (entry != NULL)
		entry_free(entry, view);
}

/* ── nodes ── */

static struct disk_node *node_create(bool folder)
{
	struct disk_node *node = arena_alloc(sizeof(*node));

	*node = (struct disk_node){ .number = ++disk->last_number,
				    .folder = folder,
				    .counted = true };
	for (int view = 0; view < DISK_VIEWS; view++)
		list_init(&node->entries[view]);
	list_init(&node->link);
	list_push_back(&disk->nodes, &node->link);
	return node;
}

static void node_label(struct disk_node *node, const struct disk_node *folder, const char *name)
{
	const char *last = strrchr(folder->label, '/');

	snprintf(node->label, sizeof(node->label), "%.60s/%.63s", last != NULL ? last + 1 : "",
		 name);
}

void tree_release(struct disk_node *node)
{
	if (node->links[DISK_LIVE] > 0 || node->open_count > 0)
		return;
	if (node->counted) {
		disk->used_bytes -= node->block_count * DISK_PAGE_BYTES;
		node->counted = false;
	}
	if (node->links[DISK_DURABLE] > 0 || node->change_count > 0)
		return;
	pages_free(node);
	list_remove(&node->link);
	arena_free(node, sizeof(*node));
}

void tree_create(void)
{
	disk = arena_alloc(sizeof(*disk));
	*disk = (struct disk_state){ 0 };
	list_init(&disk->nodes);
	list_init(&disk->changes);
	disk->root = node_create(true);
	disk->root->open_count = 1; /* for ever */
	disk->root->parent = disk->root;
}

int tree_walk(struct disk_node *folder, const char *path, struct disk_node **folder_out,
	      char name[static DISK_NAME_BYTES], struct disk_node **node_out)
{
	struct disk_node *node = *path == '/' ? disk->root : folder;

	name[0] = '\0';
	*folder_out = node;
	while (*(path += strspn(path, "/")) != '\0') {
		size_t length = strcspn(path, "/");
		struct disk_entry *entry;

		if (node == NULL)
			return -ENOENT;
		if (!node->folder)
			return -ENOTDIR;
		if (length >= DISK_NAME_BYTES)
			return -ENAMETOOLONG;
		memcpy(name, path, length);
		name[length] = '\0';
		path += length;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
			node = name[1] == '.' ? node->parent : node;
			name[0] = '\0';
			continue;
		}
		*folder_out = node;
		entry = entry_find(node, DISK_LIVE, name);
		node = entry != NULL ? entry->node : NULL;
	}
	*node_out = node;
	return 0;
}

/* ── changes ── */

static void change_free(struct disk_change *change)
{
	struct disk_node *held[] = { change->node, change->from, change->to };

	list_remove(&change->link);
	arena_free(change, sizeof(*change));
	disk->changes_count--;
	for (size_t i = 0; i < array_count(held); i++) {
		if (held[i] == NULL)
			continue;
		held[i]->change_count--;
		tree_release(held[i]);
	}
}

/* The durable tree follows. */
static void change_apply(struct disk_change *change)
{
	if (change->from != NULL)
		entry_remove(change->from, DISK_DURABLE, change->from_name);
	if (change->to != NULL) {
		entry_remove(change->to, DISK_DURABLE, change->to_name);
		entry_add(change->to, DISK_DURABLE, change->to_name, change->node);
	}
	change_free(change);
}

static bool change_touches(const struct disk_change *change, const struct disk_node *folder,
			   const char *name)
{
	return folder != NULL &&
	       ((change->from == folder && strcmp(change->from_name, name) == 0) ||
		(change->to == folder && strcmp(change->to_name, name) == 0));
}

static bool change_depends(const struct disk_change *later, const struct disk_change *earlier)
{
	return later->node == earlier->node || later->from == earlier->node ||
	       later->to == earlier->node ||
	       change_touches(earlier, later->from, later->from_name) ||
	       change_touches(earlier, later->to, later->to_name);
}

/* With all that it depends on, and so on. */
static void change_commit(struct disk_change *last)
{
	list_each(link, &disk->changes) {
		container_of(link, struct disk_change, link)->kept = false;
	}
	last->kept = true;
	for (struct list *at = &last->link; at != &disk->changes; at = at->previous) {
		struct disk_change *later = container_of(at, struct disk_change, link);

		for (struct list *before = at->previous; later->kept && before != &disk->changes;
		     before = before->previous) {
			struct disk_change *earlier =
				container_of(before, struct disk_change, link);

			earlier->kept = earlier->kept || change_depends(later, earlier);
		}
	}
	list_each(link, &disk->changes) {
		struct disk_change *change = container_of(link, struct disk_change, link);

		if (change->kept)
			change_apply(change);
	}
}

/* Nodes are held before the live tree lets go of them. */
static void change_add(struct disk_node *from, const char *from_name, struct disk_node *to,
		       const char *to_name, struct disk_node *node)
{
	struct disk_change *change = arena_alloc(sizeof(*change));

	*change = (struct disk_change){ .stamp = ++disk->stamp,
					.node = node,
					.from = from,
					.to = to,
					.from_synced = from == NULL,
					.to_synced = to == NULL };
	node->change_count++;
	if (from != NULL) {
		from->change_count++;
		memcpy(change->from_name, from_name, strlen(from_name) + 1);
	}
	if (to != NULL) {
		to->change_count++;
		memcpy(change->to_name, to_name, strlen(to_name) + 1);
	}
	list_init(&change->link);
	list_push_back(&disk->changes, &change->link);
	disk->changes_count++;
}

static void changes_limit(void)
{
	if (disk->changes_count > CHANGES_MAX)
		change_commit(list_first(&disk->changes, struct disk_change, link));
}

struct disk_node *tree_make(struct disk_node *folder, const char *name, bool is_folder)
{
	struct disk_node *node = node_create(is_folder);

	node->parent = folder;
	node_label(node, folder, name);
	change_add(NULL, NULL, folder, name, node);
	entry_add(folder, DISK_LIVE, name, node);
	changes_limit();
	return node;
}

void tree_move(struct disk_node *from, const char *from_name, struct disk_node *to,
	       const char *to_name, struct disk_node *node)
{
	change_add(from, from_name, to, to_name, node);
	entry_remove(from, DISK_LIVE, from_name);
	entry_remove(to, DISK_LIVE, to_name);
	entry_add(to, DISK_LIVE, to_name, node);
	if (!node->counted)
		disk->used_bytes += node->block_count * DISK_PAGE_BYTES;
	node->counted = true;
	node_label(node, to, to_name);
	changes_limit();
}

void tree_remove(struct disk_node *folder, const char *name, struct disk_node *node)
{
	change_add(folder, name, NULL, NULL, node);
	entry_remove(folder, DISK_LIVE, name);
	changes_limit();
}

/* ── what becomes durable, and what does not ── */

/* The next one that only this folder kept from being durable. */
static struct disk_change *change_next(struct disk_node *folder, uint64_t stamp)
{
	list_each(link, &disk->changes) {
		struct disk_change *change = container_of(link, struct disk_change, link);

		if (change->stamp > stamp || change->lost)
			continue;
		change->from_synced = change->from_synced || change->from == folder;
		change->to_synced = change->to_synced || change->to == folder;
		if (change->from_synced && change->to_synced)
			return change;
	}
	return NULL;
}

void tree_sync(struct disk_node *folder, uint64_t stamp)
{
	struct disk_change *change;

	while ((change = change_next(folder, stamp)) != NULL)
		change_commit(change);
}

void tree_sync_fail(struct disk_node *folder, uint64_t stamp)
{
	list_each(link, &disk->changes) {
		struct disk_change *change = container_of(link, struct disk_change, link);

		if (change->stamp <= stamp && (change->from == folder || change->to == folder))
			change->lost = true;
	}
}

/* Draws which changes the disk has: none without those that it depends on. */
static void changes_draw(uint32_t keep_permille)
{
	list_each(link, &disk->changes) {
		struct disk_change *later = container_of(link, struct disk_change, link);

		later->kept = sim_chance(keep_permille * 1000);
		for (struct list *at = link->previous; later->kept && at != &disk->changes;
		     at = at->previous) {
			struct disk_change *earlier = container_of(at, struct disk_change, link);

			if (!earlier->kept && change_depends(later, earlier))
				later->kept = false;
		}
	}
}

/* Entries go before their nodes can: each node is held while the trees are rebuilt. */
static void tree_reload(void)
{
	list_each(link, &disk->nodes) {
		container_of(link, struct disk_node, link)->open_count++;
	}
	list_each(link, &disk->nodes) {
		struct disk_node *node = container_of(link, struct disk_node, link);

		while (!list_empty(&node->entries[DISK_LIVE]))
			entry_free(list_first(&node->entries[DISK_LIVE], struct disk_entry, link),
				   DISK_LIVE);
		list_each(at, &node->entries[DISK_DURABLE]) {
			struct disk_entry *entry = container_of(at, struct disk_entry, link);

			entry_add(node, DISK_LIVE, entry->name, entry->node);
			node_label(entry->node, node, entry->name);
		}
	}
	list_each(link, &disk->nodes) {
		struct disk_node *node = container_of(link, struct disk_node, link);

		node->open_count--;
		tree_release(node);
	}
}

void tree_cut(void)
{
	static const uint32_t moods[] = { 0, 200, 500, 900, 1000 };

	changes_draw(moods[sim_below(array_count(moods))]);
	list_each(link, &disk->changes) {
		struct disk_change *change = container_of(link, struct disk_change, link);

		sim_trace("disk: %s: a change of its name is %s", change->node->label,
			  change->kept ? "kept" : "lost");
		if (change->kept)
			change_apply(change);
		else
			change_free(change);
	}
	tree_reload();
}
