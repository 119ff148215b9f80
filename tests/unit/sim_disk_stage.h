/*
 * sim_disk_stage - the simulated disk between stand-ins for the rest of the simulator, and what
 * its tests do to it.
 */
#ifndef TESTS_SIM_DISK_STAGE_H
#define TESTS_SIM_DISK_STAGE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "os/list.h"
#include "os/prng.h"
#include "tests/sim/arena.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger.h"
#include "tests/sim/near.h"
#include "tests/sim/weather.h"

enum {
	PAGE = 4096,
	TRIES = 200, /* of what may happen or not */
};

/* ── the rest of the world, as far as a disk needs it ── */

static struct weather sky;
static uint32_t life;
static jmp_buf *finding; /* where the one that is expected goes; NULL: none is */
static struct prng dice;
static uint64_t now_ns;
static int cuts;       /* of the power that are to come */
static char told[256]; /* lines for the ledger, each with a '|' behind */

/* What disks leave behind is freed with their process, and known until then: no leak. */
struct block {
	struct list link;
	_Alignas(max_align_t) char bytes[];
};

static struct list blocks = { &blocks, &blocks };

void *arena_alloc(size_t bytes)
{
	struct block *block = calloc(1, sizeof(*block) + bytes);

	assert_non_null(block);
	list_init(&block->link);
	list_push_back(&blocks, &block->link);
	return block->bytes;
}

void arena_free(void *at, size_t bytes)
{
	struct block *block;

	(void)bytes;
	if (at == NULL)
		return;
	block = container_of(at, struct block, bytes);
	list_remove(&block->link);
	free(block);
}

const struct weather *weather(void)
{
	return &sky;
}

uint32_t weather_life(void)
{
	return life;
}

struct fiber *fiber_self(void)
{
	return NULL;
}

struct os_wall os_wall_now(void)
{
	return (struct os_wall){ 0 };
}

void fiber_sleep(uint64_t ns)
{
	(void)ns;
}

uint64_t sim_now(void)
{
	return now_ns;
}

uint64_t sim_below(uint64_t limit)
{
	return prng_below(&dice, limit);
}

uint64_t sim_between(uint64_t least, uint64_t most)
{
	return least + sim_below(most - least + 1);
}

bool sim_chance(uint32_t per_million)
{
	return sim_below(1000000) < per_million;
}

void sim_trace(const char *format, ...)
{
	(void)format;
}

_Noreturn void sim_finding(const char *format, ...)
{
	if (finding)
		longjmp(*finding, 1);
	fprintf(stderr, "%s\n", format);
	abort();
}

void sim_after(struct sim_event *event, uint64_t delay_ns)
{
	(void)event;
	assert_true(delay_ns < SIM_S);
	cuts++;
}

_Noreturn void sim_crash(enum sim_end end)
{
	(void)end;
	abort();
}

void ledger_recycled(bool journal, const char *name)
{
	(void)journal, (void)name;
}

void near_happens(enum near_moment moment)
{
	(void)moment;
}

static inline void tell(const char *line, size_t bytes)
{
	snprintf(told + strlen(told), sizeof(told) - strlen(told), "%.*s|", (int)bytes, line);
}

void ledger_log_line(const char *line, size_t bytes)
{
	tell(line, bytes);
}

void ledger_writing(const char *name, const void *bytes, size_t count)
{
	(void)name, (void)bytes, (void)count;
}

void ledger_written(const char *name, const void *bytes, size_t count)
{
	(void)name, (void)bytes, (void)count;
}

void ledger_notice(const char *line, size_t bytes)
{
	tell(line, bytes);
}

/* ── a folder to work in ── */

static int spool;

static inline void folder_open(void)
{
	spool = os_file_open(OS_CURRENT_FOLDER, "/spool", OS_READ | OS_FOLDER, 0);
	assert_true(spool >= 0);
}

static inline void fresh_disk(void)
{
	disk_create();
	folder_open();
}

static inline int setup(void **state)
{
	(void)state;
	sky = (struct weather){ .disk_bytes = 64 << 20 };
	dice.state = 1;
	life = 0;
	now_ns = 0;
	cuts = 0;
	told[0] = '\0';
	fresh_disk();
	return 0;
}

static inline void crash(bool power_cut)
{
	disk_crash(power_cut);
	life++;
	folder_open();
}

static inline int open_file(const char *name, int flags)
{
	int fd = os_file_open(spool, name, flags, 0600);

	assert_true(fd >= 0);
	return fd;
}

static inline bool is_there(const char *name)
{
	int fd = os_file_open(spool, name, OS_READ, 0);

	if (fd >= 0)
		os_file_close(fd);
	return fd >= 0;
}

/* A file whose name is durable; the bytes are not. */
static inline int new_file(const char *name)
{
	int fd = open_file(name, OS_READ | OS_WRITE | OS_CREATE_NEW);

	assert_int_equal(os_file_sync(spool), 0);
	return fd;
}

static _Alignas(PAGE) char page[PAGE];

static inline ssize_t put_page(int fd, char letter, uint64_t index)
{
	memset(page, letter, sizeof(page));
	return os_file_write(fd, page, sizeof(page), index * PAGE);
}

/* How many bytes of a page are `letter`; others have to be `other`. */
static inline int count_letter(int fd, uint64_t index, char letter, char other)
{
	int count = 0;
	ssize_t got = os_file_read(fd, page, sizeof(page), index * PAGE);

	for (ssize_t i = 0; i < got; i++) {
		assert_true(page[i] == letter || page[i] == other);
		count += page[i] == letter;
	}
	return count;
}

#define ROW(name) cmocka_unit_test_setup(name, setup)

#endif
