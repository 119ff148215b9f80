/*
 * dropper - see dropper.h. What it writes is durable at once, as sendmail promises.
 */
#include "tests/sim/dropper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/inbound/drop_file.h"
#include "os/check.h"
#include "queue/envelope.h"
#include "tests/sim/arena.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

#define DROP_FOLDER "/spool/drop"

enum { RUNS_WITH_ONE = 2 /* in so many */ };

static void add_recipient(struct envelope_builder *builder, struct ledger_recipient *to)
{
	static const uint8_t notify[] = {
		[LEDGER_NOTIFY_NEVER] = ENVELOPE_NOTIFY_NEVER,
		[LEDGER_NOTIFY_FAILURE] = ENVELOPE_NOTIFY_FAILURE,
		[LEDGER_NOTIFY_ALL] =
			ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE | ENVELOPE_NOTIFY_DELAY,
	};
	struct envelope_recipient recipient = {
		.address = span_text(to->address),
		.domain = span_text(strrchr(to->address, '@') + 1),
		.notify = notify[to->notify],
	};

	envelope_add_recipient(builder, &recipient);
	to->known = true;
}

static struct span envelope_of(struct envelope_builder *builder, struct ledger_message *message)
{
	char sender[96] = "";
	struct span envelope;
	bool sealed;

	if (!message->null_sender)
		snprintf(sender, sizeof(sender), "m%u@" WORLD_SENDER_DOMAIN, message->number);
	envelope_set_sender(builder, span_text(sender));
	for (uint32_t i = 0; i < message->recipient_count; i++)
		add_recipient(builder, &message->recipients[i]);
	sealed = envelope_seal(builder, &envelope);
	assert(sealed);
	return envelope;
}

static void put_file(const struct ledger_message *message, struct span envelope, struct span text)
{
	size_t bytes = sizeof(struct drop_head) + envelope.len + text.len;
	char *file = malloc(bytes), path[64];

	assert(file);
	drop_head_fill((struct drop_head *)file, 0, envelope, text);
	memcpy(file + sizeof(struct drop_head), envelope.at, envelope.len);
	memcpy(file + sizeof(struct drop_head) + envelope.len, text.at, text.len);
	snprintf(path, sizeof(path), DROP_FOLDER "/%u-%u", message->number, message->tries);
	disk_put(path, file, bytes);
	free(file);
}

static void leave(struct ledger_message *message)
{
	struct envelope_builder *builder = envelope_builder_create();
	size_t bytes;
	char *text = ledger_text(message, &bytes);

	assert(builder);
	sim_trace("dropper: m%u", message->number);
	ledger_dotted(message);
	put_file(message, envelope_of(builder, message), span_of(text, bytes));
	ledger_broken(message);
	arena_free(text, bytes);
	envelope_builder_destroy(builder);
}

static void dropper_run(void *context)
{
	uint64_t pause_ms = weather_is_clear() ? 1000 : 1 + weather()->life_ms / 4;

	(void)context;
	while (!ledger_all_sent()) {
		struct ledger_message *message;

		fiber_sleep(1 + sim_below(pause_ms * SIM_MS));
		message = ledger_next();
		if (message)
			leave(message);
	}
}

/* A failed sync of the folder may bring a file back after a power cut: no folder of files can
 * promise more (engine/inbound/drop.h), and what has no room is not left. */
void dropper_start(void)
{
	if (weather()->messages % RUNS_WITH_ONE == 0 && !weather()->tight_disk &&
	    weather()->sync_fails + weather()->bad_spells == 0)
		fiber_start("dropper", dropper_run, NULL);
}

bool dropper_empty(void)
{
	uint64_t files, bytes;

	disk_usage(DROP_FOLDER, &files, &bytes);
	return files == 0;
}
