/*
 * ledger_book - the ledger's own pages: what became of each copy that the daemon has stored.
 *
 * Only tests/sim/ledger*.c read it. All of it lies in the arena.
 */
#ifndef SIM_LEDGER_BOOK_H
#define SIM_LEDGER_BOOK_H

#include "tests/sim/ledger.h"

enum { LEDGER_ID_BYTES = 14, LEDGER_LIVES_MAX = 16 };

/* One copy of a message or report that a peer has taken, for one recipient. */
struct ledger_copy {
	struct ledger_copy *next; /* the later one */
	uint64_t ns;		  /* when its 250 had arrived, or was lost */
	uint32_t life;
	bool sure;
	const struct ledger_reply *reply;
};

/* Shared by those whom one reply was for. */
struct ledger_reply {
	bool heard;	       /* it counts: nothing that it may be an answer to waits to be sent */
	uint64_t concluded_ns; /* LMTP: that of the others, too; 0: not yet, it may be forgotten */
};

/* What became of one recipient of one stored message. */
struct ledger_end {
	struct ledger_copy *copies;
	uint32_t failed, delayed, relayed; /* reports, each counted once by its own id */
	uint64_t failed_ns;
	uint32_t said_failed;	 /* lines of the log: bounced, expired */
	bool said_bounced;	 /* one was not for its age */
	uint64_t said_failed_ns; /* the last of them, and its life */
	uint32_t said_failed_life;
	uint32_t said_twice; /* possible-duplicate */
	/* At the last look into the daemon's index (ledger_index.c): a job has it; one that only
	 * the operator lets go on. */
	bool queued, held;
};

/* An acceptance: known from its 250, its line in the log, a copy or a report. */
struct ledger_stored {
	struct ledger_stored *next;
	char id[LEDGER_ID_BYTES];
	bool acknowledged; /* the client has read the 250: in this life, then */
	uint32_t acknowledged_life;
	uint64_t acknowledged_ns;
	bool damaged;		 /* a notice about damage named it */
	bool envelope_lost;	 /* ... and said that recipients of it may be unknown */
	bool unread;		 /* ... that it could not be read, and is tried again later */
	struct ledger_end *ends; /* as message->recipients */
};

/* A report of the daemon, by its own id; it is a message with one recipient. */
struct ledger_report {
	struct ledger_report *next;
	char id[LEDGER_ID_BYTES];
	uint32_t number; /* of the message that it is about */
	struct ledger_end end;
};

/* Bytes of a segment that the daemon could not read: what lay there may be gone, and no notice can
 * say its name. */
struct ledger_gap {
	struct ledger_gap *next;
	uint64_t file, begin, end;
};

/* A message that the daemon has begun to write, in that life at first. */
struct ledger_written {
	struct ledger_written *next; /* the one before */
	uint64_t id;
	uint32_t life;
	bool durable;
};

/* Messages of which nothing is left, and that no notice names. */
struct ledger_losses {
	uint32_t count;
	uint64_t bytes, largest_bytes;
	const struct ledger_stored *last;
	const char *address;
	const struct ledger_stored *last_unreported;
	uint32_t unreported; /* of those that failed */
};

struct ledger_life {
	uint64_t began_ns, ended_ns; /* ended_ns 0: it runs */
	bool crashed;		     /* or gave up */
	bool disk_failed;	     /* writes or syncs failed in it */
	bool tight;		     /* its disk could be full: outcomes wait in memory */
	uint64_t last_sure_ns;	     /* the last copy whose 250 has arrived */
	uint64_t forgotten_ns; /* the first one that the next lives did not know of; 0: none */
};

struct ledger_book {
	uint32_t count;
	uint32_t open_hint; /* the first message that may be open */
	uint32_t sent_hint; /* the first that may be sent again */
	bool late;	    /* whatever was to happen in the last life has happened */
	uint64_t deliveries;
	uint64_t failures_before; /* of the disk, when this life began */
	uint64_t last_copy_ns;
	uint64_t damage_notices;
	bool journals_damaged;			  /* one of these notices said */
	uint64_t spool_bytes_max, live_bytes_max; /* taken, and waiting when more was taken */
	bool memory_fails;			  /* in some life */
	bool lines_lost; /* the daemon said that its delivery log lacks some */
	/* Of the bad weather: */
	bool reads_fail;
	bool clock_jumps;
	bool clock_leaps;
	struct ledger_life lives[LEDGER_LIVES_MAX];
	struct ledger_message *messages;
	struct ledger_report *reports;
	struct ledger_gap *gaps; /* none lies in another */
	struct ledger_written *written;
	bool others_unread;   /* likewise of what is no message of the world */
	uint32_t others_held; /* jobs of no such message, when the index was last looked at */
};

struct ledger_book *ledger_book(void);

/* Message and recipient of "ok3.m17@d1.test" or "m17@...": false if there are none such. */
bool ledger_find(const char *address, struct ledger_message **message_out, uint32_t *index_out);
/* By id, made if it is new. */
struct ledger_stored *ledger_stored(struct ledger_message *message, const char *id);
struct ledger_report *ledger_report_by_id(const char *id);
/* Whether the sender is to hear of a failure. */
bool ledger_wants_report(const struct ledger_message *message, uint32_t index);
/* The copy may be unknown to the daemon's disk: its 250 got lost, or the outcome did. */
bool ledger_copy_excused(const struct ledger_copy *copy);
bool ledger_has_sure_copy(const struct ledger_end *end);

/* As something is delivered: no life may do that before START is durable everywhere (R9), */
void ledger_check_start(void);
/* and nobody gets the message of this id before it is (R3). */
void ledger_check_durable(const char *id);

/* After the last life. */
void ledger_check_spool(void);

/* A job in the index will be tried again: also one whose outcome a crash has lost. */
bool ledger_index_waits(void);

/* The daemon has said that something on its disk is not as it was written. */
bool ledger_damage_told(void);
/* Its jobs have records of their own (R2), and no notice says that those may be gone. */
bool ledger_is_recorded(const struct ledger_stored *stored);
/* Once for each recipient of a message in turn. */
void ledger_lose(struct ledger_losses *losses, const struct ledger_message *message,
		 const struct ledger_stored *stored, uint32_t index);
/* No more than the gaps that were told can have held. */
void ledger_check_losses(const struct ledger_losses *losses, const char *what);

/* The world has a cause for it to fail at `failed_ns`, before any age. */
bool ledger_has_cause(const struct ledger_message *message, uint32_t index, uint64_t failed_ns);
/* It may have expired by then, as far as that can be known. */
bool ledger_may_expire(const struct ledger_message *message, const struct ledger_stored *stored,
		       uint64_t failed_ns);
#endif
