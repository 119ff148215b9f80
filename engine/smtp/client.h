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
 * Verdicts of our own (no reply, `reply` NULL): too big 5.3.4, no 8BITMIME 5.6.3, no SMTPUTF8
 * 5.6.7 for those whose address needs it (all, if the sender's does), 5.6.9 for its header;
 * connection lost: reply 0, enhanced 4.4.2.
 *
 * Without memory for a command it ends as after a loss, at the next smtp_client_output().
 *
 * Thread: its owner's. The host's functions are called from inside feed(), sent(), lost(),
 * quit(), submit() and output(); they may submit and quit, and may not destroy.
 * Source: RFC 5321, 2033, 2920, 3030, 1870, 6152, 6531, 3461, 3207, 9422, 4954.
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
	SMTP_OWN_8BIT = 50603,	  /* RFC 6152, 3030: octets above 127, and no 8BITMIME; or binary */
	SMTP_OWN_UTF8 = 50607,	  /* RFC 6531: no SMTPUTF8, and an address beyond ASCII */
	SMTP_OWN_UTF8_HEADER = 50609, /* the same, and only a header beyond ASCII */
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
	bool eightbit;	   /* octets above 127 */
	bool binary;	   /* and line ends that are none: only by BDAT, to who has BINARYMIME */
	bool utf8;	   /* octets above 127 in its header; addresses are looked at */
	bool dot_lines;	   /* a line of the body begins with a dot */
	bool no_final_crlf;
	bool to_blame; /* for a connection lost before any reply to it: SMTP_DEFERRED */
	uint64_t body_bytes;
	/* Goes before the body: whole lines, none beginning with a dot; may be empty. Copied when
	 * it is sent. */
	struct span prefix;
	/* The body: all of it in memory, or pulled piece by piece with host->body_more. */
	struct span body;
	struct smtp_client_recipient *recipients;
	uint32_t recipient_count;
	void *context;
	bool mail_deferred; /* MAIL got a 4xx: another host may take it */
	bool lost_at;	    /* the connection ended while it was the oldest, and begun */
	bool sent_whole;    /* its last octet was sent: no vector points into its body any more */
	/* private: */
	uint32_t issued, answered; /* of the RCPTs */
	uint32_t accepted;
	uint32_t open;	/* recipients without a verdict */
	uint32_t steps; /* replies that are due */
	uint8_t stage;
	bool utf8_said;	  /* MAIL has SMTPUTF8 */
	bool begun;	  /* an octet of it was sent */
	bool given_whole; /* output() gave out its last octet: the peer may have all of it */
	bool heard;	  /* something of it was answered */
	uint64_t body_sent;
	struct list link;
};

enum smtp_client_state {
	SMTP_CLIENT_GREETING,
	SMTP_CLIENT_HELLO,
	SMTP_CLIENT_STARTTLS, /* asked for, or the handshake is under way */
	SMTP_CLIENT_AUTH,     /* is logging in */
	SMTP_CLIENT_READY,    /* may take transactions */
	SMTP_CLIENT_QUITTING,
	SMTP_CLIENT_ENDED, /* close the connection */
};

struct smtp_client_host {
	/* EHLO or HELO is done: the extensions are known, submit away. */
	void (*ready)(void *context);
	/* The peer has said 220 to STARTTLS and nothing more: the handshake is due, and after it
	 * smtp_client_secured(). May be NULL without options.tls. */
	void (*starttls)(void *context);
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
	bool tls;	   /* use STARTTLS where it is offered ... */
	bool tls_required; /* ... and end where it is not, or is refused */
	bool secured;	   /* TLS is on before the greeting */
	/* To log in with, before anything else; borrowed until destroy, at most 255 octets each.
	 * NULL: not. Without it the connection ends: smtp_client_auth_trouble(). */
	const char *auth_user, *auth_password;
	bool auth_in_clear; /* also without TLS */
	/* 530, 534, 535 and 538 to MAIL and RCPT are about us: such mail waits. */
	bool smarthost;
	bool pipelining;    /* false: never, whatever the peer offers */
	bool chunking;	    /* use BDAT where offered */
	uint32_t depth_max; /* transactions streamed ahead of their replies; 1: none */
	uint32_t recipients_per_flight_max; /* RCPTs ahead of their replies; 0: no limit */
};

/* Copies `options`; borrows the name and `host` until destroy. NULL: no memory. */
struct smtp_client *smtp_client_create(const struct smtp_client_options *options,
				       const struct smtp_client_host *host, void *context);
/* No transaction may be unfinished, no vector of output() with the kernel. Accepts NULL. */
void smtp_client_destroy(struct smtp_client *client);

enum smtp_client_state smtp_client_state(const struct smtp_client *client);
/* Why it ended, for people; known from the first `finished` that the end causes. "" before. */
const char *smtp_client_why(const struct smtp_client *client);
/* It ended for want of TLS: 4.7.4 (not offered, refused) or 4.7.5 (the peer broke off, between
 * STARTTLS and smtp_client_secured()), as enhanced codes are written; 0: for another reason. */
uint16_t smtp_client_tls_trouble(const struct smtp_client *client);

/* It ended because we could not log in, and not only for now. */
bool smtp_client_auth_trouble(const struct smtp_client *client);
/* Codes that say: we are not let in. */
bool smtp_reply_is_auth(uint16_t code);

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
	SMTP_HAS_AUTH_PLAIN = 512,
	SMTP_HAS_AUTH_LOGIN = 1024,
};
uint32_t smtp_client_extensions(const struct smtp_client *client);

/* How many transactions the peer takes in a session, by its MAILMAX; 0: it told no limit. Its
 * RCPTMAX is kept to by itself: recipients beyond it are SMTP_NOT_SENT. */
uint32_t smtp_client_messages_max(const struct smtp_client *client);

/* The handshake is done: what the peer offered before is forgotten, and EHLO said again. */
void smtp_client_secured(struct smtp_client *client);

/* How many more transactions it takes now: 0 while one is in the way (or not ready). */
uint32_t smtp_client_room(const struct smtp_client *client);
/* The peer has told a SIZE that is less than the message. */
bool smtp_client_too_big(const struct smtp_client *client,
			 const struct smtp_transaction *transaction);
/* There must be room. Depth beyond 1 is used after the first message was taken by the peer. A
 * verdict of our own comes before this returns, `finished` included. */
void smtp_client_submit(struct smtp_client *client, struct smtp_transaction *transaction);
uint32_t smtp_client_unfinished(const struct smtp_client *client);

/* Sends QUIT behind what is under way; `ended` comes with the reply or the loss. */
void smtp_client_quit(struct smtp_client *client);

/* Fills up to `max` vectors with what is to be sent at once, some 128 KiB; they stay valid until
 * smtp_client_sent(), whatever is fed or submitted in between. 0: nothing now. */
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

/* All that is sent of the message, without stuffing. */
static inline uint64_t smtp_transaction_bytes(const struct smtp_transaction *transaction)
{
	return transaction->prefix.len + transaction->body_bytes;
}

#endif
