/*
 * drop_file - what sendmail leaves in the drop directory while nobody listens: one file a
 * message, in one format.
 *
 *   ┌─────────────────┬──────────┬──────┐
 *   │ struct drop_head│ envelope │ body │   the envelope as queue/envelope.h seals it,
 *   └─────────────────┴──────────┴──────┘   the body with CRLF, its dots not doubled
 *
 *   ".new-" + name ── written, synced ──► renamed to name ──► folder synced: kept
 *
 * Promise: a file whose head, lengths and checksum agree is what its writer meant to write, and
 * whole. Any bytes may be given to the functions here.
 * Non-promise: that its writer meant well: addresses and lines are for the reader to check.
 *
 * Thread: pure.
 */
#ifndef ENGINE_DROP_FILE_H
#define ENGINE_DROP_FILE_H

#include "engine/config/config.h"
#include "os/span.h"
#include "queue/crc.h"
#include "queue/format.h"

#define DROP_FILE_MAGIC	  UINT64_C(0x0a706f72642d7473) /* "st-drop\n" */
#define DROP_FRESH_PREFIX ".new-"
#define DROP_BAD_FOLDER	  "bad"

enum {
	DROP_VERSION = 1,
	DROP_FOLDER_MODE = 01733, /* anybody may leave mail, nobody else can see what is there */
	DROP_NAME_BYTES = 33,	  /* 32 hexadecimal digits: as secret as the file */
};

enum drop_flags {
	DROP_UTF8 = 1, /* SMTPUTF8 */
};

struct drop_head {
	uint64_t magic;
	uint32_t crc; /* of everything behind this field: head, envelope, body */
	uint16_t version;
	uint16_t flags; /* enum drop_flags */
	uint32_t envelope_bytes;
	uint32_t reserved;
	uint64_t body_bytes;
};
static_assert(sizeof(struct drop_head) == 32, "a drop file's head");

/* The head of such a file. */
void drop_head_fill(struct drop_head *head, uint16_t flags, struct span envelope, struct span body);
/* NULL, or what is wrong, for people. `file_bytes`: of the whole file. */
const char *drop_head_complaint(const struct drop_head *head, uint64_t file_bytes);
/* The running checksum after the head; crc_add() the rest, then its complement is head->crc. */
uint32_t drop_head_crc(const struct drop_head *head);

void drop_name_text(const unsigned char random[static 16], char out[static DROP_NAME_BYTES]);
/* What an accepted message remembers of its file. */
struct format_origin drop_origin(const char *name, uint64_t inode);

#define DROP_PATH_BYTES 4096
/* The folder. False: its path is too long. */
bool drop_folder_path(const struct config *config, char out[static DROP_PATH_BYTES]);

#endif
