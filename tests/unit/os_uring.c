/*
 * The ring of a loop does what the loop needs, and nothing else: what passes by it passes by
 * seccomp, so this is the only door there is. And where locked memory is short it takes what it
 * gets.
 *
 * Where the kernel refuses io_uring there is no ring, and nothing to restrict.
 */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "os/check.h"
#include "os/os.h"

static struct io_uring *ring; /* borrowed: the loop's; NULL: there is none */
static struct os_loop *loop;

/* Locked memory is short: no ring above so many entries, and none at all so many times. */
static unsigned int entries_max = UINT_MAX, refusals, entries_last;

/* Stands before liburing's, to see which ring the loop opens. */
int io_uring_queue_init_params(unsigned int entries, struct io_uring *opened,
			       struct io_uring_params *params)
{
	int (*real)(unsigned int, struct io_uring *, struct io_uring_params *);

	entries_last = entries;
	if (entries > entries_max || refusals > 0) {
		refusals -= entries <= entries_max;
		return -ENOMEM;
	}
	*(void **)&real = dlsym(RTLD_NEXT, "io_uring_queue_init_params");
	if (loop == NULL)
		ring = opened;
	return real(entries, opened, params);
}

static int loop_up(void **state)
{
	char why[256];

	(void)state;
	if (os_backend_use("io_uring", why, sizeof(why)) == 0)
		return os_loop_create(NULL, &loop);
	print_message("%s\n", why);
	ring = NULL;
	return 0;
}

static int loop_down(void **state)
{
	(void)state;
	os_loop_destroy(loop);
	return 0;
}

/* What the kernel says to an operation without any argument. */
static int asked(uint8_t operation, uint8_t flags)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int result;

	assert(sqe);
	io_uring_prep_rw(operation, sqe, -1, NULL, 0, 0);
	sqe->flags = flags;
	sqe->user_data = 0;
	assert_int_equal(io_uring_submit_and_wait(ring, 1), 1);
	assert_int_equal(io_uring_peek_cqe(ring, &cqe), 0);
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

static bool is_needed(uint8_t operation)
{
	switch (operation) {
	case IORING_OP_NOP:
	case IORING_OP_ACCEPT:
	case IORING_OP_CONNECT:
	case IORING_OP_RECV:
	case IORING_OP_SEND:
	case IORING_OP_SENDMSG:
	case IORING_OP_READ:
	case IORING_OP_WRITE:
	case IORING_OP_FSYNC:
	case IORING_OP_ASYNC_CANCEL:
		return true;
	default:
		return false;
	}
}

static void an_operation_that_no_loop_needs_is_refused(void **state)
{
	(void)state;
	for (uint8_t operation = 0; ring != NULL && operation < IORING_OP_LAST; operation++) {
		if (is_needed(operation))
			continue;
		if (asked(operation, 0) != -EACCES)
			fail_msg("operation %u is not refused", operation);
	}
}

static void an_operation_that_it_needs_is_done(void **state)
{
	(void)state;
	if (ring == NULL)
		return;
	assert_int_equal(asked(IORING_OP_NOP, 0), 0);
	assert_int_equal(asked(IORING_OP_FSYNC, 0), -EBADF);
}

static void a_flag_that_no_loop_needs_is_refused(void **state)
{
	static const uint8_t flags[] = { IOSQE_FIXED_FILE, IOSQE_IO_DRAIN, IOSQE_ASYNC };

	(void)state;
	for (size_t i = 0; ring != NULL && i < sizeof(flags); i++)
		assert_int_equal(asked(IORING_OP_NOP, flags[i]), -EACCES);
}

static void descriptors_and_buffers_cannot_be_registered(void **state)
{
	struct iovec memory = { .iov_base = &loop, .iov_len = sizeof(loop) };
	int standard = 0;

	(void)state;
	if (ring == NULL)
		return;
	assert_int_equal(io_uring_register_files(ring, &standard, 1), -EACCES);
	assert_int_equal(io_uring_register_buffers(ring, &memory, 1), -EACCES);
	assert_int_equal(io_uring_register_personality(ring), -EACCES);
}

/* ── locked memory ────────────────────────────────────────────────────────────────── */

static void a_ring_that_finds_no_memory_is_made_smaller(void **state)
{
	static const struct os_loop_options options = { .operations = 1024 };
	struct os_loop *small;

	(void)state;
	if (ring == NULL)
		return;
	entries_max = 100;
	assert_int_equal(os_loop_create(&options, &small), 0);
	entries_max = UINT_MAX;
	assert_int_equal(entries_last, 64);
	os_loop_destroy(small);
}

static void the_smallest_one_is_waited_for(void **state)
{
	static const struct os_loop_options options = { .operations = 64 };
	struct os_loop *late;
	char why[256];

	(void)state;
	if (ring == NULL)
		return;
	refusals = 3;
	assert_int_equal(os_loop_create(&options, &late), 0);
	os_loop_destroy(late);
	refusals = 3;
	assert_int_equal(os_backend_use("io_uring", why, sizeof(why)), 0);
	assert_int_equal(refusals, 0);
}

static void but_not_for_ever(void **state)
{
	static const struct os_loop_options options = { .operations = 64 };
	struct os_loop *never;

	(void)state;
	if (ring == NULL)
		return;
	refusals = UINT_MAX;
	assert_int_equal(os_loop_create(&options, &never), -ENOMEM);
	refusals = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_operation_that_no_loop_needs_is_refused),
		cmocka_unit_test(an_operation_that_it_needs_is_done),
		cmocka_unit_test(a_flag_that_no_loop_needs_is_refused),
		cmocka_unit_test(descriptors_and_buffers_cannot_be_registered),
		cmocka_unit_test(a_ring_that_finds_no_memory_is_made_smaller),
		cmocka_unit_test(the_smallest_one_is_waited_for),
		cmocka_unit_test(but_not_for_ever),
	};

	return cmocka_run_group_tests(tests, loop_up, loop_down);
}
