/* Who says that the wall clock is right. */
#include "engine/time_watch.h"

#include <stdio.h>

enum { LOOK_MS = 1000, SYNCHRONISED_MS = 60000 };

static bool operator_confirms(const struct engine *engine)
{
	char path[4096];
	int length = snprintf(path, sizeof(path), "%s/" TIME_CONFIRMED_FILE, engine->config->spool);

	return length > 0 && (size_t)length < sizeof(path) &&
	       os_unlink(OS_CURRENT_FOLDER, path) == 0;
}

/* For a minute without a break: the one who corrects a clock may need several steps. */
static bool is_synchronised(struct time_watch *watch, struct os_mono now)
{
	if (!os_clock_synchronised())
		watch->synchronised.ns = 0;
	else if (watch->synchronised.ns == 0)
		watch->synchronised = now;
	return watch->synchronised.ns != 0 &&
	       now.ns >= os_mono_add_ms(watch->synchronised, SYNCHRONISED_MS).ns;
}

void time_watch_look(struct time_watch *watch, struct engine *engine)
{
	struct os_mono now = os_mono_now();
	bool confirmed;

	if (now.ns < watch->next.ns)
		return;
	watch->next = os_mono_add_ms(now, LOOK_MS);
	/* A file that was made when nobody doubted must not confirm a later step. */
	confirmed = operator_confirms(engine);
	if (atomic_load_explicit(&engine->clock_doubts, memory_order_relaxed) == 0) {
		watch->synchronised.ns = 0;
		return;
	}
	if (!confirmed && !is_synchronised(watch, now))
		return;
	watch->synchronised.ns = 0;
	log_notice(LOG_NOTICE, "the wall clock is right, %s",
		   confirmed ? "says the operator" : "says the kernel: it is synchronised");
	atomic_fetch_add_explicit(&engine->clock_confirmed, 1, memory_order_relaxed);
}

void time_watch_doubt(struct engine *engine, bool doubted)
{
	if (doubted) {
		if (atomic_fetch_add_explicit(&engine->clock_doubts, 1, memory_order_relaxed) == 0)
			log_notice(LOG_WARNING,
				   "the wall clock has jumped: no mail is given up for its age "
				   "until it is right. Time synchronisation ends this after a "
				   "minute; if there is none, look at the clock and run "
				   "'stafette confirm-time'");
		return;
	}
	if (atomic_fetch_sub_explicit(&engine->clock_doubts, 1, memory_order_relaxed) == 1)
		log_notice(LOG_NOTICE, "the wall clock is believed again: mail may expire");
}
