/* Slots and names in shared memory: one writer, any readers. */
#include "queue/index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	INDEX_MODE = 0640,
	INDEX_READ_TRIES = 1000,
	INDEX_NAMES_STEP_BYTES = 1 << 20,
	INDEX_NAMES_BYTES_MAX = 1 << 30,
	INDEX_ABANDONED_MS = 3600 * 1000,
};

/* "stafette-<uuid>-<stream>.slots" or ".names" */
static void index_file_name(char out[static INDEX_NAME_BYTES], const uint8_t uuid[16],
			    uint16_t stream, const char *what)
{
	int at = snprintf(out, INDEX_NAME_BYTES, "stafette-");

	for (uint32_t i = 0; i < 16; i++)
		at += snprintf(out + at, INDEX_NAME_BYTES - (size_t)at, "%02x", uuid[i]);
	snprintf(out + at, INDEX_NAME_BYTES - (size_t)at, "-%u.%s", stream, what);
}

static struct index_header *index_header_of(const struct os_shared *shared)
{
	return shared->at;
}

/* ── making it ────────────────────────────────────────────────────────────────────── */

static int index_create_file(struct os_shared *shared, const uint8_t uuid[16], uint16_t stream,
			     uint32_t epoch, const char *what, uint64_t bytes_max)
{
	char name[INDEX_NAME_BYTES];
	struct index_header *header;
	int error;

	index_file_name(name, uuid, stream, what);
	/* A new file: what a daemon that was killed left there goes. */
	error = os_shared_create(shared, name, bytes_max, INDEX_MODE);
	if (error != 0)
		return error;
	error = os_shared_grow(shared, sizeof(struct index_header));
	if (error != 0)
		return error;
	header = index_header_of(shared);
	header->version = INDEX_VERSION;
	header->stream = stream;
	header->unit_bytes = sizeof(struct format_job);
	memcpy(header->uuid, uuid, sizeof(header->uuid));
	header->epoch = epoch;
	header->process = os_process_id();
	header->magic = INDEX_MAGIC;
	return 0;
}

int index_init(struct index *index, const uint8_t uuid[16], uint16_t stream, uint32_t epoch,
	       uint64_t slots_max)
{
	uint64_t extents = (slots_max + INDEX_EXTENT_SLOTS - 1) / INDEX_EXTENT_SLOTS;
	int error;

	*index = (struct index){ .free = INDEX_NO_SLOT, .slots_max = extents * INDEX_EXTENT_SLOTS };
	index->extents = calloc(extents, sizeof(struct index_side *));
	if (index->extents == NULL)
		return -ENOMEM;
	error = index_create_file(&index->slots, uuid, stream, epoch, "slots",
				  sizeof(struct index_header) +
					  index->slots_max * sizeof(struct format_job));
	if (error == 0)
		error = index_create_file(&index->names, uuid, stream, epoch, "names",
					  INDEX_NAMES_BYTES_MAX);
	return error;
}

int index_set_group(struct index *index, const char *group)
{
	int error = os_file_group(index->slots.fd, group);

	return error != 0 ? error : os_file_group(index->names.fd, group);
}

void index_remove(const uint8_t uuid[16], uint16_t stream)
{
	char name[INDEX_NAME_BYTES];

	index_file_name(name, uuid, stream, "slots");
	os_shared_unlink(name);
	index_file_name(name, uuid, stream, "names");
	os_shared_unlink(name);
}

/* The header is read, not looked at: anybody may have made the file, and cut it short by now. */
static bool index_is_abandoned(const char *name)
{
	struct os_shared slots;
	struct index_header header;
	bool abandoned;

	if (os_shared_open(&slots, name) != 0)
		return false;
	abandoned = os_file_read(slots.fd, &header, sizeof(header), 0) == sizeof(header) &&
		    header.magic == INDEX_MAGIC &&
		    header.heartbeat_ms + INDEX_ABANDONED_MS < os_mono_now().ns / OS_NS_PER_MS &&
		    os_shared_is_orphan(&slots);
	os_shared_close(&slots);
	return abandoned;
}

/* Its slots go last: by them the two are found. */
static int index_sweep_one(void *context, const char *name)
{
	static const char prefix[] = "stafette-", suffix[] = ".slots";
	char names[INDEX_NAME_BYTES];
	size_t length = strlen(name);

	(void)context;
	if (strncmp(name, prefix, sizeof(prefix) - 1) != 0 || length < sizeof(suffix) - 1 ||
	    length >= sizeof(names) || strcmp(name + length - sizeof(suffix) + 1, suffix) != 0 ||
	    !index_is_abandoned(name))
		return 0;
	memcpy(names, name, length + 1);
	memcpy(names + length - sizeof(suffix) + 1, ".names", sizeof(".names"));
	os_shared_unlink(names);
	os_shared_unlink(name);
	return 0;
}

void index_sweep(void)
{
	(void)os_shared_list(index_sweep_one, NULL); /* what stays, stays */
}

void index_deinit(struct index *index, const uint8_t uuid[16], uint16_t stream)
{
	for (uint32_t i = 0; i < index->extent_count; i++)
		free(index->extents[i]);
	free(index->extents);
	if (index->slots.at != NULL || index->names.at != NULL)
		index_remove(uuid, stream);
	if (index->slots.at != NULL)
		os_shared_close(&index->slots);
	if (index->names.at != NULL)
		os_shared_close(&index->names);
	*index = (struct index){ .free = INDEX_NO_SLOT };
}

/* ── slots ────────────────────────────────────────────────────────────────────────── */

static bool index_grow(struct index *index)
{
	uint64_t slots = (uint64_t)(index->extent_count + 1) * INDEX_EXTENT_SLOTS;
	struct index_side *extent;

	if (slots > index->slots_max)
		return false;
	extent = calloc(INDEX_EXTENT_SLOTS, sizeof(*extent));
	if (extent == NULL)
		return false;
	if (os_shared_grow(&index->slots,
			   sizeof(struct index_header) + slots * sizeof(struct format_job)) != 0) {
		free(extent);
		return false;
	}
	index->extents[index->extent_count++] = extent;
	return true;
}

bool index_reserve(struct index *index, uint32_t count)
{
	uint64_t wanted = (uint64_t)index->live + index->promised + count;

	while (wanted > (uint64_t)index->extent_count * INDEX_EXTENT_SLOTS)
		if (!index_grow(index))
			return false;
	index->promised += count;
	return true;
}

void index_unreserve(struct index *index, uint32_t count)
{
	assert(index->promised >= count);
	index->promised -= count;
}

static void index_publish_counts(struct index *index)
{
	struct index_header *header = index_header_of(&index->slots);

	/* release: whoever sees the count sees the slots below it. */
	atomic_store_explicit(&header->used, index->used, memory_order_release);
	atomic_store_explicit(&header->live, index->live, memory_order_relaxed);
}

uint32_t index_take(struct index *index, const struct format_job *job)
{
	uint32_t slot = index->free;

	index_unreserve(index, 1);
	if (slot != INDEX_NO_SLOT)
		index->free = index_side(index, slot)->next;
	else
		slot = index->used++;
	assert(slot < (uint64_t)index->extent_count * INDEX_EXTENT_SLOTS);
	index->live++;
	*index_side(index, slot) =
		(struct index_side){ .next = INDEX_NO_SLOT, .previous = INDEX_NO_SLOT };
	index_store(index, slot, job);
	index_publish_counts(index);
	return slot;
}

void index_release(struct index *index, uint32_t slot)
{
	static const struct format_job none;
	struct index_side *side = index_side(index, slot);

	assert(index->live > 0 && side->message == NULL);
	index_store(index, slot, &none);
	*side = (struct index_side){ .next = index->free };
	index->free = slot;
	index->live--;
	index_publish_counts(index);
}

void index_store(struct index *index, uint32_t slot, const struct format_job *job)
{
	struct format_job *to = (struct format_job *)index_job(index, slot);
	_Atomic uint32_t *sequence = (_Atomic uint32_t *)&to->crc;
	uint32_t before = atomic_load_explicit(sequence, memory_order_relaxed);

	atomic_store_explicit(sequence, before + 1, memory_order_relaxed);
	/* release: no byte below becomes visible before the odd counter. */
	atomic_thread_fence(memory_order_release);
	memcpy((char *)to + sizeof(to->crc), (const char *)job + sizeof(to->crc),
	       sizeof(*to) - sizeof(to->crc));
	/* release: the even counter comes after all of them. */
	atomic_store_explicit(sequence, before + 2, memory_order_release);
}

/* ── names ────────────────────────────────────────────────────────────────────────── */

bool index_publish_name(struct index *index, const struct format_define *define)
{
	struct index_header *header = index_header_of(&index->names);
	size_t at = sizeof(struct index_header) + index->names_used * sizeof(struct format_define);
	size_t bytes = define->units * sizeof(struct format_define);

	if (at + bytes > index->names.bytes &&
	    os_shared_grow(&index->names, at + INDEX_NAMES_STEP_BYTES) != 0)
		return false;
	memcpy((char *)index->names.at + at, define, bytes);
	index->names_used += define->units;
	/* release: the bytes come before the count. */
	atomic_store_explicit(&header->used, index->names_used, memory_order_release);
	return true;
}

void index_beat(struct index *index, struct os_mono now)
{
	atomic_store_explicit(&index_header_of(&index->slots)->heartbeat_ms, now.ns / OS_NS_PER_MS,
			      memory_order_relaxed);
}

/* ── reading ──────────────────────────────────────────────────────────────────────── */

static int index_view_open_file(struct os_shared *shared, const uint8_t uuid[16], uint16_t stream,
				const char *what)
{
	char name[INDEX_NAME_BYTES];
	const struct index_header *header;
	int error;

	index_file_name(name, uuid, stream, what);
	error = os_shared_open(shared, name);
	if (error != 0)
		return error;
	header = index_header_of(shared);
	if (shared->bytes < sizeof(*header) || header->magic != INDEX_MAGIC ||
	    header->version != INDEX_VERSION || header->unit_bytes != sizeof(struct format_job)) {
		os_shared_close(shared);
		return -EPROTO;
	}
	return 0;
}

int index_view_open(struct index_view *view, const uint8_t uuid[16], uint16_t stream)
{
	int error = index_view_open_file(&view->slots, uuid, stream, "slots");

	if (error != 0)
		return error;
	error = index_view_open_file(&view->names, uuid, stream, "names");
	if (error != 0)
		os_shared_close(&view->slots);
	return error;
}

void index_view_close(struct index_view *view)
{
	os_shared_close(&view->slots);
	os_shared_close(&view->names);
}

const struct index_header *index_view_header(const struct index_view *view)
{
	return index_header_of(&view->slots);
}

/* What was published and also mapped: the file may have grown since. */
static uint64_t index_view_units(const struct os_shared *shared)
{
	struct index_header *header = index_header_of(shared);
	uint64_t mapped = (shared->bytes - sizeof(*header)) / sizeof(struct format_job);
	/* acquire: pairs with the owner's release. */
	uint64_t used = atomic_load_explicit(&header->used, memory_order_acquire);

	return used < mapped ? used : mapped;
}

uint64_t index_view_count(const struct index_view *view)
{
	return index_view_units(&view->slots);
}

bool index_read(const struct index_view *view, uint64_t slot, struct format_job *out)
{
	const struct format_job *from = (const struct format_job *)((const char *)view->slots.at +
								    sizeof(struct index_header)) +
					slot;
	_Atomic uint32_t *sequence = (_Atomic uint32_t *)&from->crc;

	for (uint32_t i = 0; i < INDEX_READ_TRIES; i++) {
		/* acquire: the bytes are read after the counter ... */
		uint32_t before = atomic_load_explicit(sequence, memory_order_acquire);

		*out = *(const volatile struct format_job *)from;
		/* ... and before it is looked at again. */
		atomic_thread_fence(memory_order_acquire);
		if (before % 2 == 0 &&
		    before == atomic_load_explicit(sequence, memory_order_relaxed))
			return out->state != 0;
	}
	return false;
}

const struct format_define *index_view_name(const struct index_view *view, uint64_t *at)
{
	uint64_t count = index_view_units(&view->names);
	const struct format_define *define =
		(const struct format_define *)((const char *)view->names.at +
					       sizeof(struct index_header)) +
		*at;
	uint8_t units;

	if (*at >= count)
		return NULL;
	units = *(const volatile uint8_t *)&define->units; /* once: it may change any moment */
	if (units == 0 || *at + units > count)
		return NULL;
	*at += units;
	return define;
}
