/*
 * ledger - the messages of a run, and what their clients know of them.
 */
#include "tests/sim/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/check.h"
#include "tests/sim/arena.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

enum {
	TRIES_MAX = 6,
	BIG_LEAST = 130 << 10,
	BIG_MOST = 700 << 10,
};

static struct ledger_book *book; /* in the arena */

struct ledger_book *ledger_book(void)
{
	assert(book);
	return book;
}

/* ── drawing ──────────────────────────────────────────────────────────────────────── */

static uint8_t draw_notify(void)
{
	uint64_t lot = sim_below(20);

	return lot == 0	  ? LEDGER_NOTIFY_NEVER
	       : lot == 1 ? LEDGER_NOTIFY_FAILURE
	       : lot < 4  ? LEDGER_NOTIFY_ALL
			  : LEDGER_NOTIFY_DEFAULT;
}

/* The words of peer.h. */
static const char *draw_verdict(void)
{
	static const char *const rare[] = { "bad", "full", "late", "maybe" };

	return sim_below(5) > 0 ? "ok" : rare[sim_below(array_count(rare))];
}

static void draw_recipient(struct ledger_message *message, uint32_t index, uint32_t domain)
{
	struct ledger_recipient *to = &message->recipients[index];

	to->domain = (uint16_t)domain;
	to->notify = draw_notify();
	snprintf(to->address, sizeof(to->address), "%s%u.m%u@%s", draw_verdict(), index,
		 message->number, world_plan()->domains[domain].name);
}

static void draw_recipients(struct ledger_message *message)
{
	uint32_t domains = world_plan()->domain_count, most = weather()->recipients_max;
	bool one_domain = sim_below(2) == 0;
	uint32_t domain = (uint32_t)sim_below(domains);

	message->recipient_count =
		most < 8 || sim_below(8) == 0 ? (uint32_t)sim_between(1, most) : 1;
	message->recipients =
		arena_alloc(message->recipient_count * sizeof(message->recipients[0]));
	for (uint32_t i = 0; i < message->recipient_count; i++)
		draw_recipient(message, i, one_domain ? domain : (uint32_t)sim_below(domains));
}

static void draw_message(struct ledger_message *message, uint32_t number)
{
	const struct weather *now = weather();

	message->number = number;
	message->null_sender = sim_below(12) == 0;
	message->insists = sim_below(3) > 0;
	message->life = (uint32_t)((uint64_t)number * (now->lives + 1) / now->messages);
	message->body_bytes = (uint32_t)sim_between(1, now->body_bytes_max);
	if (sim_below(1000) < now->big_permille)
		message->body_bytes = (uint32_t)sim_between(BIG_LEAST, BIG_MOST);
	draw_recipients(message);
}

void ledger_create(void)
{
	world_draw();
	book = arena_alloc(sizeof(*book));
	book->count = weather()->messages;
	book->reads_fail = weather()->read_fails > 0;
	book->memory_fails = weather()->memory_fails > 0;
	book->clock_jumps = weather()->clock_jumps > 0;
	book->clock_leaps = weather()->clock_leaps > 0;
	book->messages = arena_alloc(book->count * sizeof(book->messages[0]));
	for (uint32_t i = 0; i < book->count; i++)
		draw_message(&book->messages[i], i);
}

uint32_t ledger_count(void)
{
	return book->count;
}

struct ledger_message *ledger_message(uint32_t number)
{
	assert(number < book->count);
	return &book->messages[number];
}

/* ── bytes ────────────────────────────────────────────────────────────────────────── */

/* Some lines begin with dots: they are doubled on the way. */
static size_t write_line(char *to, uint32_t number, uint32_t line)
{
	static const char filling[] = "the quick brown fox jumps over the lazy dog and back";
	uint32_t length = (number * 31 + line * 17) % (sizeof(filling) - 1);
	const char *dots = line % 7 == 3 ? "." : line % 11 == 5 ? ".." : "";

	return (size_t)sprintf(to, "%sm%u %u %.*s\r\n", dots, number, line, (int)length, filling);
}

char *ledger_text(const struct ledger_message *message, size_t *bytes_out)
{
	static char page[BIG_MOST + 2048];
	uint32_t number = message->number, line = 0;
	size_t bytes = (size_t)sprintf(page,
				       "From: <m%u@" WORLD_SENDER_DOMAIN ">\r\n"
				       "To: undisclosed-recipients:;\r\n"
				       "Subject: message m%u\r\n"
				       "Message-ID: <m%u@" WORLD_SENDER_DOMAIN ">\r\n\r\n",
				       number, number, number);
	char *text;

	while (bytes < message->body_bytes)
		bytes += write_line(page + bytes, number, line++);
	text = arena_alloc(bytes);
	memcpy(text, page, bytes);
	*bytes_out = bytes;
	return text;
}

/* ── names ────────────────────────────────────────────────────────────────────────── */

/* The number behind "m", up to `end`. */
static bool read_number(const char *at, char end, uint32_t *out)
{
	char *stop;
	unsigned long number;

	if (*at != 'm' || at[1] < '0' || at[1] > '9')
		return false;
	number = strtoul(at + 1, &stop, 10);
	*out = (uint32_t)number;
	return *stop == end && number < book->count;
}

bool ledger_find(const char *address, struct ledger_message **message_out, uint32_t *index_out)
{
	const char *dot = strchr(address, '.'), *digits = dot;
	struct ledger_message *message;
	uint32_t number, index;

	if (!dot || !read_number(dot + 1, '@', &number))
		return false;
	while (digits > address && digits[-1] >= '0' && digits[-1] <= '9')
		digits--;
	index = (uint32_t)strtoul(digits, NULL, 10);
	message = &book->messages[number];
	if (digits == dot || index >= message->recipient_count ||
	    strcmp(message->recipients[index].address, address) != 0)
		return false;
	*message_out = message;
	*index_out = index;
	return true;
}

struct ledger_stored *ledger_stored(struct ledger_message *message, const char *id)
{
	struct ledger_stored *stored = message->stored;

	while (stored && strcmp(stored->id, id) != 0)
		stored = stored->next;
	if (stored)
		return stored;
	if (strlen(id) + 1 != LEDGER_ID_BYTES)
		sim_finding("m%u is stored under '%s', which is no id", message->number, id);
	stored = arena_alloc(sizeof(*stored));
	stored->ends = arena_alloc(message->recipient_count * sizeof(stored->ends[0]));
	snprintf(stored->id, sizeof(stored->id), "%s", id);
	stored->next = message->stored;
	message->stored = stored;
	if (book->open_hint > message->number)
		book->open_hint = message->number;
	return stored;
}

/* ── the clients ──────────────────────────────────────────────────────────────────── */

static bool is_to_be_sent(const struct ledger_message *message)
{
	if (message->life > weather_life() || message->tries >= TRIES_MAX)
		return false;
	return message->state == LEDGER_UNSENT || message->state == LEDGER_REFUSED ||
	       (message->state == LEDGER_MAYBE && message->insists);
}

struct ledger_message *ledger_next(void)
{
	for (uint32_t i = book->sent_hint; i < book->count; i++) {
		struct ledger_message *message = &book->messages[i];

		if (!is_to_be_sent(message) || message->again_ns > sim_now())
			continue;
		message->state = LEDGER_SENDING;
		message->dotted = false;
		if (message->tries == 0)
			message->first_ns = sim_now();
		message->tries++;
		return message;
	}
	return NULL;
}

/* Nothing will be sent of it any more, also not in a later life. */
static bool is_final(const struct ledger_message *message)
{
	switch (message->state) {
	case LEDGER_UNSENT:
	case LEDGER_SENDING:
		return false;
	case LEDGER_ACCEPTED:
		return true;
	case LEDGER_MAYBE:
		return !message->insists || message->tries >= TRIES_MAX;
	case LEDGER_REFUSED:
		return message->tries >= TRIES_MAX;
	}
	return false;
}

bool ledger_all_sent(void)
{
	while (book->sent_hint < book->count && is_final(&book->messages[book->sent_hint]))
		book->sent_hint++;
	for (uint32_t i = book->sent_hint; i < book->count; i++)
		if (is_to_be_sent(&book->messages[i]) || book->messages[i].state == LEDGER_SENDING)
			return false;
	return true;
}

static void again_later(struct ledger_message *message)
{
	message->again_ns = sim_now() + (UINT64_C(1) << message->tries) * SIM_S;
}

void ledger_dotted(struct ledger_message *message)
{
	assert(message->state == LEDGER_SENDING);
	if (!message->dotted)
		message->maybes++;
	message->dotted = true;
}

static void accept_id(struct ledger_message *message, const char *text)
{
	static const char words[] = "queued as ";
	const char *at = strstr(text, words);
	char id[LEDGER_ID_BYTES];
	struct ledger_stored *stored;

	if (!at || strlen(at) < sizeof(words) - 1 + sizeof(id) - 1)
		sim_finding("m%u: a 250 without an id: %s", message->number, text);
	snprintf(id, sizeof(id), "%s", at + sizeof(words) - 1);
	stored = ledger_stored(message, id);
	if (stored->acknowledged)
		sim_finding("m%u: the id %s was given twice", message->number, id);
	stored->acknowledged = true;
	stored->acknowledged_life = weather_life();
	stored->acknowledged_ns = sim_now();
	message->state = LEDGER_ACCEPTED;
	sim_trace("ledger: m%u accepted as %s", message->number, id);
}

void ledger_answered(struct ledger_message *message, int code, const char *text)
{
	assert(message->state == LEDGER_SENDING);
	if (message->dotted)
		message->maybes--;
	message->dotted = false;
	if (code / 100 == 2) {
		accept_id(message, text);
		return;
	}
	sim_trace("ledger: m%u refused: %s", message->number, text);
	message->state = LEDGER_REFUSED;
	if (code / 100 == 5)
		message->tries = TRIES_MAX;
	again_later(message);
}

void ledger_broken(struct ledger_message *message)
{
	assert(message->state == LEDGER_SENDING);
	sim_trace("ledger: m%u %s", message->number, message->dotted ? "maybe" : "broken off");
	message->state = message->dotted ? LEDGER_MAYBE : LEDGER_REFUSED;
	message->dotted = false;
	again_later(message);
}

void ledger_life_ended(bool crashed)
{
	struct ledger_life *life = &book->lives[weather_life()];

	assert(weather_life() + 1 < LEDGER_LIVES_MAX);
	life->ended_ns = sim_now();
	life->crashed = crashed;
	life->disk_failed = disk_failures() > book->failures_before;
	life->tight = weather()->tight_disk;
	book->failures_before = disk_failures();
	for (uint32_t i = 0; i < book->count; i++)
		if (book->messages[i].state == LEDGER_SENDING)
			ledger_broken(&book->messages[i]);
	life[1].began_ns = sim_now();
	sim_trace("ledger: life %u ended, %s", weather_life(), crashed ? "crashed" : "in order");
	weather_next_life();
}

uint64_t ledger_deliveries(void)
{
	return book->deliveries;
}
