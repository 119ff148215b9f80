/*
 * intake - a message under reception, from MAIL to the queue's verdict.
 *
 *   intake_begin ──► intake_sender, intake_recipient ──► intake_open ──► intake_body ...
 *                                                              └─► intake_commit ──► verdict
 *
 * Promise: `verdict` is called exactly once after intake_commit(), from the queue's turn,
 * unless the owner let go before (intake_abandon()): then the message is accepted all the
 * same, and nobody is told.
 *
 * Thread: its worker. Intakes are reused: their envelope builders keep their memory.
 */
#ifndef ENGINE_INTAKE_H
#define ENGINE_INTAKE_H

#include "engine/received.h"
#include "engine/smtp/scan.h"
#include "engine/smtp/session.h"
#include "engine/worker.h"
#include "queue/envelope.h"

struct intake;

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
	struct smtp_scan scan;
	struct smtp_address recipient; /* the last one */
	uint64_t expire_ms;	       /* the longest of its routes */
	uint32_t ticket;	       /* the owner's */
	uint32_t counted_bytes;	       /* of pool->bytes */
	struct smtp_answer refusal;    /* why intake_commit() said no */
	bool utf8, binary;
	struct os_address client;
	char hello[256]; /* what the client called itself */
	size_t hello_len;
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
		 const struct os_address *client);
void intake_body(struct intake *intake, struct span bytes);
/* Complete. False: refused (intake->refusal), for what only the whole message shows: then
 * nothing was queued, and the intake is the owner's to drop. */
bool intake_commit(struct intake *intake, intake_verdict *verdict, void *context);
/* Drops one that was not committed. */
void intake_drop(struct intake *intake);
/* The owner of a committed one goes away. */
void intake_abandon(struct intake *intake);

#endif
