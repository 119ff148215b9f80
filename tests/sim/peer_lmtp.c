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

/* The text of a message, for as long as a reply about it is under way. */
struct letter {
	char sender[PEER_ADDRESS_BYTES];
	char *text;
	size_t bytes;
	uint32_t users;
};

/* One recipient's copy, while its 250 is under way. */
struct copy {
	struct net_watch watch;
	struct letter *letter;
	char *recipient;
};

static struct letter *letter_take(struct peer_message *message)
{
	struct letter *letter = calloc(1, sizeof(*letter));

	assert(letter);
	snprintf(letter->sender, sizeof(letter->sender), "%s", message->sender);
	letter->text = message->text;
	letter->bytes = message->bytes;
	letter->users = 1;
	message->text = NULL;
	return letter;
}

static void letter_release(struct letter *letter)
{
	if (--letter->users > 0)
		return;
	free(letter->text);
	free(letter);
}

static void keep(const struct letter *letter, const char *recipient, bool sure)
{
	sim_trace("saved for %s, %s", recipient, sure ? "and said so" : "unheard");
	ledger_taken(letter->sender, &recipient, 1, letter->text, letter->bytes, sure);
}

static void on_settled(struct net_watch *watch, bool arrived)
{
	struct copy *copy = container_of(watch, struct copy, watch);

	keep(copy->letter, copy->recipient, arrived);
	letter_release(copy->letter);
	free(copy->recipient);
	free(copy);
}

static bool save(struct peer_session *session, struct letter *letter, const char *recipient)
{
	struct copy *copy = malloc(sizeof(*copy));
	bool go_on;

	assert(copy);
	copy->watch.settled = on_settled;
	copy->letter = letter;
	copy->recipient = strdup(recipient);
	letter->users++;
	go_on = session_reply(session, 250, "2.0.0", "saved");
	if (go_on)
		net_watch(session->sock, &copy->watch);
	else
		on_settled(&copy->watch, false);
	return go_on;
}

/* What the mailbox says. */
static struct peer_verdict verdict_of(struct peer_session *session, const char *recipient)
{
	if (session->peer->traits.judges_late)
		return peer_judge(session->peer, recipient);
	if (!weather_is_clear() && sim_chance(weather()->peer_faults))
		return sim_below(4) == 0
			       ? (struct peer_verdict){ 552, "5.2.2", "over quota" }
			       : (struct peer_verdict){ 451, "4.3.0", "the store is busy" };
	return (struct peer_verdict){ 250, "2.0.0", "saved" };
}

static bool answer(struct peer_session *session, struct letter *letter, const char *recipient)
{
	struct peer_verdict verdict = verdict_of(session, recipient);

	if (verdict.code == 250)
		return save(session, letter, recipient);
	if (verdict.code >= 500)
		ledger_refused(recipient);
	return session_reply(session, verdict.code, verdict.enhanced, verdict.text);
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
	struct letter *letter = letter_take(&message);
	bool go_on;

	session->message = (struct peer_message){ 0 };
	session->taken_count++;
	go_on = answer_each(session, &message, letter);
	letter_release(letter);
	message_reset(&message);
	return go_on;
}
