#include "engine/delivery/feed_private.h"

#include <stdlib.h>

#include "engine/delivery/lane.h"
#include "engine/delivery/outcome.h"
#include "engine/delivery/site_health.h"
#include "engine/delivery/sites.h"

enum {
	DEFER_JOBS = 256, /* of a domain, each turn */
	SINGLE_LENT = 64, /* of a domain whose jobs need no connection, at once */
	FEEDS_KEPT = 4096,
};

struct feed *feed_of_site_link(struct list *link)
{
	return container_of(link, struct feed, site_link);
}

static void activate(struct feed *feed)
{
	if (!list_linked(&feed->link))
		list_push_back(&feed->feeds->active, &feed->link);
}

void feed_ready(struct feed *feed)
{
	feed->ready = true;
	activate(feed);
}

/* Too many outcomes wait for the disk: nothing moves before they are through. */
static bool is_stalled(struct feed *feed)
{
	if (queue_stream_may_dispatch(feed->stream))
		return false;
	list_remove(&feed->link);
	list_push_back(&feed->feeds->stalled, &feed->link);
	return true;
}

static const struct config_route *route_of(const struct feed *feed)
{
	return config_route(feed->feeds->worker->config, queue_dest_name(feed->stream, feed->dest));
}

/* ── why a domain waits ───────────────────────────────────────────────────────────── */

struct wait {
	struct os_wall until;
	uint16_t code, enhanced;
	bool final;	  /* nothing will change: fail */
	const char *text; /* borrowed for the turn */
};

/* True: its answer has no host now, or its site is down. */
static bool waiting_for(struct feed *feed, struct wait *out)
{
	struct worker *worker = feed->feeds->worker;
	struct mx_answer *answer = feed->answer;
	struct site *site;

	if (!answer || answer->status == MX_FAIL)
		return false;
	if (answer->status == MX_DEFER) {
		uint64_t now_ns = worker_mono(worker).ns;
		uint64_t pause_ns = answer->until.ns > now_ns ? answer->until.ns - now_ns : 0;

		*out = (struct wait){
			.until = { worker_wall(worker).us + (int64_t)(pause_ns / 1000) },
			.enhanced = answer->enhanced,
			.text = answer->text,
		};
		return true;
	}
	site = sites_get(worker->sites, answer, worker->config, route_of(feed));
	if (!site || !site_is_down(site))
		return false;
	*out = (struct wait){
		.until = site_down_until(site),
		.code = site->reason_code,
		.enhanced = site->reason_enhanced,
		.final = site->takes_no_mail,
		.text = site->reason,
	};
	return true;
}

/* ── jobs, taken and concluded ────────────────────────────────────────────────────── */

static void on_concluded(struct feed *feed)
{
	feed->lent--;
	feed->feeds->lent--;
	if (feed->ready)
		activate(feed);
	feed_rest(feed);
}

static void conclude(struct delivery *delivery)
{
	struct site *site = delivery->site;

	assert(delivery->owner == worker_self());
	delivery->site = NULL;
	if (site)
		site_returned(site);
	outcome_conclude(delivery->owner, delivery, on_concluded);
}

static void on_return(struct letter *letter)
{
	conclude(container_of(letter, struct delivery, letter));
}

void feed_delivered(struct delivery *delivery)
{
	struct worker *here = worker_self();

	lane_leave(delivery);
	if (delivery->owner == here) {
		conclude(delivery);
		return;
	}
	delivery->letter.open = on_return;
	mailbox_send(here->engine->mailboxes, here->index, delivery->owner->index,
		     &delivery->letter);
}

/* Waiting is all that can be done for it now, for the reason of its domain. */
static void wait_on(struct delivery *delivery)
{
	struct feed *feed = delivery->feed;
	struct wait wait;

	if (!waiting_for(feed, &wait)) {
		delivery_close(delivery, SMTP_NOT_SENT, 0, 0, "");
		return;
	}
	delivery->retry_at = wait.until;
	delivery_close(delivery, wait.final ? SMTP_FAILED : SMTP_DEFERRED, wait.code, wait.enhanced,
		       wait.text);
}

static void fail_by_route(struct delivery *delivery)
{
	const char *text = delivery->route->text;

	delivery_close(delivery, SMTP_FAILED, 0, smtp_enhanced_parse(span_text(text)), text);
}

/* RFC 5321, 4.5.3.1.6: such lines may be cut on the way, which some routes would rather not see. */
static bool refuses_long_lines(const struct delivery *delivery)
{
	return delivery->job->message->flags & FORMAT_LONG_LINES &&
	       delivery->route->delivery.long_lines == CONFIG_LONG_LINES_REFUSE;
}

/* The message is in memory: on to the site, or to the end. */
static void send_on(struct delivery *delivery)
{
	const struct mx_answer *answer = delivery->feed->answer;

	delivery_address(delivery);
	if (delivery->expire) {
		outcome_expire(delivery->owner, delivery, on_concluded);
		return;
	}
	if (delivery->route->action == CONFIG_ROUTE_DISCARD) {
		delivery->discard = true;
		delivery_close(delivery, SMTP_DELIVERED, 0, 20000, "discarded by its route");
	} else if (delivery->route->action == CONFIG_ROUTE_FAIL) {
		fail_by_route(delivery);
	} else if (refuses_long_lines(delivery)) {
		delivery_close(delivery, SMTP_FAILED, 0, 50600,
			       "a line of the message is longer than 998 octets, and its route "
			       "refuses such lines");
	} else if (delivery->site) {
		lane_take(delivery->site, delivery);
		return;
	} else if (answer && answer->status == MX_FAIL) {
		delivery_close(delivery, SMTP_FAILED, 0, answer->enhanced, answer->text);
	} else {
		wait_on(delivery);
	}
	conclude(delivery);
}

/* Nobody knows the recipients any more: the queue holds the job, and the operator is told. */
static void give_up_on(struct delivery *delivery, enum queue_status status)
{
	struct queue_job *job = delivery->job;
	char id[QUEUE_ID_TEXT_BYTES];

	queue_id_text(job->message_id, id);
	if (status == QUEUE_DAMAGED)
		log_notice(LOG_ERROR,
			   "message %s is damaged on disk, its envelope can't be read: it is "
			   "held%s; look at the disk, then at 'stafette show %s'",
			   id,
			   job->expired ? ", and tried once at each start, for it has expired" : "",
			   id);
	else
		log_notice(LOG_WARNING, "message %s could not be read (%s): tried again later", id,
			   status == QUEUE_SPACE ? "out of memory" : "the disk failed");
	outcome_unreadable(delivery->owner, delivery, on_concluded);
}

void feed_give_back(struct feeds *feeds, struct queue_job *job)
{
	job->context = NULL;
	if (job->message)
		queue_return(job->stream, job);
	else
		feeds->lent++; /* until feed_loaded() */
}

void feed_loaded(struct feeds *feeds, struct queue_job *job, enum queue_status status)
{
	struct delivery *delivery = job->context;
	struct site *site;

	if (!delivery) {
		feeds->lent--;
		queue_return(job->stream, job);
		return;
	}
	site = delivery->site;
	assert(delivery->owner == feeds->worker);
	delivery->damaged = status == QUEUE_DAMAGED;
	if (job->message && (status == QUEUE_OK || delivery->expire)) {
		send_on(delivery);
		return;
	}
	delivery->site = NULL;
	if (site)
		site_returned(site);
	if (!job->message) {
		give_up_on(delivery, status);
		return;
	}
	delivery_address(delivery);
	delivery_close(delivery, SMTP_DEFERRED, 0, 40300, "the message on our disk is damaged");
	conclude(delivery);
}

bool feed_lend(struct feed *feed, struct queue_job *job, struct site *site)
{
	struct delivery *delivery =
		delivery_create(feed, job, feed->feeds->worker->config, route_of(feed));

	if (!delivery) {
		feed_give_back(feed->feeds, job);
		list_remove(&feed->link);
		list_push_back(&feed->feeds->stalled, &feed->link);
		return false;
	}
	feed->lent++;
	feed->feeds->lent++;
	delivery->owner = feed->feeds->worker;
	delivery->expire = job->expired;
	if (site && !job->expired) {
		delivery->site = site;
		site->outstanding++;
	}
	if (job->message)
		send_on(delivery);
	return true;
}

bool feed_pull(struct feed *feed, struct site *site)
{
	struct queue_job *job;

	if (!feed->ready || feed->feeds->state != FEEDS_GOING || is_stalled(feed))
		return false;
	job = queue_take(feed->stream, feed->dest);
	if (job)
		return feed_lend(feed, job, site);
	feed->ready = false;
	return false;
}

/* ── domains ──────────────────────────────────────────────────────────────────────── */

/* One line for all of them: their reason is their domain's, not theirs. */
static void log_deferred(const struct feed *feed, uint32_t jobs, const struct wait *wait)
{
	struct worker *worker = feed->feeds->worker;
	char enhanced[12];

	log_begin(worker->log, worker_wall(worker), "domain-deferred");
	log_text(worker->log, "site", queue_dest_name(feed->stream, feed->dest));
	log_number(worker->log, "jobs", jobs);
	log_text(worker->log, "enhanced", span_text(smtp_enhanced_text(wait->enhanced, enhanced)));
	log_text(worker->log, "reply", span_text(wait->text));
	log_number(worker->log, "next_attempt", os_wall_seconds(wait->until) + 1);
	log_end(worker->log);
}

/* Those that are given up or whose senders are to be warned go one by one, the others in bulk. */
static void defer_ready(struct feed *feed, const struct config_route *route,
			const struct wait *wait)
{
	const struct config_delivery *policy = &route->delivery;
	uint64_t left_ms =
		policy->expire_ms > policy->warn_ms ? policy->expire_ms - policy->warn_ms : 0;
	struct queue_verdict verdict = {
		.due_s = os_wall_seconds(wait->until) + 1,
		.reply = wait->code,
		.enhanced = wait->enhanced,
		.text = span_text(wait->text),
	};
	uint32_t now_s = os_wall_seconds(worker_wall(feed->feeds->worker));
	uint32_t warn_expiry_s = policy->warn_ms > 0 ? now_s + (uint32_t)(left_ms / 1000) : 0;
	uint32_t deferred;
	bool more;

	if (is_stalled(feed))
		return;
	deferred =
		queue_defer(feed->stream, feed->dest, DEFER_JOBS, warn_expiry_s, &verdict, &more);
	if (deferred > 0)
		log_deferred(feed, deferred, wait);
	if (more) {
		activate(feed);
		return;
	}
	while (feed->lent < SINGLE_LENT && feed_pull(feed, NULL))
		;
}

void feed_site_is_down(struct feed *feed)
{
	feed->site = NULL;
	activate(feed);
}

static void join_site(struct feed *feed, struct site *site)
{
	if (feed->site != site)
		list_remove(&feed->site_link);
	feed->site = site;
	if (!list_linked(&feed->site_link))
		list_push_back(&site->feeds, &feed->site_link);
	site_touch(site);
}

static void use_answer(struct feed *feed, const struct config_route *route)
{
	struct wait wait;
	struct site *site;
	bool waits = waiting_for(feed, &wait);

	if (waits && !wait.final) {
		defer_ready(feed, route, &wait);
		return;
	}
	if (waits || feed->answer->status == MX_FAIL) {
		while (feed->lent < SINGLE_LENT && feed_pull(feed, NULL))
			;
		return;
	}
	site = sites_get(feed->feeds->worker->sites, feed->answer, feed->feeds->worker->config,
			 route);
	if (site)
		join_site(feed, site);
	else
		list_push_back(&feed->feeds->stalled, &feed->link);
}

static void on_answer(struct mx_request *request, struct mx_answer *answer)
{
	struct feed *feed = container_of(request, struct feed, request);

	feed->asking = false;
	mx_answer_unref(feed->answer);
	feed->answer = answer;
	activate(feed);
}

static bool answer_is_fresh(const struct feed *feed)
{
	return feed->answer && feed->answer->until.ns > worker_mono(feed->feeds->worker).ns;
}

static void ask(struct feed *feed, const struct config_route *route)
{
	struct worker *worker = feed->feeds->worker;
	struct mx_answer *answer = mx_resolve(worker->mx, &feed->request,
					      queue_dest_name(feed->stream, feed->dest), route);

	if (!answer) {
		feed->asking = true;
		return;
	}
	mx_answer_unref(feed->answer);
	feed->answer = answer;
}

void feed_go(struct feed *feed)
{
	const struct config_route *route = route_of(feed);

	if (!feed->ready || feed->asking)
		return;
	if (route->action == CONFIG_ROUTE_FAIL || route->action == CONFIG_ROUTE_DISCARD) {
		while (feed->lent < SINGLE_LENT && feed_pull(feed, NULL))
			;
		return;
	}
	if (!answer_is_fresh(feed))
		ask(feed, route);
	if (!feed->asking)
		use_answer(feed, route);
}

/* ── life ─────────────────────────────────────────────────────────────────────────── */

struct feed *feed_create(struct feeds *feeds, struct queue_stream *stream, uint32_t stream_index,
			 uint32_t dest)
{
	struct feed *feed = calloc(1, sizeof(*feed));

	if (!feed)
		return NULL;
	feed->feeds = feeds;
	feed->stream = stream;
	feed->stream_index = stream_index;
	feed->dest = dest;
	feed->request.done = on_answer;
	list_init(&feed->link);
	list_init(&feed->site_link);
	feeds->by_stream[stream_index][dest] = feed;
	feeds->count++;
	return feed;
}

void feed_destroy(struct feed *feed)
{
	struct feeds *feeds = feed->feeds;

	assert(feed->lent == 0);
	mx_cancel(&feed->request);
	list_remove(&feed->link);
	list_remove(&feed->site_link);
	mx_answer_unref(feed->answer);
	feeds->by_stream[feed->stream_index][feed->dest] = NULL;
	feeds->count--;
	free(feed);
}

void feed_rest(struct feed *feed)
{
	if (feed->feeds->count > FEEDS_KEPT && feed->lent == 0 && !feed->ready && !feed->asking &&
	    !list_linked(&feed->link))
		feed_destroy(feed);
}

void feed_reconsider(struct feed *feed)
{
	mx_cancel(&feed->request);
	feed->asking = false;
	mx_answer_unref(feed->answer);
	feed->answer = NULL;
	list_remove(&feed->site_link);
	feed->site = NULL;
	if (feed->ready)
		activate(feed);
}
