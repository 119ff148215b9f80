#include "tools/idset.h"

#include <stdlib.h>

enum { PAGE_BITS = 15, WORD_BITS = 64, WORDS = (1 << PAGE_BITS) / WORD_BITS, SIZE_FIRST = 64 };

struct idset_page {
	uint64_t number; /* id >> PAGE_BITS */
	uint64_t words[WORDS];
};

static struct idset_page **place_of(struct idset_page **pages, size_t size, uint64_t number)
{
	size_t at = (size_t)((number * 0x9e3779b97f4a7c15) >> 32) & (size - 1);

	while (pages[at] && pages[at]->number != number)
		at = (at + 1) & (size - 1);
	return &pages[at];
}

static bool grow(struct idset *set)
{
	size_t size = set->size ? set->size * 2 : SIZE_FIRST;
	struct idset_page **pages = calloc(size, sizeof(struct idset_page *));

	if (!pages)
		return false;
	for (size_t i = 0; i < set->size; i++)
		if (set->pages[i])
			*place_of(pages, size, set->pages[i]->number) = set->pages[i];
	free(set->pages);
	set->pages = pages;
	set->size = size;
	return true;
}

static struct idset_page *page_of(struct idset *set, uint64_t number)
{
	struct idset_page **place;

	if (set->last && set->last->number == number)
		return set->last;
	if (set->page_count * 2 >= set->size && !grow(set))
		return NULL;
	place = place_of(set->pages, set->size, number);
	if (!*place) {
		*place = calloc(1, sizeof(**place));
		if (!*place)
			return NULL;
		(*place)->number = number;
		set->page_count++;
	}
	set->last = *place;
	return *place;
}

bool idset_add(struct idset *set, uint64_t id)
{
	struct idset_page *page = page_of(set, id >> PAGE_BITS);
	uint64_t bit = id & ((1 << PAGE_BITS) - 1), mask = UINT64_C(1) << bit % WORD_BITS;

	if (!page)
		return false;
	set->count += !(page->words[bit / WORD_BITS] & mask);
	page->words[bit / WORD_BITS] |= mask;
	return true;
}

void idset_deinit(struct idset *set)
{
	for (size_t i = 0; i < set->size; i++)
		free(set->pages[i]);
	free(set->pages);
}
