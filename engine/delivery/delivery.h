/*
 * delivery - one attempt at one job: the job, its transaction, and what became of it.
 *
 *   feed ── delivery_create ──► site (waiting) ──► outbound (transaction) ──► outcome
 *    owner ─────────────────► │ perhaps another worker: by letter, and back │ ─► owner
 *
 * Promise: what outcome_conclude() finds here is all that is known of the attempt: a verdict
 * for each recipient, with the reply that gave it.
 *
 * Thread: whoever has it: the job's owner, or the worker that it was lent to.
 */
#ifndef ENGINE_DELIVERY_H
#define ENGINE_DELIVERY_H

#include "engine/config/config.h"
#include "engine/mailbox.h"
#include "engine/smtp/client.h"
#include "engine/tls/tls.h"
#include "engine/worker.h"
#include "queue/queue.h"

struct feed;
struct mx_answer;
struct site;
struct outbound;
struct conversion;

/* Where a reply came from. Copied, since its connection may be gone. */
struct delivery_host {
	char name[256]; /* empty: none was reached */
	struct os_address address;
	struct os_address source;
	struct tls_facts tls;
};

struct delivery_reply {
	char *text; /* own, or the delivery's `text`; NULL: none */
	uint16_t text_len;
	bool own;
	bool codes_differ; /* between its lines */
};

enum { DELIVERY_REFUSALS_MAX = 16, DELIVERY_DEFERRALS_MAX = 4, DELIVERY_RENEWALS_MAX = 3 };

struct delivery {
	struct list link; /* of whoever has it */
	struct letter letter;
	struct feed *feed; /* owner's */
	struct worker *owner;
	struct site *site;		 /* owner's; NULL: none is needed */
	struct site *lane;		 /* of the worker that delivers; while it is there */
	struct mx_answer *answer;	 /* while it travels to another worker */
	struct outbound *outbound;	 /* while it is on a connection */
	struct body_reader *body_reader; /* of a big message, while it is sent */
	struct conversion *conversion;	 /* its own: the message for servers without 8BITMIME */
	struct os_wall retry_at;	 /* as its site wants it; .us 0: by its own backoff */
	bool discard;			 /* by its route */
	bool peer_reports;		 /* the peer has DSN: it tells the sender of a success */
	bool damaged;			 /* its body can't be read */
	bool expire;			 /* past its expiry: to be bounced, not sent */
	struct queue_job *job;
	const struct config *config; /* a reference: `route` is in it */
	const struct config_route *route;
	struct smtp_transaction transaction;
	struct os_mono begun; /* given to a connection; 0: never */
	/* Addresses, as hashes, that deferred its MAIL or told a SIZE too small for it: another one
	 * is tried at once. */
	uint64_t refused_by[DELIVERY_REFUSALS_MAX];
	uint32_t refusals;
	uint32_t deferrals; /* of its MAIL */
	uint32_t renewals;  /* connections that had enough before its turn came */
	bool renew;	    /* decided, while its body is still being read */
	struct delivery_host host;
	/* The last reply that several recipients may share, or why there was no attempt. */
	char *text;
	uint16_t text_len, reply, enhanced;
	struct delivery_reply *replies; /* as many as recipients */
	struct smtp_client_recipient recipients[];
};

/* For the pending recipients of a lent job. NULL: no memory. The envelope is read once the
 * message is there: delivery_address(). */
struct delivery *delivery_create(struct feed *feed, struct queue_job *job,
				 const struct config *config, const struct config_route *route);
/* Fills the transaction from the job's message. */
void delivery_address(struct delivery *delivery);
/* The transaction gets the message's body as it is stored. */
void delivery_use_stored(struct delivery *delivery);
/* Frees it; the job is not its own. */
void delivery_destroy(struct delivery *delivery);

/* That address has deferred its MAIL, or is not for messages of its size. */
bool delivery_refused_by(const struct delivery *delivery, const struct os_address *address);
/* It has now. False: there were too many before. */
bool delivery_refuse(struct delivery *delivery, const struct os_address *address);
/* Its recipients have verdicts: some host was asked. */
bool delivery_is_judged(const struct delivery *delivery);

/* A recipient got its verdict, by `reply` (may be NULL). */
void delivery_note(struct delivery *delivery, struct smtp_client_recipient *recipient,
		   const struct smtp_reply *reply);
/* A recipient got its verdict without a reply, for a reason that others may not share. */
void delivery_note_own(struct delivery *delivery, const struct smtp_client_recipient *recipient,
		       const char *text);
/* Recipients that got neither get this explanation: ours, not the peer's. */
void delivery_explain(struct delivery *delivery, uint16_t enhanced, const char *text);
/* All recipients without a verdict get this one. `code` and `enhanced` as in struct smtp_reply. */
void delivery_close(struct delivery *delivery, enum smtp_verdict verdict, uint16_t code,
		    uint16_t enhanced, const char *text);

#endif
