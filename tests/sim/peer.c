#include "tests/sim/peer.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/arena.h"
#include "tests/sim/peer_private.h"
#include "tests/sim/weather.h"

enum {
	FULL_TIMES_MAX = 3,
	LATE_S_MAX = 300,
	GREYLIST_S_MAX = 120,
	REPLY_MS_MAX = 200,
};

/* Of a recipient: its first attempt, and how often it was refused for now. */
struct memory {
	struct memory *next;
	char *recipient;
	uint64_t first_ns;
	uint64_t late_ns;	 /* how long a "late" one is late */
	uint32_t full_times;	 /* left */
	uint32_t greylist_times; /* so far */
};

/* ── characters ───────────────────────────────────────────────────────────────────── */

static bool one_in(uint64_t count)
{
	return sim_below(count) == 0;
}

/* Half of the hosts are modern and offer all; the others anything, or nothing. */
static uint32_t offers_draw(void)
{
	uint32_t all = PEER_ENHANCED * 2 - 1;

	if (one_in(2))
		return all;
	return one_in(6) ? 0 : (uint32_t)sim_below(all + 1);
}

void peer_traits_draw(struct peer_traits *traits, const char *name)
{
	*traits = (struct peer_traits){
		.offers = offers_draw(),
		.helo_only = one_in(12),
		.multiline = one_in(4),
		.greylists = one_in(6),
		.chunking_lie = one_in(24),
		.pipelining_lie = one_in(16),
		.reads_slowly = one_in(12),
		.takes_lone_dot = one_in(3),
		.greylist_s = (uint32_t)sim_between(1, GREYLIST_S_MAX),
		.messages_max = one_in(4) ? (uint32_t)sim_between(1, 20) : 0,
		.connections_max = one_in(4) ? (uint32_t)sim_between(1, 4) : 0,
		.recipients_max = one_in(6) ? (uint32_t)sim_between(1, 10) : 0,
		.reply_ms = one_in(3) ? (uint32_t)sim_below(REPLY_MS_MAX) : 0,
	};
	snprintf(traits->name, sizeof(traits->name), "%s", name);
}

void peer_traits_draw_lmtp(struct peer_traits *traits, const char *name)
{
	peer_traits_draw(traits, name);
	traits->lmtp = true;
	traits->judges_late = one_in(2);
	/* What they would say to that is not written down anywhere. */
	traits->helo_only = traits->chunking_lie = traits->takes_lone_dot = false;
}

struct peer *peer_create(const struct peer_traits *traits)
{
	struct peer *peer = arena_alloc(sizeof(*peer));

	peer->traits = *traits;
	return peer;
}

void peer_open(struct peer *peer, const struct os_address *address)
{
	peer->open_count = 0;
	net_host(address, peer_serve, peer);
}

/* ── recipients ───────────────────────────────────────────────────────────────────── */

static struct memory *memory_of(struct peer *peer, const char *recipient)
{
	uint32_t hash = 5381;
	struct memory **place, *memory;

	for (const char *at = recipient; *at; at++)
		hash = hash * 33 + (uint8_t)*at;
	place = &peer->memories[hash % array_count(peer->memories)];
	for (memory = *place; memory; memory = memory->next)
		if (strcmp(memory->recipient, recipient) == 0)
			return memory;
	memory = arena_alloc(sizeof(*memory));
	*memory = (struct memory){
		.next = *place,
		.recipient = arena_strdup(recipient),
		.first_ns = sim_now(),
		.late_ns = sim_between(1, LATE_S_MAX) * SIM_S,
		.full_times = (uint32_t)sim_between(1, FULL_TIMES_MAX),
	};
	*place = memory;
	return memory;
}

static bool is_greylisted(struct peer *peer, struct memory *memory)
{
	return peer->traits.greylists && memory->greylist_times++ < 2 &&
	       sim_now() < memory->first_ns + peer->traits.greylist_s * SIM_S;
}

struct peer_verdict peer_judge(struct peer *peer, const char *recipient)
{
	struct memory *memory = memory_of(peer, recipient);

	if (span_starts_nocase(span_text(recipient), "bad"))
		return (struct peer_verdict){ 550, "5.1.1", "no such user" };
	if (is_greylisted(peer, memory))
		return (struct peer_verdict){ 451, "4.7.1", "greylisted, come again" };
	if (span_starts_nocase(span_text(recipient), "full") && memory->full_times > 0) {
		memory->full_times--;
		return (struct peer_verdict){ 452, "4.2.2", "mailbox full" };
	}
	if (span_starts_nocase(span_text(recipient), "late") &&
	    sim_now() < memory->first_ns + memory->late_ns)
		return (struct peer_verdict){ 451, "4.3.0", "not yet" };
	if (span_starts_nocase(span_text(recipient), "maybe") && one_in(2))
		return (struct peer_verdict){ 451, "4.3.0", "not this time" };
	return (struct peer_verdict){ 250, "2.1.5", "recipient ok" };
}

enum peer_fault peer_fault_draw(void)
{
	if (weather_is_clear() || !sim_chance(weather()->peer_faults))
		return FAULT_NONE;
	return (enum peer_fault)sim_between(FAULT_NONE + 1, FAULT_COUNT - 1);
}
