/*
 * ledger - what the world knows: each 250, each delivery, each report. It is outside of the
 * engine and survives every crash.
 *
 * A message is known by a token "m<n>" in its sender's local part, its header and each line of
 * its body, a recipient by "<verdict><k>.m<n>@<domain>", so that a peer can tell what it holds from
 * the bytes alone. It checks, while they happen and at the end, design.md 1.1 to 1.4.
 *
 *   message m7 ── stored 0GZ3...1 (the client read this 250) ── an end for each recipient
 *              └─ stored 0GZ3...4 (an earlier try, whose 250 the client never saw) ── ends
 *
 * The queue's id, from the 250, the Received: line and the reports, tells the copies of two
 * acceptances apart: each id has its own ends, and each must come to all of them.
 */
#ifndef SIM_LEDGER_H
#define SIM_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger_recipient {
	char address[96];
	bool known;	     /* RCPT was answered 250 in the transaction that was accepted */
	uint8_t notify;	     /* enum ledger_notify: what the client asks for */
	uint16_t domain;     /* of the world's */
	uint32_t deliveries; /* complete copies that a peer has taken */
	uint32_t refusals;   /* final 5xx answers given for it */
	bool handed_on;	     /* a peer was told what the client asks for: reports are its own now */
};

enum ledger_notify {
	LEDGER_NOTIFY_DEFAULT,
	LEDGER_NOTIFY_NEVER,
	LEDGER_NOTIFY_FAILURE,
	LEDGER_NOTIFY_ALL, /* SUCCESS,FAILURE,DELAY */
};

enum ledger_state {
	LEDGER_UNSENT,
	LEDGER_SENDING,
	LEDGER_ACCEPTED, /* the client has read the 250 */
	LEDGER_MAYBE,	 /* the connection broke after the final dot: may be there, may not */
	LEDGER_REFUSED,	 /* 4xx, 5xx, or broken before the dot: must never be delivered */
};

struct ledger_stored; /* private: ledger_book.h */
struct ledger_reply;  /* private: a 250 for a message, and what the daemon makes of it */

struct ledger_message {
	uint32_t number;
	enum ledger_state state;
	bool null_sender;
	bool insists;	     /* sends again what may have been accepted */
	bool dotted;	     /* in SENDING: the final dot may have left */
	uint32_t life;	     /* in which it is sent first */
	uint32_t tries;	     /* begun */
	uint32_t maybes;     /* tries that may have been accepted, unknown to the client */
	uint64_t again_ns;   /* not before */
	uint64_t first_ns;   /* of the first try */
	uint32_t body_bytes; /* about */
	uint32_t recipient_count;
	struct ledger_recipient *recipients;
	struct ledger_stored *stored;
};

void ledger_create(void); /* draws the messages of this run, in the arena */
uint32_t ledger_count(void);
struct ledger_message *ledger_message(uint32_t number);
/* The bytes of a message: header and body, CRLF; arena_free() by the caller. */
char *ledger_text(const struct ledger_message *message, size_t *bytes_out);

/* ── the clients tell ── */

/* One that is to be sent now, and is SENDING from now on; NULL: none. */
struct ledger_message *ledger_next(void);
/* None will be in this life; with ledger_next() NULL and this false: later. */
bool ledger_all_sent(void);
/* Before the final dot, or the last byte of BDAT LAST, is written. */
void ledger_dotted(struct ledger_message *message);
/* A reply that ends the try. 250: `text` names the id. */
void ledger_answered(struct ledger_message *message, int code, const char *text);
/* The connection is gone without one. */
void ledger_broken(struct ledger_message *message);

/* ── the peers tell ── */

/* A peer has taken a whole message for these recipients (those it had said 250 to), and is
 * about to answer 250. Checks its signatures (signed.h), finds the message, compares the bytes (one
 * or more Received: lines on top, and nothing else, may differ), or a report and reads it. `sure`:
 * called when the 250 has arrived; else its duplicates are excused. The reply lies in the arena. */
struct ledger_reply *ledger_taken(const char *sender, const char *const *recipients, uint32_t count,
				  const char *text, size_t bytes, bool sure);
/* The daemon believes that 250, and delivers it to them no more as long as it lives. */
void ledger_heard(struct ledger_reply *reply);
/* It knows of all whom that transaction was for: the outcome is on its way to the disk. */
void ledger_concluded(struct ledger_reply *reply);
/* A peer has given this recipient a final 5xx. */
void ledger_refused(const char *recipient);
/* A peer was told NOTIFY for this recipient. */
void ledger_handed_on(const char *recipient);

/* ── the daemon tells ── */

/* A chunk or a header begins to be written into the spool's file seg/... or jnl/...; it was, and
 * is said to be durable. */
void ledger_writing(const char *name, const void *bytes, size_t count);
void ledger_written(const char *name, const void *bytes, size_t count);
/* A line of the delivery log has left the daemon (it may be lost with the life). */
void ledger_log_line(const char *line, size_t bytes);
/* A line that the daemon said on standard error: damage without a cause is a finding. */
void ledger_notice(const char *line, size_t bytes);
/* A file of jnl/ or seg/ has come back to free/: nothing of it is needed. */
void ledger_recycled(bool journal, const char *name);
/* A life has ended, by a crash or not. */
void ledger_life_ended(bool crashed);

/* ── the end ── */

/* Every accepted recipient has its end, and the queue has drained. */
bool ledger_settled(void);
/* What is still open, for the trace and for a finding of liveness. */
const char *ledger_open_text(void);
/* Looks into the index of a daemon that is ready. `is_done`: it has had nothing to do for long. */
void ledger_index_seen(bool is_done);
/* Once a second of each life: what the spool takes. */
void ledger_spool_seen(void);
/* After the last life: all that must be true in the end. */
void ledger_check(void);
uint64_t ledger_deliveries(void);

#endif
