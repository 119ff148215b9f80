/*
 * list - an intrusive, doubly linked, circular list.
 *
 *   head <-> a <-> b <-> head
 *
 * A node that is in no list points to itself, so list_remove() may be called twice and
 * list_linked() always has an answer. Nothing here owns or allocates.
 */
#ifndef OS_LIST_H
#define OS_LIST_H

#include <stdbool.h>

#include "os/check.h"

struct list {
	struct list *next, *previous;
};

static inline void list_init(struct list *head)
{
	head->next = head->previous = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

static inline bool list_linked(const struct list *node)
{
	return node->next != node;
}

static inline void list_insert_before(struct list *place, struct list *node)
{
	assert(!list_linked(node));
	assert(place->previous != NULL); /* list_init() was called */
	node->next = place;
	node->previous = place->previous;
	place->previous->next = node;
	place->previous = node;
}

static inline void list_push_back(struct list *head, struct list *node)
{
	list_insert_before(head, node);
}

static inline void list_push_front(struct list *head, struct list *node)
{
	list_insert_before(head->next, node);
}

static inline void list_remove(struct list *node)
{
	node->next->previous = node->previous;
	node->previous->next = node->next;
	list_init(node);
}

/* The first node, taken out; NULL if there is none. */
static inline struct list *list_pop_front(struct list *head)
{
	struct list *node = head->next;

	if (node == head)
		return NULL;
	list_remove(node);
	return node;
}

/* All of `from` goes to the end of `to`; `from` is empty afterwards. */
static inline void list_splice_back(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->previous = to->previous;
	to->previous->next = from->next;
	from->previous->next = to;
	to->previous = from->previous;
	list_init(from);
}

#define list_first(head, type, member) container_of((head)->next, type, member)

/* The body may remove `node`, and nothing else. */
#define list_each(node, head)                                                                      \
	for (struct list *node = (head)->next, *node##_next = node->next; node != (head);          \
	     node = node##_next, node##_next = node->next)

#endif
