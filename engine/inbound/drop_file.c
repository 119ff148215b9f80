/*
 * drop_file - see drop_file.h.
 */
#include "engine/inbound/drop_file.h"

#include <stdio.h>
#include <xxhash.h>

enum { CRC_FROM = offsetof(struct drop_head, version) };

uint32_t drop_head_crc(const struct drop_head *head)
{
	return crc_add(CRC_START, (const char *)head + CRC_FROM, sizeof(*head) - CRC_FROM);
}

void drop_head_fill(struct drop_head *head, uint16_t flags, struct span envelope, struct span body)
{
	uint32_t crc;

	assert(envelope.len <= FORMAT_ENVELOPE_BYTES_MAX);
	*head = (struct drop_head){
		.magic = DROP_FILE_MAGIC,
		.version = DROP_VERSION,
		.flags = flags,
		.envelope_bytes = (uint32_t)envelope.len,
		.body_bytes = body.len,
	};
	crc = crc_add(drop_head_crc(head), envelope.at, envelope.len);
	head->crc = ~crc_add(crc, body.at, body.len);
}

const char *drop_head_complaint(const struct drop_head *head, uint64_t file_bytes)
{
	if (head->magic != DROP_FILE_MAGIC)
		return "it is no message kept by sendmail";
	if (head->version != DROP_VERSION || head->flags & ~DROP_UTF8)
		return "it is of a version that is not known here";
	if (head->envelope_bytes > FORMAT_ENVELOPE_BYTES_MAX || head->envelope_bytes == 0)
		return "its envelope has a senseless size";
	if (file_bytes < sizeof(*head) + head->envelope_bytes ||
	    head->body_bytes != file_bytes - sizeof(*head) - head->envelope_bytes)
		return "its size is not what it says";
	return NULL;
}

void drop_name_text(const unsigned char random[static 16], char out[static DROP_NAME_BYTES])
{
	for (uint32_t i = 0; i < 16; i++)
		snprintf(out + 2 * (size_t)i, 3, "%02x", random[i]);
}

struct format_origin drop_origin(const char *name, uint64_t inode)
{
	return (struct format_origin){
		.message = XXH64(name, strlen(name), 0),
		.recipients = inode,
		.kind = FORMAT_ORIGIN_FILE,
	};
}

bool drop_folder_path(const struct config *config, char out[static DROP_PATH_BYTES])
{
	int len = config->drop ? snprintf(out, DROP_PATH_BYTES, "%s", config->drop)
			       : snprintf(out, DROP_PATH_BYTES, "%s/drop", config->spool);

	return len > 0 && len < DROP_PATH_BYTES;
}
