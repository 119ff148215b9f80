/*
 * inbound - one client's connection: SMTP in, messages to the queue, verdicts out.
 *
 *   recv ──► smtp_session ──► intake (envelope, body) ──► queue_accept()
 *   send ◄── smtp_session ◄── 250 when durable ◄───────────────┘
 *
 * Promise: 250 after the data is said only after the queue's QUEUE_OK (rule R1). A client
 * that goes away before its verdict changes nothing for the message.
 *
 * Thread: its worker.
 */
#ifndef ENGINE_INBOUND_H
#define ENGINE_INBOUND_H

#include "engine/conn.h"
#include "engine/intake.h"
#include "engine/relay.h"

/* What the inbound connections of a listener share. */
struct inbound_shared {
	struct worker *worker;
	struct list connections; /* struct inbound.link */
	struct list dirty;	 /* struct inbound.dirty_link: have something to say */
	struct intake_pool intakes;
	uint32_t count; /* connections */
};

void inbound_shared_init(struct inbound_shared *shared, struct worker *worker);
void inbound_shared_deinit(struct inbound_shared *shared);

/* Takes over `fd`. `refusal` NULL, or what the client hears instead of a greeting. `left` is
 * called when the connection is gone. */
void inbound_open(struct inbound_shared *shared, int fd, const struct os_address *peer,
		  const struct smtp_answer *refusal,
		  void (*left)(struct inbound_shared *shared, const struct os_address *peer));
/* Says 421 to those that are between messages; the others follow when theirs are through. */
void inbound_drain(struct inbound_shared *shared);
void inbound_cut(struct inbound_shared *shared);
void inbound_flush(struct inbound_shared *shared);

#endif
