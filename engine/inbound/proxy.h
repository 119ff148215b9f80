/*
 * proxy - the header of the PROXY protocol, with which a proxy says for whom it connects.
 *
 *   version 1   PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n
 *   version 2   12 octets of signature | version, command | family | length | addresses, TLVs
 *
 * Promise: nothing behind the header is looked at; a prefix of a good header is PROXY_MORE, and
 * what can't become one is refused by its first wrong octet that matters. Reads no more than
 * PROXY_HEADER_MAX octets.
 * Non-promise: TLVs are skipped, whatever they say (also a checksum): the header comes from a
 * sender whom the operator trusts, over TCP.
 *
 * Thread: pure.
 * Source: "The PROXY protocol, versions 1 & 2", doc/proxy-protocol.txt of HAProxy.
 */
#ifndef ENGINE_PROXY_H
#define ENGINE_PROXY_H

#include "os/os.h"
#include "os/span.h"

enum {
	PROXY_V1_MAX = 107,	/* with its CRLF */
	PROXY_HEADER_MAX = 4096 /* of either version; addresses take at most 232 of it */
};

enum proxy_status {
	PROXY_MORE,
	PROXY_WHOLE,
	PROXY_MALFORMED,
};

struct proxy_header {
	size_t bytes; /* how long it was: what follows is the client's */
	bool local; /* the proxy connects for itself (LOCAL): the connection's own address stands */
	/* AF_UNSPEC: local, or the client has no IP address (UNKNOWN, UNSPEC, a UNIX socket there).
	 * The proxy's own address would do for it, says the specification; but it isn't its own,
	 * and what the operator allows the proxy is not for whom the proxy can't name. */
	struct os_address client;
};

/* `bytes` is all that came so far. `out` is written with PROXY_WHOLE, `why_out` (static text) with
 * PROXY_MALFORMED. */
enum proxy_status proxy_parse(struct span bytes, struct proxy_header *out, const char **why_out);

#endif
