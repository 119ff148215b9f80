/* A slot of the shared index, written twice while a tool reads it: index_store() and index_read()
 * of queue/index.c. */
#include "tests/model/explore.h"

#include <stdlib.h>
#include <string.h>

#include "queue/index.h"

/* The bytes of a slot go over in pieces. */
#define memcpy(to, from, bytes) model_copy((to), (from), (bytes))
#include "queue/index.c"
#undef memcpy

/* What index.c asks of the kernel has no part here. */
int os_shared_create(struct os_shared *shared, const char *name, size_t bytes_max, mode_t mode)
{
	(void)shared, (void)name, (void)bytes_max, (void)mode;
	abort();
}

int os_shared_grow(struct os_shared *shared, size_t bytes)
{
	(void)shared, (void)bytes;
	abort();
}

int os_shared_open(struct os_shared *shared, const char *name)
{
	(void)shared, (void)name;
	abort();
}

void os_shared_close(struct os_shared *shared)
{
	(void)shared;
}

void os_shared_unlink(const char *name)
{
	(void)name;
}

int os_shared_list(int (*each)(void *context, const char *name), void *context)
{
	(void)each, (void)context;
	abort();
}

bool os_shared_is_orphan(const struct os_shared *shared)
{
	(void)shared;
	abort();
}

ssize_t os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	(void)fd, (void)bytes, (void)count, (void)offset;
	abort();
}

int os_file_group(int fd, const char *group)
{
	(void)fd, (void)group;
	abort();
}

uint32_t os_process_id(void)
{
	return 1;
}

static struct index *index_written;
static struct index_view *view;

/* All fields of one version tell its number. */
static struct format_job version(uint32_t number)
{
	return (struct format_job){
		.type = FORMAT_JOB,
		.state = (uint8_t)number,
		.message = number,
		.pending = number,
		.version = number,
		.first = (uint16_t)number,
		.segment = number,
		.due_s = number,
		.dest = number,
		.text = number,
		.reply = (uint16_t)number,
	};
}

static void writer_run(void *context)
{
	(void)context;
	for (uint32_t number = 2; number <= 3; number++) {
		struct format_job job = version(number);

		index_store(index_written, 0, &job);
	}
}

static void reader_run(void *context)
{
	struct format_job job = { 0 };

	(void)context;
	if (!index_read(view, 0, &job))
		return; /* the writer was always faster: allowed */
	model_check(job.version >= 1 && job.version <= 3 && job.state == job.version &&
			    job.message == job.version && job.pending == job.version &&
			    job.first == job.version && job.segment == job.version &&
			    job.due_s == job.version && job.dest == job.version &&
			    job.text == job.version && job.reply == job.version,
		    "a torn slot was accepted");
}

void model_start(void)
{
	struct format_job first = version(1);
	char *memory = model_memory(sizeof(struct index_header) + sizeof(struct format_job));

	index_written = model_memory(sizeof(*index_written));
	view = model_memory(sizeof(*view));
	index_written->slots.at = view->slots.at = memory;
	first.crc = 2;
	memcpy(memory + sizeof(struct index_header), &first, sizeof(first));
	model_thread(writer_run, NULL);
	model_thread(reader_run, NULL);
}

void model_end(void)
{
	model_check(index_job(index_written, 0)->crc == 6 &&
			    index_job(index_written, 0)->state == 3,
		    "the last version is not there");
}
