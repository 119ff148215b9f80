/*
 * handover - a message and its recipients on their way to the daemon: by SMTP to one of its
 * listeners, or into the drop directory.
 *
 *   WAITING ──► TAKEN      the daemon said 250 after the data
 *           ──► REFUSED    it said 5xx
 *           ──► LATER      it said 4xx, or nothing at all ──► handover_keep() ──► TAKEN
 *
 * Promise: a recipient is TAKEN only when the message is on stable storage for it. One that is
 * LATER may have it, too, if the connection died between the data and the reply.
 *
 * Thread: blocks.
 * Source: RFC 5321; engine/inbound/drop_file.h.
 */
#ifndef TOOLS_HANDOVER_H
#define TOOLS_HANDOVER_H

#include "engine/config/config.h"
#include "engine/smtp/address.h"
#include "os/span.h"

enum handover_state {
	HANDOVER_WAITING,
	HANDOVER_TAKEN,
	HANDOVER_REFUSED,
	HANDOVER_LATER,
};

enum { HANDOVER_REPLY_BYTES = 256 };

struct handover_recipient {
	struct smtp_address address;
	enum handover_state state;
	char reply[HANDOVER_REPLY_BYTES]; /* why it is REFUSED or LATER */
};

struct handover {
	struct smtp_address sender; /* empty: the null sender */
	struct handover_recipient *recipients;
	size_t count;
	struct span message; /* CRLF, dots not doubled */
	bool eightbit, utf8;
	uint8_t notify;	   /* enum envelope_notify; 0: not given */
	char ret;	   /* 'F', 'H' or 0 */
	const char *envid; /* in xtext; NULL: none */
};

/* A connection to one of the listeners that can be spoken to in clear from this machine, or
 * -errno: nobody listens. */
int handover_connect(const struct config *config);
/* Every WAITING recipient becomes something else. Closes `fd`; negative: nobody listens. */
void handover_send(struct handover *handover, const struct config *config, int fd);
/* Keeps the message for those that are LATER: they become TAKEN. 0; or -errno, with the folder
 * in `path`, and some are still LATER. */
int handover_keep(struct handover *handover, const struct config *config, const char **path);

#endif
