/*
 * conversion - a delivery's message, made 7-bit for a server that takes nothing else.
 *
 *   body in memory   converted at once
 *   body on disk     read into memory ──► converted on a helper thread ──► done
 *
 * Promise: nothing stored changes; the result is the delivery's and lasts as long as it does, so
 * that a second server gets the same. All conversions of the process together hold at most a
 * quarter of memory_bytes: what finds no room waits for a later attempt.
 * Non-promise: a message that alone needs more than that is not converted.
 *
 * Thread: the worker that delivers; conversion_destroy() the owner.
 * Source: downgrade.h.
 */
#ifndef ENGINE_CONVERSION_H
#define ENGINE_CONVERSION_H

#include "engine/delivery/delivery.h"

struct conversion; /* opaque */

enum conversion_status {
	CONVERSION_READY = 0, /* or refused: conversion_why() */
	CONVERSION_BUSY = -1, /* `done` will be called; until then the delivery is in its hands */
	CONVERSION_NO_ROOM = -2, /* of memory, now */
};

/* Begins it, or answers CONVERSION_READY if there is one. A body that can't be read makes the
 * delivery `damaged`. */
enum conversion_status conversion_begin(struct worker *worker, struct delivery *delivery,
					void (*done)(struct delivery *delivery));
/* Why it can't be converted, static; NULL: it is. */
const char *conversion_why(const struct conversion *conversion);
/* The transaction gets the converted body. */
void conversion_use(const struct conversion *conversion, struct smtp_transaction *transaction);
/* Accepts NULL. */
void conversion_destroy(struct conversion *conversion);

#endif
