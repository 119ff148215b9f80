/*
 * check - assertions that stay on in every build, and container_of.
 *
 * A failed assert is a bug of ours, never bad input: it stops the process, and what was
 * promised is on disk.
 */
#ifndef OS_CHECK_H
#define OS_CHECK_H

#ifdef NDEBUG
#error "asserts are part of the product: build without NDEBUG"
#endif
#include <assert.h>
#include <stddef.h>

/* The struct that embeds `member` at `pointer`. */
#define container_of(pointer, type, member)                                                        \
	((type *)((char *)(1 ? (pointer) : &((type *)0)->member) - offsetof(type, member)))

#define array_count(array) (sizeof(array) / sizeof((array)[0]))

#endif
