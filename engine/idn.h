/*
 * idn - a domain with letters beyond ASCII, as the DNS and the EHLO name want it: bücher.example
 * is xn--bcher-kva.example.
 *
 * Promise: an ASCII domain comes out in lower case and otherwise as it was. Any other one is
 * mapped as people write it (case, composed form, full width, the ideographic full stop), checked
 * and encoded by libidn2: two ways to write a name give the same A-labels.
 * Non-promise: ASCII is not checked, not even for A-labels that no U-label has.
 *
 * Thread: pure.
 * Source: RFC 5891, 5 (look-up); UTS #46, nontransitional: ß, ς and the joiners are themselves.
 */
#ifndef ENGINE_IDN_H
#define ENGINE_IDN_H

#include "engine/smtp/address.h"
#include "os/span.h"

enum { IDN_DOMAIN_BYTES = 256 };

/* The A-label form with NUL. False: too long for the DNS, a NUL, or not a name that IDNA allows. */
bool idn_to_ascii(struct span domain, char out[static IDN_DOMAIN_BYTES]);

/* The address with its domain in A-labels, its local part untouched. False: its domain has no such
 * form, or the path got too long; `out` is not to be read then. They must not overlap. */
bool idn_address(const struct smtp_address *address, struct smtp_address *out);

#endif
