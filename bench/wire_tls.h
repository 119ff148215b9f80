/*
 * wire_tls - the TLS of the programs of bench/, which speak it from the first byte on: with the
 * engine's own records, and without a look at certificates.
 *
 * Thread: any.
 */
#ifndef BENCH_WIRE_TLS_H
#define BENCH_WIRE_TLS_H

#include "engine/tls/tls.h"

/* "CHAIN,KEY" files of a server; NULL: a client. Or the end, with a reason. */
struct tls_contexts *wire_tls_contexts(const char *files);
/* For a new connection; NULL if `contexts` is. */
struct tls *wire_tls_accept(struct tls_contexts *contexts);
struct tls *wire_tls_connect(struct tls_contexts *contexts);

#endif
