/*
 * ledger_spool - what the spool takes, against what waits in it.
 */
#include "os/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/fiber.h"
#include "tests/sim/ledger_book.h"
#include "tests/sim/weather.h"
#include "tests/sim/world.h"

/* The spool takes so many files and this multiple of what waited in it. */
enum {
	SPOOL_FILES = 16, /* ready to be used, for all streams, and what a crash cut off */
	/* Four journals; HOT and COLD segments, each with the next and the last; and some that a
	 * few waiting messages hold until they are old enough to be evacuated. */
	STREAM_FILES = 20,
	SPACE_FACTOR = 4, /* a segment is evacuated below half; the copies come beside it */
};

static bool is_live(const struct ledger_message *message, const struct ledger_stored *stored)
{
	for (uint32_t i = 0; i < message->recipient_count; i++)
		if (message->recipients[i].known && !ledger_has_sure_copy(&stored->ends[i]) &&
		    stored->ends[i].failed == 0)
			return true;
	return false;
}

/* Of the messages that may wait in the queue: each copy, the tries whose client knows nothing of
 * one among them. */
static uint64_t live_bytes(void)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < ledger_count(); i++) {
		const struct ledger_message *message = ledger_message(i);

		for (const struct ledger_stored *at = message->stored; at; at = at->next)
			bytes += is_live(message, at) ? message->body_bytes : 0;
		bytes += (uint64_t)message->maybes * message->body_bytes;
	}
	return bytes;
}

static unsigned long long count_files(const char *folder)
{
	uint64_t files, bytes;

	disk_usage(folder, &files, &bytes);
	return files;
}

static uint32_t stream_count(void)
{
	uint32_t most = 0;

	for (uint32_t i = 0; i <= weather_life(); i++) {
		uint32_t workers = weather()->workers[i % array_count(weather()->workers)];

		most = workers > most ? workers : most;
	}
	return most;
}

/* Free files are not given back, so that the most that ever waited counts. A file that failed or
 * is damaged is not used again. */
static uint64_t bytes_limit(void)
{
	uint64_t files = SPOOL_FILES + (uint64_t)STREAM_FILES * stream_count() + disk_failures() +
			 disk_flips();

	return files * WORLD_SEGMENT_BYTES + SPACE_FACTOR * ledger_book()->live_bytes_max;
}

void ledger_spool_seen(void)
{
	struct ledger_book *book = ledger_book();
	uint64_t files, bytes, live;

	disk_usage("/spool", &files, &bytes);
	if (bytes <= book->spool_bytes_max)
		return;
	book->spool_bytes_max = bytes;
	live = live_bytes();
	if (live > book->live_bytes_max)
		book->live_bytes_max = live;
	if (bytes > bytes_limit())
		sim_finding("the spool takes %llu KiB in %llu files, and %llu KiB waited in it at "
			    "most: %llu files in seg/, %llu in jnl/, %llu in free/",
			    (unsigned long long)bytes >> 10, (unsigned long long)files,
			    (unsigned long long)book->live_bytes_max >> 10,
			    count_files("/spool/seg"), count_files("/spool/jnl"),
			    count_files("/spool/free"));
}

void ledger_check_spool(void)
{
	if (ledger_damage_told())
		return;
	if (count_files("/spool/quarantine") > disk_failures()) /* each may leave one there */
		sim_finding("%llu files in quarantine/", count_files("/spool/quarantine"));
	if (count_files("/spool/big") > 0)
		sim_finding("%llu files left in big/", count_files("/spool/big"));
	if (count_files("/spool") > WORLD_SPOOL_FILES_MAX)
		sim_finding("an empty queue takes %llu files", count_files("/spool"));
}
