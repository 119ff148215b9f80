/*
 * peer_lmtp - the end of a message at an LMTP host: a reply for each accepted recipient, in order,
 * and what goes wrong between two of them.
 *
 * Source: RFC 2033, 4.2.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/ledger.h"
#include "tests/sim/peer_private.h"
#include "tests/sim/weather.h"

/* A message, until the daemon knows of each recipient: by the last reply, or by the end of the
 * connection. */
struct letter {
	struct net_watch closed;
	char sender[PEER_ADDRESS_BYTES];
	char *text;
	size_t bytes;
	uint32_t due_count;	  /* replies that the daemon has not heard */
	uint32_t users;		  /* its copies, and who answers; then the closed connection */
	struct list heard_copies; /* of copy.link */
};

/* One recipient's reply on its way, and what became of it. */
struct copy {
	struct net_watch watch;
	struct letter *letter;
	char *recipient; /* NULL: no 250 */
	struct ledger_reply *reply;
	struct list link;
};

static void letter_release(struct letter *letter)
{
	if (--letter->users > 0)
		return;
	free(letter->text);
	free(letter);
}

static void copy_free(struct copy *copy)
{
	letter_release(copy->letter);
	free(copy->recipient);
	free(copy);
}

/* The outcome of the whole transaction is known. */
static void conclude(struct letter *letter)
{
	for (struct list *node; (node = list_pop_front(&letter->heard_copies));) {
		struct copy *copy = container_of(node, struct copy, link);

		ledger_concluded(copy->reply);
		copy_free(copy);
	}
}

static void on_closed(struct net_watch *watch, bool arrived)
{
	struct letter *letter = container_of(watch, struct letter, closed);

	(void)arrived;
	conclude(letter);
	letter_release(letter);
}

static struct letter *letter_take(struct peer_session *session, struct peer_message *message)
{
	struct letter *letter = calloc(1, sizeof(*letter));

	assert(letter);
	snprintf(letter->sender, sizeof(letter->sender), "%s", message->sender);
	letter->text = message->text;
	letter->bytes = message->bytes;
	letter->due_count = message->count;
	letter->users = 2;
	list_init(&letter->heard_copies);
	message->text = NULL;
	letter->closed.settled = on_closed;
	net_watch_close(session->sock, &letter->closed);
	return letter;
}

/* ── replies ──────────────────────────────────────────────────────────────────────── */

static struct ledger_reply *keep(const struct letter *letter, const char *recipient, bool sure)
{
	sim_trace("saved for %s, %s", recipient, sure ? "and said so" : "unheard");
	return ledger_taken(letter->sender, &recipient, 1, letter->text, letter->bytes, sure);
}

static void on_settled(struct net_watch *watch, bool arrived)
{
	struct copy *copy = container_of(watch, struct copy, watch);

	if (copy->recipient)
		copy->reply = keep(copy->letter, copy->recipient, arrived);
	if (!arrived)
		copy_free(copy);
}

static void on_heard(struct net_watch *watch, bool heard)
{
	struct copy *copy = container_of(watch, struct copy, watch);
	struct letter *letter = copy->letter;
	bool last = heard && --letter->due_count == 0;

	if (heard && copy->recipient) {
		ledger_heard(copy->reply);
		list_push_back(&letter->heard_copies, &copy->link);
	} else {
		copy_free(copy);
	}
	if (last) {
		conclude(letter);
		free(letter->text);
		letter->text = NULL;
	}
}

/* `recipient`: who has it, with a 250; NULL: nobody. */
static bool reply_watched(struct peer_session *session, struct letter *letter,
			  const char *recipient, const struct peer_verdict *verdict)
{
	struct copy *copy = calloc(1, sizeof(*copy));
	bool go_on;

	assert(copy);
	copy->watch = (struct net_watch){ .settled = on_settled, .heard = on_heard };
	list_init(&copy->link);
	copy->letter = letter;
	copy->recipient = recipient ? strdup(recipient) : NULL;
	letter->users++;
	go_on = session_reply(session, verdict->code, verdict->enhanced, verdict->text);
	if (go_on)
		net_watch(session->sock, &copy->watch);
	else
		on_settled(&copy->watch, false);
	return go_on;
}

static const struct peer_verdict saved = { 250, "2.0.0", "saved" };

/* What the mailbox says. */
static struct peer_verdict verdict_of(struct peer_session *session, const char *recipient)
{
	if (session->peer->traits.judges_late)
		return peer_judge(session->peer, recipient);
	if (!weather_is_clear() && sim_chance(weather()->peer_faults))
		return sim_below(4) == 0
			       ? (struct peer_verdict){ 552, "5.2.2", "over quota" }
			       : (struct peer_verdict){ 451, "4.3.0", "the store is busy" };
	return saved;
}

static bool answer(struct peer_session *session, struct letter *letter, const char *recipient)
{
	struct peer_verdict verdict = verdict_of(session, recipient);

	if (verdict.code >= 500)
		ledger_refused(recipient);
	if (verdict.code == 250)
		return reply_watched(session, letter, recipient, &saved);
	return reply_watched(session, letter, NULL, &verdict);
}

/* The connection ends before the reply to recipient `from`: any of those that are left may have the
 * message all the same, but for one who is told 421. */
static void lose(const struct peer_message *message, const struct letter *letter, uint32_t from)
{
	for (uint32_t i = from; i < message->count; i++)
		if (sim_below(2) == 0)
			keep(letter, message->recipients[i], false);
}

/* Each reply, until one goes wrong; false: the connection is over. */
static bool answer_each(struct peer_session *session, const struct peer_message *message,
			struct letter *letter)
{
	for (uint32_t i = 0; i < message->count; i++) {
		enum peer_fault fault = peer_fault_draw();

		if (fault == FAULT_NONE && !weather_is_clear() &&
		    sim_chance(weather()->drop_at_dot))
			fault = FAULT_CLOSE;
		if (fault == FAULT_LATE)
			fiber_sleep(sim_between(SIM_S, PEER_LATE_S_MAX * SIM_S));
		if (fault == FAULT_NONE || fault == FAULT_LATE || fault == FAULT_AFTER) {
			if (!answer(session, letter, message->recipients[i]) ||
			    fault == FAULT_AFTER) {
				lose(message, letter, i + 1);
				return false;
			}
			continue;
		}
		lose(message, letter, fault == FAULT_421 ? i + 1 : i);
		return session_fault(session, fault, 250, "2.0.0", "saved");
	}
	return true;
}

bool session_lmtp_end(struct peer_session *session)
{
	struct peer_message message = session->message;
	struct letter *letter = letter_take(session, &message);
	bool go_on;

	session->message = (struct peer_message){ 0 };
	session->taken_count++;
	go_on = answer_each(session, &message, letter);
	letter_release(letter);
	message_reset(&message);
	return go_on;
}
