/*
 * outbound_private - a connection to a host as its two files see it.
 *
 *   outbound.c: bytes between socket and client machine, ◄──► outbound_session.c: what the
 *               and what the connection has room for          client machine reports
 *
 * Thread: its worker.
 */
#ifndef ENGINE_OUTBOUND_PRIVATE_H
#define ENGINE_OUTBOUND_PRIVATE_H

#include "engine/delivery/outbound.h"

enum { OUTBOUND_VECTORS = 64 };

struct outbound {
	struct conn conn;
	struct site *site;
	struct list link;
	struct smtp_client *client;
	struct delivery_host host;
	const struct config *config; /* a reference: names in it are in use */
	struct tls_policy tls;	     /* its name is the host's or the configuration's */
	struct list deliveries;
	struct list parked; /* finished, while the kernel still sends from their bodies */
	uint32_t messages;
	bool greeted; /* past EHLO: it may take transactions */
	bool quitting;
	bool delivered;		    /* some recipient */
	bool useful;		    /* some transaction was answered */
	bool spent;		    /* delivered some, and now defers MAIL: it had its fill */
	struct os_mono answered_at; /* its newest transaction */
	bool tls_broke;		    /* in the handshake, or before it began */
	bool unsent;		    /* some transaction came back as if never tried */
	struct iovec vectors[OUTBOUND_VECTORS];
};

static inline const struct config_delivery *outbound_policy(const struct outbound *outbound)
{
	return &outbound->site->route->delivery;
}

/* Begins with the handshake; the connection is lost if that can't be. */
void outbound_start_tls(struct outbound *outbound);
/* The connection is of no use any more: every delivery on it ends, for this reason. */
void outbound_lose(struct outbound *outbound, const char *why);

/* The client machine of outbound->site and outbound->host, which reports to outbound_session.c.
 * NULL: no memory. */
struct smtp_client *outbound_client_create(struct outbound *outbound,
					   const struct smtp_client_options *options);
/* The kernel has let go of the bodies that it was sending. */
void outbound_give_back_parked(struct outbound *outbound);

#endif
