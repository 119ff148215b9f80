/* Disks that fail, fill up, or return something else than was written. */
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "os/check.h"
#include "tests/unit/queue_world.h"

static enum queue_status accept_status_of(struct world *world, uint64_t bytes, uint64_t *id_out)
{
	struct world_accept accept;

	world_start_envelope(world);
	world_add_recipients(world, "a.example", 1);
	world_fill(world, &accept, bytes);
	*id_out = accept.accept.message->id;
	assert_true(envelope_seal(world->builder, &accept.accept.envelope));
	queue_accept(world->stream, &accept.accept);
	world_until(world, accept.done);
	if (accept.status != QUEUE_OK)
		queue_message_unref(accept.accept.message);
	return accept.status;
}

static enum queue_status accept_status(struct world *world, uint64_t bytes)
{
	uint64_t id;

	return accept_status_of(world, bytes, &id);
}

/* From now on every write to `fd` fails. */
static void break_descriptor(int fd)
{
	int other = open("/dev/null", O_RDONLY);

	assert_true(other >= 0 && dup2(other, fd) == fd);
	close(other);
}

static void test_failed_commit_moves_on(void **state)
{
	struct world *world = *state;
	uint32_t sequence;

	world_begin(world);
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	sequence = world->stream->commit.tape.file->file.sequence;
	break_descriptor(world->stream->commit.tape.file->file.fd);
	assert_int_equal(accept_status(world, 200), QUEUE_OK);
	assert_true(world->stream->commit.tape.file->file.sequence > sequence);
	assert_false(world->broken);
	assert_int_equal(accept_status(world, 300), QUEUE_OK);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 3);
	world_end(world);
}

/* What is synced in place of what was written durably, and can't be; -1: that itself. */
static int unconfirmed_fd = -1;

/* What is written to `fd` from now on is acknowledged, and gone; only a sync by itself tells. */
static void forget_descriptor(int fd)
{
	int other = open("/dev/null", O_RDWR);

	assert_true(other >= 0 && dup2(other, fd) == fd);
	close(other);
}

static void test_falsely_acknowledged_commit_moves_on(void **state)
{
	struct world *world = *state;
	uint32_t sequence;

	world_begin(world);
	world->stream->pool->confirms = true;
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	sequence = world->stream->commit.tape.file->file.sequence;
	forget_descriptor(world->stream->commit.tape.file->file.fd);
	assert_int_equal(accept_status(world, 200), QUEUE_OK);
	assert_true(world->stream->commit.tape.file->file.sequence > sequence);
	assert_false(world->broken);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 2);
	world_end(world);
}

static void test_second_false_acknowledgement_breaks(void **state)
{
	struct world *world = *state;
	struct tape *tape;

	world_begin(world);
	world->stream->pool->confirms = true;
	tape = &world->stream->commit.tape;
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	world_until(world, tape->next != NULL);
	forget_descriptor(tape->file->file.fd);
	forget_descriptor(tape->next->file.fd);
	assert_int_equal(accept_status(world, 200), QUEUE_UNKNOWN);
	assert_true(world->broken);
	world_end(world);
}

/* The record is on the disk although nobody could say so: a start delivers it with its body. */
static void test_big_body_in_doubt_stays(void **state)
{
	struct world *world = *state;
	struct queue_job *job;
	struct tape *tape;
	uint64_t id;

	world->options.outcome_sync_ms = 60000; /* no MARK goes behind it */
	world_begin(world);
	world->stream->pool->confirms = true;
	tape = &world->stream->commit.tape;
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	world_until(world, tape->next != NULL);
	break_descriptor(tape->next->file.fd);
	unconfirmed_fd = open("/dev/null", O_RDWR);
	assert_int_equal(accept_status_of(world, 2 << 20, &id), QUEUE_UNKNOWN);
	close(unconfirmed_fd);
	unconfirmed_fd = -1;
	assert_true(world->broken);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 2);
	world_until(world, (job = world_take(world, "a.example")) != NULL);
	if (job->message_id != id) {
		world_deliver(world, job);
		world_until(world, (job = world_take(world, "a.example")) != NULL);
	}
	assert_int_equal(job->message_id, id);
	assert_int_equal(world->loaded_status, QUEUE_OK);
	assert_int_equal(job->message->body_bytes, 2 << 20);
	world_deliver(world, job);
	world_end(world);
}

/* A file that fails at its header is passed over; the next names the last one with chunks. */
static void test_failed_header_is_passed_over(void **state)
{
	_Alignas(FORMAT_PAGE_BYTES) char page[FORMAT_PAGE_BYTES];
	struct world *world = *state;
	uint32_t first, failed, end = 0;
	struct format_file header;
	struct tape *tape;

	world_begin(world);
	tape = &world->stream->commit.tape;
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	first = tape->file->file.sequence;
	world_until(world, tape->next != NULL);
	failed = tape->next->file.sequence;
	break_descriptor(tape->next->file.fd);
	while (tape->file->file.sequence == first) {
		end = tape->file->end_pages;
		assert_int_equal(accept_status(world, 100000), QUEUE_OK);
	}
	assert_true(tape->file->file.sequence > failed);
	assert_int_equal(pread(tape->file->file.fd, page, sizeof(page), 0), sizeof(page));
	memcpy(&header, page, sizeof(header));
	assert_int_equal(header.previous_sequence, first);
	assert_int_equal(header.previous_end, end);
	world_end(world);
}

static void test_second_failure_breaks(void **state)
{
	struct world *world = *state;

	world_begin(world);
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	world_until(world, world->stream->commit.tape.next != NULL);
	break_descriptor(world->stream->commit.tape.file->file.fd);
	break_descriptor(world->stream->commit.tape.next->file.fd);
	/* The first may lie in either file; of the second nothing was written. */
	assert_int_equal(accept_status(world, 200), QUEUE_UNKNOWN);
	assert_true(world->broken);
	assert_int_equal(accept_status(world, 200), QUEUE_BROKEN);
	assert_false(queue_stream_may_dispatch(world->stream));
	assert_int_equal(queue_stream_room(world->stream, 0), QUEUE_BROKEN);
	world_end(world);
	world_begin(world);
	assert_int_equal(world_jobs(world), 1);
	world_end(world);
}

static void test_failed_journal_breaks(void **state)
{
	struct world *world = *state;

	world_begin(world);
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	break_descriptor(world->stream->journal.tape.file->file.fd);
	world_deliver(world, world_take(world, "a.example"));
	world_until(world, world->broken);
	world_end(world);
	world_begin(world);
	/* The outcome never reached the disk: offered again, and said to be so. */
	assert_int_equal(world_jobs(world), 1);
	world_run_ms(world, 20);
	struct queue_job *job = world_take(world, "a.example");

	assert_true((job->flags & FORMAT_JOB_MAYBE_DUPLICATE) != 0);
	world_deliver(world, job);
	world_end(world);
}

/* Changes one byte of the message's record, `at` bytes behind its start. */
static void damage(const struct world *world, const struct format_job *job, uint32_t at)
{
	char path[128];
	off_t offset = (off_t)job->place * FORMAT_RECORD_ALIGN + at;
	char byte;
	int fd;

	snprintf(path, sizeof(path), "%s/seg/%08x", world->path, job->segment);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte = (char)(byte ^ 1);
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	assert_int_equal(fsync(fd), 0);
	close(fd);
}

static struct queue_job *take_damaged(struct world *world, uint32_t at)
{
	world->options.body_memory_bytes = 1;
	world_begin(world);
	assert_int_equal(accept_status(world, 5000), QUEUE_OK);
	damage(world, index_job(&world->stream->index, 0), at);
	struct queue_job *job =
		queue_take(world->stream, stream_dest(world->stream, span_text("a.example")));

	world_until(world, world->loaded == job);
	assert_int_equal(world->loaded_status, QUEUE_DAMAGED);
	assert_true((job->flags & FORMAT_JOB_DAMAGED) != 0);
	return job;
}

static void test_damaged_body_keeps_envelope(void **state)
{
	struct world *world = *state;
	struct queue_job *job = take_damaged(world, 2000);

	assert_non_null(job->message);
	assert_int_equal(job->message->body.len, 0);
	assert_true(span_equal(envelope_sender(job->message->envelope),
			       span_text("sender@example.org")));
	world_deliver(world, job);
	world_end(world);
}

static void test_damaged_envelope_gives_nothing(void **state)
{
	struct world *world = *state;
	struct queue_job *job = take_damaged(world, sizeof(struct format_message) + 6);

	assert_null(job->message);
	world_defer(world, job, 1);
	/* Held from now on, until it expires. */
	world_run_ms(world, 50);
	assert_null(world_take(world, "a.example"));
	assert_null(queue_take_expired(world->stream));
	struct format_job held = *index_job(&world->stream->index, 0);

	assert_true((held.flags & FORMAT_JOB_HELD) != 0);
	held.expiry_s = 2;
	index_store(&world->stream->index, 0, &held);
	world->stream->expired_pause.ns = 0;
	job = queue_take_expired(world->stream);
	assert_non_null(job);
	assert_true(job->expired);
	world_until(world, !list_linked(&job->loading));
	world_deliver(world, job);
	assert_int_equal(world_jobs(world), 0);
	world_end(world);
}

/* Held, seen, and tried once in each epoch; never again and again. */
static void test_expired_without_envelope_stays_held(void **state)
{
	struct world *world = *state;
	struct queue_job *job = take_damaged(world, sizeof(struct format_message) + 6);
	struct format_job held;

	world_defer(world, job, 1);
	held = *index_job(&world->stream->index, 0);
	held.expiry_s = 2;
	index_store(&world->stream->index, 0, &held);
	for (int epoch = 0; epoch < 2; epoch++) {
		job = queue_take_expired(world->stream);
		assert_non_null(job);
		world_until(world, !list_linked(&job->loading));
		assert_null(job->message);
		world_defer(world, job, 1);
		world_run_ms(world, 50);
		world->stream->expired_pause.ns = 0;
		assert_null(queue_take_expired(world->stream));
		assert_null(world_take(world, "a.example"));
		assert_int_equal(world_jobs(world), 1);
		world_reopen(world);
		held = *index_job(&world->stream->index, 0);
		assert_true((held.flags & FORMAT_JOB_HELD) != 0);
	}
	world_end(world);
}

/* A message whose segment gives EIO from now on; what is to be put back for `*fd_out`. */
static int accept_unreadable(struct world *world, int *fd_out)
{
	int fd, saved, other = open("/proc/self/mem", O_RDONLY);
	char byte;

	assert_true(other >= 0 && pread(other, &byte, 1, 4096) < 0 && errno == EIO);
	world->options.body_memory_bytes = 1;
	world_begin(world);
	assert_int_equal(accept_status(world, 5000), QUEUE_OK);
	fd = segments_find(&world->stream->segments, index_job(&world->stream->index, 0)->segment)
		     ->tape->file.fd;
	saved = dup(fd);
	assert_true(saved >= 0 && dup2(other, fd) == fd);
	close(other);
	*fd_out = fd;
	return saved;
}

static void test_read_error_is_no_damage(void **state)
{
	struct world *world = *state;
	struct queue_job *job;
	int fd, saved = accept_unreadable(world, &fd);

	job = world_take(world, "a.example");
	assert_int_equal(world->loaded_status, QUEUE_BROKEN);
	assert_null(job->message);
	assert_int_equal(job->flags & FORMAT_JOB_DAMAGED, 0);
	world_defer(world, job, 1);
	assert_int_equal(index_job(&world->stream->index, 0)->flags &
				 (FORMAT_JOB_DAMAGED | FORMAT_JOB_HELD),
			 0);
	assert_int_equal(dup2(saved, fd), fd);
	close(saved);
	world_until(world, (job = world_take(world, "a.example")) != NULL);
	assert_int_equal(world->loaded_status, QUEUE_OK);
	assert_true(job->message->body.len > 0);
	world_deliver(world, job);
	world_end(world);
}

/* Tried for a day beyond its expiry, then held. */
static void test_read_error_for_good_ends(void **state)
{
	struct world *world = *state;
	int fd, saved = accept_unreadable(world, &fd);
	struct queue_job *job = world_take(world, "a.example");
	struct format_job late;

	world_defer(world, job, 1);
	for (int day = 0; day < 2; day++) {
		late = *index_job(&world->stream->index, 0);
		late.expiry_s = os_wall_seconds(os_wall_now()) - 86400 * (uint32_t)day - 60;
		index_store(&world->stream->index, 0, &late);
		world_until(world, (job = queue_take_expired(world->stream)) != NULL ||
					   (world->stream->expired_pause.ns = 0));
		assert_true(job->expired);
		world_until(world, !list_linked(&job->loading));
		assert_null(job->message);
		assert_int_equal(world->loaded_status, day == 0 ? QUEUE_BROKEN : QUEUE_DAMAGED);
		world_defer(world, job, 1);
		late = *index_job(&world->stream->index, 0);
		assert_int_equal((late.flags & FORMAT_JOB_HELD) != 0, day);
	}
	world_run_ms(world, 50);
	world->stream->expired_pause.ns = 0;
	assert_null(queue_take_expired(world->stream));
	assert_int_equal(dup2(saved, fd), fd);
	close(saved);
	world_end(world);
}

/* ── a full disk ──────────────────────────────────────────────────────────────────── */

static void test_full_disk_refuses_and_goes_on(void **state)
{
	struct world *world = *state;
	uint32_t accepted = 0;

	if (mount("none", world->path, "tmpfs", 0, "size=24m") != 0)
		skip();
	world->options.space_low_bytes = 4 << 20;
	world_begin(world);
	while (accept_status(world, 100000) == QUEUE_OK)
		assert_true(++accepted < 400);
	assert_true(accepted > 50);
	assert_false(world->broken);
	world_until(world, world->space_low);
	assert_int_equal(queue_stream_room(world->stream, 1000), QUEUE_SPACE);
	for (uint32_t i = 0; i < accepted; i++)
		world_deliver(world, world_take(world, "a.example"));
	world_until(world, !world->space_low);
	assert_int_equal(accept_status(world, 100000), QUEUE_OK);
	world_reopen(world);
	assert_int_equal(world_jobs(world), 1);
	world_end(world);
	assert_int_equal(umount(world->path), 0);
}

/* Nobody may go on as if the message were not there: a report's recipients would be tried again. */
static void test_failure_without_room_breaks(void **state)
{
	struct world *world = *state;

	if (mount("none", world->path, "tmpfs", 0, "size=24m") != 0)
		skip();
	world_begin(world);
	while (accept_status(world, 100000) == QUEUE_OK)
		continue;
	assert_false(world->broken);
	assert_null(world->stream->commit.tape.next);
	break_descriptor(world->stream->commit.tape.file->file.fd);
	assert_int_equal(accept_status(world, 100), QUEUE_UNKNOWN);
	assert_true(world->broken);
	assert_int_equal(accept_status(world, 100), QUEUE_BROKEN);
	assert_false(queue_stream_may_dispatch(world->stream));
	world_end(world);
	assert_int_equal(umount(world->path), 0);
}

/* ── a sync that fails ────────────────────────────────────────────────────────────── */

static _Atomic int32_t syncs_before_failure = -1; /* < 0: none fails */
static _Atomic int rename_error;		  /* of all; 0: none fails */

/* Files whose cached pages were dropped, while they are counted. */
static struct {
	bool counts;
	ino_t files[64];
	size_t count;
	uint32_t reads, cached_reads; /* of super, seg/ and jnl/; of those without a drop before */
} dropped;

static ino_t file_number(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

/* What lies in free/ decides nothing. */
static bool decides(int fd)
{
	char link[32], path[128] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, path, sizeof(path) - 1) > 0 &&
	       (strstr(path, "/super") || strstr(path, "/seg/") || strstr(path, "/jnl/"));
}

static bool is_dropped(int fd)
{
	for (size_t i = 0; i < dropped.count; i++)
		if (dropped.files[i] == file_number(fd))
			return true;
	return false;
}

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
void __real_os_sync(struct os_loop *loop, struct os_op *op, int fd);
void __wrap_os_sync(struct os_loop *loop, struct os_op *op, int fd);

void __wrap_os_sync(struct os_loop *loop, struct os_op *op, int fd)
{
	__real_os_sync(loop, op, unconfirmed_fd >= 0 ? unconfirmed_fd : fd);
}

ssize_t __real_os_file_read(int fd, void *bytes, size_t count, uint64_t offset);
ssize_t __wrap_os_file_read(int fd, void *bytes, size_t count, uint64_t offset);
int __real_os_file_drop_cache(int fd);
int __wrap_os_file_drop_cache(int fd);

ssize_t __wrap_os_file_read(int fd, void *bytes, size_t count, uint64_t offset)
{
	if (dropped.counts && decides(fd)) {
		dropped.reads++;
		dropped.cached_reads += !is_dropped(fd);
	}
	return __real_os_file_read(fd, bytes, count, offset);
}

int __wrap_os_file_drop_cache(int fd)
{
	if (dropped.counts && dropped.count < array_count(dropped.files))
		dropped.files[dropped.count++] = file_number(fd);
	return __real_os_file_drop_cache(fd);
}

int __real_os_rename(int from_folder, const char *from, int to_folder, const char *to);
int __wrap_os_rename(int from_folder, const char *from, int to_folder, const char *to);

int __wrap_os_rename(int from_folder, const char *from, int to_folder, const char *to)
{
	int error = atomic_load(&rename_error);

	return error != 0 ? error : __real_os_rename(from_folder, from, to_folder, to);
}

int __real_os_file_sync(int fd);
int __wrap_os_file_sync(int fd);

int __wrap_os_file_sync(int fd)
{
	if (atomic_load(&syncs_before_failure) >= 0 &&
	    atomic_fetch_sub(&syncs_before_failure, 1) == 0)
		return -EIO;
	return __real_os_file_sync(fd);
}

/* Folders of the spool where this fails; NULL: none. */
static const char *unlisted, *unopened, *unmeasured;
static int opens_before_failure;

int __real_os_folder_list(int folder, int (*each)(void *context, const char *name), void *context);
int __wrap_os_folder_list(int folder, int (*each)(void *context, const char *name), void *context);

/* The path of what is open. */
static void path_of(int fd, char path[static 4096])
{
	char link[64];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, 4095);
	path[len > 0 ? len : 0] = '\0';
}

int __wrap_os_folder_list(int folder, int (*each)(void *context, const char *name), void *context)
{
	char path[4096];

	path_of(folder, path);
	if (unlisted && strcmp(strrchr(path, '/'), unlisted) == 0)
		return -EIO;
	return __real_os_folder_list(folder, each, context);
}

int64_t __real_os_file_size(int fd);
int64_t __wrap_os_file_size(int fd);

int64_t __wrap_os_file_size(int fd)
{
	char path[4096];

	path_of(fd, path);
	return unmeasured && strstr(path, unmeasured) ? -EIO : __real_os_file_size(fd);
}

int __real_os_file_open(int folder, const char *path, int flags, mode_t mode);
int __wrap_os_file_open(int folder, const char *path, int flags, mode_t mode);

int __wrap_os_file_open(int folder, const char *path, int flags, mode_t mode)
{
	if (unopened && strcmp(path, unopened) == 0 && opens_before_failure-- == 0)
		return -EMFILE;
	return __real_os_file_open(folder, path, flags, mode);
}
/* NOLINTEND(bugprone-reserved-identifier) */

struct take {
	struct pool_request request;
	bool over;
};

static void on_take(struct pool_request *request)
{
	container_of(request, struct take, request)->over = true;
}

static int count_file(void *context, const char *name)
{
	(void)name;
	++*(int *)context;
	return 0;
}

/* What a start does not see would be forgotten: it refuses, and the next one finds all. */
static void test_unseen_is_not_absent(void **state)
{
	static const struct {
		const char **fails, *at;
	} rows[] = {
		{ &unlisted, "/seg" },	  { &unlisted, "/jnl" }, { &unmeasured, "/seg/" },
		{ &unmeasured, "/jnl/" }, { &unopened, "seg" },	 { &unopened, "jnl" },
		{ &unopened, "big" },
	};
	struct world *world = *state;
	char error[512];

	world_begin(world);
	assert_int_equal(accept_status(world, 2 << 20), QUEUE_OK);
	world_end(world);
	for (size_t i = 0; i < array_count(rows); i++) {
		*rows[i].fails = rows[i].at;
		opens_before_failure = 1; /* behind that of what recycles files */
		assert_null(queue_open(&world->options, world_report, world, error));
		*rows[i].fails = NULL;
		assert_non_null(strstr(error, rows[i].at));
	}
	world_begin(world);
	assert_int_equal(world_jobs(world), 1);
	world_end(world);
}

/* A stream tries again and again to have a file ahead: nothing of it may stay behind. */
static void test_broken_folder_takes_no_more_files(void **state)
{
	struct world *world = *state;
	int before = 0, after = 0;
	struct pool *pool;

	world_begin(world);
	pool = world->stream->pool;
	world_until(world, world->stream->journal.tape.next != NULL);
	atomic_store(&syncs_before_failure, 0);
	assert_int_equal(pool_sync_folder(pool, POOL_JOURNALS), -EIO);
	os_folder_list(pool->folders[POOL_JOURNALS], count_file, &before);
	for (int i = 0; i < 3; i++) {
		struct take take = {
			.request = { .pool = pool, .kind = FORMAT_JOURNAL, .done = on_take }
		};

		pool_take(world->loop, &take.request);
		world_until(world, take.over);
		assert_int_equal(take.request.status, -EIO);
	}
	os_folder_list(pool->folders[POOL_JOURNALS], count_file, &after);
	assert_int_equal(after, before);
	world_end(world);
}

/* The reserve for journals stays, however often there is no room to take from it. */
static void test_full_disk_keeps_the_free_files(void **state)
{
	struct world *world = *state;
	struct pool *pool;
	uint32_t before;

	world_begin(world);
	pool = world->stream->pool;
	world_until(world, world->stream->journal.tape.next != NULL && pool->journals.count > 0 &&
				   !world->stream->stock.op.busy);
	before = pool->journals.count;
	for (int i = 0; i < 3; i++) {
		struct take take = {
			.request = { .pool = pool, .kind = FORMAT_JOURNAL, .done = on_take }
		};

		rename_error = -ENOSPC;
		pool_take(world->loop, &take.request);
		world_until(world, take.over);
		rename_error = 0;
		assert_int_equal(take.request.status, -ENOSPC);
		assert_int_equal(pool->journals.count, before);
	}
	struct take take = { .request = { .pool = pool, .kind = FORMAT_JOURNAL, .done = on_take } };

	pool_take(world->loop, &take.request);
	world_until(world, take.over);
	assert_int_equal(take.request.status, 0);
	os_file_close(take.request.file.fd);
	world_end(world);
}

/* What opening a new spool syncs, in its order. */
static const struct first_sync {
	const char *of;
	bool makes_super; /* it is part of making `super`, which must not stay without it */
} first_syncs[] = {
	{ "the folder, for its folders", false },
	{ "a copy of the superblock", true },
	{ "the other copy", true },
	{ "the folder, for the name super", true },
	{ "the superblock, before it is read", false },
	{ "the superblock of the first epoch", false },
};

/* R9: it may be in the cache alone, from where the next start would take it. */
static void test_unsynced_superblock_is_removed(void **state)
{
	struct world *world = *state;
	char super[80], error[512];

	snprintf(super, sizeof(super), "%s/super", world->path);
	for (int32_t i = 0; i < (int32_t)array_count(first_syncs); i++) {
		struct queue_options options = { .path = world->path, .streams = 1 };
		bool there = i > 0 && !first_syncs[i].makes_super;

		atomic_store(&syncs_before_failure, i);
		if (queue_open(&options, NULL, NULL, error) != NULL)
			fail_msg("opened without the sync of %s", first_syncs[i].of);
		assert_int_equal(atomic_load(&syncs_before_failure), -1);
		if ((access(super, F_OK) == 0) != there)
			fail_msg("without the sync of %s super is %s there", first_syncs[i].of,
				 there ? "not" : "still");
		unlink(super); /* each time a new spool */
	}
	world_begin(world);
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	world_end(world);
}

/* R9: pages that a failed sync has left there look like those that are on the disk. */
static void test_start_reads_past_the_cache(void **state)
{
	struct world *world = *state;

	world_begin(world);
	assert_int_equal(accept_status(world, 100), QUEUE_OK);
	world_end(world);
	dropped.counts = true;
	world_begin(world);
	dropped.counts = false;
	assert_true(dropped.reads > 0);
	assert_int_equal(dropped.cached_reads, 0);
	world_end(world);
}

static int full_teardown(void **state)
{
	struct world *world = *state;

	umount2(world->path, MNT_DETACH); /* of a failed test */
	return world_teardown(state);
}

#define world_test(name, function)                                                                 \
	{                                                                                          \
		name, function, world_setup, world_teardown, NULL                                  \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		world_test("a failed commit goes to the next file", test_failed_commit_moves_on),
		world_test("a write that is acknowledged and fails its confirmation goes on too",
			   test_falsely_acknowledged_commit_moves_on),
		world_test("a second one that is not confirmed stops the stream",
			   test_second_false_acknowledgement_breaks),
		world_test("a big body of which nobody knows stays for the next start",
			   test_big_body_in_doubt_stays),
		world_test("a file that fails at its header is passed over",
			   test_failed_header_is_passed_over),
		world_test("a second failure stops the stream", test_second_failure_breaks),
		world_test("a failed journal stops the stream", test_failed_journal_breaks),
		world_test("a failed read is tried again", test_read_error_is_no_damage),
		world_test("a damaged body leaves the envelope", test_damaged_body_keeps_envelope),
		world_test("a damaged envelope gives no message",
			   test_damaged_envelope_gives_nothing),
		world_test("one past its expiry without envelope is held and tried once a start",
			   test_expired_without_envelope_stays_held),
		world_test("a read that fails for good ends a day after the expiry",
			   test_read_error_for_good_ends),
		world_test("a start reads past the cache", test_start_reads_past_the_cache),
		world_test("a superblock that could not be synced is removed",
			   test_unsynced_superblock_is_removed),
		world_test("what can't be listed, opened or measured is not taken for absent",
			   test_unseen_is_not_absent),
		world_test("a folder whose sync failed takes no more files",
			   test_broken_folder_takes_no_more_files),
		world_test("a full disk keeps what is free", test_full_disk_keeps_the_free_files),
		{ "a write that fails with no room beside it stops the stream",
		  test_failure_without_room_breaks, world_setup, full_teardown, NULL },
		{ "a full disk refuses and goes on", test_full_disk_refuses_and_goes_on,
		  world_setup, full_teardown, NULL },
	};

	return cmocka_run_group_tests_name("queue_fault", tests, NULL, NULL);
}
