/*
 * intake - a message under reception, from MAIL to the queue's verdict.
 *
 *   intake_begin ──► intake_sender, intake_recipient ──► intake_open ──► intake_body ...
 *                                                              └─► intake_commit ──► verdict
 *                                                       (submission; DKIM; the disk)
 *
 * Promise: `verdict` is called exactly once after intake_commit(), from the queue's turn,
 * unless the owner let go before (intake_abandon()): then the message is accepted all the
 * same, and nobody is told.
 *
 * Thread: its worker. Intakes are reused: their envelope builders keep their memory.
 */
#ifndef ENGINE_INTAKE_H
#define ENGINE_INTAKE_H

#include "engine/dkim/dkim.h"
#include "engine/inbound/received.h"
#include "engine/inbound/submission.h"
#include "engine/smtp/scan.h"
#include "engine/smtp/session.h"
#include "engine/tls/tls.h"
#include "engine/worker.h"
#include "queue/envelope.h"

struct intake;

/* What is known of a session, beside what the client calls itself. */
struct session_facts {
	const struct os_address *client;
	struct span tls;  /* as struct tls_facts has it; empty: in clear */
	struct span user; /* who logged in; empty: nobody */
	bool submission;  /* its header is to be mended */
};

/* `answer` NULL: nobody knows whether the message is on the disk, and nothing may be said. */
typedef void intake_verdict(void *context, struct intake *intake, const struct smtp_answer *answer);

struct intake_pool {
	struct worker *worker;
	struct list idle;
	uint32_t idle_count;
	uint32_t committing; /* on their way to the disk */
	uint64_t bytes;	     /* of bodies under reception, as far as they are in memory */
	struct received_clock clock;
};

struct intake {
	struct list link; /* the owner's, or the pool's */
	struct intake_pool *pool;
	struct envelope_builder *envelope;
	struct queue_message *message; /* from intake_open() on */
	struct queue_accept accept;
	struct submission submission;
	struct smtp_scan scan;
	struct smtp_address recipient; /* the last one */
	uint64_t expire_ms;	       /* the longest of its routes */
	uint32_t ticket;	       /* the owner's */
	uint32_t counted_bytes;	       /* of pool->bytes */
	struct smtp_answer refusal;    /* why intake_commit() said no */
	bool utf8, binary;
	bool trace_utf8; /* our Received: line has octets above 127 */
	bool submitted;	 /* `submission` is in use */
	bool from_file;	 /* of the drop directory: struct queue_accept */
	struct os_address client;
	char hello[256]; /* what the client called itself */
	size_t hello_len;
	char tls[TLS_FACTS_BYTES]; /* "": in clear */
	char user[256];		   /* who logged in; "": nobody */
	struct dkim *dkim;	   /* NULL: never needed so far */
	const char *not_signed;	   /* for the log: why; NULL: `dkim` signs it, "": no keys */
	struct os_op sign;
	intake_verdict *verdict; /* NULL: nobody waits */
	void *context;
};

void intake_pool_init(struct intake_pool *pool, struct worker *worker);
void intake_pool_deinit(struct intake_pool *pool); /* none is committing */

/* NULL: no memory. */
struct intake *intake_begin(struct intake_pool *pool, const struct smtp_mail *mail);
void intake_recipient(struct intake *intake, const struct smtp_rcpt *rcpt);
/* Gets a message from the queue and writes its trace line. False: no memory. */
bool intake_open(struct intake *intake, const struct smtp_greeting *greeting,
		 const struct session_facts *facts);
void intake_body(struct intake *intake, struct span bytes);
/* Complete. False: refused (intake->refusal), for what only the whole message shows: then
 * nothing was queued, and the intake is the owner's to drop. */
bool intake_commit(struct intake *intake, intake_verdict *verdict, void *context);
/* Drops one that was not committed. */
void intake_drop(struct intake *intake);
/* The owner of a committed one goes away. */
void intake_abandon(struct intake *intake);

#endif
