/*
 * disk_pages - the contents of files: what the cache has and what the disk has, page by page.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/arena.h"
#include "tests/sim/disk_private.h"
#include "tests/sim/fiber.h"
#include "tests/sim/weather.h"

/* How often a page that is written again had been written back in between, per million. */
#define WRITE_BACK_CHANCE 200000

static const char zeros[DISK_PAGE_BYTES];

static const char *page_text(const char *bytes)
{
	return bytes != NULL ? bytes : zeros;
}

static uint64_t page_index(uint64_t offset)
{
	return offset / DISK_PAGE_BYTES;
}

/* The first page behind [.., end). */
static uint64_t page_end(const struct disk_node *node, uint64_t end)
{
	uint64_t last = end / DISK_PAGE_BYTES + (end % DISK_PAGE_BYTES != 0);

	return last < node->page_count ? last : node->page_count;
}

static void bytes_free(char **bytes)
{
	arena_free(*bytes, DISK_PAGE_BYTES);
	*bytes = NULL;
}

/* The same bytes, to be changed. */
static char *bytes_own(char **bytes)
{
	if (*bytes == NULL)
		*bytes = arena_alloc(DISK_PAGE_BYTES);
	return *bytes;
}

static bool page_differs(const struct disk_page *page)
{
	return memcmp(page_text(page->live), page_text(page->durable), DISK_PAGE_BYTES) != 0;
}

/* Some sectors of the live page reach the disk. */
static void page_mix(struct disk_page *page, uint32_t keep_permille)
{
	if (page->live == NULL && page->durable == NULL)
		return;
	for (uint32_t at = 0; at < DISK_PAGE_BYTES; at += DISK_SECTOR_BYTES) {
		if (!sim_chance(keep_permille * 1000))
			continue;
		memcpy(bytes_own(&page->durable) + at, page_text(page->live) + at,
		       DISK_SECTOR_BYTES);
	}
}

static void page_clean(struct disk_node *node, struct disk_page *page)
{
	if (page->state == PAGE_DIRTY)
		node->dirty_count--;
	page->state = PAGE_CLEAN;
}

/* The disk takes over what the cache has. */
static void page_to_disk(struct disk_node *node, struct disk_page *page)
{
	page_clean(node, page);
	bytes_free(&page->durable);
}

/* The cache forgets what the disk has not. */
static void page_to_cache(struct disk_node *node, struct disk_page *page)
{
	page_clean(node, page);
	bytes_free(&page->live);
	page->live = page->durable;
	page->durable = NULL;
	page->cached = false;
	page->lost = 0;
	if (page->live != NULL && memcmp(page->live, zeros, DISK_PAGE_BYTES) == 0)
		bytes_free(&page->live);
}

static void page_make_dirty(struct disk_node *node, struct disk_page *page)
{
	if (page->state == PAGE_DIRTY) {
		if (sim_chance(WRITE_BACK_CHANCE))
			page_mix(page, 500);
		return;
	}
	if (page->state == PAGE_CLEAN) {
		page->durable = page->live;
		page->live = NULL;
		if (page->durable != NULL)
			memcpy(bytes_own(&page->live), page->durable, DISK_PAGE_BYTES);
	}
	page->state = PAGE_DIRTY;
	page->lost = 0;
	page->stamp = disk->stamp;
	node->dirty_count++;
}

static void page_write(struct disk_node *node, struct disk_page *page, uint32_t from,
		       const char *bytes, uint32_t count, bool direct)
{
	page_make_dirty(node, page);
	page->cached = !direct;
	if (memcmp(bytes, zeros, count) != 0)
		memcpy(bytes_own(&page->live) + from, bytes, count);
	else if (count == DISK_PAGE_BYTES)
		bytes_free(&page->live);
	else if (page->live != NULL)
		memset(page->live + from, 0, count);
}

static void node_set_size(struct disk_node *node, uint64_t size)
{
	node->size = size;
	node->size_dirty = true;
	node->size_stamp = disk->stamp;
}

/* ── room ── */

uint64_t pages_room_bytes(void)
{
	uint64_t total = weather()->disk_bytes;

	return disk->used_bytes < total ? total - disk->used_bytes : 0;
}

static void node_reserve(struct disk_node *node, uint64_t count)
{
	uint64_t grown_count = node->page_count == 0 ? 4 : node->page_count;
	struct disk_page *grown;

	if (count <= node->page_count)
		return;
	while (grown_count < count)
		grown_count *= 2;
	grown = arena_alloc(grown_count * sizeof(*grown));
	if (node->page_count > 0)
		memcpy(grown, node->pages, node->page_count * sizeof(*grown));
	arena_free(node->pages, node->page_count * sizeof(*grown));
	node->pages = grown;
	node->page_count = grown_count;
}

size_t pages_grant(struct disk_node *node, uint64_t offset, size_t count)
{
	uint64_t end = offset + count;

	node_reserve(node, page_index(end + DISK_PAGE_BYTES - 1));
	for (uint64_t i = page_index(offset); i < page_end(node, end); i++) {
		struct disk_page *page = &node->pages[i];

		if (page->written)
			continue;
		if (!node->calm && pages_room_bytes() < DISK_PAGE_BYTES)
			return i * DISK_PAGE_BYTES > offset ? i * DISK_PAGE_BYTES - offset : 0;
		page->written = true;
		page->cached = true;
		node->block_count++;
		disk->used_bytes += DISK_PAGE_BYTES;
	}
	return count;
}

/* ── reading and writing ── */

void pages_write(struct disk_node *node, const char *bytes, size_t count, uint64_t offset,
		 bool direct)
{
	uint64_t end = offset + count;

	disk->stamp++;
	while (offset < end) {
		uint32_t from = offset % DISK_PAGE_BYTES;
		uint64_t room = DISK_PAGE_BYTES - from;
		uint32_t part = (uint32_t)(end - offset < room ? end - offset : room);

		assert(page_index(offset) < node->page_count); /* pages_grant() */
		page_write(node, &node->pages[page_index(offset)], from, bytes, part, direct);
		bytes += part;
		offset += part;
	}
	if (end > node->size)
		node_set_size(node, end);
}

/* A direct read of a dirty page writes it back first; of a stale one, it finds the truth. */
static const char *page_read(struct disk_page *page, bool direct)
{
	if (!direct) {
		page->cached = true;
		return page_text(page->live);
	}
	return page_text(page->state == PAGE_STALE ? page->durable : page->live);
}

/* R9: no life decides by what the disk has not, since a sync failed in another. What a file in
 * free/ was decides nothing, and a read may reach beyond what is wanted. */
static void check_cached(const struct disk_node *node, uint64_t index)
{
	uint8_t life = node->pages[index].lost;

	if (life == 0 || life == 1 + weather_life() || strncmp(node->label, "free/", 5) == 0)
		return;
	sim_finding("page %llu of %s is read from the cache, and a sync of it had failed",
		    (unsigned long long)index, node->label);
}

size_t pages_read(struct disk_node *node, char *bytes, size_t count, uint64_t offset, bool direct)
{
	size_t done = 0;

	if (offset >= node->size)
		return 0;
	if (count > node->size - offset)
		count = node->size - offset;
	while (done < count) {
		uint32_t from = (offset + done) % DISK_PAGE_BYTES;
		size_t room = DISK_PAGE_BYTES - from;
		size_t part = count - done < room ? count - done : room;
		uint64_t index = page_index(offset + done);
		const char *text = zeros;

		if (index < node->page_count) {
			if (!direct)
				check_cached(node, index);
			text = page_read(&node->pages[index], direct);
		}
		memcpy(bytes + done, text + from, part);
		done += part;
	}
	return count;
}

char *pages_durable(const struct disk_node *node, size_t *count_out)
{
	uint64_t size = node->size_dirty ? node->durable_size : node->size;
	char *bytes = calloc(size / DISK_PAGE_BYTES + 1, DISK_PAGE_BYTES);

	if (bytes == NULL)
		sim_finding("no memory for a file's bytes");
	for (uint64_t i = 0; i < node->page_count && i * DISK_PAGE_BYTES < size; i++) {
		const struct disk_page *page = &node->pages[i];

		memcpy(bytes + i * DISK_PAGE_BYTES,
		       page_text(page->state == PAGE_CLEAN ? page->live : page->durable),
		       DISK_PAGE_BYTES);
	}
	*count_out = size;
	return bytes;
}

static bool page_misses(const struct disk_page *page, bool direct)
{
	return page->written && page->state != PAGE_DIRTY && (direct || !page->cached);
}

bool pages_miss(const struct disk_node *node, size_t count, uint64_t offset, bool direct)
{
	for (uint64_t i = page_index(offset); i < page_end(node, offset + count); i++)
		if (page_misses(&node->pages[i], direct))
			return true;
	return false;
}

/* The disk's copy; a cached one stays as it is. */
static void page_flip(struct disk_page *page, uint64_t bit)
{
	if (page->state == PAGE_CLEAN && page->cached) {
		memcpy(bytes_own(&page->durable), page_text(page->live), DISK_PAGE_BYTES);
		page->state = PAGE_STALE;
	}
	bytes_own(page->state == PAGE_STALE ? &page->durable : &page->live)[bit / 8] ^=
		(char)(1U << (bit % 8));
}

bool pages_flip(struct disk_node *node, size_t count, uint64_t offset, bool direct)
{
	uint64_t misses = 0, chosen, bit;

	for (uint64_t i = page_index(offset); i < page_end(node, offset + count); i++)
		misses += page_misses(&node->pages[i], direct);
	if (misses == 0)
		return false;
	chosen = sim_below(misses);
	bit = sim_below(DISK_PAGE_BYTES * 8ULL);
	for (uint64_t i = page_index(offset); i < page_end(node, offset + count); i++) {
		struct disk_page *page = &node->pages[i];

		if (!page_misses(page, direct) || chosen-- != 0)
			continue;
		page_flip(page, bit);
		sim_trace("disk: bit %llu of page %llu of %s flips", (unsigned long long)bit,
			  (unsigned long long)i, node->label);
		break;
	}
	return true;
}

/* ── syncs ── */

void pages_sync(struct disk_node *node, uint64_t offset, uint64_t count, uint64_t stamp)
{
	uint64_t end = page_end(node, count > UINT64_MAX - offset ? UINT64_MAX : offset + count);

	for (uint64_t i = page_index(offset); i < end && node->dirty_count > 0; i++) {
		struct disk_page *page = &node->pages[i];

		if (page->state == PAGE_DIRTY && page->stamp <= stamp)
			page_to_disk(node, page);
	}
	/* One that has grown meanwhile is written as it is now. */
	if (node->size_dirty)
		node->durable_size = node->size;
	if (node->size_stamp <= stamp)
		node->size_dirty = false;
}

static void page_sync_fail(struct disk_node *node, struct disk_page *page, uint32_t keep_permille,
			   bool direct)
{
	page_mix(page, keep_permille);
	if (direct || !page->cached)
		page_to_cache(node, page);
	else if (page_differs(page)) {
		page_clean(node, page);
		page->state = PAGE_STALE;
		page->lost = (uint8_t)(1 + weather_life());
	} else
		page_to_disk(node, page);
}

void pages_sync_fail(struct disk_node *node, uint64_t offset, uint64_t count, uint64_t stamp,
		     bool direct)
{
	uint64_t end = page_end(node, count > UINT64_MAX - offset ? UINT64_MAX : offset + count);
	/* What went past the cache may be there as a whole, and only the word of it failed. */
	uint32_t keep_permille = direct ? 500 * (uint32_t)sim_below(3) : 500;

	for (uint64_t i = page_index(offset); i < end && node->dirty_count > 0; i++) {
		struct disk_page *page = &node->pages[i];

		if (page->state == PAGE_DIRTY && page->stamp <= stamp)
			page_sync_fail(node, page, keep_permille, direct);
	}
	if (node->size_stamp <= stamp)
		node->size_dirty = false;
}

/* ── the rest ── */

void pages_truncate(struct disk_node *node, uint64_t size)
{
	uint64_t first = page_end(node, size);
	uint32_t part = size % DISK_PAGE_BYTES;

	disk->stamp++;
	if (part != 0 && page_index(size) < node->page_count && size < node->size)
		page_write(node, &node->pages[page_index(size)], part, zeros,
			   DISK_PAGE_BYTES - part, false);
	for (uint64_t i = first; i < node->page_count; i++) {
		struct disk_page *page = &node->pages[i];

		if (!page->written)
			continue;
		page_write(node, page, 0, zeros, DISK_PAGE_BYTES, false);
		page->written = false;
		node->block_count--;
		disk->used_bytes -= DISK_PAGE_BYTES;
	}
	node_set_size(node, size);
}

void pages_drop_cache(struct disk_node *node)
{
	for (uint64_t i = 0; i < node->page_count; i++) {
		struct disk_page *page = &node->pages[i];

		if (page->state == PAGE_STALE)
			page_to_cache(node, page);
		else if (page->state == PAGE_CLEAN)
			page->cached = false;
	}
}

/* The size falls back to what was synced, or to a page in between. */
static uint64_t node_cut_size(const struct disk_node *node, uint32_t keep_permille)
{
	uint64_t low = node->durable_size < node->size ? node->durable_size : node->size;
	uint64_t high = node->durable_size < node->size ? node->size : node->durable_size;
	uint64_t at;

	if (sim_chance(keep_permille * 1000))
		return node->size;
	if (sim_below(2) == 0)
		return node->durable_size;
	at = sim_between(low, high);
	if (sim_below(2) == 0)
		at -= at % DISK_PAGE_BYTES;
	return at < low ? low : at;
}

void pages_cut(struct disk_node *node, uint32_t keep_permille)
{
	uint64_t size =
		node->durable_size != node->size ? node_cut_size(node, keep_permille) : node->size;

	for (uint64_t i = 0; i < node->page_count; i++) {
		struct disk_page *page = &node->pages[i];

		if (page->state == PAGE_DIRTY)
			page_mix(page, keep_permille);
		if (page->state != PAGE_CLEAN)
			page_to_cache(node, page);
		page->cached = false;
		page->written = page->written || page->live != NULL;
	}
	/* What is cut off here was not durable, so there is no older content to fall back to. */
	pages_truncate(node, size);
	node->block_count = 0;
	for (uint64_t i = 0; i < node->page_count; i++) {
		if (node->pages[i].state == PAGE_DIRTY)
			page_to_disk(node, &node->pages[i]);
		node->pages[i].cached = false;
		node->block_count += node->pages[i].written;
	}
	node->durable_size = size;
	node->size_dirty = false;
}

void pages_free(struct disk_node *node)
{
	for (uint64_t i = 0; i < node->page_count; i++) {
		bytes_free(&node->pages[i].live);
		bytes_free(&node->pages[i].durable);
	}
	arena_free(node->pages, node->page_count * sizeof(*node->pages));
	node->pages = NULL;
	node->page_count = 0;
}
