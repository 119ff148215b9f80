/*
 * log - rings of whole lines, and the thread that writes them.
 *
 *   worker: line[] ──log_end()──► ring (1 MiB) ──► writer: one writev() of all rings
 *
 * The writer naps while lines come, so that a busy worker rings no bell: a batch is what came
 * in meanwhile. It sleeps only after a silent while, or is woken by a ring that is half full.
 */
#include "engine/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/log/escape.h"

#define RING_BYTES	(1u << 20)
#define LINE_BYTES_MAX	16384
#define LINE_RESERVE	1024 /* of a line, kept free of texts: for the numbers behind them */
#define LINE_END_MAX	32   /* `,"truncated":true}` and the newline */
#define NAP_MS		5
#define NAPS_BEFORE_BED 40
#define CHANNELS_MAX	512
#define CACHE_LINE	64

struct log_channel {
	/* owner: the channel's thread */
	struct log *log;
	bool open, truncated;
	uint32_t length; /* of line[] */
	int64_t second;	 /* that second_text tells */
	char second_text[24];
	uint32_t free_from; /* `tail` as last seen */
	char *ring;
	char line[LINE_BYTES_MAX];
	/* shared: bytes ever written; stored by the owner */
	_Alignas(CACHE_LINE) _Atomic uint32_t head;
	_Atomic uint64_t lost; /* lines without room; taken by the writer */
	/* shared: bytes ever read; stored by the writer */
	_Alignas(CACHE_LINE) _Atomic uint32_t tail;
};

enum writer_state { WRITER_SLEEPS, WRITER_NAPS, WRITER_WORKS };

/* Where the lines go. */
struct log_target {
	int fd;
	char *path; /* owned; NULL: standard output */
};

struct log {
	/* owner: the writer thread, once it runs */
	struct log_target target;
	bool torn;	    /* the file ends within a line */
	bool failing;	    /* the last write failed: said once */
	uint64_t lost_disk; /* lines that the disk did not take */
	struct os_thread *thread;
	uint32_t channel_count;
	struct log_channel *channels;
	struct log_channel *own; /* the last of the channels: the writer's lines about losses */
	/* shared */
	_Alignas(CACHE_LINE) _Atomic uint32_t state; /* enum writer_state */
	_Atomic bool stop, reopen;
	_Atomic(struct log_target *) next; /* owned until the writer takes it */
};

/* ── the channel's thread ─────────────────────────────────────────────────────────── */

static void line_add(struct log_channel *channel, const char *bytes, size_t count)
{
	assert(channel->length + count <= LINE_BYTES_MAX);
	memcpy(channel->line + channel->length, bytes, count);
	channel->length += (uint32_t)count;
}

/* `,"key":`, if the line has room for that and `more` bytes. */
static bool key_add(struct log_channel *channel, const char *key, size_t more)
{
	size_t length = strlen(key);

	assert(channel->open);
	if (channel->length + length + 4 + more + LINE_END_MAX > LINE_BYTES_MAX) {
		channel->truncated = true;
		return false;
	}
	line_add(channel, ",\"", 2);
	line_add(channel, key, length);
	line_add(channel, "\":", 2);
	return true;
}

/* "2026-11-22T01:05:26" in UTC, formatted once a second. */
static void time_add(struct log_channel *channel, struct os_wall when)
{
	int64_t us = when.us >= 0 ? when.us : 0;
	uint32_t ms = (uint32_t)(us % OS_US_PER_S / 1000);
	char tail[6] = {
		'.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z',
		'"'
	};

	if (us / OS_US_PER_S != channel->second) {
		time_t second = (time_t)(us / OS_US_PER_S);
		struct tm tm;

		gmtime_r(&second, &tm);
		strftime(channel->second_text, sizeof(channel->second_text), "%Y-%m-%dT%H:%M:%S",
			 &tm);
		channel->second = second;
	}
	line_add(channel, "{\"time\":\"", 9);
	line_add(channel, channel->second_text, strlen(channel->second_text));
	line_add(channel, tail, sizeof(tail));
}

void log_begin(struct log_channel *channel, struct os_wall when, const char *event)
{
	assert(!channel->open);
	channel->open = true;
	channel->truncated = false;
	channel->length = 0;
	time_add(channel, when);
	log_text(channel, "event", span_text(event));
}

void log_text(struct log_channel *channel, const char *key, struct span text)
{
	size_t room, used, taken;

	if (!key_add(channel, key, LINE_RESERVE))
		return;
	line_add(channel, "\"", 1);
	room = LINE_BYTES_MAX - LINE_RESERVE - channel->length;
	taken = log_escape(text, channel->line + channel->length, room, &used);
	channel->length += (uint32_t)used;
	channel->truncated |= taken < text.len;
	line_add(channel, "\"", 1);
}

void log_number(struct log_channel *channel, const char *key, int64_t number)
{
	char digits[24];
	size_t at = sizeof(digits);
	uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;

	if (!key_add(channel, key, sizeof(digits)))
		return;
	do
		digits[--at] = (char)('0' + rest % 10);
	while ((rest /= 10) > 0);
	if (number < 0)
		digits[--at] = '-';
	line_add(channel, digits + at, sizeof(digits) - at);
}

static void writer_wake(struct log *log)
{
	if (atomic_exchange(&log->state, WRITER_WORKS) != WRITER_WORKS)
		os_futex_wake(&log->state);
}

void log_end(struct log_channel *channel)
{
	struct log *log = channel->log;
	uint32_t head = atomic_load_explicit(&channel->head, memory_order_relaxed); /* our own */
	uint32_t at = head % RING_BYTES, first = RING_BYTES - at, used;

	assert(channel->open);
	channel->open = false;
	if (channel->truncated)
		line_add(channel, ",\"truncated\":true", 17);
	line_add(channel, "}\n", 2);
	if (head + channel->length - channel->free_from > RING_BYTES / 2)
		/* Acquire: what the writer read of these bytes, it has read. */
		channel->free_from = atomic_load_explicit(&channel->tail, memory_order_acquire);
	used = head - channel->free_from;
	if (used + channel->length > RING_BYTES) {
		atomic_fetch_add_explicit(&channel->lost, 1, memory_order_relaxed); /* a count */
		return;
	}
	if (first > channel->length)
		first = channel->length;
	memcpy(channel->ring + at, channel->line, first);
	memcpy(channel->ring, channel->line + first, channel->length - first);
	/* Sequentially consistent, as in writer_rest(): either we see that the writer sleeps, or
	 * it sees this line before it does. */
	atomic_store(&channel->head, head + channel->length);
	switch ((enum writer_state)atomic_load(&log->state)) {
	case WRITER_SLEEPS:
		writer_wake(log);
		break;
	case WRITER_NAPS:
		if (used + channel->length > RING_BYTES / 2)
			writer_wake(log);
		break;
	case WRITER_WORKS:
		break;
	}
}

/* ── the writer thread ────────────────────────────────────────────────────────────── */

static uint64_t lines_in(const struct iovec *iov, int count)
{
	uint64_t lines = 0;

	for (int i = 0; i < count; i++)
		for (const char *at = iov[i].iov_base, *end = at + iov[i].iov_len;
		     (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
			lines++;
	return lines;
}

/* Steps over what was written; its last byte. */
static char iov_skip(struct iovec **iov, int *count, size_t bytes)
{
	char last = '\n';

	assert(bytes > 0);
	while (bytes > 0) {
		size_t step = bytes < (*iov)->iov_len ? bytes : (*iov)->iov_len;
		char *at = (*iov)->iov_base;

		if (step > 0)
			last = at[step - 1];
		bytes -= step;
		(*iov)->iov_base = at + step;
		(*iov)->iov_len -= step;
		if ((*iov)->iov_len == 0) {
			++*iov;
			--*count;
		}
	}
	return last;
}

/* All of it, or a failure that is told and counted: the lines are gone, the daemon goes on. */
static void bytes_write(struct log *log, struct iovec *iov, int count)
{
	ssize_t put = 0;

	while (count > 0) {
		put = os_file_append(log->target.fd, iov, count);
		if (put <= 0)
			break;
		log->torn = iov_skip(&iov, &count, (size_t)put) != '\n';
	}
	if (count == 0) {
		log->failing = false;
		return;
	}
	log->lost_disk += lines_in(iov, count);
	if (!log->failing)
		log_notice(LOG_ERROR, "the delivery log cannot be written: %s; lines are lost",
			   strerror(put < 0 ? (int)-put : ENOSPC));
	log->failing = true;
}

/* The unread bytes of a ring, as one or two vectors; how many vectors. */
static int channel_bytes(struct log_channel *channel, struct iovec iov[static 2], uint32_t *end_out)
{
	uint32_t tail = atomic_load_explicit(&channel->tail, memory_order_relaxed); /* our own */
	uint32_t count, at = tail % RING_BYTES, first = RING_BYTES - at;

	/* Sequentially consistent for writer_rest(); also makes the bytes visible. */
	*end_out = atomic_load(&channel->head);
	count = *end_out - tail;
	if (first > count)
		first = count;
	if (count == 0)
		return 0;
	iov[0] = (struct iovec){ channel->ring + at, first };
	iov[1] = (struct iovec){ channel->ring, count - first };
	return count > first ? 2 : 1;
}

/* One write of what all rings hold; false if that was nothing. */
static bool rings_write(struct log *log)
{
	struct iovec iov[2 * CHANNELS_MAX + 1] = { 0 };
	uint32_t ends[CHANNELS_MAX];
	int count = 1; /* the first is for the end of a torn line */

	for (uint32_t i = 0; i < log->channel_count; i++)
		count += channel_bytes(&log->channels[i], iov + count, &ends[i]);
	if (count == 1)
		return false;
	iov[0] = (struct iovec){ "\n", 1 };
	bytes_write(log, log->torn ? iov : iov + 1, log->torn ? count : count - 1);
	for (uint32_t i = 0; i < log->channel_count; i++)
		/* Release: these bytes were read before the owner may overwrite them. */
		atomic_store_explicit(&log->channels[i].tail, ends[i], memory_order_release);
	return true;
}

/* Says in the log what is missing from it. */
static void lost_tell(struct log *log)
{
	uint64_t lost = 0;

	for (uint32_t i = 0; i < log->channel_count; i++)
		/* Relaxed: counts, which order nothing. */
		if (atomic_load_explicit(&log->channels[i].lost, memory_order_relaxed) > 0)
			lost += atomic_exchange_explicit(&log->channels[i].lost, 0,
							 memory_order_relaxed);
	if (!log->failing) {
		lost += log->lost_disk;
		log->lost_disk = 0;
	} else {
		log->lost_disk += lost;
		return;
	}
	if (lost == 0)
		return;
	log_notice(LOG_WARNING, "%" PRIu64 " lines of the delivery log were lost", lost);
	log_begin(log->own, os_wall_now(), "log-lost");
	log_number(log->own, "count", (int64_t)lost);
	log_end(log->own);
}

static int log_file_open(const char *path)
{
	return os_file_open(OS_CURRENT_FOLDER, path, OS_WRITE | OS_APPEND | OS_CREATE, 0640);
}

/* Whether it ends in the middle of a line, as a daemon that was killed in a write leaves it. */
static bool target_is_torn(const struct log_target *target)
{
	struct os_file_facts facts;
	char last = '\n';
	int fd;

	if (target->path == NULL || os_file_facts(target->fd, &facts) != 0 || !facts.regular ||
	    facts.bytes == 0)
		return false;
	fd = os_file_open(OS_CURRENT_FOLDER, target->path, OS_READ, 0);
	if (fd < 0)
		return false; /* we may not look: at worst one line more is not whole */
	if (os_file_read(fd, &last, 1, facts.bytes - 1) != 1)
		last = '\n';
	os_file_close(fd);
	return last != '\n';
}

/* False: no memory, or *error_out says why there is no such file. */
static bool target_open(struct log_target *target, const char *path, int *error_out)
{
	*target = (struct log_target){ .fd = 1 }; /* standard output */
	*error_out = 0;
	if (path == NULL || strcmp(path, "-") == 0)
		return true;
	target->path = strdup(path);
	target->fd = target->path != NULL ? log_file_open(path) : -ENOMEM;
	if (target->fd >= 0)
		return true;
	*error_out = target->fd;
	free(target->path);
	target->path = NULL;
	return false;
}

static void target_close(struct log_target *target)
{
	if (target->path != NULL)
		os_file_close(target->fd);
	free(target->path);
}

int log_target_open(const char *path, struct log_target **out)
{
	struct log_target *target = malloc(sizeof(*target));
	int failed = -ENOMEM;

	if (target == NULL || !target_open(target, path, &failed)) {
		free(target);
		return failed;
	}
	*out = target;
	return 0;
}

void log_target_close(struct log_target *target)
{
	if (target != NULL)
		target_close(target);
	free(target);
}

static void target_change(struct log *log, struct log_target *next)
{
	target_close(&log->target);
	log->target = *next;
	log->torn = target_is_torn(&log->target);
	free(next);
}

static void file_reopen(struct log *log)
{
	struct log_target *next = atomic_exchange(&log->next, NULL);
	int fd;

	if (next != NULL)
		target_change(log, next);
	if (next != NULL || log->target.path == NULL)
		return;
	fd = log_file_open(log->target.path);
	if (fd < 0) {
		log_notice(LOG_ERROR, "%s cannot be opened: %s; the old file is kept",
			   log->target.path, strerror(-fd));
		return;
	}
	os_file_close(log->target.fd);
	log->target.fd = fd;
	log->torn = target_is_torn(&log->target);
}

/* Naps, or after long silence sleeps; returns when there may be something to do. */
static void writer_rest(struct log *log, uint32_t quiet_naps)
{
	bool nap = quiet_naps < NAPS_BEFORE_BED;
	enum writer_state state = nap ? WRITER_NAPS : WRITER_SLEEPS;
	bool pending = false;

	atomic_store(&log->state, state);
	for (uint32_t i = 0; !nap && !pending && i < log->channel_count; i++)
		pending = atomic_load(&log->channels[i].head) !=
			  atomic_load_explicit(&log->channels[i].tail, memory_order_relaxed);
	if (!pending && !atomic_load(&log->stop) && !atomic_load(&log->reopen))
		os_futex_wait(&log->state, state,
			      nap ? os_mono_add_ms(os_mono_now(), NAP_MS)
				  : (struct os_mono){ UINT64_MAX });
	atomic_store(&log->state, WRITER_WORKS);
}

static void writer_run(void *context)
{
	struct log *log = context;
	uint32_t quiet_naps = 0;

	for (;;) {
		bool stop = atomic_load(&log->stop); /* before the rings: then they are complete */

		if (atomic_exchange(&log->reopen, false))
			file_reopen(log);
		lost_tell(log);
		quiet_naps = rings_write(log) ? 0 : quiet_naps + 1;
		if (stop && quiet_naps > 0)
			return;
		if (!stop)
			writer_rest(log, quiet_naps);
	}
}

/* ── open and close ───────────────────────────────────────────────────────────────── */

static int channels_create(struct log *log)
{
	log->channels = aligned_alloc(CACHE_LINE, log->channel_count * sizeof(*log->channels));
	if (log->channels == NULL)
		return -ENOMEM;
	memset(log->channels, 0, log->channel_count * sizeof(*log->channels));
	for (uint32_t i = 0; i < log->channel_count; i++) {
		log->channels[i].log = log;
		log->channels[i].second = -1;
		log->channels[i].ring = malloc(RING_BYTES);
		if (log->channels[i].ring == NULL)
			return -ENOMEM;
	}
	log->own = &log->channels[log->channel_count - 1];
	return 0;
}

static void log_free(struct log *log)
{
	log_target_close(atomic_exchange(&log->next, NULL));
	target_close(&log->target);
	for (uint32_t i = 0; log->channels != NULL && i < log->channel_count; i++)
		free(log->channels[i].ring);
	free(log->channels);
	free(log);
}

int log_open(const char *path, uint32_t channels, struct log **out)
{
	struct log *log = aligned_alloc(CACHE_LINE, sizeof(*log));
	int failed;

	assert(channels > 0 && channels < CHANNELS_MAX);
	if (log == NULL)
		return -ENOMEM;
	memset(log, 0, sizeof(*log));
	log->channel_count = channels + 1;
	if (target_open(&log->target, path, &failed))
		failed = channels_create(log);
	log->torn = failed == 0 && target_is_torn(&log->target);
	if (failed == 0)
		failed = os_thread_start(&log->thread, "log", writer_run, log);
	if (failed == 0)
		*out = log;
	else
		log_free(log);
	return failed;
}

void log_close(struct log *log)
{
	atomic_store(&log->stop, true);
	writer_wake(log);
	os_thread_join(log->thread);
	log_free(log);
}

void log_reopen(struct log *log)
{
	atomic_store(&log->reopen, true);
	writer_wake(log);
}

void log_move(struct log *log, struct log_target *target)
{
	log_target_close(atomic_exchange(&log->next, target));
	log_reopen(log);
}

struct log_channel *log_channel(struct log *log, uint32_t index)
{
	assert(index + 1 < log->channel_count);
	return &log->channels[index];
}

/* ── the daemon's own words ───────────────────────────────────────────────────────── */

void log_notice(enum log_level level, const char *format, ...)
{
	static const char *const names[] = { "error", "warning", "notice" };
	char text[2048], line[4096];
	size_t used;
	struct iovec iov;
	va_list list;
	int length = snprintf(line, sizeof(line), "stafetted: %s: ", names[level]);

	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	log_escape_plain(span_text(text), line + length, sizeof(line) - (size_t)length - 1, &used);
	line[(size_t)length + used] = '\n';
	iov = (struct iovec){ line, (size_t)length + used + 1 };
	/* If standard error is gone, there is nobody left to tell. */
	(void)!os_file_append(2, &iov, 1);
}
