/*
 * bounce - the report that tells a sender what became of a message: not delivered, delayed,
 * handed on to where no further report will come from, or in the mailbox; of each recipient
 * its own.
 *
 *   multipart/report
 *   ├─ text/plain                what an ordinary sender can understand
 *   ├─ message/delivery-status   the same for programs, a block per recipient
 *   └─ message/rfc822            the message, or text/rfc822-headers: its headers
 *
 * Promise: every line ends in CRLF and has at most 998 bytes; text from peers, addresses and
 * parameters are cleaned and folded, so that none can begin a header or a part. The report is
 * 7-bit unless the message, an address or the sender is not, and the result says so. A body
 * that cannot stand in a report (longer than BOUNCE_BODY_MAX, long lines, bare CR or LF) is
 * left out, and its headers are shown.
 * Non-promise: whether a report is wanted at all is bounce_wanted()'s word; here it is made.
 *
 * Thread: pure.
 * Source: RFC 3461, 3462/6522, 3464, 6533; RFC 3834 (Auto-Submitted).
 */
#ifndef ENGINE_BOUNCE_H
#define ENGINE_BOUNCE_H

#include "os/os.h"
#include "os/span.h"

enum {
	BOUNCE_BODY_MAX = 64 << 10,    /* a longer message is not returned whole */
	BOUNCE_HEADERS_MAX = 32 << 10, /* of the headers that are returned */
};

/* Of a recipient; the subject is that of the first kind in this order. */
enum bounce_kind {
	BOUNCE_FAILED,	  /* Action: failed */
	BOUNCE_DELAYED,	  /* Action: delayed */
	BOUNCE_RELAYED,	  /* Action: relayed; success, but the next server sends no reports */
	BOUNCE_DELIVERED, /* Action: delivered; the next server keeps the mailbox (LMTP) */
	BOUNCE_KINDS,
};

struct bounce_recipient {
	enum bounce_kind kind;
	struct span address;
	struct span orcpt;    /* as in the envelope: "rfc822;user+40example.org"; may be empty */
	uint16_t enhanced;    /* as smtp_reply has it; 0: none known */
	uint16_t reply;	      /* the remote server's code; 0: it said nothing, `text` is ours */
	struct span host;     /* the remote server's name; may be empty */
	struct span text;     /* its words, lines joined by '\n', without codes; or our reason */
	bool expired;	      /* BOUNCE_FAILED: given up for its age; the rest is the last error */
	struct os_wall tried; /* the last attempt; 0: none */
	struct os_wall until; /* BOUNCE_DELAYED: tried until then; 0: not known */
};

/* Everything is borrowed during the call. */
struct bounce {
	const char *hostname; /* ours: Reporting-MTA, MAILER-DAEMON@ */
	const char *id;	      /* the report's queue id: Message-ID and boundary */
	struct os_wall now;
	/* The message that it is about. */
	const char *original_id;
	struct span sender; /* not empty: the report goes to it */
	struct span envid;  /* as in the envelope (xtext); empty: none */
	char ret;	    /* 'F', 'H' or 0 */
	struct os_wall arrival;
	bool utf8; /* its headers may be UTF-8 (SMTPUTF8) */
	/* All of it; or, of a long one (body_bytes > body.len), the beginning. at == NULL: lost. */
	struct span body;
	uint64_t body_bytes;
	const struct bounce_recipient *recipients;
	uint32_t recipient_count; /* at least 1 */
};

/* What the report needs on its way. */
struct bounce_result {
	bool eightbit;	/* octets above 127 */
	bool utf8;	/* its own headers are UTF-8: SMTPUTF8 */
	bool dot_lines; /* a line begins with a dot */
	uint64_t bytes;
};

typedef void bounce_append(void *context, struct span bytes);

/* Writes the report through `append`, in pieces. */
void bounce_compose(const struct bounce *bounce, bounce_append *append, void *context,
		    struct bounce_result *result_out);

/* Whether the sender gets a report of this kind for a recipient. `notify` is the envelope's
 * (enum envelope_notify; 0: not given). Of the null sender's mail there is never a report. */
bool bounce_wanted(enum bounce_kind kind, struct span sender, uint8_t notify);

#endif
