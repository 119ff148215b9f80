/*
 * inbound_private - a client's connection as its two files see it.
 *
 *   inbound.c: bytes between socket and session ◄──► inbound_session.c: what the session asks
 *
 * Thread: its worker.
 */
#ifndef ENGINE_INBOUND_PRIVATE_H
#define ENGINE_INBOUND_PRIVATE_H

#include "engine/inbound/inbound.h"

struct inbound {
	struct conn conn;
	struct inbound_shared *shared;
	struct smtp_session *session; /* NULL: its PROXY header is not here */
	struct relay_client client;
	struct os_address peer;		    /* whom the session is for */
	bool counted;			    /* the gate has let it in */
	const struct config *config;	    /* a reference: the session keeps to it */
	const struct config_listener *door; /* in `config` */
	struct tls *tls_next;		    /* owned: 220 to STARTTLS is on its way */
	struct tls_facts tls;		    /* .text "": in clear */
	struct auth_check *check;	    /* AUTH; lent until on_checked() */
	struct auth_user user;		    /* owned; .name NULL: nobody logged in */
	struct list link, dirty_link;
	const struct inbound_gate *gate;

	struct intake *intake; /* the open transaction */
	struct list committed; /* intakes that wait for their verdict */
	struct list refused;   /* intakes to be answered as soon as feed() is back */

	char *stash; /* bytes that the session would not take yet */
	size_t stash_len;

	char *output; /* the send in flight */
	size_t output_size;
	struct iovec vector;
	bool hung_up;	 /* the client sends no more */
	bool speechless; /* what became of a message is not known: no reply from there on */
};

/* Whatever happened: goes on with what can go on. */
void inbound_go(struct inbound *in);
/* From now on the client has as long as its session's state gives it. */
void inbound_rest_deadline(struct inbound *in);

/* A session for in->peer as it came in by in->door; not yet greeted. NULL: no memory. */
struct smtp_session *inbound_session_create(struct inbound *in);
/* The session is this client's from now on: its permission, its limits. NULL, or what it hears
 * instead of a greeting. */
const struct smtp_answer *inbound_speak_for(struct inbound *in, const struct os_address *client);
/* Nobody is logged in (any more). */
void inbound_forget_user(struct inbound *in);
/* A line in the log, about the client. */
void inbound_complain(struct inbound *in, const char *what);

#endif
