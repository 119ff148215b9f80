/*
 * peer - model MX hosts: complete, strict SMTP servers with a character each.
 *
 * What a recipient gets is in its local part: "ok..." is accepted, "bad..." refused for good,
 * "full..." has 452 a few times, "late..." 451 for some time, "maybe..." 451 by lot; every
 * other address is accepted. An LMTP host may say it at RCPT or behind the message. Faults
 * (weather.h: peer_faults, drop_at_dot) come on top, at any step; in clear weather there are none,
 * but characters stay.
 *
 * A peer tells the ledger of each message that it has taken, and judges the daemon as a harsh
 * receiver would: a breach of protocol is a finding.
 *
 * Source: RFC 5321, 2033, 1870, 2920, 3030, 3461, 6152, 6531.
 */
#ifndef SIM_PEER_H
#define SIM_PEER_H

#include "os/os.h"

enum peer_extension {
	PEER_PIPELINING = 1,
	PEER_CHUNKING = 2,
	PEER_8BITMIME = 4,
	PEER_SMTPUTF8 = 8,
	PEER_SIZE = 16,
	PEER_DSN = 32,
	PEER_ENHANCED = 64,
};

/* A host's character. Plain data; zeroes are a patient host without extensions. */
struct peer_traits {
	char name[64];	     /* as it greets */
	uint32_t offers;     /* peer_extension */
	bool lmtp;	     /* a mail store: LHLO, and a reply for each recipient */
	bool judges_late;    /* an LMTP host: behind the message, not at RCPT */
	bool helo_only;	     /* 502 to EHLO */
	bool multiline;	     /* replies of several lines */
	bool greylists;	     /* 451 at a recipient's first attempts */
	bool chunking_lie;   /* BDAT is answered by 502 */
	bool pipelining_lie; /* loses, at times, what was sent behind a command */
	bool reads_slowly;
	bool takes_lone_dot;	  /* 354 to DATA although no recipient was accepted */
	uint32_t greylist_s;	  /* how long */
	uint32_t messages_max;	  /* of a session, then 421; 0: no limit */
	uint32_t connections_max; /* at once, then a greeting of 421; 0: no limit */
	uint32_t recipients_max;  /* of a message, then 452; 0: no limit */
	uint32_t reply_ms;	  /* before each reply, on average */
};

struct peer; /* opaque; in the arena, with what it remembers of its recipients */

/* Draws a character. */
void peer_traits_draw(struct peer_traits *traits, const char *name);
/* One of an LMTP host. */
void peer_traits_draw_lmtp(struct peer_traits *traits, const char *name);
/* For the whole run; copies. */
struct peer *peer_create(const struct peer_traits *traits);
/* In each life: connections to `address` reach this host from now on. */
void peer_open(struct peer *peer, const struct os_address *address);

#endif
