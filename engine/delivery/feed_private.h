/*
 * feed_private - a feed and all of them, as their two files see them.
 *
 *   feeds.c: which feeds there are, whose turn it is ──► feed.c: what one of them does
 *
 * Thread: the worker that owns the streams.
 */
#ifndef ENGINE_FEED_PRIVATE_H
#define ENGINE_FEED_PRIVATE_H

#include "engine/delivery/feed.h"
#include "engine/delivery/feeds.h"
#include "engine/delivery/mx.h"

struct feed {
	struct feeds *feeds;
	struct queue_stream *stream;
	uint32_t stream_index, dest;
	uint32_t lent;	       /* deliveries that are not concluded */
	bool ready;	       /* the queue may have more */
	bool asking;	       /* `request` is waiting */
	struct site *site;     /* whose list `site_link` is in, while it is linked */
	struct list link;      /* feeds.active: feed_go() in the next turn */
	struct list site_link; /* site.feeds */
	struct mx_request request;
	struct mx_answer *answer;
};

enum feeds_state { FEEDS_PAUSED, FEEDS_GOING, FEEDS_DRAINING };

struct feeds {
	struct worker *worker;
	enum feeds_state state;
	struct list active;
	struct list stalled; /* until their stream may dispatch (R4) */
	struct timer sweep;
	struct feed ***by_stream; /* [stream_index][dest] */
	uint32_t *dest_counts;
	uint32_t count, lent;
};

/* The feed of a domain that has none; in its place in feeds->by_stream, where there is room. NULL:
 * no memory. */
struct feed *feed_create(struct feeds *feeds, struct queue_stream *stream, uint32_t stream_index,
			 uint32_t dest);
/* Nothing is lent. */
void feed_destroy(struct feed *feed);
/* A feed that has nothing to do is only a memory: it may be gone after this. */
void feed_rest(struct feed *feed);

/* The queue has jobs for it. */
void feed_ready(struct feed *feed);
/* Whatever the feed waited for: goes on as far as it can. */
void feed_go(struct feed *feed);
/* Its answer, its site and its question may be those of a route that is no more. */
void feed_reconsider(struct feed *feed);

/* On with a job that was taken; `site` NULL: it is to end without one. False: no memory; the job
 * is back. */
bool feed_lend(struct feed *feed, struct queue_job *job, struct site *site);
/* There is no memory to do anything with it: to the queue, as soon as that is done reading. */
void feed_give_back(struct feeds *feeds, struct queue_job *job);

#endif
