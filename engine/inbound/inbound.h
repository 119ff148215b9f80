/*
 * inbound - one client's connection: SMTP in, messages to the queue, verdicts out.
 *
 *   recv ──► smtp_session ──► intake (envelope, body) ──► queue_accept()
 *   send ◄── smtp_session ◄── 250 when durable ◄───────────────┘
 *   proxy_protocol: nothing is said before its header tells whose connection it is
 *   STARTTLS: 220 is sent ──► conn_start_tls() ──► the session begins anew
 *
 * Promise: 250 after the data is said only after the queue's QUEUE_OK (rule R1). A client
 * that goes away before its verdict changes nothing for the message.
 *
 * Thread: its worker.
 */
#ifndef ENGINE_INBOUND_H
#define ENGINE_INBOUND_H

#include "engine/auth/auth.h"
#include "engine/conn.h"
#include "engine/inbound/intake.h"
#include "engine/inbound/relay.h"

/* What the inbound connections of a listener share. */
struct inbound_shared {
	struct worker *worker;
	struct list connections; /* struct inbound.link */
	struct list dirty;	 /* struct inbound.dirty_link: have something to say */
	struct intake_pool intakes;
	struct auth auth;
	uint32_t count; /* connections */
};

/* Who keeps count of sessions, over all workers. */
struct inbound_gate {
	/* A session of that address begins: NULL, or what it hears instead of a greeting. */
	const struct smtp_answer *(*came)(struct inbound_shared *shared,
					  const struct os_address *client);
	/* It is over, or another's from now on. */
	void (*left)(struct inbound_shared *shared, const struct os_address *client);
	/* The connection is gone. */
	void (*gone)(struct inbound_shared *shared);
};

void inbound_shared_init(struct inbound_shared *shared, struct worker *worker);
void inbound_shared_deinit(struct inbound_shared *shared);

/* Takes over `fd`, which came in by `door` of `config`; the session keeps to that configuration.
 * `refusal` NULL, or what whoever it is hears instead of a greeting. `gate` hears of each client
 * that the session is for, by itself, by a PROXY header or by XCLIENT. */
void inbound_open(struct inbound_shared *shared, int fd, const struct os_address *peer,
		  const struct config *config, const struct config_listener *door,
		  const struct smtp_answer *refusal, const struct inbound_gate *gate);
/* Says 421 to those that are between messages; the others follow when theirs are through. */
void inbound_drain(struct inbound_shared *shared);
void inbound_cut(struct inbound_shared *shared);
void inbound_flush(struct inbound_shared *shared);

#endif
