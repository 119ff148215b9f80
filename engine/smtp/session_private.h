/*
 * session_private - what the parts of the session share: its state, and the places
 * where it lies (session.c: bytes and life; session_output.c: replies in their order;
 * session_command.c: verbs; session_body.c: DATA and BDAT; session_auth.c: AUTH;
 * session_xclient.c: XCLIENT).
 */
#ifndef ENGINE_SMTP_SESSION_PRIVATE_H
#define ENGINE_SMTP_SESSION_PRIVATE_H

#include "engine/smtp/dot.h"
#include "engine/smtp/session.h"

enum {
	SESSION_LINE_MAX = 4096,	 /* of a command, with its CRLF */
	SESSION_AUTH_LINE_MAX = 12288,	 /* of AUTH and its responses: RFC 4954, 4 */
	SESSION_AUTH_FAILURES_MAX = 5,	 /* of a session, then 421 */
	SESSION_REPLY_MAX = 512,	 /* of a reply line; longer texts are cut */
	SESSION_OUTPUT_MAX = 64 << 10,	 /* of replies that are not sent: no command beyond it */
	SESSION_OVERSIZE_MAX = 16 << 20, /* how much of what is too big is read, before we close */
};

/* What the next octets are. */
enum session_mode {
	SESSION_COMMAND,
	SESSION_SKIP, /* the rest of a line that was too long */
	SESSION_DATA,
	SESSION_CHUNK,
	SESSION_ANSWER,	  /* a line that answers 334 */
	SESSION_CHECKING, /* nothing, until the host knows the password */
	SESSION_TLS,	  /* a handshake, which is not for us to read */
	SESSION_CLOSED,	  /* nothing is read any more */
};

/* Which commands are in order. */
enum session_stage {
	SESSION_START, /* no EHLO yet */
	SESSION_READY,
	SESSION_MAIL,
	SESSION_RCPT,
	SESSION_BDAT,	     /* between chunks */
	SESSION_BDAT_FAILED, /* a chunk was refused: more of them are eaten, until RSET */
};

/* Which response is awaited. */
enum session_auth_step {
	SESSION_AUTH_NONE,
	SESSION_AUTH_PLAIN,
	SESSION_AUTH_LOGIN_USER,
	SESSION_AUTH_LOGIN_PASSWORD,
};

struct session_buffer {
	char *bytes; /* owned; NULL while empty for long */
	size_t start, end, size;
};

/* A message whose verdict is due; replies after it wait in `held`. */
struct session_pending {
	char *reply; /* owned: the verdict came before an earlier message's */
	uint32_t held_bytes;
};

struct smtp_session {
	const struct smtp_session_host *host;
	void *context;
	struct smtp_session_options options;

	enum session_mode mode;
	enum session_stage stage;
	bool paused;
	bool secured;	   /* under TLS */
	bool extended;	   /* EHLO, not HELO */
	bool open;	   /* the host has a transaction */
	bool wake;	   /* MAIL was refused: what was pipelined after it is no mistake */
	bool suspect;	   /* smtp_session_suspect() */
	bool utf8, binary; /* of this transaction */
	bool authenticated;
	bool secret;	/* smtp_session_heard_secret() */
	bool skip_auth; /* SESSION_SKIP: of AUTH */
	bool skip_cr;	/* SESSION_SKIP: the last octet was CR */
	uint32_t recipients, messages, errors;
	enum session_auth_step auth_step;
	uint32_t auth_failures;
	char *auth_user; /* owned: what LOGIN's first response said */
	char *hello;	 /* owned; what the client calls itself */

	/* a command whose end has not arrived; owned */
	char *line;
	uint32_t line_len, line_size;

	/* the body */
	struct smtp_dot_decoder decoder;
	uint64_t body_bytes;
	uint64_t chunk_bytes, chunk_left;
	bool chunk_last;
	struct smtp_answer refusal; /* to what is being thrown away; code 0: it is not */

	/* replies */
	bool lost; /* one could not be kept for want of memory: none behind it is said */
	struct session_buffer out, held;
	struct session_pending *pending; /* owned; a ring of pending_size, a power of two */
	uint32_t pending_size, pending_count;
	uint32_t ticket_first; /* of pending[ticket_first % pending_size] */
};

/* session_output.c: a reply that cannot be kept closes the session. */
void session_reply(struct smtp_session *session, uint16_t code, const char *enhanced,
		   const char *text);
/* Lines as they are, with their CRLF. */
void session_reply_raw(struct smtp_session *session, struct span lines);
/* The ticket of a message whose reply has its place here. False: no memory for it. */
bool session_reply_later(struct smtp_session *session, uint32_t *ticket_out);
/* As many replies wait, to be sent or for a verdict, as are kept for a client. */
bool session_output_full(const struct smtp_session *session);
void session_output_free(struct smtp_session *session);

/* session.c */
/* A reply to what the client did wrong; one too many closes the session. */
void session_mistake(struct smtp_session *session, uint16_t code, const char *enhanced,
		     const char *text);
void session_close(struct smtp_session *session, const char *why);
/* What the client calls itself. False: no memory, and the session is closed. */
bool session_hello_set(struct smtp_session *session, struct span name);
/* Back to where MAIL is due; tells the host. */
void session_reset(struct smtp_session *session, const char *why);

/* session_command.c: a line without its CRLF. */
void session_command(struct smtp_session *session, struct span line);
void session_foreign(struct smtp_session *session);

/* session_auth.c */
void session_auth(struct smtp_session *session, struct span argument);
/* The line that answers 334. */
void session_auth_answer(struct smtp_session *session, struct span line);
/* The exchange is off, by the client's fault. */
void session_auth_cancel(struct smtp_session *session, uint16_t code, const char *enhanced,
			 const char *text);
bool session_auth_offered(const struct smtp_session *session);
void session_auth_free(struct smtp_session *session);

/* session_xclient.c */
void session_xclient(struct smtp_session *session, struct span argument);

/* session_body.c */
void session_data_begin(struct smtp_session *session);
void session_bdat_begin(struct smtp_session *session, uint64_t size, bool last);
size_t session_data_feed(struct smtp_session *session, struct span bytes);
size_t session_chunk_feed(struct smtp_session *session, struct span bytes);

#endif
