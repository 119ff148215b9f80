/*
 * peer_private - one session of a model host. Private to peer*.c.
 *
 *   peer.c          characters, memory of recipients, faults
 *   peer_session.c  commands and replies
 *   peer_data.c     the message itself, and who has taken it
 *   peer_lmtp.c     the same of an LMTP host, for each recipient
 */
#ifndef SIM_PEER_PRIVATE_H
#define SIM_PEER_PRIVATE_H

#include "os/span.h"
#include "tests/sim/net.h"
#include "tests/sim/peer.h"

enum {
	PEER_RECIPIENTS_MAX = 1000,
	PEER_ADDRESS_BYTES = 330,
	PEER_LINE_BYTES = 2048,
	PEER_INPUT_BYTES = 16384,
	PEER_LATE_S_MAX = 900, /* a reply that comes after all */
	PEER_LINGER_S_MAX = 30,
};

struct peer {
	struct peer_traits traits;
	uint32_t open_count; /* sessions in this life */
	struct memory *memories[64];
};

/* What a session does wrong. */
enum peer_fault {
	FAULT_NONE,
	FAULT_CLOSE,  /* FIN in place of a reply */
	FAULT_RESET,  /* RST in place of a reply */
	FAULT_HALF,   /* half of the reply, then FIN */
	FAULT_AFTER,  /* the reply, then FIN at once */
	FAULT_421,    /* "closing", in place of a reply */
	FAULT_BABBLE, /* nonsense in place of a reply */
	FAULT_LATE,   /* the reply after minutes */
	FAULT_FINISH, /* FIN in place of a reply, and reads on */
	FAULT_COUNT,
};

struct peer_message {
	bool open; /* MAIL was accepted */
	char sender[PEER_ADDRESS_BYTES];
	uint64_t declared_bytes; /* SIZE=; 0: not said */
	uint32_t tried;		 /* RCPTs, also refused ones */
	uint32_t count;
	char **recipients; /* accepted; each owned */
	char *text;	   /* owned, as received */
	size_t bytes, size;
};

struct peer_session {
	struct peer *peer;
	struct sock *sock;
	uint32_t offers; /* what EHLO was told; 0 before and after HELO */
	bool greeted;
	bool reset;   /* close by RST */
	bool lingers; /* first says that it is over, and reads on for a while */
	bool deaf;    /* has lost its place in what was pipelined, and hears no more */
	uint32_t taken_count;
	struct peer_message message;
	char input[PEER_INPUT_BYTES];
	size_t input_begin, input_end;
};

/* ── peer.c ── */
struct peer_verdict {
	uint16_t code;
	const char *enhanced, *text;
};
struct peer_verdict peer_judge(struct peer *peer, const char *recipient);
enum peer_fault peer_fault_draw(void);

/* ── peer_session.c ── */
void peer_serve(struct sock *sock, void *context);
/* More input; false: the connection is over. */
bool session_fill(struct peer_session *session);
/* Is there input that was sent ahead of our reply? */
bool session_more(const struct peer_session *session);
/* Each false: the session ends. */
bool session_reply(struct peer_session *session, uint16_t code, const char *enhanced,
		   const char *text);
/* Does what the fault says in place of that reply, which FAULT_LATE and FAULT_AFTER do give. */
bool session_fault(struct peer_session *session, enum peer_fault fault, uint16_t code,
		   const char *enhanced, const char *text);
/* session_reply(), or a fault. */
bool session_say(struct peer_session *session, uint16_t code, const char *enhanced,
		 const char *text);
_Noreturn void session_breach(const struct peer_session *session, const char *what,
			      const char *line);
void message_reset(struct peer_message *message);

/* ── peer_data.c ── */
bool session_data(struct peer_session *session);
bool session_bdat(struct peer_session *session, uint64_t bytes, bool last);

/* ── peer_lmtp.c ── */
/* The whole message is here. */
bool session_lmtp_end(struct peer_session *session);

#endif
