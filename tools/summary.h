/*
 * summary - how many jobs, recipients and messages, by domain and by reason.
 */
#ifndef TOOLS_SUMMARY_H
#define TOOLS_SUMMARY_H

#include "tools/listing.h"

struct summary; /* opaque */

/* `grouped`: by domain and by reason, too. NULL: no memory. */
struct summary *summary_create(bool grouped);
void summary_destroy(struct summary *summary);

/* To be given to listing_jobs() or listing_messages(), whichever the filter needs. */
void summary_job(void *context, const struct listing_job *job);
void summary_message(void *context, const struct listing_message *message);

uint64_t summary_messages(const struct summary *summary);
uint64_t summary_recipients(const struct summary *summary);
void summary_print(struct summary *summary);
void summary_print_json(struct summary *summary);

#endif
