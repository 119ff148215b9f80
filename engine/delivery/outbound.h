/*
 * outbound - one connection to a destination's host, and the deliveries on it.
 *
 *   connect ──► greeting, EHLO ──► transactions, as many ahead as the peer bears ──► idle ──► QUIT
 *
 * Promise: a delivery that was given to it goes back by feed_delivered(), each recipient with
 * a verdict, whatever the peer does.
 *
 * Thread: its worker.
 * Source: RFC 5321, 4.5.3.2 (deadlines); design.md, 10.
 */
#ifndef ENGINE_OUTBOUND_H
#define ENGINE_OUTBOUND_H

#include "engine/conn.h"
#include "engine/delivery/site.h"

struct outbound;

/* A new connection of the site; 0, or -errno if none could be begun. */
int outbound_open(struct site *site, const struct mx_host *host, const struct os_address *address);
const struct os_address *outbound_address(const struct outbound *outbound);
/* Past EHLO. */
bool outbound_is_greeted(const struct outbound *outbound);
/* No delivery was given to it yet. */
bool outbound_is_unused(const struct outbound *outbound);
/* Transactions that it takes now. */
uint32_t outbound_room(const struct outbound *outbound);
void outbound_submit(struct outbound *outbound, struct delivery *delivery);
/* Sends what submitting has added; once after a number of them. */
void outbound_flush(struct outbound *outbound);
/* QUIT behind what is under way. */
void outbound_quit(struct outbound *outbound);
void outbound_cut(struct outbound *outbound);

struct outbound *outbound_of(struct list *link);

#endif
