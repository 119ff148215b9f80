/*
 * session - the server's side of one SMTP connection, as a pure machine.
 *
 *   bytes from the client ──► smtp_session_feed() ──► host: mail, rcpt, data ...
 *                                     │                      │ later: smtp_session_answer()
 *   bytes to the client  ◄── smtp_session_output() ◄─────────┘
 *
 * Promise: replies leave in the order of the commands, also when the verdict on a message
 * arrives after further commands were read (pipelined messages commit together). Only
 * CRLF.CRLF ends DATA, only CRLF ends a command. Memory is bounded by the options: while 64 KiB
 * of replies wait to be sent or for a verdict, no command is taken. Without
 * memory for a command or a reply the session ends: with 421, or with the last reply that it
 * could keep, and none behind that one.
 * Non-promise: no I/O, no clock, no limits on time: the owner keeps deadlines.
 *
 * Thread: its owner's. The host's functions are called from inside smtp_session_feed(); they
 * may not call back into the session, except where said.
 * Source: RFC 5321, 1870, 2034, 2920, 3030, 3461 (parsed and kept), 6152, 6531,
 * 3207, 4954, 9422; Postfix's XCLIENT_README.
 */
#ifndef ENGINE_SMTP_SESSION_H
#define ENGINE_SMTP_SESSION_H

#include "engine/smtp/address.h"
#include "engine/smtp/xclient.h"
#include "os/span.h"

struct smtp_session; /* opaque */

/* A reply as text after the code: "2.1.0 Sender ok". */
struct smtp_answer {
	uint16_t code;	      /* 250, 451 ... */
	const char *enhanced; /* "2.1.0"; NULL: none */
	const char *text;     /* one line; borrowed until the next call into the session */
};

enum smtp_body { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };

/* MAIL FROM with its parameters; spans borrow from the command line, during the call. */
struct smtp_mail {
	struct smtp_address sender; /* empty local part and domain: the null sender */
	uint64_t size;		    /* as declared; 0: not */
	enum smtp_body body;
	bool utf8;
	char ret;	   /* 'F', 'H' or 0 */
	struct span envid; /* as sent (xtext) */
	struct span auth;
};

struct smtp_rcpt {
	struct smtp_address recipient;
	uint8_t notify;	   /* 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0: not given */
	struct span orcpt; /* as sent */
};

/* What the client is: for Received: and the policy. */
struct smtp_greeting {
	bool extended; /* EHLO */
	struct span name;
};

/* What AUTH said, borrowed during the call and wiped after it; no NUL in any of them. */
struct smtp_credentials {
	struct span authorize; /* PLAIN: whom to act as; empty: the user itself */
	struct span user, password;
};

enum smtp_auth_verdict {
	SMTP_AUTH_OK,	       /* 235 */
	SMTP_AUTH_WRONG,       /* 535 */
	SMTP_AUTH_UNAVAILABLE, /* 454: nobody can tell now */
	SMTP_AUTH_BLOCKED,     /* 421, and the end */
	SMTP_AUTH_LATER,       /* smtp_session_authenticated() will tell */
};

struct smtp_session_host {
	/* Each decides at once, from memory. A code of 2xx accepts. */
	struct smtp_answer (*mail)(void *context, const struct smtp_mail *mail);
	struct smtp_answer (*rcpt)(void *context, const struct smtp_rcpt *rcpt);
	/* DATA or the first BDAT: 354 or 250 goes on, else the answer is given and nothing follows
	 * (no abort either: the transaction is off by this answer). A refusal's texts stay until
	 * the session is destroyed: it may be said only when a chunk was read. */
	struct smtp_answer (*begin)(void *context, const struct smtp_greeting *greeting);
	/* The body with dots undone. */
	void (*body)(void *context, struct span bytes);
	/* The body is whole. The answer comes later by smtp_session_answer(ticket), never before
	 * this function returned. The session goes on to the next transaction meanwhile. */
	void (*end)(void *context, uint32_t ticket);
	/* A transaction whose MAIL was accepted is off: RSET, new EHLO, a refused body (`why` NULL
	 * or for the log), QUIT. A refused body is still read to its end, without the host. */
	void (*abort)(void *context, const char *why);
	/* STARTTLS: 220 goes on to smtp_session_expects_tls(); 454 if it can't be now. May be NULL
	 * if it is not offered. */
	struct smtp_answer (*starttls)(void *context);
	/* AUTH. May be NULL if it is not offered. */
	enum smtp_auth_verdict (*auth)(void *context, const struct smtp_credentials *credentials);
	/* XCLIENT: whom the client speaks for from now on. 220 begins the session anew, 421 ends
	 * it. May be NULL if it is not offered. */
	struct smtp_answer (*xclient)(void *context, const struct xclient *client);
	/* One line about what the client did wrong, for the log. May be NULL, the only one. */
	void (*complaint)(void *context, const char *what);
};

enum smtp_auth_offer {
	SMTP_AUTH_OFF,
	SMTP_AUTH_TLS, /* under TLS only */
	SMTP_AUTH_ALWAYS,
};

struct smtp_session_options {
	const char *name;	 /* ours, in the greeting and EHLO */
	uint64_t size_max;	 /* of a message; 0: none stated */
	uint32_t recipients_max; /* of a transaction */
	uint32_t messages_max;	 /* of the session, then 421; 0: no limit */
	uint32_t errors_max;	 /* mistakes between two messages, then 421; 0: no limit */
	uint32_t pending_max;	 /* messages whose verdict is not in: then feed() stops; >= 1 */
	bool pipelining, chunking, smtputf8, eightbit, dsn, binarymime;
	bool limits;	   /* tells recipients_max and messages_max: RFC 9422 */
	bool xclient;	   /* this client may speak for others */
	bool starttls;	   /* offered, until it is done */
	bool tls_required; /* nothing else is taken before it: 530 */
	enum smtp_auth_offer auth;
	bool auth_required; /* no MAIL before it: 530 */
	bool normalise; /* bare CR or LF become CRLF; otherwise such mail is refused 550 5.6.0 */
};

/* Copies `options` (not the name); borrows the name and `host` until destroy. Starts with no
 * output: smtp_session_greet() is due. NULL: no memory. */
struct smtp_session *smtp_session_create(const struct smtp_session_options *options,
					 const struct smtp_session_host *host, void *context);
void smtp_session_destroy(struct smtp_session *session); /* accepts NULL; calls no host function */
size_t smtp_session_memory(const struct smtp_session *session);

/* What options.normalise said; callable before the greeting, and from host->xclient. */
void smtp_session_normalise(struct smtp_session *session, bool normalise);
/* Within rcpt(): what it refuses counts as a mistake of the client. */
void smtp_session_suspect(struct smtp_session *session);

/* Puts out the greeting: 220, or a refusal (421, 554) after which nothing is taken. */
void smtp_session_greet(struct smtp_session *session, const struct smtp_answer *refusal);

/* Takes bytes; returns how many. Fewer than given: it is closing, or waits for verdicts
 * (smtp_session_answer() then makes room), for smtp_session_sent() or smtp_session_resume(). */
size_t smtp_session_feed(struct smtp_session *session, struct span bytes);
/* Callable from host->body: feed() takes no more until resume. */
void smtp_session_pause(struct smtp_session *session);
void smtp_session_resume(struct smtp_session *session);

/* The verdict on the message of that ticket; may tell the host `abort`. */
void smtp_session_answer(struct smtp_session *session, uint32_t ticket,
			 const struct smtp_answer *answer);

/* What may be sent now; valid until the next call. The owner says how much of it is gone. */
struct span smtp_session_output(const struct smtp_session *session);
void smtp_session_sent(struct smtp_session *session, size_t count);

/* Says 421 4.x.x and takes nothing more: a deadline passed ("4.4.2"), shutdown ("4.3.2"). */
void smtp_session_shutdown(struct smtp_session *session, const char *enhanced, const char *text);
/* Nothing more will be said, and no verdict that could be is missing: close once the output is
 * sent. */
bool smtp_session_finished(const struct smtp_session *session);
/* 220 to STARTTLS is in the output: nothing more is taken, and bytes that are here already were
 * slipped in before the handshake. Once all is sent and no verdict is missing, it is due. */
bool smtp_session_expects_tls(const struct smtp_session *session);
/* The handshake is done: what the client said before is forgotten, and STARTTLS is not offered
 * any more. Where TLS comes first, before smtp_session_greet(). */
void smtp_session_secured(struct smtp_session *session);
/* The verdict after SMTP_AUTH_LATER. Until then nothing is taken. */
void smtp_session_authenticated(struct smtp_session *session, enum smtp_auth_verdict verdict);
/* Whether what was fed since the last call may hold a password: its owner wipes it. */
bool smtp_session_heard_secret(struct smtp_session *session);
/* In the middle of a message (deadline per block) or between commands. */
bool smtp_session_in_data(const struct smtp_session *session);
/* Verdicts that are still to come. */
uint32_t smtp_session_pending(const struct smtp_session *session);

#endif
