/*
 * crc - CRC32C (Castagnoli), by ISA-L; of a record, where the call would cost more than the sum,
 * by the processor's own instruction.
 *
 * crc_of() is the plain checksum, for bytes that move between files. crc_record() is for what
 * stays in its file: it starts with the file's sequence number, so that a record of an
 * earlier life of the file never passes, and takes the record's own CRC field as 0.
 */
#ifndef QUEUE_CRC_H
#define QUEUE_CRC_H

#include <isa-l/crc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/check.h"

#define CRC_START UINT32_C(0xffffffff)

enum { CRC_SHORT_BYTES = 128 };

/* As crc_add(), for at most CRC_SHORT_BYTES. */
uint32_t crc_add_short(uint32_t running, const void *bytes, size_t count);

/* The running value: CRC_START, crc_add() ..., then the complement of it. */
static inline uint32_t crc_add(uint32_t running, const void *bytes, size_t count)
{
	const unsigned char *at = bytes;

	if (count <= CRC_SHORT_BYTES)
		return crc_add_short(running, bytes, count);
	while (count > 0) { /* ISA-L counts in int */
		size_t part = count < (1 << 30) ? count : (1 << 30);

		running = crc32_iscsi((unsigned char *)at, (int)part, running);
		at += part;
		count -= part;
	}
	return running;
}

static inline uint32_t crc_of(const void *bytes, size_t count)
{
	return ~crc_add(CRC_START, bytes, count);
}

/* Of a record whose CRC field, four bytes, lies at `crc_at`. */
static inline uint32_t crc_record(uint32_t sequence, const void *record, size_t count,
				  size_t crc_at)
{
	static const uint32_t zero;
	const char *at = record;
	uint32_t running = crc_add(CRC_START, &sequence, sizeof(sequence));

	assert(crc_at + 4 <= count);
	running = crc_add(running, at, crc_at);
	running = crc_add(running, &zero, 4);
	return ~crc_add(running, at + crc_at + 4, count - crc_at - 4);
}

/* Likewise of a header that tells its sequence itself: superblock and file header. */
static inline uint32_t crc_header(const void *header, size_t count, size_t crc_at)
{
	static const uint32_t zero;
	const char *at = header;
	uint32_t running = crc_add(CRC_START, at, crc_at);

	assert(crc_at + 4 <= count);
	running = crc_add(running, &zero, 4);
	return ~crc_add(running, at + crc_at + 4, count - crc_at - 4);
}

#endif
