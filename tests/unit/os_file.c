/*
 * Files, blocking and on a loop, and shared memory. The files lie in /var/tmp, whose
 * file system is expected to know O_DIRECT.
 */
#include <errno.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"

static struct os_loop *loop;
static char folder_name[64];
static int folder;

struct waiter {
	struct os_op op;
	bool done;
};

static void on_waiter(struct os_op *op)
{
	container_of(op, struct waiter, op)->done = true;
}

static int32_t wait_for(struct waiter *waiter)
{
	while (!waiter->done)
		os_loop_turn(loop, os_mono_add_ms(os_mono_now(), 1000));
	waiter->done = false;
	return waiter->op.result;
}

static int setup(void **state)
{
	(void)state;
	snprintf(folder_name, sizeof(folder_name), "/var/tmp/os_file.XXXXXX");
	if (mkdtemp(folder_name) == NULL || os_loop_create(NULL, &loop) != 0)
		return -1;
	folder = os_file_open(OS_CURRENT_FOLDER, folder_name, OS_READ | OS_FOLDER, 0);
	return folder < 0 ? -1 : 0;
}

static int remove_entry(void *context, const char *name)
{
	(void)context;
	return os_unlink(folder, name);
}

static int teardown(void **state)
{
	(void)state;
	os_loop_destroy(loop);
	os_folder_list(folder, remove_entry, NULL);
	os_file_close(folder);
	return rmdir(folder_name);
}

/* ── on a loop ────────────────────────────────────────────────────────────────────── */

static void a_durable_write_is_read_back(void **state)
{
	struct waiter waiter = { .op.done = on_waiter };
	int fd = os_file_open(folder, "a", OS_READ | OS_WRITE | OS_CREATE_NEW, 0600);
	char back[32] = "";

	(void)state;
	assert_true(fd >= 0);
	os_write(loop, &waiter.op, fd, "0123456789", 10, 5, OS_WRITE_DURABLE);
	assert_int_equal(wait_for(&waiter), 10);
	os_sync(loop, &waiter.op, fd);
	assert_int_equal(wait_for(&waiter), 0);
	os_read(loop, &waiter.op, fd, back, sizeof(back), 5); /* short at the end */
	assert_int_equal(wait_for(&waiter), 10);
	assert_string_equal(back, "0123456789");
	os_read(loop, &waiter.op, fd, back, sizeof(back), 100);
	assert_int_equal(wait_for(&waiter), 0);
	assert_int_equal(os_file_size(fd), 15);
	os_file_close(fd);
}

static void direct_durable_writes_are_read_back(void **state)
{
	enum { BLOCKS = 64, BYTES = BLOCKS * 4096 };
	struct waiter waiter = { .op.done = on_waiter };
	int fd = os_file_open(folder, "d", OS_READ | OS_WRITE | OS_CREATE | OS_DIRECT, 0600);
	unsigned char *bytes = aligned_alloc(4096, BYTES), *back = aligned_alloc(4096, BYTES);

	(void)state;
	assert_true(fd >= 0);
	for (int i = 0; i < BYTES; i++)
		bytes[i] = (unsigned char)(i * 13 >> 3);
	for (int i = 0; i < BLOCKS; i++) {
		os_write(loop, &waiter.op, fd, bytes + i * 4096, 4096, (uint64_t)i * 4096,
			 OS_WRITE_DURABLE);
		assert_int_equal(wait_for(&waiter), 4096);
	}
	os_read(loop, &waiter.op, fd, back, BYTES, 0);
	assert_int_equal(wait_for(&waiter), BYTES);
	assert_memory_equal(bytes, back, BYTES);

	/* An odd end: short, and no error. */
	assert_int_equal(os_file_truncate(fd, BYTES - 4000), 0);
	os_read(loop, &waiter.op, fd, back, BYTES, 0);
	assert_int_equal(wait_for(&waiter), BYTES - 4000);
	assert_int_equal(os_file_read(fd, back, BYTES, 0), BYTES - 4000);
	os_file_close(fd);
	free(bytes);
	free(back);
}

static void many_writes_fly_at_once(void **state)
{
	enum { COUNT = 200 };
	static struct waiter waiters[COUNT];
	int fd = os_file_open(folder, "m", OS_READ | OS_WRITE | OS_CREATE, 0600);
	int values[COUNT], back[COUNT];

	(void)state;
	for (int i = 0; i < COUNT; i++) {
		values[i] = i;
		waiters[i] = (struct waiter){ .op.done = on_waiter };
		os_write(loop, &waiters[i].op, fd, &values[i], sizeof(int),
			 (uint64_t)i * sizeof(int), 0);
	}
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(wait_for(&waiters[i]), sizeof(int));
	assert_int_equal(os_file_read(fd, back, sizeof(back), 0), sizeof(back));
	assert_memory_equal(values, back, sizeof(back));
	os_file_close(fd);
}

static void errors_are_results(void **state)
{
	struct waiter waiter = { .op.done = on_waiter };
	int fd = os_file_open(folder, "r", OS_READ | OS_CREATE, 0600);
	int full = os_file_open(OS_CURRENT_FOLDER, "/dev/full", OS_WRITE, 0);

	(void)state;
	os_write(loop, &waiter.op, fd, "x", 1, 0, 0);
	assert_int_equal(wait_for(&waiter), -EBADF);
	os_write(loop, &waiter.op, full, "x", 1, 0, 0);
	assert_int_equal(wait_for(&waiter), -ENOSPC);
	assert_int_equal(os_file_write(full, "x", 1, 0), -ENOSPC);
	assert_int_equal(os_file_open(folder, "none", OS_READ, 0), -ENOENT);
	assert_int_equal(os_file_open(folder, "r", OS_WRITE | OS_CREATE_NEW, 0600), -EEXIST);
	os_file_close(full);
	os_file_close(fd);
}

/* ── blocking ─────────────────────────────────────────────────────────────────────── */

static int collect(void *context, const char *name)
{
	strcat(context, name);
	return strcmp(name, "stop") == 0 ? 7 : 0;
}

static void a_durable_folder_is_there_once(void **state)
{
	char path[128], missing[160];

	(void)state;
	snprintf(path, sizeof(path), "%s/made", folder_name);
	snprintf(missing, sizeof(missing), "%s/not/made", path);
	assert_int_equal(os_mkdir_durable(path, 0700), 0);
	assert_int_equal(os_mkdir_durable(path, 0700), 0);
	assert_int_equal(os_mkdir_durable(missing, 0700), -ENOENT);
	assert_int_equal(rmdir(path), 0);
}

static void names_come_and_go(void **state)
{
	char seen[64] = "";

	(void)state;
	assert_int_equal(os_mkdir(OS_CURRENT_FOLDER, folder_name, 0700), 0);
	assert_int_equal(os_folder_list(folder, collect, seen), 0);
	assert_string_equal(seen, "");
	os_file_close(os_file_open(folder, "one", OS_WRITE | OS_CREATE, 0600));
	assert_int_equal(os_rename(folder, "one", folder, "two"), 0);
	assert_int_equal(os_mkdir(folder, "two", 0700), -ENOTDIR);
	assert_int_equal(os_folder_list(folder, collect, seen), 0);
	assert_string_equal(seen, "two");
	assert_int_equal(os_file_sync(folder), 0);
	assert_int_equal(os_unlink(folder, "two"), 0);
	assert_int_equal(os_unlink(folder, "two"), -ENOENT);
	os_file_close(os_file_open(folder, "stop", OS_WRITE | OS_CREATE, 0600));
	assert_int_equal(os_folder_list(folder, collect, seen), 7);
}

static void appends_and_loads(void **state)
{
	int fd = os_file_open(folder, "log", OS_APPEND | OS_CREATE, 0600);
	struct iovec iov[2] = { { "one ", 4 }, { "line\n", 5 } };
	char *text;
	size_t count;

	(void)state;
	assert_int_equal(os_file_append(fd, iov, 2), 9);
	assert_int_equal(os_file_append(fd, iov, 2), 9);
	os_file_close(fd);
	assert_int_equal(os_file_load(folder, "log", 18, &text, &count), 0);
	assert_int_equal(count, 18);
	assert_string_equal(text, "one line\none line\n");
	free(text);
	assert_int_equal(os_file_load(folder, "log", 17, &text, &count), -EFBIG);
	assert_int_equal(os_file_load(folder, "gone", 17, &text, &count), -ENOENT);
	/* A file that does not tell its size. */
	assert_int_equal(os_file_load(OS_CURRENT_FOLDER, "/proc/self/maps", 1 << 20, &text, &count),
			 0);
	assert_true(count > 0 && strlen(text) == count);
	free(text);
}

static void a_lock_excludes(void **state)
{
	int first = os_file_open(folder, "lock", OS_WRITE | OS_CREATE, 0600);
	int second = os_file_open(folder, "lock", OS_WRITE, 0);

	(void)state;
	assert_int_equal(os_file_lock(first), 0);
	assert_int_equal(os_file_lock(second), -EWOULDBLOCK);
	os_file_close(first);
	assert_int_equal(os_file_lock(second), 0);
	os_file_close(second);
}

static void a_file_is_given_to_a_group(void **state)
{
	int fd = os_file_open(folder, "g", OS_WRITE | OS_CREATE, 0640);
	/* Root may give it to anybody. */
	struct group *own = getuid() == 0 ? getgrnam("daemon") : getgrgid(getgid());
	struct stat info;

	(void)state;
	assert_non_null(own);
	assert_int_equal(os_file_group(fd, own->gr_name), 0);
	assert_int_equal(fstat(fd, &info), 0);
	assert_int_equal(info.st_gid, own->gr_gid);
	assert_int_equal(os_file_group(fd, "no such group"), -ENOENT);
	os_file_close(fd);
}

static void space_and_cache(void **state)
{
	int fd = os_file_open(folder, "c", OS_READ | OS_WRITE | OS_CREATE, 0600);
	uint64_t free_bytes, total_bytes;
	char back[5];

	(void)state;
	assert_int_equal(os_file_write(fd, "hello", 5, 0), 5);
	assert_int_equal(os_file_sync(fd), 0);
	assert_int_equal(os_file_drop_cache(fd), 0);
	assert_int_equal(os_file_read(fd, back, 5, 0), 5);
	assert_memory_equal(back, "hello", 5);
	assert_int_equal(os_file_space(fd, &free_bytes, &total_bytes), 0);
	assert_true(free_bytes > 0 && free_bytes <= total_bytes);
	os_file_close(fd);
}

/* ── shared memory ────────────────────────────────────────────────────────────────── */

static void shared_memory_grows_in_place(void **state)
{
	struct os_shared writer, reader;
	char name[64];
	char *at;

	(void)state;
	snprintf(name, sizeof(name), "stafette-test-%d", (int)getpid());
	assert_int_equal(os_shared_create(&writer, name, 64 << 20, 0640), 0);
	assert_int_equal(os_shared_open(&reader, name), 0);
	assert_int_equal(reader.bytes, 0);
	os_shared_close(&reader);

	at = writer.at;
	assert_int_equal(os_shared_grow(&writer, 5000), 0);
	assert_int_equal(writer.bytes, 8192);
	strcpy(at, "first");
	assert_int_equal(os_shared_grow(&writer, 1 << 20), 0);
	assert_ptr_equal(writer.at, at);
	assert_string_equal(at, "first");
	strcpy(at + (1 << 20) - 10, "last");
	assert_int_equal(os_shared_grow(&writer, 100), 0); /* never shrinks */
	assert_int_equal(writer.bytes, 1 << 20);

	assert_int_equal(os_shared_open(&reader, name), 0);
	assert_int_equal(reader.bytes, 1 << 20);
	assert_string_equal((char *)reader.at, "first");
	assert_string_equal((char *)reader.at + (1 << 20) - 10, "last");
	strcpy(at, "later");
	assert_string_equal((char *)reader.at, "later");
	os_shared_close(&reader);

	assert_int_equal(os_shared_grow(&writer, (64 << 20) + 1), -ENOMEM);
	os_shared_close(&writer);
	os_shared_unlink(name);
	assert_int_equal(os_shared_open(&reader, name), -ENOENT);
}

static void a_new_writer_leaves_old_readers_alone(void **state)
{
	struct os_shared writer, second, reader;
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "stafette-test-%d", (int)getpid());
	assert_int_equal(os_shared_create(&writer, name, 1 << 20, 0600), 0);
	assert_int_equal(os_shared_grow(&writer, 4096), 0);
	strcpy(writer.at, "old");
	assert_int_equal(os_shared_open(&reader, name), 0);
	assert_int_equal(os_shared_create(&second, name, 1 << 20, 0600), 0);
	assert_string_equal((char *)reader.at, "old");
	os_shared_close(&reader);
	os_shared_close(&second);
	os_shared_close(&writer);
	os_shared_unlink(name);
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_folder(a_durable_write_is_read_back),
		in_folder(direct_durable_writes_are_read_back),
		in_folder(many_writes_fly_at_once),
		in_folder(errors_are_results),
		in_folder(a_durable_folder_is_there_once),
		in_folder(names_come_and_go),
		in_folder(appends_and_loads),
		in_folder(a_lock_excludes),
		in_folder(a_file_is_given_to_a_group),
		in_folder(space_and_cache),
		cmocka_unit_test(shared_memory_grows_in_place),
		cmocka_unit_test(a_new_writer_leaves_old_readers_alone),
	};
	char why[256];

	if (os_backend_choose(why, sizeof(why)) != 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	return cmocka_run_group_tests_name("os_file", tests, NULL, NULL);
}
