/* Lines on their way to the writer thread, which naps, sleeps and stops: engine/log/log.c. */
#include "tests/model/explore.h"

#include <stdlib.h>
#include <string.h>

#define calloc(count, bytes)	    model_memory((count) * (bytes))
#define malloc(bytes)		    model_memory(bytes)
#define aligned_alloc(align, bytes) model_memory(bytes)
#define free(at)		    ((void)(at))
#include "engine/log/log.c"

#ifndef MODEL_STOP_AT_ONCE
#define MODEL_STOP_AT_ONCE false
#endif
enum { LINES = 2, WRITTEN_MAX = 4096 };

static struct world {
	char written[WRITTEN_MAX];
	uint32_t length;
	bool writer_ended;
} * world;
static struct log *one_log;

/* ── what the kernel does ─────────────────────────────────────────────────────────── */

ssize_t os_file_append(int fd, const struct iovec *iov, int count)
{
	ssize_t bytes = 0;

	(void)fd;
	for (int i = 0; i < count; i++) {
		assert(world->length + iov[i].iov_len <= WRITTEN_MAX);
		memcpy(world->written + world->length, iov[i].iov_base, iov[i].iov_len);
		world->length += (uint32_t)iov[i].iov_len;
		bytes += (ssize_t)iov[i].iov_len;
	}
	return bytes;
}

int os_file_open(int folder, const char *name, int flags, mode_t mode)
{
	(void)folder, (void)name, (void)flags, (void)mode;
	return 1;
}

void os_file_close(int fd)
{
	(void)fd;
}

/* A file that was empty when it was opened. */
int os_file_facts(int fd, struct os_file_facts *out)
{
	(void)fd;
	*out = (struct os_file_facts){ .regular = true };
	return 0;
}

ssize_t os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	(void)fd, (void)bytes, (void)count, (void)offset;
	return 0;
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ 1 };
}

struct os_mono os_mono_now(void)
{
	return (struct os_mono){ 1 };
}

struct sleep {
	_Atomic uint32_t *word;
	uint32_t value;
};

static bool word_has_changed(void *context)
{
	struct sleep *sleep = context;

	return *sleep->word != sleep->value;
}

/* A wait with an end may be over at once; one without needs the word to change. Whoever changes
 * it calls os_futex_wake(), and the kernel lets no sleeper miss that. */
void os_futex_wait(_Atomic uint32_t *word, uint32_t value, struct os_mono until)
{
	struct sleep sleep = { word, value };

	model_fence(); /* a system call */
	if (until.ns == UINT64_MAX)
		model_block(word_has_changed, &sleep);
}

void os_futex_wake(_Atomic uint32_t *word)
{
	(void)word;
}

int os_thread_start(struct os_thread **out, const char *name, void (*run)(void *context),
		    void *context)
{
	(void)out, (void)name;
	model_thread(run, context);
	return 0;
}

static bool is_written(void *context)
{
	(void)context;
	return world->length > 0 && memchr(world->written, '0' + LINES, world->length) != NULL;
}

void os_thread_join(struct os_thread *thread)
{
	(void)thread;
}

/* ── the threads ──────────────────────────────────────────────────────────────────── */

static void worker_thread(void *context)
{
	struct log_channel *channel = log_channel(one_log, 0);

	(void)context;
	for (int64_t i = 1; i <= LINES; i++) {
		channel->open = true;
		channel->length = 0;
		channel->line[channel->length++] = (char)('0' + i);
		log_end(channel);
	}
	/* The last line comes out without anybody's help ... */
	if (!MODEL_STOP_AT_ONCE)
		model_block(is_written, NULL);
	/* ... and the writer ends when told to, even from its sleep. */
	atomic_store(&one_log->stop, true);
	writer_wake(one_log);
}

void model_start(void)
{
	world = model_memory(sizeof(*world));
	model_check(log_open(NULL, 1, &one_log) == 0, "no log");
	model_thread(worker_thread, NULL);
}

void model_end(void)
{
	static const char whole[] = "1}\n2}\n";

	model_check(world->length == sizeof(whole) - 1 &&
			    memcmp(world->written, whole, sizeof(whole) - 1) == 0,
		    "lines lost, doubled or out of order");
}
