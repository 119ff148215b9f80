/*
 * disk_work - one read, write or sync between its begin and its finish, and what fails of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk_private.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger.h"
#include "tests/sim/near.h"
#include "tests/sim/weather.h"

/* A slow operation is one in a hundred. */
#define SLOW_CHANCE 10000

#define BAD_SPELL_RATE	     500000
#define BAD_SPELL_OPERATIONS 16

/* Of what is waited for when the disk dies: how much fails. */
#define DEATH_RATE 300000
/* By then the machine has lost its power: an outcome may be unknown for so long (R4), also if the
 * journal that has it was "done" when the disk died. */
#define DEATH_NS_MAX   SIM_S
#define DEATH_HALVINGS 8

enum work_kind {
	WORK_FAILED,
	WORK_READ,
	WORK_WRITE,
	WORK_SYNC,
};

struct disk_work {
	enum work_kind kind;
	struct disk_descriptor *descriptor; /* NULL: it never began */
	struct disk_node *node;
	bool direct, durable;
	bool late;   /* it began after the death of the disk */
	char *bytes; /* the caller's */
	size_t count, written_count;
	uint64_t offset;
	uint64_t stamp; /* a sync covers what was written up to here */
	int32_t result; /* so far */
};

uint64_t work_delay_ns(void)
{
	uint64_t typical_us = weather()->disk_us;

	if (sim_chance(SLOW_CHANCE) && weather()->disk_slow_us > 0)
		typical_us = weather()->disk_slow_us;
	return sim_between(typical_us * SIM_US / 2, typical_us * SIM_US * 3 / 2);
}

bool work_fails(const struct disk_node *node, uint32_t per_million, const char *what)
{
	if (node->calm || !sim_chance(per_million))
		return false;
	disk->failures++;
	near_happens(NEAR_FAILED);
	sim_trace("disk: a %s of %s fails", what, node->label);
	return true;
}

int work_name_error(const struct disk_node *node, enum disk_name_work work)
{
	/* A start lists a folder once, and opens files all the time. */
	static const struct {
		const char *what;
		uint32_t times;
		int errors[2];
	} works[NAME_WORKS] = {
		[NAME_OPEN] = { "open", 1, { -EIO, -EMFILE } },
		[NAME_CREATE] = { "creation", 2, { -ENOSPC, -EMFILE } },
		[NAME_LIST] = { "listing", 16, { -EIO, -EMFILE } },
		[NAME_RENAME] = { "rename", 2, { -EIO, -ENOSPC } },
		[NAME_UNLINK] = { "unlink", 4, { -EIO, -EROFS } },
		[NAME_MKDIR] = { "mkdir", 4, { -ENOSPC, -EIO } },
		[NAME_TRUNCATE] = { "truncation", 4, { -EIO, -ENOSPC } },
	};

	if (!work_fails(node, weather()->name_fails * works[work].times, works[work].what))
		return 0;
	return works[work].errors[sim_below(2)];
}

static struct disk_work *work_create(struct disk_descriptor *descriptor, enum work_kind kind,
				     uint64_t *delay_ns_out)
{
	struct disk_work *work = malloc(sizeof(*work));

	if (work == NULL)
		sim_finding("no memory for an operation of the disk");
	*work = (struct disk_work){ .kind = kind, .descriptor = descriptor, .late = disk->dead };
	if (descriptor != NULL) {
		work->node = descriptor->node;
		work->direct = descriptor->flags & OS_DIRECT;
		work->node->open_count++;
		descriptor->busy_count++;
	}
	*delay_ns_out = work_delay_ns();
	return work;
}

struct disk_work *work_begin_failed(int32_t result, uint64_t *delay_ns_out)
{
	struct disk_work *work = work_create(NULL, WORK_FAILED, delay_ns_out);

	work->result = result;
	return work;
}

static bool work_is_in(const struct disk_work *work, const char *folder)
{
	return strncmp(work->node->label, folder, strlen(folder)) == 0;
}

/* ── death ── */

static void on_power_cut(struct sim_event *event)
{
	(void)event;
	sim_crash(SIM_POWER_CUT);
}

/* This write is waited for when it happens, as is all else that has begun. */
static void work_may_kill(const struct disk_work *work)
{
	static struct sim_event cut = { .run = on_power_cut };

	if (!work->durable || disk->dead || !sim_chance(weather()->deaths))
		return;
	sim_trace("disk: it dies");
	disk->dead = true;
	disk->failures++;
	/* Often so soon that what was answered is not yet delivered. */
	sim_after(&cut, sim_below(DEATH_NS_MAX >> sim_below(DEATH_HALVINGS)));
}

/* How often one of these fails now, per million. */
static uint32_t work_rate(uint32_t per_million)
{
	if (weather()->bad_spells > 0 && sim_now() < disk->bad_until_ns)
		return BAD_SPELL_RATE;
	return per_million;
}

/* Does who waits for it to be durable hear of a failure? Since before a death, perhaps not. */
static bool work_sync_fails(const struct disk_work *work, const char *what)
{
	uint32_t per_million = !disk->dead  ? work_rate(weather()->sync_fails)
			       : work->late ? DISK_ALWAYS
					    : DEATH_RATE;

	return work_fails(work->node, per_million, what);
}

/* ── reads ── */

struct disk_work *work_begin_read(struct disk_descriptor *descriptor, void *bytes, size_t count,
				  uint64_t offset, uint64_t *delay_ns_out)
{
	struct disk_work *work = work_create(descriptor, WORK_READ, delay_ns_out);

	work->bytes = bytes;
	work->count = count;
	work->offset = offset;
	return work;
}

static int32_t work_finish_read(struct disk_work *work)
{
	struct disk_node *node = work->node;

	if (pages_miss(node, work->count, work->offset, work->direct)) {
		if (work_fails(node, disk->dead ? DISK_ALWAYS : weather()->read_fails, "read"))
			return -EIO;
		if (!node->calm && sim_chance(weather()->bit_flips) &&
		    pages_flip(node, work->count, work->offset, work->direct))
			disk->flips++;
	}
	if (work_is_in(work, "seg/"))
		near_happens(NEAR_SEGMENT_READ);
	return (int32_t)pages_read(node, work->bytes, work->count, work->offset, work->direct);
}

/* ── writes ── */

/* It begins at a commit, and is long enough for what the failure is answered with to fail too. */
static void work_begin_spell(const struct disk_work *work)
{
	uint64_t spell_us;

	if (!work->durable || !work_is_in(work, "seg/") || !sim_chance(weather()->bad_spells))
		return;
	spell_us = sim_between(1, BAD_SPELL_OPERATIONS) * weather()->disk_us;
	sim_trace("disk: a bad spell of %llu us", (unsigned long long)spell_us);
	disk->bad_until_ns = sim_now() + spell_us * SIM_US;
}

/* Up to `count` of its bytes are where a read finds them. */
static void work_write_to(struct disk_work *work, size_t count)
{
	if (count > work->written_count)
		pages_write(work->node, work->bytes + work->written_count,
			    count - work->written_count, work->offset + work->written_count,
			    work->direct);
	work->written_count = count;
}

/* Any part may be there before the end: none, all, or up to some page. */
static size_t work_first_part(const struct disk_work *work)
{
	size_t part;

	switch (sim_below(4)) {
	case 0:
		return 0;
	case 1:
		part = sim_below(work->count + 1);
		return part - part % DISK_PAGE_BYTES;
	default:
		return work->count;
	}
}

struct disk_work *work_begin_write(struct disk_descriptor *descriptor, const void *bytes,
				   size_t count, uint64_t offset, int flags, uint64_t *delay_ns_out)
{
	struct disk_work *work = work_create(descriptor, WORK_WRITE, delay_ns_out);
	struct disk_node *node = work->node;

	work->bytes = (char *)bytes; /* only read */
	work->offset = offset;
	work->durable = flags & OS_WRITE_DURABLE;
	if (work->durable)
		ledger_writing(node->label, bytes, count);
	work_begin_spell(work);
	if (work->late && work_fails(node, DISK_ALWAYS, "write")) {
		work->result = -EIO;
		return work;
	}
	work_may_kill(work);
	work->count = pages_grant(node, offset, count);
	if (work->count == 0 && count > 0) {
		sim_trace("disk: no room for %s", node->label);
		work->result = -ENOSPC;
	} else if (work_fails(node, work_rate(weather()->write_fails), "write")) {
		work->count = work_first_part(work);
		work->result = -EIO;
	} else {
		work->result = (int32_t)work->count;
	}
	work_write_to(work, work_first_part(work));
	return work;
}

/* Is it durable, and what does the caller hear? */
static void work_settle_write(struct disk_work *work)
{
	struct disk_node *node = work->node;
	bool failed = work_sync_fails(work, "durable write");

	if (failed)
		work->result = -EIO;
	if (disk->dead)
		sim_trace("disk: nothing of it has to be there");
	else if (failed)
		pages_sync_fail(node, work->offset, work->count, disk->stamp, work->direct);
	else
		pages_sync(node, work->offset, work->count, disk->stamp);
	if (failed)
		return;
	ledger_written(node->label, work->bytes, work->count);
	near_happens(work_is_in(work, "jnl/") ? NEAR_JOURNAL_WRITTEN : NEAR_SEGMENT_WRITTEN);
}

static int32_t work_finish_write(struct disk_work *work)
{
	struct disk_node *node = work->node;

	work_write_to(work, work->count);
	if (work->result > 0 && work->durable)
		work_settle_write(work);
	sim_trace("disk: write of %s at %llu: %d", node->label, (unsigned long long)work->offset,
		  work->result);
	return work->result;
}

/* ── syncs ── */

struct disk_work *work_begin_sync(struct disk_descriptor *descriptor, uint64_t *delay_ns_out)
{
	struct disk_work *work = work_create(descriptor, WORK_SYNC, delay_ns_out);

	work->stamp = disk->stamp;
	return work;
}

static int32_t work_finish_sync(struct disk_work *work)
{
	struct disk_node *node = work->node;
	bool failed = work_sync_fails(work, "sync");

	if (disk->dead)
		sim_trace("disk: nothing of it has to be there");
	else if (failed && node->folder)
		tree_sync_fail(node, work->stamp);
	else if (failed)
		pages_sync_fail(node, 0, UINT64_MAX, work->stamp, false);
	else if (node->folder)
		tree_sync(node, work->stamp);
	else
		pages_sync(node, 0, UINT64_MAX, work->stamp);
	sim_trace("disk: sync of %s%s", node->label, failed ? " has failed" : "");
	return failed ? -EIO : 0;
}

int32_t disk_finish(struct disk_work *work)
{
	int32_t result = work->result;

	if (work->kind == WORK_READ)
		result = work_finish_read(work);
	else if (work->kind == WORK_WRITE)
		result = work_finish_write(work);
	else if (work->kind == WORK_SYNC)
		result = work_finish_sync(work);
	if (work->descriptor != NULL) {
		work->descriptor->busy_count--;
		work->node->open_count--;
		tree_release(work->node);
	}
	free(work);
	return result;
}
