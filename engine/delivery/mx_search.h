/*
 * mx_search - finds the answer for one destination: which hosts, then their addresses.
 *
 *   begin ──► MX question ──► candidates ──► A/AAAA questions ──► judge ──► struct mx_answer
 *         └──(literal, configured hosts)──►┘
 *
 * Thread: the worker's of `names`. Source: as mx.h.
 */
#ifndef ENGINE_MX_SEARCH_H
#define ENGINE_MX_SEARCH_H

#include "engine/delivery/mx.h"
#include "engine/delivery/mx_names.h"
#include "engine/delivery/mx_self.h"

/* The answer with one reference, if nothing has to be waited for; else NULL, and `done` gets
 * it later, from the loop. `domain` is lower case and shorter than MX_NAMES_NAME_BYTES;
 * `route` and it are not needed after the call, `names` and `self` are until `done`. */
struct mx_answer *mx_search_begin(struct mx_names *names, const struct mx_self *self,
				  const char *domain, const struct config_route *route,
				  void (*done)(void *context, struct mx_answer *answer),
				  void *context);

#endif
