/*
 * weather - what goes wrong in a run, and how often: drawn once from the seed.
 *
 * A run is a few lives of the daemon in bad weather, each ended by a crash, a stop or its own
 * end, and then one in good weather, in which everything must come to its end.
 *
 * Rates are per million of the operation that they belong to; 0 is never.
 */
#ifndef SIM_WEATHER_H
#define SIM_WEATHER_H

#include <stdbool.h>
#include <stdint.h>

struct weather {
	/* the run */
	uint32_t lives;		 /* in bad weather, before the last one */
	uint32_t life_ms;	 /* a crash or stop strikes up to here (virtual) */
	uint32_t crash_permille; /* of the ends of lives: by power cut or kill, the rest by TERM */
	uint32_t power_permille; /* of the crashes: power cut, the rest kill -9 */
	uint32_t early_permille; /* of the crashes: already while it starts (recovery) */
	uint32_t near_permille;	 /* of the others: shortly after one of the moments of near.h */
	uint32_t fails_permille; /* of those: after a failure of the disk, whatever comes else */
	uint32_t down_ms;	 /* between two lives, at most */
	uint32_t messages;	 /* in all */
	uint32_t clients;	 /* sessions at once */
	uint32_t domains;
	uint32_t recipients_max; /* of a message */
	uint32_t body_bytes_max;
	uint32_t big_permille; /* of the messages: above 128 KiB */
	bool tight_disk;       /* little room: ENOSPC happens */

	/* disk */
	uint64_t disk_bytes;
	uint32_t write_fails;		/* EIO */
	uint32_t sync_fails;		/* EIO, and the pages count as clean */
	uint32_t read_fails;		/* EIO */
	uint32_t name_fails;		/* of opens, renames and the like: EIO, ENOSPC, EMFILE */
	uint32_t bad_spells;		/* of the commits: for a while most writes and syncs fail */
	uint32_t bit_flips;		/* of the reads past the cache: damage that stays */
	uint32_t short_writes;		/* of appends: less is written than asked */
	uint32_t no_direct;		/* 1: the file system has no O_DIRECT */
	uint32_t on_btrfs;		/* 1: where a sync may say "done" falsely */
	uint32_t deaths;		/* there, of the durable writes: the disk dies under it */
	uint32_t disk_us, disk_slow_us; /* a typical operation; one in a hundred */

	/* network */
	uint32_t net_us; /* a typical delay of a segment, one way */
	uint32_t resets; /* of the segments: the connection breaks here, at any byte of it */
	uint32_t stalls; /* of the connections: silent for ever from some byte on */
	uint32_t split_permille; /* of the segments: arrive in pieces */
	uint32_t connect_fails;	 /* refused or timed out */

	/* peers and DNS */
	uint32_t peer_faults; /* of the replies: late, garbage, 421, lost, at any step */
	uint32_t drop_at_dot; /* of the messages: taken, but the 250 is lost with the connection */
	uint32_t dns_fails;   /* SERVFAIL or no answer */
	uint32_t dns_changes; /* of the answers: other hosts than before, or none */

	/* memory, clock and workers */
	uint32_t memory_fails;	 /* of the allocations, see memory.h */
	uint32_t clock_jumps;	 /* per virtual second, of wall time, within half an hour */
	uint32_t clock_leaps;	 /* of wall time, in the run: clock.h */
	int32_t clock_drift_ppm; /* wall time is so much too fast, in the last life, too */
	uint32_t workers[8];	 /* of each life in turn: 1 .. 4 */
};

/* The weather of this run, in the arena. In the last life every rate is 0. */
const struct weather *weather(void);
/* Draws it; before the first life. */
void weather_draw(void);
/* For the last life: the sun. */
void weather_clear(void);
/* 0 .. weather()->lives: which life of the daemon this is. */
uint32_t weather_life(void);
/* Between two lives: ledger_life_ended() calls it. */
void weather_next_life(void);
bool weather_is_clear(void);

#endif
