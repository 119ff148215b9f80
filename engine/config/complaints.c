#include "engine/config/complaints.h"

#include <stdarg.h>
#include <stdio.h>

#include "os/check.h"

void complaints_init(struct complaints *complaints, char *text, size_t bytes)
{
	assert(bytes > 0);
	*complaints = (struct complaints){ .text = text, .bytes = bytes };
	text[0] = '\0';
}

static size_t least(int length, size_t room)
{
	return (size_t)length < room ? (size_t)length : room - 1;
}

void complaints_add(struct complaints *complaints, const char *format, ...)
{
	char *at = complaints->text + complaints->used;
	size_t room = complaints->bytes - complaints->used, used = 0;
	va_list list;

	if (complaints->any)
		used = least(snprintf(at, room, "\n"), room);
	va_start(list, format);
	used += least(vsnprintf(at + used, room - used, format, list), room - used);
	va_end(list);
	complaints->used += used;
	complaints->any = true;
}

void complaints_add_memory(struct complaints *complaints)
{
	if (!complaints->memory)
		complaints_add(complaints, "out of memory.");
	complaints->memory = true;
}
