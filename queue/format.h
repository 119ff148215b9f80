/*
 * format - the bytes on disk. Little-endian, CRC32C, versioned by the superblock.
 *
 *   segment or journal file
 *   0        4096                                      file_bytes
 *   ┌────────┬───────────────┬─────────┬───────────────┬──────────┐
 *   │ header │ chunk         │ chunk   │ chunk         │ unused   │
 *   └────────┴───────────────┴─────────┴───────────────┴──────────┘
 *            │ chunk header, records, zeros up to 4096 │
 *
 * A chunk is what one write commits; it starts on a 4096-byte boundary, so acknowledged bytes
 * are never written again. In a segment the records are messages, each on an 8-byte boundary;
 * in a journal they are struct format_job and its longer relatives.
 *
 * Every CRC in a file begins with its sequence number, so that what an earlier life of a
 * recycled file left behind never passes for new. The golden dumps are in
 * tests/unit/queue_format.c.
 */
#ifndef QUEUE_FORMAT_H
#define QUEUE_FORMAT_H

#include <stdint.h>

#include "os/check.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the structs below are the bytes on disk: a big-endian machine needs conversions here"
#endif

enum {
	FORMAT_PAGE_BYTES = 4096,
	FORMAT_RECORD_ALIGN = 8,
	FORMAT_CHUNK_BYTES_MAX = 4 << 20,
	FORMAT_SEGMENT_BODY_MAX = 1 << 20, /* a larger message has a file in big/ */
	FORMAT_ENVELOPE_BYTES_MAX = 1 << 20,
	FORMAT_JOB_RECIPIENTS_MAX = 64,
	FORMAT_PREFIX_BYTES_MAX = UINT16_MAX,
};

/* ── the superblock ───────────────────────────────────────────────────────────────── */

#define FORMAT_SUPER_MAGIC UINT64_C(0x0a6574746666747a) /* "ztfftte\n" */

/* Two copies, at 0 and 4096 of the file `super`; the valid one with the higher generation
 * wins, and the other is overwritten next. */
struct format_super {
	uint64_t magic;
	uint32_t crc; /* of the whole struct, with this field 0 */
	uint32_t version;
	uint64_t generation;
	uint64_t features_compatible;	/* unknown bits: go on */
	uint64_t features_read_only;	/* unknown bits: read, never write */
	uint64_t features_incompatible; /* unknown bits: refuse */
	uint8_t uuid[16];
	uint32_t epoch; /* raised at every start, before anything else is written */
	uint8_t clean;	/* 1: stopped in order */
	uint8_t node;
	uint16_t stream_limit; /* streams 0 .. stream_limit - 1 may have files */
	uint32_t segment_bytes, journal_bytes;
	int64_t wall_us;	 /* the last durable wall time */
	uint64_t block_limit;	 /* message id blocks below it may be in use */
	uint64_t sequence_limit; /* file sequences below it may be in use */
	uint64_t big_limit;	 /* reserved */
	int64_t believed_us;	 /* the last time that was not in doubt; 0: as wall_us says */
	uint64_t reserved[3];
};
static_assert(sizeof(struct format_super) == 144, "the superblock's bytes");

enum { FORMAT_VERSION = 1 };

/* Set in a spool from the first start of a program that may write them. */
#define FORMAT_FEATURE_PREFIX	     UINT64_C(1) /* envelopes may have FORMAT_PREFIX */
#define FORMAT_FEATURES_INCOMPATIBLE FORMAT_FEATURE_PREFIX

/* ── files ────────────────────────────────────────────────────────────────────────── */

#define FORMAT_FILE_MAGIC UINT64_C(0x0a656c69662d7473) /* "st-file\n" */

enum format_kind {
	FORMAT_FREE = 0, /* in free/: written through, holds nothing */
	FORMAT_HOT = 1,	 /* segment of messages as accepted */
	FORMAT_COLD = 2, /* segment of evacuated messages: reached only by location */
	FORMAT_JOURNAL = 3,
};

/* The first 4096 bytes; the rest of them is zero. */
struct format_file {
	uint64_t magic;
	uint32_t crc; /* of the whole struct, with this field 0 */
	uint16_t kind;
	uint16_t stream;
	uint32_t sequence; /* never reused; names the file: seg/%08x, jnl/%08x */
	uint32_t epoch;
	uint64_t bytes;
	uint32_t previous_sequence; /* the file of this kind and stream before it; 0: none */
	uint32_t previous_end;	    /* its durable end, in pages */
	uint8_t uuid[16];	    /* of the spool */
};
static_assert(sizeof(struct format_file) == 56, "a file header's bytes");

#define FORMAT_CHUNK_MAGIC UINT32_C(0x4b4e4843) /* "CHNK" */

struct format_chunk {
	uint32_t magic;
	uint32_t crc;	      /* sequence, then the chunk's `bytes` with this field 0 */
	uint32_t sequence;    /* of the file */
	uint32_t number;      /* 0, 1, 2 ... within the file */
	uint32_t bytes;	      /* with this header, without the zeros that fill the last page */
	uint32_t records;     /* how many follow */
	uint32_t durable_end; /* in pages: the file was durable up to here when this was written */
	uint32_t epoch;
	uint64_t reserved[4];
};
static_assert(sizeof(struct format_chunk) == 64, "a chunk header's bytes");

/* ── messages, in segments ────────────────────────────────────────────────────────── */

#define FORMAT_MESSAGE_MAGIC UINT32_C(0x4753454d) /* "MESG" */

enum format_message_flags {
	FORMAT_BIG = 1,		   /* the body is big/<id>, with format_big after the envelope */
	FORMAT_8BIT = 2,	   /* the body has octets above 127 */
	FORMAT_UTF8 = 4,	   /* its header needs SMTPUTF8 onward; addresses are looked at */
	FORMAT_DOT_LINES = 8,	   /* a line of the body begins with a dot */
	FORMAT_NO_FINAL_CRLF = 16, /* the body doesn't end in CRLF */
	FORMAT_REPORT = 32,	   /* has ORIGIN entries */
	FORMAT_BINARY = 64,	   /* BODY=BINARYMIME */
	FORMAT_NEEDS_TLS = 128,	   /* REQUIRETLS */
	FORMAT_LONG_LINES = 256,   /* a line has more than 998 octets */
};

/* Followed by the envelope, zeros up to 8 bytes, then the body or (FORMAT_BIG) struct
 * format_big and its CRCs; zeros up to 8 bytes. */
struct format_message {
	uint32_t magic;
	uint32_t crc;	       /* sequence, then this header with this field 0 */
	uint32_t envelope_crc; /* of the envelope: no sequence, it moves with the message */
	uint32_t body_crc;     /* of the body; FORMAT_BIG: of struct format_big and its CRCs */
	uint64_t id;
	int64_t arrival_us; /* wall time */
	uint64_t body_bytes;
	uint32_t envelope_bytes;
	uint32_t expiry_s;
	uint16_t recipients;
	uint16_t flags;
	int16_t priority; /* -9 .. 9 */
	uint16_t jobs;
	uint32_t class_id;
	uint32_t reserved;
};
static_assert(sizeof(struct format_message) == 64, "a message header's bytes");

struct format_big {
	uint64_t bytes;
	uint32_t crc_count; /* one CRC for each MiB begun; uint32_t each, after this struct */
	uint32_t reserved;
};
static_assert(sizeof(struct format_big) == 16, "a big message's reference");

enum { FORMAT_BIG_CRC_SPAN = 1 << 20 }; /* octets of it under one checksum */

/* Not rounded up by adding: a senseless size would have none. */
static inline uint64_t format_big_crc_count(uint64_t bytes)
{
	return bytes / FORMAT_BIG_CRC_SPAN + (bytes % FORMAT_BIG_CRC_SPAN > 0);
}

/* ── the envelope: entries, sorted as written by queue/envelope.c ─────────────────── */

enum format_entry_type {
	FORMAT_SENDER = 1,    /* address; empty: the null sender */
	FORMAT_RECIPIENT = 2, /* struct format_recipient, address, ORCPT; sorted by domain */
	FORMAT_ENVID = 3,
	FORMAT_RET = 4,	   /* 'F' or 'H' */
	FORMAT_ORIGIN = 5, /* struct format_origin */
	FORMAT_CLIENT = 6, /* address text of the client, for `show` and the log */
	FORMAT_AUTH = 7,   /* who was authenticated */
	FORMAT_PREFIX = 8, /* what goes before the body on the wire: whole header fields of ours */
};

struct format_entry {
	uint8_t type;
	uint8_t reserved;
	uint16_t bytes; /* of the value that follows; no padding between entries */
};
static_assert(sizeof(struct format_entry) == 4, "an envelope entry's header");

struct format_recipient {
	uint8_t notify; /* enum envelope_notify; 0: not given */
	uint8_t reserved;
	uint16_t address_bytes;
	uint16_t domain_at; /* where in the address the domain begins */
	uint16_t orcpt_bytes;
};
static_assert(sizeof(struct format_recipient) == 8, "a recipient's header");

/* What a report is about: it settles these recipients, or says that a warning was sent. Of a
 * message from the drop directory: `message` is the XXH64 of its file's name, `recipients` the
 * inode's number. */
struct format_origin {
	uint64_t message;
	uint64_t recipients; /* mask, from `first` on */
	uint16_t first;
	uint8_t kind; /* enum format_origin_kind */
	uint8_t reserved[5];
};
static_assert(sizeof(struct format_origin) == 24, "an origin's bytes");

enum format_origin_kind {
	FORMAT_ORIGIN_BOUNCE = 1,  /* those recipients are settled as bounced */
	FORMAT_ORIGIN_DELAY = 2,   /* FORMAT_WARNED is set */
	FORMAT_ORIGIN_SUCCESS = 3, /* ... as delivered, whether or not it says so */
	FORMAT_ORIGIN_FILE = 4,	   /* taken in from the drop directory */
};

/* ── journal records: 64 bytes, or n x 64 up to 512 ───────────────────────────────── */

enum format_record_type {
	FORMAT_JOB = 1, /* absolute state; `state` may be final */
	FORMAT_MARK = 2,
	FORMAT_START = 3,
	FORMAT_DEST = 4,
	FORMAT_TEXT = 5,
	FORMAT_CLASS = 6,
	FORMAT_POLICY = 7,
};

enum format_state {
	FORMAT_WAITING = 1, /* some recipients are pending */
	FORMAT_DELIVERED = 2,
	FORMAT_BOUNCED = 3,
	FORMAT_DISCARDED = 4,
	FORMAT_REMOVED = 5,
};

enum format_job_flags {
	FORMAT_JOB_HELD = 1,
	FORMAT_JOB_WARNED = 2,
	FORMAT_JOB_IN_DOUBT = 4,	/* a final reply never came: it may have been delivered */
	FORMAT_JOB_MAYBE_DUPLICATE = 8, /* an outcome may be lost: the next delivery is logged so */
	FORMAT_JOB_DAMAGED = 16,	/* the body cannot be read */
	FORMAT_JOB_BIG = 32,
	FORMAT_JOB_NEEDS_8BIT = 64,
	FORMAT_JOB_NEEDS_UTF8 = 128,
	FORMAT_JOB_NEEDS_TLS = 256,
};

/* The key of a job is (message, first). The live image of this record is a slot of the index:
 * there `crc` is the slot's sequence counter. */
struct format_job {
	uint32_t crc;  /* sequence, then the record with this field 0 */
	uint8_t type;  /* FORMAT_JOB */
	uint8_t state; /* the last one to end decides which final state is shown */
	uint16_t flags;
	uint64_t message;
	uint64_t pending; /* bit i: recipient first + i is not settled */
	uint32_t version; /* the highest wins */
	uint16_t first;
	uint16_t attempts;
	uint32_t segment; /* where the message is: file sequence */
	uint32_t place;	  /* ... and offset / 8 */
	uint32_t due_s;
	uint32_t expiry_s;
	uint32_t dest;	   /* id of a DEST record of this stream */
	uint32_t class_id; /* 0: none */
	uint32_t text;	   /* id of a TEXT record; 0: none */
	uint16_t reply;	   /* the last reply's code; 0: none */
	uint16_t enhanced; /* class * 10000 + subject * 100 + detail, each below its limit; 0: none
			    */
};
static_assert(sizeof(struct format_job) == 64, "a job record's bytes");

enum { FORMAT_MARK_REPEATED_S = 600 };

/* Every message of this stream that lies before (segment, place) has records for all its jobs
 * in the journal before this one, and the consequences of every report are recorded. It tells
 * the latest time that was seen, and the one that was believed (queue/expiry.h), and is repeated
 * for that after FORMAT_MARK_REPEATED_S; also when the clock was set. */
struct format_mark {
	uint32_t crc;
	uint8_t type;
	uint8_t reserved[3];
	uint32_t segment, place;
	uint64_t wall_us;
	int64_t believed_us; /* 0: as wall_us says */
	uint64_t unused[4];
};
static_assert(sizeof(struct format_mark) == 64, "a mark's bytes");

struct format_start {
	uint32_t crc;
	uint8_t type;
	uint8_t reserved[3];
	uint32_t epoch;
	uint32_t unused[13];
};
static_assert(sizeof(struct format_start) == 64, "a start record's bytes");

/* DEST: a domain. TEXT: host NUL reply text, masked. CLASS: tenant NUL campaign NUL source pool.
 * POLICY: who NUL action NUL filter. `bytes` of it follow; zeros up to 64. */
struct format_define {
	uint32_t crc; /* sequence, then all units with this field 0 */
	uint8_t type;
	uint8_t units; /* of 64 bytes, 1 .. 8 */
	uint16_t bytes;
	uint32_t id;	  /* from 1; never reused in its stream */
	uint32_t until_s; /* POLICY */
	char text[48];	  /* goes on into the further units */
};
static_assert(sizeof(struct format_define) == 64, "a definition's first unit");

#endif
