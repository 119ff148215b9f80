/*
 * client_private - what the parts of the client share.
 *
 *   client.c          life, verdicts, the end
 *   client_flight.c   transactions to commands: what is sent when
 *   client_output.c   the queue of octets: text and bodies
 *   client_reply.c    replies to steps
 *   client_auth.c     logging in
 */
#ifndef ENGINE_SMTP_CLIENT_PRIVATE_H
#define ENGINE_SMTP_CLIENT_PRIVATE_H

#include "engine/smtp/client.h"
#include "engine/smtp/dot.h"
#include "engine/smtp/limits.h"

/* A reply that is due, and to what. */
enum step_kind {
	STEP_GREETING,
	STEP_EHLO,
	STEP_HELO,
	STEP_STARTTLS,
	STEP_AUTH_PLAIN, /* 334 asks for the response */
	STEP_AUTH_LOGIN, /* 334 asks for the name */
	STEP_AUTH_USER,	 /* 334 asks for the password */
	STEP_AUTH_FINAL,
	STEP_RSET,
	STEP_MAIL,
	STEP_RCPT,
	STEP_DATA,
	STEP_FINAL, /* to the dot or to BDAT LAST; LMTP: one per accepted recipient */
	STEP_QUIT,
	STEP_COUNT,
};

struct step {
	struct smtp_transaction *transaction; /* NULL: the session's own */
	uint32_t recipient;		      /* of RCPT; FINAL in LMTP: where to look on */
	uint32_t node, node_end; /* its last octet is before this place in the output */
	uint8_t kind;
};

/* What is to be issued next of a transaction. */
enum transaction_stage {
	ISSUE_RSET,
	ISSUE_MAIL,
	ISSUE_RCPT,
	ISSUE_BODY,    /* DATA, or BDAT with the body */
	ISSUE_CONTENT, /* the body, as soon as 354 is here */
	ISSUE_DONE,
};

/* Enhanced codes, RFC 3463: no TLS to be had, TLS that broke. */
enum { CLIENT_TLS_MISSING = 40704, CLIENT_TLS_BROKEN = 40705 };

/* Why it ended, for want of memory. */
#define CLIENT_STARVED "out of memory on our side"

enum { NODE_TEXT_MAX = 448, NODE_SPARE_MAX = 16, STEPS_MIN = 8 };

/* A stretch of output: text, or a body. */
struct out_node {
	struct list link;
	uint32_t serial;
	struct smtp_transaction *begins; /* its first octet is here */
	struct smtp_transaction *ends;	 /* its last octet is */
	/* a body; NULL: text */
	struct smtp_transaction *body;
	struct span rest; /* of the body: in memory and not sent */
	bool stuffing;
	struct smtp_dot_encoder encoder;
	/* text */
	bool secret; /* to be wiped */
	uint32_t len, sent;
	char text[NODE_TEXT_MAX];
};

struct smtp_client {
	const struct smtp_client_host *host;
	void *context;
	struct smtp_client_options options;
	enum smtp_client_state state;
	uint32_t extensions;
	uint64_t size_max;
	struct smtp_limits limits;
	char why[192];	      /* it ended */
	uint16_t tls_trouble; /* why it ended, if for that */
	bool auth_trouble;    /* smtp_client_auth_trouble() */
	bool logged_in;	      /* AUTH is done */
	bool shaking;	      /* 220 to STARTTLS was said */
	bool quitting;	      /* no more transactions, QUIT when all is finished */
	bool proven;	      /* a message went through: streaming may begin */
	bool dirty;	      /* the peer may have a transaction open */
	bool starved; /* no memory for what is to be sent: nothing is, and output() ends it */

	struct list waiting, active; /* transactions */
	uint32_t waiting_count, active_count;
	struct smtp_transaction *issuing; /* the last active one, while it is not issued whole */

	struct step *steps; /* a ring of step_size, a power of two; owned, if not steps_own */
	struct step steps_own[STEPS_MIN];
	uint32_t step_first, step_count, step_size;

	struct list output, spare; /* out_node */
	uint32_t spare_count;
	uint32_t node_serial; /* the last one given */

	bool reply_waiting; /* `reply` is complete, but its command is not sent */
	char *early;	    /* owned: what came after it */
	size_t early_len;
	struct smtp_reply reply;
};

/* client.c */
void client_verdict(struct smtp_client *client, struct smtp_transaction *transaction,
		    struct smtp_client_recipient *recipient, enum smtp_verdict verdict,
		    const struct smtp_reply *reply);
/* The same, with 4xx or 5xx as the reply has it, for all that have none. */
void client_verdict_all(struct smtp_client *client, struct smtp_transaction *transaction,
			const struct smtp_reply *reply);
/* Finishes it if nothing of it is due any more. */
void client_finish(struct smtp_client *client, struct smtp_transaction *transaction);
/* Everything open gets its verdict, then the host hears `why`. */
void client_end(struct smtp_client *client, const char *why, const struct smtp_reply *reply);

/* The command of the reply that waits was sent: takes it, and what came behind it. */
void client_sent_reply(struct smtp_client *client);

/* client_flight.c */
/* Sends all that may be sent by now. */
void client_issue(struct smtp_client *client);
/* 354 came. */
void client_content(struct smtp_client *client, struct smtp_transaction *transaction);
void client_hello(struct smtp_client *client);
void client_helo(struct smtp_client *client);
void client_starttls(struct smtp_client *client);
uint32_t client_depth(const struct smtp_client *client);
/* BINARYMIME, and BDAT to send it by. */
bool client_takes_binary(const struct smtp_client *client);

/* client_output.c: without memory, what is put out is cut short, and the client starved. */
void output_text(struct smtp_client *client, struct span text);
void output_secret(struct smtp_client *client, struct span text);
/* What follows is this transaction's. */
void output_begin(struct smtp_client *client, struct smtp_transaction *transaction);
void output_body(struct smtp_client *client, struct smtp_transaction *transaction, bool stuffing);
/* Nothing more of it follows. */
void output_ends(struct smtp_client *client, struct smtp_transaction *transaction);
/* A reply is due to what was just put out. */
void output_step(struct smtp_client *client, enum step_kind kind,
		 struct smtp_transaction *transaction, uint32_t recipient);
struct step *output_step_first(const struct smtp_client *client);
/* Was all of the step's command sent? */
bool output_step_sent(const struct smtp_client *client, const struct step *step);
/* The transactions in it are finished: it must not point at them any more. */
void output_orphan(struct smtp_client *client);
void output_free(struct smtp_client *client);

/* Ends it for want of TLS. */
void client_end_tls(struct smtp_client *client, uint16_t trouble, const char *why,
		    const struct smtp_reply *reply);

/* Ends it for want of a login. */
void client_end_auth(struct smtp_client *client, const char *why);

/* client_auth.c: logs in if that is wanted, then client_ready(). */
void client_auth(struct smtp_client *client);
void client_on_auth(struct smtp_client *client, const struct step *step);

/* client_reply.c */
void client_ready(struct smtp_client *client);
/* `client->reply` is complete. */
void client_reply(struct smtp_client *client);

#endif
