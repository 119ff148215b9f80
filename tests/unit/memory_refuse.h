/*
 * memory_refuse - refuses an allocation of what is tested, by its number.
 *
 * The Makefile links the tests named there with --wrap, so that all that our objects allocate
 * comes by here; what libc allocates for itself does not. For one test program.
 */
#ifndef MEMORY_REFUSE_H
#define MEMORY_REFUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static struct {
	uint32_t until; /* how many succeed */
	bool armed, lasting;
	bool refused; /* so far */
} memory_refusal;

/* The allocation behind the next `after` ones fails; `lasting`: and all that follow. */
static inline void memory_refuse(uint32_t after, bool lasting)
{
	memory_refusal.until = after;
	memory_refusal.armed = true;
	memory_refusal.lasting = lasting;
	memory_refusal.refused = false;
}

/* No more; whether any was refused. */
static inline bool memory_refuse_end(void)
{
	memory_refusal.armed = false;
	return memory_refusal.refused;
}

static bool memory_fails(void)
{
	if (!memory_refusal.armed)
		return false;
	if (memory_refusal.until > 0) {
		memory_refusal.until--;
		return false;
	}
	memory_refusal.armed = memory_refusal.lasting;
	memory_refusal.refused = true;
	return true;
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *at, size_t bytes);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
	return memory_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return memory_fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *at, size_t bytes)
{
	return memory_fails() ? NULL : __real_realloc(at, bytes);
}

char *__wrap_strdup(const char *text)
{
	return memory_fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t bytes)
{
	return memory_fails() ? NULL : __real_strndup(text, bytes);
}
/* NOLINTEND(bugprone-reserved-identifier) */

#endif
