/* CRC32C of a few bytes. */
#include "queue/crc.h"

#include <string.h>

#ifdef __x86_64__

#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t running,
								     const char *at, size_t count)
{
	uint64_t wide = running, word;

	for (; count >= sizeof(word); at += sizeof(word), count -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		wide = _mm_crc32_u64(wide, word);
	}
	running = (uint32_t)wide;
	for (; count > 0; at++, count--)
		running = _mm_crc32_u8(running, (unsigned char)*at);
	return running;
}

static bool crc_has_instruction(void)
{
	return __builtin_cpu_supports("sse4.2");
}

#else

static uint32_t crc_by_instruction(uint32_t running, const char *at, size_t count)
{
	return crc32_iscsi((unsigned char *)at, (int)count, running);
}

static bool crc_has_instruction(void)
{
	return false;
}

#endif

uint32_t crc_add_short(uint32_t running, const void *bytes, size_t count)
{
	assert(count <= CRC_SHORT_BYTES);
	if (crc_has_instruction())
		return crc_by_instruction(running, bytes, count);
	return count == 0 ? running : crc32_iscsi((unsigned char *)bytes, (int)count, running);
}
