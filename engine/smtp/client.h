/*
 * client - the sending side of one SMTP (or LMTP) connection, as a pure machine.
 *
 *   smtp_client_submit(transaction) ──► commands ──► smtp_client_output() ──► the peer
 *   smtp_client_feed(bytes) ──► replies, each to the step that asked for it
 *                           ──► host: recipient(...), finished(transaction)
 *
 * Every command pushes a step into one queue; every complete reply pops the first. So a reply
 * is always its own command's, however deep the pipeline: with CHUNKING and PIPELINING, the
 * next transactions' flights (MAIL, RCPT, BDAT LAST) leave before the replies to the last.
 *
 * Promise: every submitted transaction is finished exactly once, each of its recipients with
 * one verdict; a final reply that never came is SMTP_UNKNOWN, and a recipient whose message
 * was not sent whole is SMTP_NOT_SENT: never guessed.
 * Non-promise: no I/O, no clock; smtp_client_deadline_ms() tells how long the peer may take.
 *
 * Streaming: a flight that follows another whose outcome is open begins with RSET, and so does
 * one after a transaction that ended without success: else a server that still has the earlier
 * MAIL open would take the new message under the old sender.
 *
 * Replies that come before their command was sent (a peer that refuses in mid-body) wait until
 * it was, or count when the connection is lost, if they refuse.
 *
 * Verdicts of our own (no reply, `reply` NULL): too big 552 5.3.4, no SMTPUTF8 553 5.6.7,
 * connection lost: reply 0, enhanced 4.4.2.
 *
 * Thread: its owner's. The host's functions are called from inside feed(), sent(), lost(),
 * quit() and submit(); they may submit and quit, and may not destroy.
 * Source: RFC 5321, 2033, 2920, 3030, 1870, 6152, 6531, 3461.
 */
#ifndef ENGINE_SMTP_CLIENT_H
#define ENGINE_SMTP_CLIENT_H

#include <sys/uio.h>

#include "engine/smtp/reply.h"
#include "os/list.h"
#include "os/span.h"

struct smtp_client; /* opaque */

enum smtp_verdict {
	SMTP_PENDING = 0,
	SMTP_DELIVERED,
	SMTP_DEFERRED, /* 4xx, or a connection that ended before this recipient's outcome was open
			*/
	SMTP_FAILED,   /* 5xx */
	SMTP_UNKNOWN,  /* sent whole, and the final reply never came */
	SMTP_NOT_SENT, /* not this message's fault, not an attempt: give it to another connection */
};

/* Enhanced codes of failures that no server said: the message can't go to this peer. */
enum smtp_own_failure {
	SMTP_OWN_TOO_BIG = 50304, /* RFC 1870: above the stated SIZE */
	SMTP_OWN_8BIT = 50603,	  /* RFC 6152: octets above 127, and no 8BITMIME */
	SMTP_OWN_UTF8 = 50607,	  /* RFC 6531: no SMTPUTF8 */
};

struct smtp_client_recipient {
	struct span address; /* borrowed */
	struct span orcpt;
	uint8_t notify;
	uint8_t verdict;	  /* enum smtp_verdict, set before `finished` */
	uint16_t reply, enhanced; /* of this recipient; as smtp_reply has them */
	/* The caller's: */
	uint8_t index;
};

/* One message to several recipients; the caller's until `finished`. */
struct smtp_transaction {
	struct span sender;
	struct span envid; /* empty: none */
	char ret;	   /* 'F', 'H' or 0 */
	bool eightbit, utf8;
	bool dot_lines; /* a line of the body begins with a dot */
	bool no_final_crlf;
	uint64_t body_bytes;
	/* The body: all of it in memory, or pulled piece by piece with host->body_more. */
	struct span body;
	struct smtp_client_recipient *recipients;
	uint32_t recipient_count;
	void *context;
	bool mail_deferred; /* MAIL got a 4xx: another host may take it */
	bool sent_whole;    /* its last octet was sent: no vector points into its body any more */
	/* private: */
	uint32_t issued, answered; /* of the RCPTs */
	uint32_t accepted;
	uint32_t open;	/* recipients without a verdict */
	uint32_t steps; /* replies that are due */
	uint8_t stage;
	bool begun; /* an octet of it was sent */
	bool heard; /* something of it was answered */
	uint64_t body_sent;
	struct list link;
};

enum smtp_client_state {
	SMTP_CLIENT_GREETING,
	SMTP_CLIENT_HELLO,
	SMTP_CLIENT_READY, /* may take transactions */
	SMTP_CLIENT_QUITTING,
	SMTP_CLIENT_ENDED, /* close the connection */
};

struct smtp_client_host {
	/* EHLO or HELO is done: the extensions are known, submit away. */
	void (*ready)(void *context);
	/* A recipient has its verdict, with the reply that gave it (NULL if none did). The reply
	 * is borrowed. */
	void (*recipient)(void *context, struct smtp_transaction *transaction,
			  struct smtp_client_recipient *recipient, const struct smtp_reply *reply);
	/* All recipients have their verdicts; the transaction is the caller's again. After a loss
	 * or a 421, vectors that point into its body may still be with the kernel: the body has to
	 * stay until that operation is done, whoever asked for it. */
	void (*finished)(void *context, struct smtp_transaction *transaction);
	/* The session cannot go on or never began: refused greeting, refused hello, 421, nonsense.
	 * Said once; transactions are finished first. `reply` may be NULL. */
	void (*ended)(void *context, const char *why, const struct smtp_reply *reply);
	/* More of a body that is not in memory (body.at is NULL, body_bytes is not 0): the next
	 * piece, empty for "later" (then smtp_client_output() has more when the caller has). Never
	 * more than body_bytes in all. Borrowed until the next call for this transaction, or
	 * `finished`. Called from inside output(); must not call back. May be NULL if never used.
	 */
	struct span (*body_more)(void *context, struct smtp_transaction *transaction);
};

struct smtp_client_options {
	const char *hello; /* our name; an A-label */
	bool lmtp;
	bool pipelining;    /* false: never, whatever the peer offers */
	bool chunking;	    /* use BDAT where offered */
	uint32_t depth_max; /* transactions streamed ahead of their replies; 1: none */
	uint32_t recipients_per_flight_max; /* RCPTs ahead of their replies; 0: no limit */
};

/* Copies `options`; borrows the name and `host` until destroy. */
struct smtp_client *smtp_client_create(const struct smtp_client_options *options,
				       const struct smtp_client_host *host, void *context);
/* No transaction may be unfinished, no vector of output() with the kernel. Accepts NULL. */
void smtp_client_destroy(struct smtp_client *client);

enum smtp_client_state smtp_client_state(const struct smtp_client *client);
/* Why it ended, for people; known from the first `finished` that the end causes. "" before. */
const char *smtp_client_why(const struct smtp_client *client);

/* What the peer offered. */
enum smtp_extension {
	SMTP_HAS_PIPELINING = 1,
	SMTP_HAS_SIZE = 2,
	SMTP_HAS_8BITMIME = 4,
	SMTP_HAS_SMTPUTF8 = 8,
	SMTP_HAS_CHUNKING = 16,
	SMTP_HAS_DSN = 32,
	SMTP_HAS_STARTTLS = 64,
	SMTP_HAS_BINARYMIME = 128,
	SMTP_HAS_ENHANCED = 256,
};
uint32_t smtp_client_extensions(const struct smtp_client *client);

/* How many more transactions it takes now: 0 while one is in the way (or not ready). */
uint32_t smtp_client_room(const struct smtp_client *client);
/* There must be room. Depth beyond 1 is used after the first message was taken by the peer. A
 * verdict of our own comes before this returns, `finished` included. */
void smtp_client_submit(struct smtp_client *client, struct smtp_transaction *transaction);
uint32_t smtp_client_unfinished(const struct smtp_client *client);

/* Sends QUIT behind what is under way; `ended` comes with the reply or the loss. */
void smtp_client_quit(struct smtp_client *client);

/* Fills up to `max` vectors with what is to be sent; they stay valid until smtp_client_sent(),
 * whatever is fed or submitted in between. 0: nothing now. */
int smtp_client_output(struct smtp_client *client, struct iovec *iov, int max);
void smtp_client_sent(struct smtp_client *client, size_t count);

void smtp_client_feed(struct smtp_client *client, struct span bytes);
/* The connection is gone (or its deadline passed): gives every open recipient its verdict,
 * then `ended`. */
void smtp_client_lost(struct smtp_client *client, const char *why);

/* How long the peer may take for what it owes us now (RFC 5321, 4.5.3.2), from the moment
 * it last got or sent something; 0: nothing is awaited. */
struct smtp_client_timeouts {
	uint32_t greeting_ms, hello_ms, mail_ms, rcpt_ms, data_ms, block_ms, final_ms, quit_ms;
};
uint32_t smtp_client_deadline_ms(const struct smtp_client *client,
				 const struct smtp_client_timeouts *timeouts);

#endif
